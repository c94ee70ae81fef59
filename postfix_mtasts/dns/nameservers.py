"""Asks nameservers in turn until one answers: over UDP, and over TCP if the response is truncated (RFC 1035, 4.2).

Each query has its own socket, so that the port is as hard to guess as the query id (RFC 5452, 9.2). The socket is
connected. So the kernel drops datagrams from other addresses, and reports at once if the nameserver's port is closed.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import MAX_DATAGRAM, Answer, MalformedError, Query, ResponseError

# Seconds to wait before all nameservers are asked again. The pause doubles each time, up to the second number.
_PAUSE, _MAX_PAUSE = 0.1, 1.0
PORT = 53
# These errors say that this machine lacks something, such as file descriptors, and nothing about another one.
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class DnsError(Exception):
    """No nameserver answered. The message says why, for each of them."""


class LocalShortageError(DnsError):
    """This machine lacks what a query takes, as `error` says. The nameservers were not asked, or not all of them."""

    def __init__(self, error: OSError) -> None:
        super().__init__(_in_words(error))
        self.error = error


class MalformedAnswerError(DnsError):
    """All nameservers sent malformed responses."""


class Nameservers:
    """Asks `servers` in their order. A query takes at most `timeout` seconds."""

    def __init__(self, servers: Sequence[InetEndpoint], timeout: float) -> None:
        self._servers = servers
        self._timeout = timeout
        # The limit for one attempt. It leaves time for the last server when all others are silent.
        self._timeout_each = timeout / (len(servers) + 1)

    async def ask(self, query: Query) -> Answer:
        """Return the first answer from any of the nameservers. Raises DnsError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        failures: dict[InetEndpoint, Exception] = {}
        pause = _PAUSE
        while True:
            for server in self._servers:
                if isinstance(failures.get(server), ResponseError):
                    continue  # Its next response would be the same.
                try:
                    async with asyncio.timeout_at(min(until, loop.time() + self._timeout_each)):
                        return await _query_server(server, query)
                except TimeoutError as error:
                    failures.setdefault(server, error)  # This attempt may be too short for the server to refuse again.
                except (ResponseError, OSError, EOFError) as error:
                    if isinstance(error, OSError) and error.errno in SHORTAGE:
                        raise LocalShortageError(error) from error
                    failures[server] = error
            final = all(isinstance(failure, ResponseError) for failure in failures.values())
            if final or loop.time() + pause + _PAUSE > until:  # After the pause there is no time for an answer.
                break
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        malformed = all(isinstance(failure, MalformedError) for failure in failures.values())
        raise (MalformedAnswerError if malformed else DnsError)(_summary(failures, self._timeout_each))


async def _query_server(server: InetEndpoint, query: Query) -> Answer:
    response = await _over_udp(server, query)
    if query.is_refused_for_edns(response):
        query = query.without_edns()
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
            response = await loop.sock_recv(datagrams, MAX_DATAGRAM)
        return response


async def _over_tcp(server: InetEndpoint, query: Query) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(query.wire).to_bytes(2) + query.wire)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.transport.abort()
    if not query.is_answered_by(response):
        raise MalformedError("not a response to our query")
    return response


def _summary(failures: dict[InetEndpoint, Exception], timeout_each: float) -> str:
    """The failure of each server, as in `192.0.2.1: SERVFAIL; 192.0.2.2: no answer within 1.7 s`."""
    return "; ".join(
        f"{server.host if server.port == PORT else f'{server.host} port {server.port}'}: "
        f"{_reason(failure, timeout_each)}"
        for server, failure in failures.items()
    )


def _reason(failure: Exception, timeout_each: float) -> str:
    if isinstance(failure, TimeoutError):
        return f"no answer within {timeout_each:.2g} s"
    if isinstance(failure, EOFError):
        return "closed the TCP connection"
    return _in_words(failure) if isinstance(failure, OSError) else str(failure)


def _in_words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
