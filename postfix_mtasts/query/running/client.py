"""Asks the running daemon: over its control socket (the requests are in `daemon.control`), or as Postfix does."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from postfix_mtasts.config import Config, DaneSetting, Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.postfix.socketmap import MAX_REPLY, Request
from postfix_mtasts.query.output import JSON, QueryError
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.rights import this_user

POSTFIX_WAITS = 100.0  # Seconds (dict_sockmap(3)).
NO_DOMAIN = ".test"  # A key that begins with a dot has no policy, so the daemon answers without a lookup.
_CONTROL_WITHIN = 3.0  # Seconds for an answer from memory.
_HINT = "is postfix-mtasts-daemon running with this configuration?"


class NoDaemon(Exception):  # noqa: N818 - a daemon that does not run may be what is wanted
    """The daemon cannot be reached on its control socket. The message says why.

    `forbidden` if this user may not use the socket.
    """

    def __init__(self, reason: str, *, forbidden: bool = False) -> None:
        super().__init__(reason)
        self.forbidden = forbidden

    @property
    def remedy(self) -> str:
        """How this user gets the permission that lacks; empty if none lacks."""
        who = "only root may ask it, and the members of server.control_group"
        return f"{who}: set that to a group of {this_user()}, and restart the daemon" if self.forbidden else ""


def ask(path: str, request: JSON, timeout: float) -> Iterator[JSON]:
    """Send one request and return the documents of the reply, as they come.

    `timeout` is in seconds, for each document. Raises NoDaemon at once if there is no connection. The iterator raises
    QueryError if the reply is an error or incomplete.
    """
    if not path:
        raise NoDaemon('server.control = "": the control socket is switched off')
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
    except OSError as error:
        connection.close()
        forbidden = isinstance(error, PermissionError)
        raise NoDaemon(f'server.control = "{path}": {in_words(error)}', forbidden=forbidden) from error
    return _documents(connection, timeout)


def _documents(connection: socket.socket, timeout: float) -> Iterator[JSON]:
    with connection, connection.makefile("rb") as lines:
        try:
            for line in lines:
                document = json.loads(line)
                if "done" in document:
                    return
                if "error" in document:
                    raise QueryError(f"the daemon says: {document['error']}")
                yield document
        except TimeoutError as error:
            raise QueryError(f"no answer from the daemon within {timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise QueryError(f"the daemon's reply cannot be read: {error}") from error
    raise QueryError("the daemon's reply is incomplete", "the daemon may have been stopped: look in its log")


@dataclass(frozen=True, slots=True)
class Running:
    """What the running daemon does, and the file that configures it. Times are seconds since the epoch."""

    pid: int
    started_at: float
    config: str
    configured_at: float  # When it chose style and dane.
    sockets: tuple[Endpoint, ...]
    style: Style
    dane: DaneSetting
    shadow_since: float | None  # None if policies are enforced.
    status: JSON = field(repr=False)  # The whole document (`daemon.control`).


def running(settings: Config) -> Running:
    """Ask the running daemon what it does. Raises NoDaemon and QueryError."""
    (status,) = ask(settings.server.control, {"request": "status"}, _CONTROL_WITHIN)
    if not {"exceptions", "shadow_since"} <= status.keys():
        raise NoDaemon(f"the running daemon is version {status['version']}: restart it")
    return Running(
        pid=status["pid"],
        started_at=status["started_at"],
        config=status["config"],
        configured_at=status["configured_at"],
        sockets=tuple(map(_endpoint, status["sockets"])),
        style=Style(status["style"]["chosen"]),
        dane=DaneSetting(status["dane"]["chosen"]),
        shadow_since=status["shadow_since"],
        status=status,
    )


def sockets(settings: Config) -> tuple[Endpoint, ...]:
    """The sockets on which the running daemon answers Postfix; those of the configuration if it cannot be asked."""
    try:
        return running(settings).sockets
    except (NoDaemon, QueryError):
        return settings.server.listen


def _endpoint(text: str) -> Endpoint:
    kind, _, place = text.partition(":")
    if kind == "unix":
        return UnixEndpoint(place)
    host, _, port = place.rpartition(":")
    return InetEndpoint(host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply that Postfix would get, such as `OK secure match=…`, and the seconds that it took."""

    reply: str
    seconds: float


async def ask_as_postfix(
    endpoint: Endpoint, key: str, within: float = POSTFIX_WAITS, map_name: str = "postfix"
) -> Answer:
    """Send one socketmap query over a new connection and return the answer.

    `within` is in seconds. Raises QueryError if there is no answer by then, or none that is valid.
    """
    begun = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(within):
            if isinstance(endpoint, InetEndpoint):
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            else:
                reader, writer = await asyncio.open_unix_connection(endpoint.path)
            writer.write(Request(map_name.encode(), os.fsencode(key)).encode())
            length = int((await reader.readuntil(b":")).removesuffix(b":"))
            if not 0 <= length <= MAX_REPLY:
                raise ValueError
            reply = await reader.readexactly(length + 1)
    except TimeoutError as error:
        raise QueryError(f"{endpoint} does not answer within {within:g} s") from error
    except OSError as error:
        raise QueryError(f"{endpoint} does not answer: {in_words(error)}", _HINT) from error
    except (ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise QueryError(f"{endpoint} does not speak socketmap", _HINT) from error
    finally:
        if writer is not None:
            writer.close()
    return Answer(reply[:-1].decode("ascii", "replace"), time.monotonic() - begun)
