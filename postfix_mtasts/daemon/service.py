"""What systemd passes to the daemon, and what it is told: sockets, states and signs of life.

    sd_listen_fds(3)          sockets that are already listened on; FileDescriptorName= tells what a socket is for:
                              `socketmap` (also if it is not set) or `control`
    sd_notify(3)              READY, RELOADING, STOPPING and STATUS
    sd_watchdog_enabled(3)    WATCHDOG, twice in the time that is asked for, if a query is really answered

Without systemd, nothing is passed and nobody told.
"""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.daemon.listen import endpoint_of
from postfix_mtasts.log import events
from postfix_mtasts.postfix.socketmap import Reply, Request, Status

_SOCKETMAP, _CONTROL = "socketmap", "control"
_QUERY = Request(b"watchdog", b"watchdog").encode()  # A single label has no policy, and costs no lookup.
_ANSWER = Reply(Status.NOTFOUND).encode()
_LOOKS = 10  # How often a queue of connections is looked at before it is said not to move.


class ServiceError(Exception):
    """What systemd passes cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The sockets that systemd passes. They are closed at the end, but their files stay: they are systemd's."""

    socketmap: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None


def passed() -> Passed:
    """Take over the sockets, and let no child process take them for its own. Raises ServiceError."""
    names = _names()
    sockets = {descriptor: _listening(descriptor, name) for descriptor, name in names.items()}
    control = [sockets[descriptor] for descriptor, name in names.items() if name == _CONTROL]
    if len(control) > 1:
        raise ServiceError(f"systemd passes {len(control)} sockets with FileDescriptorName={_CONTROL}: must be one")
    if control and control[0].family != socket.AF_UNIX:
        raise ServiceError(f"systemd passes {endpoint_of(control[0])} as {_CONTROL}: must be a Unix socket")
    return Passed(tuple(listener for listener in sockets.values() if listener not in control), *control)


def _names() -> dict[int, str]:
    """File descriptors, and the names of what is passed with them."""
    if not any(os.environ.get(name) for name in ("LISTEN_FDS", "NOTIFY_SOCKET")):
        return {}
    try:
        from systemd.daemon import listen_fds_with_names
    except ImportError as error:
        raise ServiceError("started by systemd, but Python has no module systemd: install python3-systemd") from error
    try:
        names: dict[int, str] = listen_fds_with_names()  # Takes them out of the environment, too.
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ServiceError(f"LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES in the environment: {reason}") from error
    return {descriptor: _known(descriptor, name) for descriptor, name in names.items()}


def _known(descriptor: int, name: str) -> str:
    if name in (_SOCKETMAP, _CONTROL):
        return name
    # What systemd and systemd-socket-activate(1) say if no name was set.
    if name in ("", "unknown") or name.endswith(".socket"):
        return _SOCKETMAP
    allowed = f"must be {_SOCKETMAP} or {_CONTROL}"
    raise ServiceError(f"systemd passes file descriptor {descriptor} with FileDescriptorName={name!a}: {allowed}")


def _listening(descriptor: int, name: str) -> socket.socket:
    try:
        listener = socket.socket(fileno=descriptor)
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        stream = listener.type == socket.SOCK_STREAM and listener.family in families
        if stream and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
    except OSError:  # No socket.
        pass
    must = "must be a stream socket that listens (ListenStream= and Accept=no)"
    raise ServiceError(f"systemd passes file descriptor {descriptor} as {name}: {must}")


def notify(*states: str) -> None:
    """Tell systemd, in one message."""
    if os.environ.get("NOTIFY_SOCKET"):
        from systemd.daemon import notify

        with contextlib.suppress(OSError):  # It has gone.
            notify("\n".join(states))


def reloading() -> None:
    """Tell systemd that the configuration is being read; READY=1 is to follow."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_period() -> float | None:
    """The seconds within which systemd wants a sign of life; None if it wants none of this process."""
    period = os.environ.get("WATCHDOG_USEC", "")
    asked = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(period) / 1e6 if asked and period.isdecimal() and int(period) else None


async def feed_watchdog(period: float, listeners: Sequence[socket.socket]) -> None:
    """Give a sign of life twice in `period` seconds, as long as a query on each of the sockets is answered."""
    while True:
        reasons = await asyncio.gather(*(_silence(listener, period / 4) for listener in listeners))
        for listener, reason in zip(listeners, reasons, strict=True):
            if reason:
                events.not_answered(endpoint_of(listener), reason)
        if not any(reasons):
            notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)


async def _silence(listener: socket.socket, within: float) -> str:
    """Why there is no answer on a socket within so many seconds; nothing if there is one."""
    try:
        async with asyncio.timeout(within):
            reply = await _ask(listener)
    except TimeoutError:
        return f"none within {within:g} seconds"
    except PermissionError:
        return await _waiting(listener, within)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    return "" if reply == _ANSWER else f"got {reply!a}"


async def _ask(listener: socket.socket) -> bytes:
    """Ask as Postfix does. To all addresses of this machine, Linux connects at the loopback address."""
    loop = asyncio.get_running_loop()
    reply = b""
    with socket.socket(listener.family, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, _QUERY)
        while not reply.endswith(b",") and (data := await loop.sock_recv(client, len(_ANSWER))):
            reply += data
    return reply


async def _waiting(listener: socket.socket, within: float) -> str:
    """For a Unix socket that is for others than our user: whether somebody waits there, and goes on waiting."""
    queue = select.poll()
    queue.register(listener, select.POLLIN)
    for _ in range(_LOOKS):
        if not queue.poll(0):
            return ""
        await asyncio.sleep(within / _LOOKS)
    return "connections are not accepted"
