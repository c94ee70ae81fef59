"""From a request to a reply: runs `decide` with the adapters, and keeps what it makes of the entries.

A domain that is known is answered at once, and its reply lies ready from then on, for as long as it holds. For any
other, one discovery is under way, however many ask, and all of them wait for it. Whoever has waited for `answer_within`
seconds is answered without it; the discovery goes on, and its result is kept. Where DANE may decide, it is looked up at
the same time as the record.
"""

import asyncio
import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace

from postfix_mtasts.cache.entries import Entries
from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import DaneSetting
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.steps import Steps, too_late
from postfix_mtasts.daemon.tally import Tally
from postfix_mtasts.daemon.together import Others, Turn
from postfix_mtasts.daemon.work import Recent, SingleFlight
from postfix_mtasts.dns.nameservers import MAX_LATE
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log import events
from postfix_mtasts.postfix.reply import NOTFOUND, ReplyRules, beside_dane, reply_to
from postfix_mtasts.postfix.socketmap import Reply, Request
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.sts.decide import Decision, Happening, RefreshRequested, asks_others, decide
from postfix_mtasts.sts.domain import NextHop, PolicyDomain, PolicyDomainError, next_hop
from postfix_mtasts.sts.elsewhere import ForgottenElsewhere, KnownElsewhere
from postfix_mtasts.sts.entry import Answer, Apply, Entry, Exempt, Unavailable
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import Asked, Due

