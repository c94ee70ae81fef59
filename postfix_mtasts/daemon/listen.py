"""Creates, names and removes the listening sockets of `server` and `control`."""

import ipaddress
import os
import pathlib
import socket

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.rights import in_the_way

_SOMEWHERE, _SOMEWHERE_V6, _DISCARD = "192.0.2.1", "2001:db8::1", 9  # For documentation (RFC 5737, RFC 3849).
BACKLOG = 4096  # Connections that may wait to be accepted. The kernel may allow fewer (net.core.somaxconn).


class ListenError(Exception):
    """The daemon cannot listen on an address. The message says why."""


def listen(endpoint: Endpoint, socket_mode: int) -> socket.socket:
    """Return a socket that listens on an address. `socket_mode` is the mode of a Unix socket. Raises ListenError."""
    try:
        return _listen_inet(endpoint) if isinstance(endpoint, InetEndpoint) else _listen_unix(endpoint, socket_mode)
    except OSError as error:
        why = in_the_way(pathlib.Path(endpoint.path), create=True) if isinstance(endpoint, UnixEndpoint) else ""
        raise ListenError(why or os.strerror(error.errno or 0).lower()) from error


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


def is_for_all(endpoint: Endpoint) -> bool:
    """Whether it is all addresses of this machine."""
    return isinstance(endpoint, InetEndpoint) and ipaddress.ip_address(endpoint.host).is_unspecified


def reachable(endpoint: Endpoint) -> Endpoint:
    """Return an address at which other machines reach what listens on all addresses; another endpoint as it is.

    It is the one that this machine has towards the Internet, or the loopback address if there is no way there.
    """
    if not isinstance(endpoint, InetEndpoint) or not is_for_all(endpoint):
        return endpoint
    is_v6 = ":" in endpoint.host
    try:
        with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_SOMEWHERE_V6 if is_v6 else _SOMEWHERE, _DISCARD))  # This sends nothing.
            host = probe.getsockname()[0].partition("%")[0]
    except OSError:
        host = "::1" if is_v6 else "127.0.0.1"
    return InetEndpoint(host, endpoint.port)


def covers(listener: socket.socket, endpoint: Endpoint) -> bool:
    """Whether a socket accepts connections to an address, because it listens on it or on all addresses."""
    own = endpoint_of(listener)
    if not isinstance(own, InetEndpoint) or not isinstance(endpoint, InetEndpoint) or own.port != endpoint.port:
        return own == endpoint
    if own.host == "::" and ":" not in endpoint.host:
        return not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return own.host in (endpoint.host, "::" if ":" in endpoint.host else "0.0.0.0")  # noqa: S104 - compared only
