"""Shadow mode (`reply.enforce = false`): Postfix is not told of enforced policies, and the daemon finds out what would
become of mail if it were.

A next hop whose policy was withheld is probed once a day, if Postfix still asks for it: at most one a second, behind
all answers, in turns between the owners of domains. What is gathered outlives the process, and so does the day on which
it began.
"""

import asyncio
import contextlib
import pathlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from postfix_mtasts.cache import withheld
from postfix_mtasts.cache.withheld import Gathered, WithheldError
from postfix_mtasts.config import Config
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.delivery.fate import Fate
from postfix_mtasts.delivery.hosts import Attempt
from postfix_mtasts.delivery.mx import Rules
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log import events
from postfix_mtasts.postfix.installation import CLIENT_SETTINGS, Client, client_of
from postfix_mtasts.postfix.installation import settings as settings_of
from postfix_mtasts.postfix.reply import ReplyRules, Style, beside_dane, reply_to
from postfix_mtasts.postfix.socketmap import Status
from postfix_mtasts.remote.network import CaError, mail_tls_context
from postfix_mtasts.remote.probe import Prober
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.policy import Mode, Policy

PAUSE = 1.0  # Seconds between two domains.
DEADLINE = 30.0  # Seconds for one domain: DNS, and three MX hosts that hang or many that answer.
CONCURRENCY = 30  # Domains under way: one a second for as long as each may take.
_OWNER_LABELS = 2  # At the end of a domain.
_SAVE = 60.0  # Seconds between two writes of the file.

JSON = dict[str, Any]


