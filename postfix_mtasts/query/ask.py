"""Ask the running daemon as Postfix does, over its socketmap."""

import asyncio
import os
import time
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint
from postfix_mtasts.network import in_words
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.socketmap import MAX_REPLY, Request

_POSTFIX_WAITS = 100.0  # Seconds (dict_sockmap(3)).
_HINT = "is postfix-mtasts-daemon running, with this configuration?"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the daemon said, `OK secure match=…`, and after how many seconds."""

    reply: str
    seconds: float


async def ask(endpoint: Endpoint, key: str, map_name: str = "postfix", within: float = _POSTFIX_WAITS) -> Asked:
    """One query, with a connection of its own. Raises QueryError, also after `within` seconds."""
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
        raise QueryError(f"{endpoint}: no answer within {within:g} seconds") from error
    except OSError as error:
        raise QueryError(f"{endpoint}: {in_words(error)}", _HINT) from error
    except (ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise QueryError(f"{endpoint}: what answers there does not speak socketmap", _HINT) from error
    finally:
        if writer is not None:
            writer.close()
    return Asked(reply[:-1].decode("ascii", "replace").rstrip(), time.monotonic() - begun)
