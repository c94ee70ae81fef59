"""Asks nameservers in turn, and again and again, until one of them answers or the time is over."""

import asyncio
import errno
from collections.abc import Sequence

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.exchange import Exchange
from postfix_mtasts.dns.message import Answer, Query, ResponseError
from postfix_mtasts.turns import Turns

PORT = 53
_PATIENCE = 1.0  # Seconds with one nameserver before the next one is asked too. Unbound's first wait is shorter.
# Seconds to wait before all nameservers are asked again. The pause doubles each time, up to the second number.
_PAUSE, _MAX_PAUSE = 0.1, 1.0
_ASKED_LAST = 60.0  # Seconds for which a nameserver that was silent, while another one answered, is asked last.
MAX_LATE = 1.0  # Seconds after a deadline. Later, this machine had not the time to hear what others have said.
# These errors say that this machine lacks something, such as file descriptors, and nothing about another one.
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class DnsError(Exception):
    """No nameserver answered. The message says why, for each of them."""


class LocalShortageError(DnsError):
    """This machine lacks what a query takes, as the message says. Nothing is known of the nameservers."""


class Nameservers:
    """Asks `servers` in their order. A query takes at most `timeout` seconds."""

    def __init__(self, servers: Sequence[InetEndpoint], timeout: float) -> None:
        self._servers = servers
        self._timeout = timeout
        # The limit for one attempt. It leaves time for the last server when all others are silent.
        self._timeout_each = timeout / (len(servers) + 1)
        self._silent_until: dict[InetEndpoint, float] = {}
        self._turns = Turns()

    async def ask(self, query: Query) -> Answer:
        """Return the first answer from any of the nameservers. Raises DnsError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        failures: dict[InetEndpoint, Exception] = {}
        exchange = Exchange(query, self._timeout_each, self._turns)
        try:
            answer = await self._ask(exchange, failures, until)
        finally:
            exchange.close()
        if answer:
            return answer
        if loop.time() > until + MAX_LATE:
            raise LocalShortageError("this machine was stopped or overloaded")
        raise DnsError(self._summary(failures))

    async def _ask(self, exchange: Exchange, failures: dict[InetEndpoint, Exception], until: float) -> Answer | None:
        """The first answer, or None if all have failed, or the time is over. Notes each server's failure."""
        loop = asyncio.get_running_loop()
        pause = _PAUSE
        servers = self._in_order(loop.time())
        while servers and loop.time() < until:
            for server in servers:
                try:
                    exchange.send(server)
                except OSError as error:
                    _note(failures, server, error)
                    continue
                patience = min(until, loop.time() + min(_PATIENCE, self._timeout_each))
                if found := await self._listen(exchange, failures, patience, server):
                    answer, answering = found
                    self._note_silent(servers[: servers.index(answering)], failures, loop.time())
                    return answer
            servers = [server for server in servers if not isinstance(failures.get(server), ResponseError)]
            if servers and (found := await self._listen(exchange, failures, min(until, loop.time() + pause))):
                return found[0]
            pause = min(2 * pause, _MAX_PAUSE)
        return None

    async def _listen(
        self,
        exchange: Exchange,
        failures: dict[InetEndpoint, Exception],
        until: float,
        asked: InetEndpoint | None = None,
    ) -> tuple[Answer, InetEndpoint] | None:
        """An answer that comes until then, and whose it is; None as soon as the server that was asked has failed."""
        while heard := await exchange.heard(until):
            server, response = heard
            try:
                if isinstance(response, OSError):
                    raise response
                if answer := await exchange.read(server, response):
                    return answer, server
            except (ResponseError, OSError, EOFError) as error:
                _note(failures, server, error)
                if server == asked:
                    break
        return None

    def _in_order(self, now: float) -> Sequence[InetEndpoint]:
        """The nameservers, those last that were silent not long ago."""
        if not self._silent_until:
            return self._servers
        return sorted(self._servers, key=lambda server: self._silent_until.get(server, 0.0) > now)

    def _note_silent(self, before: Sequence[InetEndpoint], failures: dict[InetEndpoint, Exception], now: float) -> None:
        for server in before:
            if server not in failures:
                self._silent_until[server] = now + _ASKED_LAST

    def _summary(self, failures: dict[InetEndpoint, Exception]) -> str:
        """The failure of each server, as in `192.0.2.1: SERVFAIL; 192.0.2.2: no answer within 5 s`."""
        return "; ".join(
            f"{server.host if server.port == PORT else f'{server.host} port {server.port}'}: "
            f"{_reason(failures[server]) if server in failures else f'no answer within {self._timeout:g} s'}"
            for server in self._servers
        )


def _note(failures: dict[InetEndpoint, Exception], server: InetEndpoint, error: Exception) -> None:
    """Note why a server failed. Raises LocalShortageError if the cause is this machine."""
    if isinstance(error, OSError) and error.errno in SHORTAGE:
        raise LocalShortageError(_reason(error)) from error
    failures[server] = error


def _reason(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "no answer over TCP"
        case EOFError():
            return "closed the TCP connection"
        case OSError():
            return (error.strerror or str(error)).lower()
    return str(error)
