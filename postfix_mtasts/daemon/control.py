"""The control socket: a Unix socket by which an administrator inspects and controls the running daemon.

The daemon's user, root and the group `server.control_group` can connect to it. The group may only look.

    request  one JSON object on one line of at most 4096 bytes, one per connection:
             {"request": "list" | "brief" | "status" | "exceptions" | "shadow"}, or
             {"request": "show" | "explain" | "forget" | "refresh", "domain": "example.com"}, or
             {"request": "except", "domain", "until": "2026-12-31", "reason", "level", "dane"}, where the last two may
             be left out, or {"request": "unexcept", "domain"}
    reply    JSON objects, one per line. The last one is {"done": true}, or {"error": "why"}. Without it, the reply is
             incomplete.

    list     for each policy, in any order: {"domain", "row"}, with the row as in the database (`cache.row`); and for
             each domain in memory whose policy could not be fetched, as for show
    brief    {"domains", "in_trouble", "modes"}: how many domains there are, in trouble too, and how many of their
             policies are in each mode, or `expired`. Then 100 of each kind at most: as for show, domains to which mail
             is deferred, or whose policy could not be fetched or renewed, the most urgent first; as for list, others
    show     {"domain", "row" or null, "checked_at", "failed", "note" or null, "unread", "withheld", "dane",
             "exception" or null, "deferred": why mail is deferred, as far as is known, or null}
    explain  what the daemon answers from, for postfix-mtasts-query (`daemon.explain`). Nothing is looked up or noted.
    forget   {"domain", "forgotten"}: whether there was anything to forget. The next query starts a new discovery.
    refresh  as for show, and {"fetched", "reason" or null}. The record is looked up and the policy is fetched now,
             regardless of its age and of failures. If that fails, `reason` says why, and a cached policy stays.
    exceptions  for each exception {"domain", "until", "ends_at", "reason", "level", "dane", "added", "over",
             "overruled", "used", "last_used", "since", "domains"}: `added` by command, `over` if it has ended,
             `overruled` by one that was added for the same domain; how often it has changed an answer `since` then,
             and for which domains it last did
    except   {"domain", "replaced"}: the exception was added, in place of one that had been added for the same domain
    unexcept {"domain", "removed"}: whether there was one that had been added
    shadow   {"since"}, null if policies are enforced; else also the counts, and then a document for each next hop that
             would not be delivered to (`daemon.shadow`)
    fleet    who shares with this relay, what, and since when: {"relays", "domains", "since"}, and as in the status
    forget everywhere, refresh everywhere
             as forget and refresh, and {"relays"}: how many relays were told to do the same
    status   {"version", "pid", "started_at", "config", "configured_at", "sockets", "style", "dane", "shadow_since",
             "database", "policies", "no_policies_in_memory", "discoveries", "exceptions": {"holding", "since",
             "first_to_end", "trouble"}, "fleet": null, or as `cache.fleet` has it}. `configured_at` is when style and
             dane were chosen. Of the discoveries of new domains in the last minutes: {"minutes", "ended", "failed",
             "last_failure"}

Times are seconds since the epoch. A client that neither sends nor reads for 30 seconds is disconnected.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from postfix_mtasts import __version__
from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.fleet_jobs import FleetError
from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.config import Endpoint, ExceptionSetting
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import RefusedError
from postfix_mtasts.daemon.explain import print_explanation
from postfix_mtasts.daemon.known import print_exceptions, print_holding, print_known
from postfix_mtasts.daemon.listing import Listing
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.request import MAX_REQUEST, About, RequestError, parse_request
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.daemon.work import Connections
from postfix_mtasts.rights import user_of
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Apply, Entry, NoPolicy, Unavailable

MODE = 0o600  # The mode of the socket. Whoever makes the daemon forget a policy weakens the encryption of mail.
GROUP_MODE = 0o660  # Its mode if a group may use it.
_TIMEOUT = 30.0  # Seconds for a client to send its request, or to read one line of the reply.
_CHANGES = ("forget", "forget everywhere", "refresh", "refresh everywhere", "except", "unexcept")

JSON = dict[str, Any]
Send = Callable[[JSON], Awaitable[None]]


class Control:
    """Answers requests on the control socket. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        lookup: Lookup,
        store: Store,
        memory: Memory,
        dane: Dane,
        shadow: Shadow,
        fleet: Fleet | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._shadow = shadow
        self._fleet = fleet
        self.config = ""  # The configuration file.
        self.sockets: Sequence[Endpoint] = ()  # Where Postfix can ask.
        self.chosen("", "")
        self._lookup = lookup
        self._store = store
        self._memory = memory
        self._dane = dane
        self._listing = Listing(memory, store, dane, self._document)
        self._started_at = clock()
        self.connections = Connections(self._serve, MAX_REQUEST)

    def chosen(self, why_style: str, why_dane: str) -> None:
        """Note that `lookup.rules` were chosen just now, and why."""
        self._why_style, self._why_dane = why_style, why_dane
        self._configured_at = self._clock()

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
                await self._reply(line, send, may_change=user_of(writer.get_extra_info("socket")) in (0, os.geteuid()))
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
        except (RequestError, RefusedError, StoreError, FleetError) as error:
            await send({"error": str(error)})
        else:
            await send({"done": True})

    async def _fulfil(self, request: str, domain: About, send: Send) -> None:
        match request, domain:
            case "show", PolicyDomain():
                await send(self._document(domain, await self._lookup.entry(domain)))
            case "explain", PolicyDomain():
                await send(await self._explain(domain))
            case "forget", PolicyDomain():
                await send({"domain": domain.name, "forgotten": await self._lookup.forget(domain)})
            case "refresh", PolicyDomain():
                await send(await self._refresh(domain))
            case "exceptions", None:
                for one in print_exceptions(self._lookup.exceptions):
                    await send(one)
            case "except", ExceptionSetting():
                await send({"domain": domain.domain, "replaced": await self._lookup.exceptions.add(domain)})
            case "unexcept", str():
                await send({"domain": domain, "removed": await self._lookup.exceptions.remove(domain)})
            case "fleet", None:
                await send(await self._the_fleet().members() | self._the_fleet().status())
            case "forget everywhere", PolicyDomain():
                fleet, forgotten = self._the_fleet(), await self._lookup.forget(domain)
                await send({"domain": domain.name, "forgotten": forgotten, "relays": await fleet.forget(domain)})
            case "refresh everywhere", PolicyDomain():
                document = await self._refresh(domain)
                await send({**document, "relays": await self._the_fleet().tell(domain)})
            case "status", None:
                await send(await self._status())
            case "shadow", None:
                for document in self._shadow.documents():
                    await send(document)
            case "brief", None:
                async for document in self._listing.in_brief():
                    await send(document)
            case _:
                async for document in self._listing.everything():
                    await send(document)

    def _the_fleet(self) -> Fleet:
        if not self._fleet:
            raise RequestError("the daemon's configuration has no [fleet]")
        return self._fleet

    async def _refresh(self, domain: PolicyDomain) -> JSON:
        answer = await self._lookup.refresh(domain)
        entry = await self._lookup.entry(domain)
        fetched = isinstance(answer, Apply) and answer.fetched  # If true, there is neither a note nor a failure.
        why = answer if isinstance(answer, NoPolicy | Unavailable) else entry.note and entry.note.answer
        reason = why.reason if why else str(entry.failed[0].failure) if entry.failed else None
        return self._document(domain, entry) | {"fetched": fetched, "reason": reason}

    async def _explain(self, domain: PolicyDomain) -> JSON:
        lookup = self._lookup
        entry = await lookup.entry(domain)
        exception = lookup.exceptions.of(domain)
        return print_explanation(entry, lookup.rules, lookup.answer_within, self._dane.known(domain), exception)

    def _document(self, domain: PolicyDomain, entry: Entry) -> JSON:
        rules, exceptions = self._lookup.rules, self._lookup.exceptions
        return print_known(domain, entry, self._dane.known(domain), exceptions.of(domain), rules, self._clock())

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
            "exceptions": print_holding(self._lookup.exceptions),
            "fleet": self._fleet and self._fleet.status(),
        }


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Read the line of a request. Return b"" if the client has closed the connection."""
    try:
        return await reader.readline()
    except ValueError:  # The line is too long. For an empty line, `parse_request` raises an error that says so.
        return b"\n"
