"""The control socket: a Unix socket by which an administrator inspects and controls the running daemon.

The daemon's user, root and the group `server.control_group` can connect to it. The group may not forget or refresh.

    request  one JSON object on one line of at most 4096 bytes, one per connection:
             {"request": "list" | "status" | "shadow"}, or
             {"request": "show" | "explain" | "forget" | "refresh", "domain": "example.com"}
    reply    JSON objects, one per line. The last one is {"done": true}, or {"error": "why"}. Without it, the reply is
             incomplete.

    list     for each policy, in any order: {"domain", "row"}, with the row as in the database (`cache.row`); and for
             each domain in memory whose policy could not be fetched, as for show
    show     {"domain", "row" or null, "checked_at", "failed", "note" or null, "unread", "withheld", "dane"}
    explain  what the daemon answers from, for postfix-mtasts-query (`daemon.explain`). Nothing is looked up or noted.
    forget   {"domain", "forgotten"}: whether there was anything to forget. The next query starts a new discovery.
    refresh  as for show, and {"fetched", "reason" or null}. The record is looked up and the policy is fetched now,
             regardless of its age and of failures. If that fails, `reason` says why, and a cached policy stays.
    shadow   {"since"}, null if policies are enforced; else also the counts, and then a document for each next hop that
             would not be delivered to (`daemon.shadow`)
    status   {"version", "pid", "started_at", "config", "configured_at", "sockets", "style", "dane", "shadow_since",
             "database", "policies", "no_policies_in_memory", "discoveries"}. `configured_at` is when style and dane
             were chosen. Of the discoveries of new domains in the last minutes: {"minutes", "ended", "failed",
             "last_failure"}

Times are seconds since the epoch. A client that neither sends nor reads for 30 seconds is disconnected.
"""

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from postfix_mtasts import __version__
from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.row import print_failed, print_row
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.config import Endpoint
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.explain import print_explanation, tlsa_document
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.log import events
from postfix_mtasts.sts.domain import PolicyDomain, PolicyDomainError, next_hop
from postfix_mtasts.sts.entry import Apply, Entry, NoPolicy, Unavailable

MODE = 0o600  # The mode of the socket. Whoever makes the daemon forget a policy weakens the encryption of mail.
GROUP_MODE = 0o660  # Its mode if a group may use it.
_MAX_REQUEST = 4096  # Bytes.
_UCRED = struct.Struct("iII")  # Process, user and group (unix(7)).
_TIMEOUT = 30.0  # Seconds for a client to send its request, or to read one line of the reply.
_CHANGES = ("forget", "refresh")
_ROWS_AT_ONCE = 100  # Rows that are sent before other tasks may run.

JSON = dict[str, Any]
Send = Callable[[JSON], Awaitable[None]]


class RequestError(ValueError):
    """The request is not valid. The message says why."""