class Shadow:
    """Gathers what is withheld in a file, while it is on. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        settings: Config,
        lookup: Lookup,
        resolver: Resolver,
        dane: Dane,
        clock: Callable[[], float] = time.time,
        pause: float = PAUSE,
        deadline: float = DEADLINE,
    ) -> None:
        self._path = pathlib.Path(f"{settings.cache.path}.shadow")
        self._fetch = settings.fetch
        self._lookup = lookup
        self._resolver = resolver
        self._dane = dane
        self._clock = clock
        self._pause, self._deadline = pause, deadline
        self._gathered: Gathered | None = None  # If it is off.
        self._is_changed = False
        self._attempt: Attempt | None = None  # If it is off, or there are no CAs.
        self._client = Client("")  # Until it is on.
        self._due = _Queue()
        self._has_due = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._under_way: dict[NextHop, asyncio.Task[None]] = {}
        lookup.on_reply = self.note

    @property
    def since(self) -> float | None:
        """When shadow mode began. None if it is off."""
        return self._gathered.since if self._gathered else None

    async def follow(self) -> None:
        """Begin or end, as the rules for replies say now, and look how Postfix connects to MX hosts."""
        if self._lookup.rules.enforce:
            await self._end()
        else:
            await self._begin()

    async def _begin(self) -> None:
        self._client = client_of(await settings_of(CLIENT_SETTINGS))
        prober = self._prober(self._client)
        self._attempt = Attempt(self._resolver, prober) if prober else None
        if not self._gathered:
            self._gathered = await self._read() or Gathered(self._clock())
            for hop, known in self._gathered.hops.items():
                if known.is_due(self._clock()):
                    self._put(hop)
            self._is_changed = True
            await self.save()
        events.shadow(_day(self._gathered.since))

    def _prober(self, client: Client) -> Prober | None:
        """What connects to MX hosts as Postfix does: with its name and its CAs, but to public addresses only.

        None if there are no CAs any more, as at a reload after their file was removed.
        """
        ours, tls = self._fetch.ca_file, None
        if client.ca_file or client.ca_path:
            try:
                tls = mail_tls_context(client.ca_file, client.ca_path, ours)
            except CaError as error:
                events.shadow_trouble(f"{error}; the CAs of fetch.ca_file judge")
        try:
            tls = tls or mail_tls_context("", "", ours)
        except CaError as error:
            events.shadow_trouble(f"{error}; nothing is probed until the daemon is reloaded with it in order")
            return None
        allowed = self._fetch.allow_addresses
        return Prober(self._resolver, tls, client.helo, allowed, mail_addresses=allowed)

    async def _end(self) -> None:
        began = self._gathered or await self._read()
        self._gathered, self._attempt = None, None
        await self.aclose()
        try:
            await asyncio.to_thread(withheld.remove, self._path)
        except WithheldError as error:
            events.shadow_trouble(f"{self._path}: {error}; remove it, or the next shadow mode goes on with it")
        if began:
            events.shadow_ended(_day(began.since))

    def note(self, hop: NextHop, answer: Answer, rules: ReplyRules) -> None:
        """A query was answered by these rules."""
        gathered = self._gathered
        if not gathered:
            return
        self._is_changed = True
        if isinstance(answer, Apply | NoPolicy):
            gathered.note_asked(hop.domain, has_policy=isinstance(answer, Apply))
        else:
            gathered.note_asked(hop.domain, has_policy=hop in gathered.hops)
        if rules.withholds(answer):
            if gathered.note_withheld(hop, rules.style, self._clock()).is_due(self._clock()):
                self._put(hop)
        elif not isinstance(answer, Unavailable):
            gathered.forget(hop)

    async def run(self) -> None:
        """Probe what is due, and write what was gathered, forever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe_all())
            tasks.create_task(self._save_all())

    async def aclose(self) -> None:
        """Give up all probes, and write what was gathered."""
        self._due = _Queue()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.save()

    async def save(self) -> None:
        """Write what was gathered, if it has changed."""
        if not self._gathered or not self._is_changed:
            return
        self._is_changed = False
        self._gathered.forget_unused(self._clock())
        try:
            await asyncio.to_thread(withheld.write, self._path, self._gathered.copy())
        except WithheldError as error:
            self._is_changed = True
            events.shadow_trouble(f"{self._path}: {error}; what is gathered is lost at a restart")

    def documents(self) -> Iterator[JSON]:
        """What was gathered, for the control socket: the counts, then each next hop that would not be delivered to."""
        gathered = self._gathered
        if not gathered:
            yield {"since": None}
            return
        yield {
            "since": gathered.since,
            "asked": len(gathered.asked),
            "asked_is_at_least": gathered.is_full,
            "with_policy": len(gathered.with_policy),
            "enforced": len(gathered.hops),
            **gathered.counts(),
        }
        for hop, known in list(gathered.hops.items()):
            found = known.result
            if found and found.state in ("deferred", "returned", "unclear"):
                yield {
                    "domain": str(hop),
                    "state": found.state,
                    "reason": found.reason,
                    "probed_at": found.at,
                    "queries": known.queries,
                    "asked_at": known.asked_at,
                }

    async def _read(self) -> Gathered | None:
        try:
            return await asyncio.to_thread(withheld.read, self._path)
        except WithheldError as error:
            events.shadow_trouble(f"{self._path}: {error}; shadow mode begins anew")
            return None

    async def _save_all(self) -> None:
        while True:
            await asyncio.sleep(_SAVE)
            await self.save()

    def _put(self, hop: NextHop) -> None:
        if hop not in self._under_way:
            self._due.put(hop)
            self._has_due.set()

    async def _probe_all(self) -> None:
        while True:
            await self._has_due.wait()
            await self._slots.acquire()
            if hop := self._due.pop():
                task = asyncio.create_task(self._probe(hop))
                self._under_way[hop] = task
                task.add_done_callback(lambda task, hop=hop: self._ended(hop, task))  # type: ignore[misc]
                await asyncio.sleep(self._pause)
            else:
                self._has_due.clear()
                self._slots.release()

    def _ended(self, hop: NextHop, task: asyncio.Task[None]) -> None:
        self._slots.release()
        del self._under_way[hop]
        if not task.cancelled() and (error := task.exception()):
            events.internal_error(error)

    async def _probe(self, hop: NextHop) -> None:
        gathered, attempt = self._gathered, self._attempt
        known = gathered.hops.get(hop) if gathered else None
        if not gathered or not attempt or not known or not known.is_due(self._clock()):
            return
        live = (await self._lookup.entry(hop.domain)).live(self._clock())
        if not live or live.policy.mode is not Mode.ENFORCE:
            gathered.forget(hop)
            return
        fate = Fate("unclear", f"its MX hosts took longer than {self._deadline:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline):
                fate = await self._fate(attempt, hop, live.policy, known.style)
        known.result = withheld.result(fate.state, fate.reason, self._clock())
        self._is_changed = True
        events.would_be(hop.domain, str(hop), known.result.state, known.result.reason)

    async def _fate(self, attempt: Attempt, hop: NextHop, policy: Policy, style: Style) -> Fate:
        """What becomes of mail if the policy is enforced."""
        rules = replace(self._lookup.rules, style=style, enforce=True)
        answer: Answer = Apply(policy)
        if rules.heeds_dane(answer):
            answer = beside_dane(answer, await self._dane.of(hop))
        told = reply_to(hop.domain, answer, rules)
        if told.status is Status.NOTFOUND:
            return Fate("dane")
        if told.status is not Status.OK:
            return Fate("deferred", told.text)
        hosts = answer.hosts if isinstance(answer, YieldToDane) else ()
        return await attempt.make(hop, Rules(policy, self._client.judges_by_hostname(style)), hosts)


class _Queue:
    """Next hops that are due, each once; the owners of domains take turns."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, deque[NextHop]] = OrderedDict()
        self._hops: set[NextHop] = set()

    def put(self, hop: NextHop) -> None:
        """Put a next hop at the end of its owner's, unless it is there."""
        if hop not in self._hops and len(self._hops) < withheld.MAX_HOPS:
            self._owners.setdefault(hop.domain.end(_OWNER_LABELS), deque()).append(hop)
            self._hops.add(hop)

    def pop(self) -> NextHop | None:
        """Take the first of the owner whose turn it is, if there is one."""
        if not self._owners:
            return None
        whose, hops = self._owners.popitem(last=False)
        hop = hops.popleft()
        if hops:
            self._owners[whose] = hops
        self._hops.remove(hop)
        return hop


def _day(moment: float) -> str:
    """The day of a time, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
