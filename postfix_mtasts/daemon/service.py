"""Works with systemd: takes over its sockets, tells it the daemon's state, and feeds its watchdog.

    sd_listen_fds(3)          sockets that systemd listens on. FileDescriptorName= says what a socket is for:
                              `socketmap`, which is the default, `control` or `metrics`
    sd_notify(3)              READY, RELOADING, STOPPING and STATUS
    sd_watchdog_enabled(3)    WATCHDOG, twice per period, if the daemon answers a test query on each socket

Without systemd there are no sockets to take over, and nothing is sent.
"""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.daemon.listen import endpoint_of
from postfix_mtasts.log import events
from postfix_mtasts.postfix.socketmap import Reply, Request, Status

_SOCKETMAP, _CONTROL, _METRICS = "socketmap", "control", "metrics"
_QUERY = Request(b"watchdog", b"watchdog").encode()  # A name without a dot has no policy, and costs no lookup.
_ANSWER = Reply(Status.NOTFOUND).encode()
_CHECKS = 10  # How often a queue of connections is checked before it counts as stuck.


class ServiceError(Exception):
    """The sockets from systemd cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The sockets that systemd passes. The daemon closes them at the end, but their files belong to systemd."""

    socketmap: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None
    metrics: socket.socket | None = None


def passed() -> Passed:
    """Take over the sockets from systemd, and hide them from child processes. Raises ServiceError."""
    names = _names()
    sockets = {descriptor: _listening(descriptor, name) for descriptor, name in names.items()}
    control, metrics = (_only(name, sockets, names) for name in (_CONTROL, _METRICS))
    if control and control.family != socket.AF_UNIX:
        raise ServiceError(f"systemd passes {endpoint_of(control)} as {_CONTROL}: must be a Unix socket")
    socketmap = (listener for descriptor, listener in sockets.items() if names[descriptor] == _SOCKETMAP)
    return Passed(tuple(socketmap), control, metrics)


def _only(name: str, sockets: Mapping[int, socket.socket], names: Mapping[int, str]) -> socket.socket | None:
    """The socket with a name, if there is one."""
    found = [sockets[descriptor] for descriptor, one in names.items() if one == name]
    if len(found) > 1:
        raise ServiceError(f"systemd passes {len(found)} sockets with FileDescriptorName={name}: only one may be")
    return found[0] if found else None


def _names() -> dict[int, str]:
    """Return the file descriptors that systemd passes, and for each of them what it is for."""
    if not any(os.environ.get(name) for name in ("LISTEN_FDS", "NOTIFY_SOCKET")):
        return {}
    try:
        from systemd.daemon import listen_fds_with_names
    except ImportError as error:
        raise ServiceError("started by systemd, but Python has no module systemd: install python3-systemd") from error
    try:
        names: dict[int, str] = listen_fds_with_names()  # This also removes them from the environment.
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ServiceError(f"LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES in the environment: {reason}") from error
    return {descriptor: _purpose(descriptor, name) for descriptor, name in names.items()}


def _purpose(descriptor: int, name: str) -> str:
    if name in (_SOCKETMAP, _CONTROL, _METRICS):
        return name
    # The names that systemd and systemd-socket-activate(1) pass if none was set.
    if name in ("", "unknown") or name.endswith(".socket"):
        return _SOCKETMAP
    allowed = f"must be {_SOCKETMAP}, {_CONTROL} or {_METRICS}"
    raise ServiceError(f"systemd passes file descriptor {descriptor} with FileDescriptorName={name!a}: {allowed}")


def _listening(descriptor: int, name: str) -> socket.socket:
    try:
        listener = socket.socket(fileno=descriptor)
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        stream = listener.type == socket.SOCK_STREAM and listener.family in families
        if stream and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
    except OSError:  # It is not a socket.
        pass
    must = "must be a listening stream socket (ListenStream= and Accept=no)"
    raise ServiceError(f"systemd passes file descriptor {descriptor} as {name}: {must}")


def notify(*states: str) -> None:
    """Send states to systemd, in one message."""
    if os.environ.get("NOTIFY_SOCKET"):
        from systemd.daemon import notify

        with contextlib.suppress(OSError):  # Nobody listens on the socket.
            notify("\n".join(states))


def reloading() -> None:
    """Tell systemd that the configuration is being reloaded. The caller must send READY=1 afterwards."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_period() -> float | None:
    """Return the period of systemd's watchdog in seconds, or None if it does not watch this process."""
    period = os.environ.get("WATCHDOG_USEC", "")
    asked = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(period) / 1e6 if asked and period.isdecimal() and int(period) else None


async def feed_watchdog(period: float, listeners: Sequence[socket.socket]) -> None:
    """Feed the watchdog twice in `period` seconds, as long as a test query on each of the sockets is answered."""
    while True:
        reasons = await problems(listeners, period / 4)
        for listener, reason in zip(listeners, reasons, strict=True):
            if reason:
                events.not_answered(endpoint_of(listener), reason)
        if not any(reasons):
            notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)


async def problems(listeners: Sequence[socket.socket], within: float) -> list[str]:
    """Why a test query on each of the sockets failed, or "" if it was answered in `within` seconds."""
    return await asyncio.gather(*(_problem(listener, within) for listener in listeners))


async def _problem(listener: socket.socket, within: float) -> str:
    """Return why a test query on a socket failed, or "" if it was answered in `within` seconds."""
    try:
        async with asyncio.timeout(within):
            reply = await _ask(listener)
    except TimeoutError:
        return f"no answer within {within:g} s"
    except PermissionError:
        return await _queue_problem(listener, within)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    return "" if reply == _ANSWER else f"unexpected reply {reply!a}"


async def _ask(listener: socket.socket) -> bytes:
    """Send the test query as Postfix would. For a socket on all addresses, Linux connects to the loopback address."""
    loop = asyncio.get_running_loop()
    reply = b""
    with socket.socket(listener.family, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, _QUERY)
        while not reply.endswith(b",") and (data := await loop.sock_recv(client, len(_ANSWER))):
            reply += data
    return reply


async def _queue_problem(listener: socket.socket, within: float) -> str:
    """Check a Unix socket that our user may not connect to. It has a problem if connections are always waiting."""
    queue = select.poll()
    queue.register(listener, select.POLLIN)
    for _ in range(_CHECKS):
        if not queue.poll(0):
            return ""
        await asyncio.sleep(within / _CHECKS)
    return "connections are not accepted"
