"""Sockets to listen on, for `server` and `control`: made, named and removed."""

import os
import pathlib
import socket

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint

BACKLOG = 4096  # Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn).


class ListenError(Exception):
    """An address cannot be listened on; says why."""


def listen(endpoint: Endpoint, socket_mode: int) -> socket.socket:
    """A socket that listens there; `socket_mode` is for the file of a Unix socket. Raises ListenError."""
    try:
        return _listen_inet(endpoint) if isinstance(endpoint, InetEndpoint) else _listen_unix(endpoint, socket_mode)
    except OSError as error:
        raise ListenError(os.strerror(error.errno or 0).lower()) from error


def _listen_inet(endpoint: InetEndpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    # IPv6 sockets made so take no IPv4, so that an address means what it says.
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
    """Remove the socket that a killed daemon left. Raises ListenError if it is something else, or has a server."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ListenError("there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # It has more connections waiting than it takes.
            pass
        raise ListenError("another process listens there")


def close(listener: socket.socket) -> None:
    """Undo `listen`."""
    remove_file(listener)
    listener.close()


def remove_file(listener: socket.socket) -> None:
    """Remove the file of a Unix socket, before that is closed: then, it could be that of another daemon already."""
    if listener.family == socket.AF_UNIX:
        pathlib.Path(listener.getsockname()).unlink(missing_ok=True)


def endpoint_of(listener: socket.socket) -> Endpoint:
    """Where a socket listens, as `server.listen` would name it; an abstract Unix socket is `unix:@NAME`."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return UnixEndpoint(os.fsdecode(name).replace("\0", "@"))
    return InetEndpoint(name[0].partition("%")[0], name[1])


def covers(listener: socket.socket, endpoint: Endpoint) -> bool:
    """Whether a socket takes the connections to an endpoint: its own, or all addresses with that port."""
    own = endpoint_of(listener)
    if not isinstance(own, InetEndpoint) or not isinstance(endpoint, InetEndpoint) or own.port != endpoint.port:
        return own == endpoint
    if own.host == "::" and ":" not in endpoint.host:
        return not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return own.host in (endpoint.host, "::" if ":" in endpoint.host else "0.0.0.0")  # noqa: S104 - compared only
