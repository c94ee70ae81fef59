"""Runs the dashboard on uvicorn: its socket, its token, and bounds on connections that uvicorn does not have.

uvicorn waits for the rest of a request for as long as the client likes, and refuses others meanwhile. So a connection
ends here if its first request is not complete in time, and in any case after a while.
"""

import asyncio
import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from postfix_mtasts.config import Config, Endpoint, UnixEndpoint
from postfix_mtasts.config import Web as Settings
from postfix_mtasts.daemon.listen import ListenError, close, listen
from postfix_mtasts.daemon.service import notify
from postfix_mtasts.rights import in_the_way, read_secret, user_of
from postfix_mtasts.web.app import application
from postfix_mtasts.web.helper import Hands

CONNECTIONS = 100  # More are told to come again later. A browser has up to six.
REQUEST_WITHIN = 5.0  # Seconds for the first request of a connection, with its headers.
IDLE = 5.0  # Seconds for the next one.
LIFE = 200.0  # Seconds of a connection. A check of a domain may take one minute, and a lookup of the daemon two.
STOP_WITHIN = 5  # Seconds for requests that are under way at the end.
MIN_TOKEN, MAX_TOKEN = 20, 1000  # Octets.
MODE = 0o660


class StartError(Exception):
    """The dashboard cannot start. The message says why."""


async def serve(settings: Config, hands: Hands) -> None:
    """Serve the dashboard until a signal comes. Raises StartError."""
    _not_root(settings)
    token = _token(settings.web)
    listener = _listen(settings.web)
    try:
        server = Server(
            uvicorn.Config(
                application(settings, token, hands),
                http=Protocol,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                log_level="warning",
                proxy_headers=False,  # Who asks is what the kernel says, or `web.user_header`.
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=int(IDLE),
                **_STOP,
            )
        )
        loop = asyncio.get_running_loop()
        for end in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(end, _stop, server, end)
        await server.serve(sockets=[listener.dup()])  # It closes what it gets, and the file has to go, too.
    finally:
        close(listener)


def _stop(server: "Server", end: signal.Signals) -> None:
    """End, whatever threads are waiting for: a helper may take minutes, and a thread cannot be ended by itself."""
    notify("STOPPING=1")
    server.handle_exit(end, None)
    last = threading.Timer(STOP_WITHIN + 1, os._exit, (0,))
    last.daemon = True
    last.start()


# Debian 12's uvicorn does not have it, and waits for the requests that are under way.
_STOP: dict[str, Any] = (
    {"timeout_graceful_shutdown": STOP_WITHIN}
    if "timeout_graceful_shutdown" in uvicorn.Config.__init__.__annotations__
    else {}
)


class Server(uvicorn.Server):
    """uvicorn's, which tells systemd once it answers, and ends with `serve` after a signal: by itself, it would let the
    signal end the process.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets=sockets)
        notify("READY=1")

    def install_signal_handlers(self) -> None:
        """Do nothing, in Debian 12's version."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, in later ones."""
        yield


class Protocol(H11Protocol):
    """uvicorn's, with an end to each connection. `client` is the user of a process that uses a Unix socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._ends = [loop.call_later(REQUEST_WITHIN, self._no_request), loop.call_later(LIFE, transport.abort)]
        if transport.get_extra_info("socket").family == socket.AF_UNIX:
            self.client = (_name_of(user_of(transport.get_extra_info("socket"))), 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        for timer in self._ends:
            timer.cancel()
        super().connection_lost(exc)

    def _no_request(self) -> None:
        cycle: object = self.cycle
        if cycle is None:
            self.transport.abort()


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


def _not_root(settings: Config) -> None:
    """Raise StartError if files in the folder of somebody else would become root's. Its owner could not change them."""
    folder = pathlib.Path(settings.publish.path).parent
    if os.geteuid() != 0 or not folder.exists() or not (owner := folder.stat().st_uid):
        return
    raise StartError(f"{folder} belongs to {_name_of(owner)}: run it as that user, and not as root")


def _listen(settings: Settings) -> socket.socket:
    endpoint: Endpoint | None = settings.listen
    assert endpoint is not None  # noqa: S101 - the command has looked
    try:
        if not isinstance(endpoint, UnixEndpoint):
            return listen(endpoint, 0)
        listener = listen(endpoint, 0o600)  # Nobody else may connect until it has its group.
    except ListenError as error:
        raise StartError(f'web.listen = "{endpoint}": {error}') from error
    try:
        if settings.group:
            shutil.chown(endpoint.path, group=settings.group)
        pathlib.Path(endpoint.path).chmod(MODE)
    except (LookupError, OSError) as error:
        close(listener)
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no such group"
        raise StartError(f'web.group = "{settings.group}": {reason}') from error
    return listener


def _token(settings: Settings) -> bytes:
    """The token of those who may ask, or nothing. Raises StartError."""
    if not settings.token_file:
        return b""
    file = pathlib.Path(settings.token_file)
    try:
        token = read_secret(file, MAX_TOKEN).strip()
    except OSError as error:
        reason = in_the_way(file) or os.strerror(error.errno or 0).lower()
        raise StartError(f'web.token_file = "{file}": {reason}') from error
    except ValueError as error:
        raise StartError(f'web.token_file = "{file}": {error}') from error
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or not token.decode().isprintable():
        allowed = f"one line of {MIN_TOKEN} to {MAX_TOKEN} printable characters, such as `openssl rand -hex 32` prints"
        raise StartError(f'web.token_file = "{file}": must have {allowed}')
    return token