# At most so many known policies are looked up again at once; the next query will, when DNS is well again. New domains,
# which may all hang, do not count, so that they do not keep known policies from being checked.
MAX_BEHIND = 100
# Of them, those of one owner, whose nameservers may hang: by labels at the end of domains, what may be under way.
_MAX_OF_OWNER = {2: 50, 3: 25}
_MINUTES = 10  # For which the results of discoveries are counted.


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
        exceptions: Exceptions,
        *,
        answer_within: float,
        others: Others | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.answer_within = answer_within
        self.at_once = memory.ready.get  # The reply to a request, both as they go over the wire, if it lies ready.
        self.discovered = Recent(_MINUTES)
        self.tally = Tally()
        self.exceptions = exceptions
        # Called for each answer that did not lie ready, with the rules by which it is told.
        self.on_reply: Callable[[NextHop, Answer, ReplyRules], None] = lambda hop, answer, rules: None
        self._rules = rules
        self._entries = Entries(memory, store)
        self._ready = memory.ready
        self._resolver = resolver
        self._steps = Steps(resolver, fetcher)
        self._dane = dane
        self._others = others
        self._clock = clock
        self._discoveries: SingleFlight[PolicyDomain, Answer] = SingleFlight()
        self._behind: set[PolicyDomain] = set()  # Domains that were answered, and are being looked up again.
        exceptions.on_change = memory.ready.clear

    @property
    def under_way(self) -> int:
        """How many discoveries are under way."""
        return len(self._discoveries)

    @property
    def rules(self) -> ReplyRules:
        """How answers are phrased for Postfix."""
        return self._rules

    @rules.setter
    def rules(self, rules: ReplyRules) -> None:
        self._rules = rules
        self._ready.clear()

    async def reply(self, request: Request) -> Reply:
        """The reply to one request."""
        try:
            hop = next_hop(request.key)
        except PolicyDomainError:
            count = self.tally.answered(NOTFOUND)
            self._ready.put(None, request.encode(), NOTFOUND.encode(), math.inf, count)
            return NOTFOUND
        clock = asyncio.get_running_loop().time
        begun = clock()
        rules = self.rules.of_map(request.name)
        answer, until = await self.answer(hop, rules)
        reply = reply_to(hop.domain, answer, rules)
        exception = self.exceptions.of(hop.domain)
        self.on_reply(hop, Exempt(exception) if exception else answer, rules)
        if exception:
            reply = await self._under(exception, hop, rules, reply, begun + self.answer_within)
        count = self.tally.answered(reply)
        if not until:
            self.tally.waits.observe(clock() - begun)
        elif not exception and not rules.withholds(answer):  # Of those that are withheld, each query counts.
            self._ready.put(hop.domain, request.encode(), reply.encode(), until, count)
        return reply

    async def answer(self, hop: NextHop, rules: ReplyRules) -> tuple[Answer, float]:
        """What is known of a next hop, or can be found out in time; and until when it holds if nothing is observed.

        That time is 0.0 for an answer that was waited for, since its reasons may have changed meanwhile.
        """
        entry = self._entries.at_hand(hop.domain)
        until = math.inf if entry else 0.0
        answer: Answer | None = None
        clock = asyncio.get_running_loop().time
        end = clock() + self.answer_within
        try:
            async with asyncio.timeout_at(end):
                entry = entry or await self._entries.stored(hop.domain)
                decision = self._decide(hop.domain, entry, Asked())
                answer, until = decision.answer, min(until, decision.until)
                if not answer:
                    answer = await self._discover(hop, decision, rules)
                elif decision.action:
                    self._begin_behind(hop.domain, decision)
                return await self._beside_dane(hop, answer, until) if rules.heeds_dane(answer) else (answer, until)
        except TimeoutError:
            # If there is an answer, it is DANE that is still unknown. And a process that was stopped knows nothing.
            unknown = bool(answer) or not entry or entry.unread or clock() > end + MAX_LATE
            return self._late(hop, rules, unknown=unknown), 0.0

    async def renew(self, domain: PolicyDomain) -> None:
        """Fetch a policy again, or forget the domain, if it is time."""
        entry = await self.entry(domain)
        decision = self._decide(domain, entry, Due())
        if decision.action:
            await self._discoveries.result(domain, lambda: self._run(domain, decision))

    async def refresh(self, domain: PolicyDomain) -> Answer:
        """Look up the record and fetch the policy now, as an administrator wants; what holds for the domain then."""
        await self._discoveries.after(domain)
        return await self._discoveries.result(domain, lambda: self._refresh(domain))

    async def forget(self, domain: PolicyDomain) -> bool:
        """Drop all that is known of a domain; whether there was anything."""
        entry = await self.entry(domain)
        await self._discoveries.after(domain)  # It would bring back what it began with.
        entry = self._entries.at_hand(domain) or entry
        # Infinity is later than any use that another daemon may have noted.
        self._entries.keep(domain, replace(entry, last_used=math.inf), None)
        return entry != Entry()

    async def learn(self, domain: PolicyDomain, known: KnownElsewhere | ForgottenElsewhere) -> None:
        """Take note of what another relay knows of a domain, or had forgotten, if it is known here."""
        entry = await self.entry(domain)
        if isinstance(known, KnownElsewhere) and entry != Entry():
            self._decide_now(domain, entry, known)
        elif isinstance(known, ForgottenElsewhere) and not decide(entry, known, self._clock()).entry:
            await self.forget(domain)

    async def entry(self, domain: PolicyDomain) -> Entry:
        """What is known of a domain."""
        return await self._entries.get(domain)

    async def aclose(self) -> None:
        """Cancel all discoveries."""
        for under_way in (self._discoveries, self._dane):
            await under_way.aclose()

    async def _discover(self, hop: NextHop, decision: Decision, rules: ReplyRules) -> Answer:
        """What the discovery of a domain comes to, which begins with a decision unless one is under way."""
        if rules.dane is not DaneSetting.OFF:
            self._dane.begin(hop)
        return await self._discoveries.result(hop.domain, lambda: self._run(hop.domain, decision))

    def _late(self, hop: NextHop, rules: ReplyRules, *, unknown: bool) -> Answer:
        """The answer where a discovery takes too long. But another relay may have told of a policy meanwhile."""
        known = self._entries.at_hand(hop.domain)
        live = known.live(self._clock()) if known and not unknown else None
        if live and not rules.heeds_dane(Apply(live.policy)):
            return Apply(live.policy)
        late = too_late(self.answer_within, defer=unknown or live is not None)
        if not self.exceptions.of(hop.domain):  # Otherwise it is the exception that the log tells of.
            events.decided(hop.domain, late)
        return late

    def _begin_behind(self, domain: PolicyDomain, decision: Decision) -> None:
        """Perform the action of a decision, unless enough is under way behind answers."""
        if domain in self._behind or not self._has_place(domain):
            return
        self._behind.add(domain)
        task = self._discoveries.begin(domain, lambda: self._run(domain, decision))
        task.add_done_callback(lambda _: self._behind.discard(domain))

    def _has_place(self, domain: PolicyDomain) -> bool:
        if len(self._behind) < min(_MAX_OF_OWNER.values()):
            return True
        return len(self._behind) < MAX_BEHIND and all(
            sum(other.end(labels) == domain.end(labels) for other in self._behind) < most
            for labels, most in _MAX_OF_OWNER.items()
        )

    async def _beside_dane(self, hop: NextHop, answer: Answer, until: float) -> tuple[Answer, float]:
        """What DANE leaves of an answer that holds until some time; and until when that holds."""
        at_hand = self._dane.at_hand(hop)
        until = min(until, at_hand.until()) if at_hand else 0.0
        left = beside_dane(answer, at_hand.observation if at_hand else await self._dane.of(hop))
        if left is not answer and not until and (isinstance(answer, Exempt) or not self.exceptions.of(hop.domain)):
            events.decided(hop.domain, left)
        return left, until

    async def _under(
        self, exception: PolicyException, hop: NextHop, rules: ReplyRules, without: Reply, end: float
    ) -> Reply:
        """The reply under an exception, by that time of the event loop. `without` is the one without the exception.

        It is made anew for each query, never kept ready: so each use is counted, and it ends when the exception does.
        """
        answer: Answer = Exempt(exception)
        if rules.heeds_dane(answer):
            try:
                async with asyncio.timeout_at(end):
                    answer, _ = await self._beside_dane(hop, answer, math.inf)
            except TimeoutError:
                answer = too_late(self.answer_within, defer=True)
        reply = reply_to(hop.domain, answer, rules)
        if reply != without:
            self.exceptions.used(hop.domain, exception, reply, without)
        return reply

    async def _run(self, domain: PolicyDomain, decision: Decision, *, alone: bool = False) -> Answer:
        """Perform the action of a decision, decide upon what it observed, and so on until there is no action.

        Others are asked first what they know, unless we are to see for ourselves, `alone`.
        """
        clock = asyncio.get_running_loop().time
        begun, observation = clock(), None
        turn: Turn | None = None
        while action := decision.action:
            known = decision.entry or Entry()
            now = self._clock()
            if self._others and not turn and (alone or asks_others(known, action, now)):
                turn = self._others.turn(domain, known, is_waited_for=not known.live(now))
                if not alone:
                    decision = await turn.ask(decision, functools.partial(self._decide_now, domain, known))
                    continue
            decision = self._decide_now(domain, known, observation := await self._steps.perform(domain, action))
        if turn:
            turn.end(decision.entry)
        if observation:
            self.tally.discovered(observation, clock() - begun)
        if not decision.answer:
            raise AssertionError("neither an answer nor an action")
        if not isinstance(decision.answer, Apply) or decision.answer.fetched:
            events.decided(domain, decision.answer)
            self.discovered.note(str(decision.answer.failure) if isinstance(decision.answer, Unavailable) else "")
        return decision.answer

    async def _refresh(self, domain: PolicyDomain) -> Answer:
        entry = await self.entry(domain)
        request = RefreshRequested(await self._resolver.record(domain))
        return await self._run(domain, self._decide_now(domain, entry, request), alone=True)

    def _decide_now(self, domain: PolicyDomain, entry: Entry, observation: Happening) -> Decision:
        """As `_decide`, after some time has passed: what is in memory may be newer than an entry."""
        return self._decide(domain, self._entries.at_hand(domain) or entry, observation)

    def _decide(self, domain: PolicyDomain, entry: Entry, observation: Happening) -> Decision:
        decision = decide(entry, observation, self._clock())
        for notice in decision.notices:
            events.noticed(domain, notice)
        self._entries.keep(domain, entry, decision.entry)
        return decision
