"""Answers a web server that asks whether a host may have a certificate (Caddy's `on_demand_tls`).

    GET /?domain=mta-sts.example.com  ->  200 if it may, 403 if not, 503 if that is not known now

It may if a policy of the domain is published here, and its policy host was seen to be ours: otherwise orders would
fail, and the CA would soon refuse all. If no check has seen that yet, it is looked up at once, for a domain once a
minute at most. Strangers choose the names that are asked for, so a name that is not published here costs no lookup.
"""

import argparse
import asyncio
import contextlib
import signal
import time
import urllib.parse
from collections.abc import Callable

import h11

from postfix_mtasts.config import Config
from postfix_mtasts.daemon.listen import ListenError, listen, remove_file
from postfix_mtasts.daemon.service import notify
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.publish.change import Publisher
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.look import look_whether_it_leads_here
from postfix_mtasts.publish.store import StoreError
from postfix_mtasts.query.output import Output, QueryError, Status
from postfix_mtasts.sts.domain import PolicyDomain, domain_of_policy_host

MAX_REQUEST = 4096  # Octets of a request. A name has 253.
DEADLINE = 10.0  # Seconds for a connection. Caddy waits as long.
MAX_CONNECTIONS = 100  # At once; a further one is closed. Caddy has one for each handshake with an unknown name.
LOOK_AGAIN_AFTER = 60.0  # Seconds.
MAX_LOOKS = 10_000  # Domains whose last look is remembered.
SOCKET_MODE = 0o660  # Of a Unix socket: only this user and its group reach it.


class Answerer:
    """Says whether hosts may have certificates. `clock` gives a time in seconds that never jumps."""

    def __init__(self, settings: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings.publish
        self._store = Publisher(settings.publish).store
        self._resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
        self._clock = clock
        self._looks: dict[PolicyDomain, tuple[float, bool]] = {}

    async def may_have_certificate(self, host: str) -> bool:
        """Whether a host may have a certificate. Raises StoreError."""
        domain = domain_of_policy_host(host)
        state = self._store.get(domain) if domain else None
        if not state or not domain:
            return False
        publication = follows(state).publication
        if publication.certificate or publication.file is None:
            return publication.certificate
        looked, seen = self._looks.get(domain, (-LOOK_AGAIN_AFTER, False))
        now = self._clock()
        if now - looked < LOOK_AGAIN_AFTER:
            return seen
        if len(self._looks) >= MAX_LOOKS:
            self._looks.clear()
        self._looks[domain] = now, False  # Who asks meanwhile must not make us look too.
        seen = bool(await look_whether_it_leads_here(self._resolver, domain, self._settings))
        self._looks[domain] = now, seen
        return seen


class Server:
    """Speaks HTTP with the web server, one request a connection."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._connections = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request from a connection, answer it, and close the connection."""
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(DEADLINE):
                await self._converse(reader, writer)
        except (OSError, TimeoutError):
            pass  # Whoever has gone away needs no answer.
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        try:
            status = await self._status(await _target(connection, reader))
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        fields = [("Content-Length", "0"), ("Connection", "close")]
        writer.write(connection.send(h11.Response(status_code=status, headers=fields)) or b"")
        await writer.drain()

    async def _status(self, target: bytes | None) -> int:
        if target is None:
            return 400
        try:
            asked = urllib.parse.urlsplit(target.decode("ascii", "replace")).query
            names = urllib.parse.parse_qs(asked, max_num_fields=10).get("domain", [])
        except ValueError:
            return 400
        if len(names) != 1:
            return 400
        try:
            return 200 if await self._answerer.may_have_certificate(names[0]) else 403
        except StoreError:
            return 503


async def serve(_: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Answer a web server that asks whether a host may have a certificate."""
    server = Server(Answerer(settings))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    endpoint = settings.publish.ask
    try:
        listener = listen(endpoint, SOCKET_MODE)
    except ListenError as error:
        raise QueryError(f'publish.ask = "{endpoint}": {error}', status=Status.UNAVAILABLE) from error
    async with await asyncio.start_server(server.converse, sock=listener, limit=MAX_REQUEST):
        notify("READY=1")
        if output.json:
            output.document({"listens": str(endpoint)})
        else:
            output.text(f"ready: answers at {endpoint}")
        await ended.wait()
        remove_file(listener)
    return Status.OK


async def _target(connection: h11.Connection, reader: asyncio.StreamReader) -> bytes | None:
    """What a GET request asks for; None if it is another request, or none. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_REQUEST))
        elif isinstance(event, h11.Request):
            return event.target if event.method == b"GET" else None
        else:
            return None
