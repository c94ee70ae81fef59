"""Creates, names and removes the listening sockets of `server` and `control`."""

import os
import pathlib
import socket

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint

BACKLOG = 4096  # Connections that may wait to be accepted. The kernel may allow fewer (net.core.somaxconn).


class ListenError(Exception):
    """The daemon cannot listen on an address. The message says why."""


def listen(endpoint: Endpoint, socket_mode: int) -> socket.socket:
    """Return a socket that listens on an address. `socket_mode` is the mode of a Unix socket. Raises ListenError."""
    try:
        return _listen_inet(endpoint) if isinstance(endpoint, InetEndpoint) else _listen_unix(endpoint, socket_mode)
    except OSError as error:
        raise ListenError(os.strerror(error.errno or 0).lower()) from error


def _listen_inet(endpoint: InetEndpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    # These IPv6 sockets do not accept IPv4 connections, so "[::]" does not include "0.0.0.0".
    return socket.create_server((endpoint.host, endpoint.port), family=family, backlog=BACKLOG)


def _listen_unix(endpoint: UnixEndpoint, mode: int) -> socket.socket:
    _remove_stale(pathlib.Path(endpoint.path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 & ~mode)
    try:
        listener.bind(endpoint.path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _remove_stale(path: pathlib.Path) -> None:
    """Remove a socket that no process listens on. Raises ListenError if a process does, or if it is not a socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ListenError("a file with this name exists, and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # A process listens, but its queue of connections is full.
            pass
        raise ListenError("another process is listening there")


def close(listener: socket.socket) -> None:
    """Close a listening socket, and remove its file if it is a Unix socket."""
    remove_file(listener)
    listener.close()


def remove_file(listener: socket.socket) -> None:
    """Remove the file of a Unix socket that is still open. After it is closed, another daemon may own the file."""
    if listener.family == socket.AF_UNIX:
        pathlib.Path(listener.getsockname()).unlink(missing_ok=True)


def endpoint_of(listener: socket.socket) -> Endpoint:
    """Return the address of a listening socket as in `server.listen`. An abstract Unix socket is `unix:@NAME`."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return UnixEndpoint(os.fsdecode(name).replace("\0", "@"))
    return InetEndpoint(name[0].partition("%")[0], name[1])


def covers(listener: socket.socket, endpoint: Endpoint) -> bool:
    """Whether a socket accepts connections to an address, because it listens on it or on all addresses."""
    own = endpoint_of(listener)
    if not isinstance(own, InetEndpoint) or not isinstance(endpoint, InetEndpoint) or own.port != endpoint.port:
        return own == endpoint
    if own.host == "::" and ":" not in endpoint.host:
        return not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return own.host in (endpoint.host, "::" if ":" in endpoint.host else "0.0.0.0")  # noqa: S104 - compared only
