"""From a request to a reply: runs `decide` with the adapters, and keeps what it makes of the entries.

What is known is answered at once, and the reply lies ready from then on for as long as it holds. For the rest, many may
ask for one domain: one piece of work is under way for it, and all wait for that. Who has waited for `answer_within`
seconds is answered without it, while it goes on and what it finds is kept. Where DANE may decide, it is looked up
beside the record.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.config import DaneSetting
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.work import SingleFlight, Turns
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log import events
from postfix_mtasts.postfix.reply import NOTFOUND, ReplyRules, beside_dane, reply_to
from postfix_mtasts.postfix.socketmap import Reply, Request
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.sts.decide import Action, Decision, FetchPolicy, LookUpRecord, RefreshRequested, decide
from postfix_mtasts.sts.domain import NextHop, PolicyDomain, PolicyDomainError, next_hop
from postfix_mtasts.sts.entry import Answer, Apply, Entry, Unavailable
from postfix_mtasts.sts.observation import Asked, DaneObservation, Due, Failure, Observation, PolicyFetched, Stage

# With so much work under way, no more is begun behind an answer: the next query will do it, when DNS is well again.
_MAX_BEHIND = 100
# Of the event loop, by what they cost: a policy is twenty times the work of a record, most of it the TLS handshake.
_ROUNDS_FOR_RECORD, _ROUNDS_FOR_POLICY = 1, 7


class Lookup:
    """Answers requests. `clock` gives seconds since the epoch, `answer_within` is in seconds."""

    def __init__(
        self,
        store: Store,
        memory: Memory,
        resolver: Resolver,
        fetcher: Fetcher,
        dane: Dane,
        rules: ReplyRules,
        *,
        answer_within: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.at_once = memory.ready.get  # The reply to a request, both as they go over the wire, if it lies ready.
        self._rules = rules
        self._store = store
        self._memory = memory
        self._resolver = resolver
        self._fetcher = fetcher
        self._dane = dane
        self._answer_within = answer_within
        self._clock = clock
        self._following: SingleFlight[PolicyDomain, Answer] = SingleFlight()
        self._turns = Turns()
        store.on_damage = self._store_all

    @property
    def rules(self) -> ReplyRules:
        """How answers are put."""
        return self._rules

    @rules.setter
    def rules(self, rules: ReplyRules) -> None:
        self._rules = rules
        self._memory.ready.clear()

    async def reply(self, request: Request) -> Reply:
        """The reply to one request."""
        try:
            hop = next_hop(request.key)
        except PolicyDomainError:
            self._memory.ready.put(None, request.encode(), NOTFOUND.encode(), math.inf)
            return NOTFOUND
        rules = self.rules.of_map(request.name)
        known = self._known(hop, rules)
        if not known:
            return reply_to(hop.domain, await self.answer(hop, rules), rules)
        answer, until = known
        reply = reply_to(hop.domain, answer, rules)
        self._memory.ready.put(hop.domain, request.encode(), reply.encode(), until)
        return reply

    async def answer(self, hop: NextHop, rules: ReplyRules) -> Answer:
        """What is known of a next hop, or can be found out in time."""
        entry: Entry | None = None
        answer: Answer | None = None
        try:
            async with asyncio.timeout(self._answer_within):
                entry = await self.entry(hop.domain)
                answer = await self._answer(hop, entry, rules)
                if rules.heeds_dane(answer):
                    answer = self._beside_dane(hop, answer, await self._dane.of(hop))
                return answer
        except TimeoutError:
            failure = Failure(Stage.DISCOVERY, f"not done within {self._answer_within:g} seconds, goes on")
            # If there is an answer, it is DANE that is still unknown.
            late = Unavailable(failure, defer=bool(answer) or not entry or entry.unread)
            events.decided(hop.domain, late)
            return late

    async def renew(self, domain: PolicyDomain) -> None:
        """Fetch a policy again, or forget the domain, if it is time."""
        entry = await self.entry(domain)
        decision = self._decide(domain, entry, Due())
        if decision.action:
            await self._follow(domain, decision)

    async def refresh(self, domain: PolicyDomain) -> Answer:
        """Look up the record and fetch the policy now, as an administrator wants; what holds for the domain then."""
        await self._following.after(domain)
        return await self._following.result(domain, lambda: self._refresh(domain))

    async def forget(self, domain: PolicyDomain) -> bool:
        """Drop all that is known of a domain; whether there was anything."""
        entry = await self.entry(domain)
        await self._following.after(domain)  # Or it would bring back what it began with.
        entry = self._memory.get(domain) or entry
        # Whenever it was last used, by another daemon too.
        self._keep(domain, replace(entry, last_used=math.inf), None)
        return entry != Entry()

    async def entry(self, domain: PolicyDomain) -> Entry:
        """What is known of a domain."""
        if entry := self._memory.get(domain):
            return entry
        try:
            stored = await self._store.get(domain)
        except StoreError:
            return Entry(unread=True)
        if entry := self._memory.get(domain):
            return entry  # Somebody was faster, and may have found out more.
        if stored:
            self._memory.put(domain, stored)
        return stored or Entry()

    async def aclose(self) -> None:
        """Give up all work that is under way."""
        for work in (self._following, self._dane):
            await work.aclose()

    def _known(self, hop: NextHop, rules: ReplyRules) -> tuple[Answer, float] | None:
        """The answer that holds until some time if nothing is done, and that time."""
        entry = self._memory.get(hop.domain)
        if not entry:
            return None
        decision = self._decide(hop.domain, entry, Asked())
        answer = decision.answer
        if not answer or decision.action:
            return None
        if not rules.heeds_dane(answer):
            return answer, decision.until
        seen = self._dane.at_hand(hop)
        return (beside_dane(answer, seen.observation), min(decision.until, seen.until())) if seen else None

    async def _answer(self, hop: NextHop, entry: Entry, rules: ReplyRules) -> Answer:
        domain = hop.domain
        decision = self._decide(domain, entry, Asked())
        if not decision.answer:
            if rules.dane is not DaneSetting.OFF:
                self._dane.begin(hop)
            return await self._follow(domain, decision)
        if decision.action and len(self._following) < _MAX_BEHIND:
            self._following.begin(domain, lambda: self._work(domain, decision))
        return decision.answer

    def _beside_dane(self, hop: NextHop, answer: Answer, dane: DaneObservation) -> Answer:
        left = beside_dane(answer, dane)
        if left is not answer:
            events.decided(hop.domain, left)
        return left

    async def _follow(self, domain: PolicyDomain, decision: Decision) -> Answer:
        """What the work comes to that leads from a decision to an answer; if some is under way for the domain, that."""
        return await self._following.result(domain, lambda: self._work(domain, decision))

    async def _work(self, domain: PolicyDomain, decision: Decision) -> Answer:
        while decision.action:
            observation = await self._perform(domain, decision.action)
            entry = self._memory.get(domain) or decision.entry or Entry()
            decision = self._decide(domain, entry, observation)
        if not decision.answer:
            raise AssertionError("neither an answer nor an action")
        if not isinstance(decision.answer, Apply) or decision.answer.fetched:
            events.decided(domain, decision.answer)
        return decision.answer

    async def _refresh(self, domain: PolicyDomain) -> Answer:
        entry = await self.entry(domain)
        request = RefreshRequested(await self._resolver.record(domain))
        return await self._work(domain, self._decide(domain, self._memory.get(domain) or entry, request))

    async def _perform(self, domain: PolicyDomain, action: Action) -> Observation:
        # However many domains are new, those that are known are answered meanwhile.
        match action:
            case LookUpRecord():
                await self._turns.take(_ROUNDS_FOR_RECORD)
                return await self._resolver.record(domain)
            case FetchPolicy(record_id):
                await self._turns.take(_ROUNDS_FOR_POLICY)
                fetched = await self._fetcher.fetch(domain, record_id)
                if isinstance(fetched, PolicyFetched) and fetched.findings:
                    events.found_in_policy(domain, fetched.findings)
                return fetched

    def _decide(self, domain: PolicyDomain, entry: Entry, observation: Observation | RefreshRequested) -> Decision:
        decision = decide(entry, observation, self._clock())
        for notice in decision.notices:
            events.noticed(domain, notice)
        self._keep(domain, entry, decision.entry)
        return decision

    def _keep(self, domain: PolicyDomain, before: Entry, after: Entry | None) -> None:
        if not after:
            self._memory.forget(domain)
            self._store.forget(domain, before)
        elif after is not before and not after.unread:
            self._memory.put(domain, after)
            if after.cached and _lasting(after) != _lasting(before):
                self._store.put(domain, after)

    def _store_all(self) -> None:
        for domain, entry in self._memory.policies():
            self._store.put(domain, entry)


def _lasting(entry: Entry) -> Entry:
    """What of an entry is worth a write. The rest is written along, and found out again after a restart."""
    return replace(entry, note=None, checked_at=0.0)