class Control:
    """Answers requests on the control socket. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        lookup: Lookup,
        store: Store,
        memory: Memory,
        dane: Dane,
        shadow: Shadow,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._shadow = shadow
        self.config = ""  # The configuration file.
        self.sockets: Sequence[Endpoint] = ()  # Where Postfix can ask.
        self.chosen("", "")
        self._lookup = lookup
        self._store = store
        self._memory = memory
        self._dane = dane
        self._started_at = clock()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def chosen(self, why_style: str, why_dane: str) -> None:
        """Note that `lookup.rules` were chosen just now, and why."""
        self._why_style, self._why_dane = why_style, why_dane
        self._configured_at = self._clock()

    async def start(self, listener: socket.socket) -> None:
        """Start to accept connections on `listener`."""
        # start_unix_server would remove the file at the end (since Python 3.13), but it may belong to systemd.
        self._server = await asyncio.start_server(self._connected, sock=listener, limit=_MAX_REQUEST)

    async def aclose(self) -> None:
        """Stop, and close all connections."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            events.internal_error(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # So that `drain` waits until the kernel has all data.

        async def send(document: JSON) -> None:
            async with asyncio.timeout(_TIMEOUT):
                writer.write(json.dumps(document).encode() + b"\n")
                await writer.drain()

        try:
            async with asyncio.timeout(_TIMEOUT):
                line = await _line(reader)
            if line:
                await self._reply(line, send, may_change=_peer(writer) in (0, os.geteuid()))
        except (OSError, TimeoutError):
            pass  # The client has closed the connection, or does not respond.
        finally:
            writer.transport.abort()

    async def _reply(self, line: bytes, send: Send, *, may_change: bool) -> None:
        try:
            request, domain = parse_request(line)
            if request in _CHANGES and not may_change:
                raise RequestError(f"only root and the daemon's user may {request} a domain")
            await self._fulfil(request, domain, send)
        except (RequestError, StoreError) as error:
            await send({"error": str(error)})
        else:
            await send({"done": True})

    async def _fulfil(self, request: str, domain: PolicyDomain | None, send: Send) -> None:
        match request, domain:
            case "show", PolicyDomain():
                await send(self._document(domain, await self._lookup.entry(domain)))
            case "explain", PolicyDomain():
                await send(await self._explain(domain))
            case "forget", PolicyDomain():
                await send({"domain": domain.name, "forgotten": await self._lookup.forget(domain)})
            case "refresh", PolicyDomain():
                await send(await self._refresh(domain))
            case "status", None:
                await send(await self._status())
            case "shadow", None:
                for document in self._shadow.documents():
                    await send(document)
            case _:
                await self._list(send)

    async def _list(self, send: Send) -> None:
        at_hand = dict(self._memory.policies())
        for number, (domain, entry) in enumerate(at_hand.items()):
            await send({"domain": domain.name, "row": print_row(entry)})
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        for number, (domain, entry) in enumerate(self._memory.notes()):
            if entry.failed or (entry.note and isinstance(entry.note.answer, Unavailable)):
                await send(self._document(domain, entry))
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        async for domain, row in self._store.rows():
            if domain not in at_hand:
                await send({"domain": domain.name, "row": row})

    async def _refresh(self, domain: PolicyDomain) -> JSON:
        answer = await self._lookup.refresh(domain)
        entry = await self._lookup.entry(domain)
        fetched = isinstance(answer, Apply) and answer.fetched  # If true, there is neither a note nor a failure.
        why = answer if isinstance(answer, NoPolicy | Unavailable) else entry.note and entry.note.answer
        reason = _reason(why) if why else str(entry.failed[0].failure) if entry.failed else None
        return self._document(domain, entry) | {"fetched": fetched, "reason": reason}

    async def _explain(self, domain: PolicyDomain) -> JSON:
        lookup = self._lookup
        entry = await lookup.entry(domain)
        return print_explanation(entry, lookup.rules, lookup.answer_within, self._dane.known(domain))

    def _document(self, domain: PolicyDomain, entry: Entry) -> JSON:
        """Return all that is known about a domain, as for `show`."""
        note = entry.note
        return {
            "domain": domain.name,
            "row": print_row(entry) if entry.cached else None,
            "checked_at": entry.checked_at,
            "failed": [print_failed(failed) for failed in entry.failed],
            "note": note
            and {
                "no_policy": isinstance(note.answer, NoPolicy),  # If false, it is unknown whether there is a policy.
                "reason": _reason(note.answer),
                "until": entry.checked_at + note.ttl,
            },
            "unread": entry.unread,
            "withheld": entry.cached is not None and self._lookup.rules.withholds(Apply(entry.cached.policy)),
            "dane": [
                {"next_hop": str(hop), "seen_at": dane.at} | tlsa_document(dane.observation)
                for hop, dane in self._dane.known(domain)
            ],
        }

    async def _status(self) -> JSON:
        store = await self._store.status()
        rules, discovered = self._lookup.rules, self._lookup.discovered
        ended, failed = discovered.counts()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "config": self.config,
            "configured_at": self._configured_at,
            "sockets": [str(endpoint) for endpoint in self.sockets],
            "style": {"chosen": rules.style.value, "why": self._why_style},
            "dane": {"chosen": rules.dane.value, "why": self._why_dane},
            "shadow_since": self._shadow.since,
            "database": {
                "writable": store.trouble is None,
                "trouble": store.trouble,
                "trouble_since": store.trouble_since,
                "begun_anew": store.anew,
                "begun_anew_at": store.anew_at,
                "pending_writes": store.waiting,
            },
            "policies": {
                "stored": store.counts and store.counts.stored,
                "in_memory": len(self._memory.policies()),
                "not_renewed": store.counts and store.counts.not_renewed,
                "ending": store.counts and store.counts.ending,
                "first_ends_at": store.counts and store.counts.first_ends_at,
            },
            "no_policies_in_memory": self._memory.count_notes(),
            "discoveries": {
                "minutes": discovered.minutes,
                "ended": ended,
                "failed": failed,
                "last_failure": discovered.last_failure or None,
            },
        }


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user who has made a connection."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, user, _ = _UCRED.unpack(credentials)
    return int(user)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Read the line of a request. Return b"" if the client has closed the connection."""
    try:
        return await reader.readline()
    except ValueError:  # The line is too long. For an empty line, `parse_request` raises an error that says so.
        return b"\n"


def parse_request(line: bytes) -> tuple[str, PolicyDomain | None]:
    """Return the request in a line, and its domain if it has one. Raises RequestError."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected a JSON object on one line of at most {_MAX_REQUEST} bytes") from error
    match request:
        case {"request": "list" | "status" | "shadow" as name}:
            return name, None
        case {"request": "show" | "explain" | "forget" | "refresh" as name, "domain": str(domain)}:
            return name, _domain(domain)
    alone, with_domain = '"list", "status" or "shadow"', '"show", "explain", "forget" or "refresh"'
    raise RequestError(f'expected "request" to be {alone}, or {with_domain} with a "domain"')


def _domain(text: str) -> PolicyDomain:
    try:
        return next_hop(text.encode("utf-8", "surrogatepass")).domain
    except PolicyDomainError as error:
        raise RequestError(f"{text!a} cannot have a policy: {error}") from error


def _reason(answer: NoPolicy | Unavailable) -> str:
    return answer.reason if isinstance(answer, NoPolicy) else str(answer.failure)
