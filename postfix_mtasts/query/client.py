"""The running daemon, as a command asks it: over its control socket (`control` tells the requests), or as Postfix."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator

from postfix_mtasts.config import Endpoint, InetEndpoint
from postfix_mtasts.query.output import JSON, QueryError


class NoDaemon(Exception):  # noqa: N818 - a daemon that does not run may be what is wanted
    """Nobody answers on the control socket; says why."""


def ask(path: str, request: JSON, timeout: float) -> Iterator[JSON]:
    """The documents of the reply to one request; `timeout` is in seconds, for each of them.

    Raises NoDaemon at once, and QueryError where the reply is an error or breaks off.
    """
    if not path:
        raise NoDaemon('server.control = "": there is no control socket')
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
    except OSError as error:
        connection.close()
        raise NoDaemon(f'server.control = "{path}": {_words(error)}') from error
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
            raise QueryError(f"the daemon gave no answer within {timeout:g} seconds") from error
        except (OSError, ValueError) as error:
            raise QueryError(f"the daemon's reply cannot be read: {error}") from error
    raise QueryError("the daemon's reply breaks off", "has it just been stopped? its log may tell")


async def reply_to(endpoint: Endpoint, key: str) -> bytes:
    """What Postfix would be told of a key, as it goes over the wire. Raises OSError and asyncio.IncompleteReadError."""
    if isinstance(endpoint, InetEndpoint):
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    else:
        reader, writer = await asyncio.open_unix_connection(endpoint.path)
    try:
        request = f"postfix {key}".encode()
        writer.write(b"%d:%b," % (len(request), request))
        length = await reader.readuntil(b":")
        return length + await reader.readexactly(int(length[:-1]) + 1)
    finally:
        writer.close()


def _words(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "it takes no connections"
