"""From a request to a reply: runs `decide` with the adapters.

Many may ask for one domain at once; one discovery is under way for it, and all wait for that one. Who has waited for
`answer_within` seconds is answered without it, while it goes on and what it finds is kept.
"""

import asyncio
import time
from collections.abc import Callable

from postfix_mtasts import log
from postfix_mtasts.config import OnFailure
from postfix_mtasts.decide import Action, Answer, Entry, FetchPolicy, LookUpRecord, Unavailable, decide
from postfix_mtasts.domain import PolicyDomain, PolicyDomainError, policy_domain
from postfix_mtasts.fetcher import Fetcher
from postfix_mtasts.observation import Asked, Failure, Observation, PolicyFetched, Stage
from postfix_mtasts.reply import NOTFOUND, Style, reply_to, style_of
from postfix_mtasts.resolver import Resolver
from postfix_mtasts.socketmap import Reply, Request
from postfix_mtasts.store import Store, StoreError


class Lookup:
    """Answers requests. `clock` gives seconds since the epoch, `answer_within` is in seconds."""

    def __init__(
        self,
        store: Store,
        resolver: Resolver,
        fetcher: Fetcher,
        *,
        answer_within: float,
        style: Style,
        on_failure: OnFailure,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._fetcher = fetcher
        self._answer_within = answer_within
        self._style = style
        self._on_failure = on_failure
        self._clock = clock
        self._discoveries: dict[PolicyDomain, asyncio.Task[Answer]] = {}

    async def reply(self, request: Request) -> Reply:
        """The reply to one request."""
        try:
            domain = policy_domain(request.key)
        except PolicyDomainError:
            return NOTFOUND
        answer = await self._answer(domain)
        return reply_to(domain, answer, style_of(request.name, self._style), self._on_failure)

    async def aclose(self) -> None:
        """Give up the discoveries that are under way."""
        discoveries = list(self._discoveries.values())
        for discovery in discoveries:
            discovery.cancel()
        await asyncio.gather(*discoveries, return_exceptions=True)

    async def _answer(self, domain: PolicyDomain) -> Answer:
        discovery = self._discoveries.get(domain)
        if not discovery:
            discovery = asyncio.create_task(self._discover(domain))
            self._discoveries[domain] = discovery
            discovery.add_done_callback(lambda _: self._discoveries.pop(domain))
        done, _ = await asyncio.wait({discovery}, timeout=self._answer_within)
        if done:
            return discovery.result()
        late = Unavailable(Failure(Stage.DISCOVERY, f"not done within {self._answer_within:g} seconds, goes on"))
        log.decided(domain, late)
        return late

    async def _discover(self, domain: PolicyDomain) -> Answer:
        """Follow the decisions until one has the answer, and keep what they made of the entry."""
        stored = await self._load(domain)
        decision = decide(stored, Asked(), self._clock())
        while decision.answer is None:
            observation = await self._perform(domain, decision.action)
            decision = decide(decision.entry, observation, self._clock())
        log.decided(domain, decision.answer)
        if decision.entry and decision.entry is not stored:
            await self._save(domain, decision.entry)
        return decision.answer

    async def _perform(self, domain: PolicyDomain, action: Action | None) -> Observation:
        match action:
            case FetchPolicy(record_id):
                fetched = await self._fetcher.fetch(domain, record_id)
                if isinstance(fetched, PolicyFetched) and fetched.findings:
                    log.found_in_policy(domain, fetched.findings)
                return fetched
            case LookUpRecord():
                return await self._resolver.record(domain)
            case None:
                raise AssertionError("neither an answer nor an action")

    async def _load(self, domain: PolicyDomain) -> Entry | None:
        try:
            return await self._store.get(domain)
        except StoreError as error:
            log.store_failed(domain, error)
            return None

    async def _save(self, domain: PolicyDomain, entry: Entry) -> None:
        try:
            await self._store.put(domain, entry)
        except StoreError as error:
            log.store_failed(domain, error)
