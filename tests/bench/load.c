/* Ask a socketmap server as Postfix does: one request in flight on each connection, the next when its reply has come.
 *
 *     load ADDRESS MAP KEYS CONNECTIONS SECONDS SKIP [RATE]
 *
 * ADDRESS is 127.0.0.1:PORT or the path of a Unix socket; KEYS a file with a key in each line. With SECONDS 0 each key
 * is asked for once, otherwise one after the other for so long; then what is in flight is waited for. What was asked in
 * the first SKIP seconds is not counted. With RATE, each key is asked for once, so many in a second, however long replies
 * take; each one's time begins when it is due. Prints JSON: times are in microseconds. Ends with status 1 and a line on
 * standard error if a connection fails or all is silent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SILENCE = 60000, REPLY = 8192, LONGEST = 20000000 }; /* milliseconds, octets, microseconds */

struct request { char *text; size_t length; };
struct connection { int fd; int64_t asked; size_t length; struct connection *next; char reply[REPLY]; };

static struct request *requests;
static size_t request_count, next_request;
static int64_t count_from;
static uint64_t times[LONGEST], ok, notfound, temp, other;

static void die(const char *what) { fprintf(stderr, "load: %s: %s\n", what, strerror(errno)); exit(1); }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void read_keys(const char *path, const char *map) {
    char *line = NULL, *text;
    size_t size = 0;
    ssize_t length;
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    while ((length = getline(&line, &size, file)) > 0) {
        line[strcspn(line, "\n")] = 0;
        length = asprintf(&text, "%zu:%s %s,", strlen(map) + 1 + strlen(line), map, line);
        requests = realloc(requests, (request_count + 1) * sizeof *requests);
        requests[request_count++] = (struct request){text, length};
    }
    fclose(file);
}

static int connect_to(const char *address) {
    union { struct sockaddr any; struct sockaddr_un un; struct sockaddr_in in; } to = {0};
    const char *colon = strchr(address, ':');
    int one = 1, fd = socket(colon ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = colon ? sizeof to.in : sizeof to.un;
    to.any.sa_family = colon ? AF_INET : AF_UNIX;
    if (colon) {
        to.in.sin_port = htons(atoi(colon + 1));
        to.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    } else
        strncpy(to.un.sun_path, address, sizeof to.un.sun_path - 1);
    if (fd < 0 || connect(fd, &to.any, size)) die(address);
    return fd;
}

static void ask_at(struct connection *c, int64_t time) {
    struct request *r = &requests[next_request++ % request_count];
    c->length = 0;
    c->asked = time;
    if (write(c->fd, r->text, r->length) != (ssize_t)r->length) die("write");
}

/* Send the next request, until `end`; with 0, until all keys have been asked for. Whether there was one. */
static int ask(struct connection *c, int64_t end) {
    if (end ? now() >= end : next_request == request_count) return 0;
    ask_at(c, now());
    return 1;
}

/* Whether the reply is complete; then it is counted. */
static int take(struct connection *c) {
    ssize_t got = read(c->fd, c->reply + c->length, REPLY - 1 - c->length);
    if (got <= 0) die("read");
    c->length += got;
    c->reply[c->length] = 0;
    char *text;
    size_t length = strtoul(c->reply, &text, 10);
    if (*text != ':' || c->length < text - c->reply + length + 2) return 0;
    if (c->asked < count_from) return 1;
    int64_t took = (now() - c->asked) / 1000;
    times[took < LONGEST ? took : LONGEST - 1]++;
    *(!strncmp(text, ":OK ", 4)          ? &ok
      : !strncmp(text, ":NOTFOUND ", 10) ? &notfound
      : !strncmp(text, ":TEMP ", 6)      ? &temp
                                         : &other) += 1;
    return 1;
}

static long percentile(uint64_t total, double share) {
    uint64_t seen = 0;
    for (long t = 0; t < LONGEST; t++)
        if ((seen += times[t]) >= total * share) return t;
    return LONGEST;
}

/* Ask for each key when it is due, or when a connection is free. */
static void ask_steadily(int epoll, struct connection *connections, int count, double rate) {
    struct connection *idle = NULL;
    struct epoll_event events[256];
    int64_t begin = now(), due;
    int busy = 0, ready;
    for (int i = 0; i < count; i++) { connections[i].next = idle; idle = &connections[i]; }
    while (busy || next_request < request_count) {
        int64_t wait = SILENCE * 1000000LL;
        while (idle && next_request < request_count) {
            due = begin + next_request * (1e9 / rate);
            if ((wait = due - now()) > 0) break;
            struct connection *c = idle;
            idle = c->next;
            ask_at(c, due);
            busy++;
            wait = SILENCE * 1000000LL;
        }
        struct timespec until = {wait / 1000000000, wait % 1000000000};
        if ((ready = epoll_pwait2(epoll, events, 256, &until, NULL)) < 0) die("epoll_pwait2");
        if (!ready && (!idle || next_request == request_count)) { errno = ETIMEDOUT; die("no reply"); }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (take(c)) { busy--; c->next = idle; idle = c; }
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 7) { fprintf(stderr, "usage: load ADDRESS MAP KEYS CONNECTIONS SECONDS SKIP [RATE]\n"); return 2; }
    int count = atoi(argv[4]), ready, busy = 0;
    double seconds = atof(argv[5]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_keys(argv[3], argv[2]);
    struct connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[256];
    int epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        connections[i].fd = connect_to(argv[1]);
        epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].fd,
                  &(struct epoll_event){.events = EPOLLIN, .data.ptr = &connections[i]});
    }
    int64_t begin = now(), end = seconds ? begin + seconds * 1e9 : 0;
    count_from = begin + atof(argv[6]) * 1e9;
    if (argc > 7) ask_steadily(epoll, connections, count, atof(argv[7]));
    for (int i = 0; i < count; i++) busy += ask(&connections[i], end);
    while (busy) {
        if ((ready = epoll_wait(epoll, events, 256, SILENCE)) < 0) die("epoll_wait");
        if (!ready) { errno = ETIMEDOUT; die("no reply"); }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (take(c)) busy -= !ask(c, end);
        }
    }
    uint64_t total = ok + notfound + temp + other;
    printf("{\"requests\": %lu, \"seconds\": %.6f, \"p50\": %ld, \"p99\": %ld, \"p99_9\": %ld, \"max\": %ld, \"ok\": %lu, "
           "\"notfound\": %lu, \"temp\": %lu, \"other\": %lu}\n", total, (now() - count_from) / 1e9, percentile(total, .5),
           percentile(total, .99), percentile(total, .999), percentile(total, 1), ok, notfound, temp, other);
    return 0;
}
