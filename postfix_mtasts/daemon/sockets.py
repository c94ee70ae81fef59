"""Which sockets the daemon serves: those that systemd passes, and those of the configuration besides."""

import grp
import os
import pathlib
import shutil
import socket
from collections.abc import Sequence

from postfix_mtasts import config
from postfix_mtasts.config import Config, Endpoint, UnixEndpoint
from postfix_mtasts.daemon import service
from postfix_mtasts.daemon.control import GROUP_MODE, MODE
from postfix_mtasts.daemon.listen import ListenError, close, covers, endpoint_of, is_for_all, listen, reachable
from postfix_mtasts.daemon.service import Passed, ServiceError
from postfix_mtasts.log import events


class StartError(Exception):
    """The daemon cannot start. The message says which setting is the cause, and why."""


def passed() -> Passed:
    """Take over the sockets from systemd. Raises StartError."""
    try:
        return service.passed()
    except ServiceError as error:
        raise StartError(str(error)) from error


def not_passed(settings: config.Server, passed: Passed) -> list[Endpoint]:
    """Return the addresses to listen on besides the sockets from systemd. Log the sockets that are not configured."""
    configured = settings.listen
    if not passed.socketmap:
        return list(configured)
    if configured is config.DEFAULT_LISTEN:
        return []
    for listener in passed.socketmap:
        if endpoint_of(listener) not in configured:
            events.listener_not_configured(endpoint_of(listener), "server.listen")
    return [endpoint for endpoint in configured if not any(covers(one, endpoint) for one in passed.socketmap)]


def listen_on(endpoints: Sequence[Endpoint], socket_mode: int, passed: Sequence[Endpoint]) -> list[socket.socket]:
    """Listen on addresses besides those that systemd has passed. Raises StartError."""
    listeners: list[socket.socket] = []
    for endpoint in endpoints:
        try:
            listeners.append(listen(endpoint, socket_mode))
        except ListenError as error:
            for listener in listeners:
                close(listener)
            hint = f"; the socket unit has {', '.join(map(str, passed))}: change the address there" if passed else ""
            raise StartError(f'server.listen = "{endpoint}": {error}{hint}') from error
        if passed:
            events.listener_not_passed(endpoint)
    return listeners


def warn_of_open(endpoints: Sequence[Endpoint]) -> None:
    """Warn of sockets on all addresses of this machine."""
    for endpoint in endpoints:
        if is_for_all(endpoint):
            events.open_to_all(endpoint, reachable(endpoint))


def control_of(settings: config.Server, passed: socket.socket | None) -> socket.socket | None:
    """The control socket, or None if there is none: a default one that fails must not stop the mail.

    Raises StartError.
    """
    if passed and endpoint_of(passed) != UnixEndpoint(settings.control):
        events.listener_not_configured(endpoint_of(passed), "server.control")
    if passed or not settings.control:
        return passed
    try:
        listener = listen(UnixEndpoint(settings.control), MODE)
        _let_in(settings)
        return listener
    except ListenError as error:
        reason = f'server.control = "{settings.control}": {error}'
        if settings.control != config.DEFAULT_CONTROL:
            raise StartError(reason) from error
        events.no_control(reason)
        return None


def metrics_of(settings: Config, passed: socket.socket | None) -> socket.socket | None:
    """The socket for metrics, or None if there is none. Raises StartError."""
    endpoint = settings.metrics.listen
    if passed and endpoint and endpoint_of(passed) != endpoint:
        events.listener_not_configured(endpoint_of(passed), "metrics.listen")
    if passed or not endpoint:
        return passed
    try:
        return listen(endpoint, settings.server.socket_mode)
    except ListenError as error:
        raise StartError(f'metrics.listen = "{endpoint}": {error}') from error


def _let_in(settings: config.Server) -> None:
    """Let a group use the control socket. If that fails, it must not stop the mail."""
    if not settings.control_group:
        return
    file = pathlib.Path(settings.control)
    try:
        # The sandbox of the package forbids to give a file away, even to the group that has it.
        if grp.getgrnam(settings.control_group).gr_gid != file.stat().st_gid:
            shutil.chown(file, group=settings.control_group)
        file.chmod(GROUP_MODE)
    except (LookupError, OSError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no such group"
        events.no_control_group(settings.control_group, reason)
