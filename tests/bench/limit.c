/* The limit of this machine: a socketmap server that says the same whatever it is asked, and looks at nothing.
 *
 *     limit ADDRESS REPLY        ADDRESS as for load; REPLY without its netstring */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void die(const char *what) { fprintf(stderr, "limit: %s: %s\n", what, strerror(errno)); exit(1); }

static int listen_at(const char *address) {
    union { struct sockaddr any; struct sockaddr_un un; struct sockaddr_in in; } at = {0};
    const char *colon = strchr(address, ':');
    int one = 1, fd = socket(colon ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    at.any.sa_family = colon ? AF_INET : AF_UNIX;
    if (colon) {
        at.in.sin_port = htons(atoi(colon + 1));
        at.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    } else
        strncpy(at.un.sun_path, address, sizeof at.un.sun_path - 1);
    if (fd < 0 || bind(fd, &at.any, colon ? sizeof at.in : sizeof at.un) || listen(fd, 4096)) die(address);
    return fd;
}

int main(int argc, char **argv) {
    char request[4096], *reply;
    int length, ready, client, one = 1, epoll = epoll_create1(0);
    struct epoll_event events[256];
    struct rlimit files;
    if (argc != 3) { fprintf(stderr, "usage: limit ADDRESS REPLY\n"); return 2; }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN); /* A client may go while its reply is on the way. */
    length = asprintf(&reply, "%zu:%s,", strlen(argv[2]), argv[2]);
    int listener = listen_at(argv[1]);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
    for (;;) {
        ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    epoll_ctl(epoll, EPOLL_CTL_ADD, client, &(struct epoll_event){.events = EPOLLIN, .data.fd = client});
                }
            } else if (read(fd, request, sizeof request) <= 0 || write(fd, reply, length) != length)
                close(fd);
        }
    }
}
