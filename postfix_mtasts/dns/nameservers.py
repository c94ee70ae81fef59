"""Asks nameservers in turn until one answers, over UDP, and over TCP if the answer does not fit (RFC 1035, 4.2).

Each query has a socket of its own, so that the port is as hard to guess as the id (RFC 5452, 9.2). It is connected, so
that the kernel drops what comes from elsewhere, and tells at once if nobody listens.
"""

import asyncio
import socket
from collections.abc import Sequence

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import Answer, MalformedError, Query, ResponseError

_MAX_DATAGRAM = 4096  # Octets. Without EDNS(0) an answer has at most 512 (RFC 1035, 4.2.1).
_PAUSE, _MAX_PAUSE = 0.1, 1.0  # Seconds until all are asked again; each time twice as long, up to the second.
PORT = 53


class DnsError(Exception):
    """No nameserver gave an answer; says why, server by server."""


class MalformedAnswerError(DnsError):
    """Those that gave one gave one without a valid form."""


class Nameservers:
    """Those at `servers`, the first one first; a query takes at most `timeout` seconds."""

    def __init__(self, servers: Sequence[InetEndpoint], timeout: float) -> None:
        self._servers = servers
        self._timeout = timeout
        # So that each server is asked, though all those before it are silent.
        self._timeout_each = timeout / (len(servers) + 1)

    async def ask(self, query: Query) -> Answer:
        """What the first one says that answers. Raises DnsError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        failures: dict[InetEndpoint, Exception] = {}
        pause = _PAUSE
        while True:
            for server in self._servers:
                if isinstance(failures.get(server), ResponseError):
                    continue  # It would say the same again.
                try:
                    async with asyncio.timeout_at(min(until, loop.time() + self._timeout_each)):
                        return await _query_server(server, query)
                except TimeoutError as error:
                    failures.setdefault(server, error)  # There may not have been time to refuse again.
                except (ResponseError, OSError, EOFError) as error:
                    failures[server] = error
            final = all(isinstance(failure, ResponseError) for failure in failures.values())
            if final or loop.time() + pause + _PAUSE > until:  # Later, there is no time for an answer.
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        malformed = all(isinstance(failure, MalformedError) for failure in failures.values())
        raise (MalformedAnswerError if malformed else DnsError)(_summary(failures))


async def _query_server(server: InetEndpoint, query: Query) -> Answer:
    response = await _over_udp(server, query)
    if query.is_truncated(response):
        response = await _over_tcp(server, query)
    return query.read(response)


async def _over_udp(server: InetEndpoint, query: Query) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as datagrams:
        datagrams.connect((server.host, server.port))
        datagrams.send(query.wire)
        response = b""
        while not query.is_answered_by(response):
            response = await loop.sock_recv(datagrams, _MAX_DATAGRAM)
        return response


async def _over_tcp(server: InetEndpoint, query: Query) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(query.wire).to_bytes(2) + query.wire)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.transport.abort()
    if not query.is_answered_by(response):
        raise MalformedError("no response to the query")
    return response


def _summary(failures: dict[InetEndpoint, Exception]) -> str:
    """`192.0.2.1: SERVFAIL; 192.0.2.2: no answer`: each server's last word."""
    return "; ".join(
        f"{server.host if server.port == PORT else f'{server.host} port {server.port}'}: {_reason(failure)}"
        for server, failure in failures.items()
    )


def _reason(failure: Exception) -> str:
    if isinstance(failure, TimeoutError):
        return "no answer"
    if isinstance(failure, EOFError):
        return "connection closed"
    if isinstance(failure, OSError):
        return (failure.strerror or str(failure)).lower()
    return str(failure)
