"""What is known of the TLSA records of next hops, for as long as DNS says, and apart from their policies."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from postfix_mtasts import tlsa
from postfix_mtasts.decide import dane_holds
from postfix_mtasts.domain import NextHop, PolicyDomain
from postfix_mtasts.memory import Bounded
from postfix_mtasts.observation import DaneAbsent, DaneObservation
from postfix_mtasts.resolver import DnsError, Resolver
from postfix_mtasts.work import Work


@dataclass(frozen=True, slots=True)
class _Known:
    observation: DaneObservation
    seen_at: float


class Dane:
    """Knows at most `limit` next hops. `clock` gives seconds since the epoch."""

    def __init__(self, resolver: Resolver, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._resolver = resolver
        self._clock = clock
        self._known: Bounded[NextHop, _Known] = Bounded(limit)
        self._work: Work[NextHop, DaneObservation] = Work()

    def begin(self, hop: NextHop) -> None:
        """Look up a next hop, unless it is known: `of` will be asked for it."""
        if not self._at_hand(hop):
            self._work.begin(hop, lambda: self._look_up(hop))

    async def of(self, hop: NextHop) -> DaneObservation:
        """What DNS says of a next hop."""
        return self._at_hand(hop) or await self._work.result(hop, lambda: self._look_up(hop))

    def known(self, domain: PolicyDomain) -> list[tuple[NextHop, DaneObservation, float]]:
        """What is known of the next hops of a domain, and since when."""
        now = self._clock()
        return [
            (hop, known.observation, known.seen_at)
            for hop, known in self._known.items()
            if hop.domain == domain and dane_holds(known.observation, known.seen_at, now)
        ]

    async def aclose(self) -> None:
        """Give up all lookups."""
        await self._work.aclose()

    def _at_hand(self, hop: NextHop) -> DaneObservation | None:
        known = self._known.get(hop)
        return known.observation if known and dane_holds(known.observation, known.seen_at, self._clock()) else None

    async def _look_up(self, hop: NextHop) -> DaneObservation:
        try:
            observation = await tlsa.look_up(self._resolver, hop)
        except DnsError as error:
            # Without MX hosts Postfix cannot deliver. As soon as it can, it must be known if the domain is signed.
            return DaneAbsent(f"MX lookup: {error}", 0.0)
        self._known.put(hop, _Known(observation, self._clock()))
        return observation
