"""What DNS says of the TLSA records of next hops, for as long as it may be cached."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from postfix_mtasts.cache.memory import Bounded
from postfix_mtasts.daemon.work import SingleFlight
from postfix_mtasts.dns import tlsa
from postfix_mtasts.dns.nameservers import DnsError, LocalShortageError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable, Failure, Stage
from postfix_mtasts.sts.schedule import dane_ttl
from postfix_mtasts.turns import Turns

_ENTRY, _HOST = 700, 70  # Octets that Python takes besides the texts: for an entry with its next hop, and for a host.


@dataclass(frozen=True, slots=True)
class DaneEntry:
    """What DNS said of a next hop, and when, in seconds since the epoch."""

    observation: DaneObservation
    at: float

    def until(self) -> float:
        """From then on it must be looked up again."""
        return self.at + dane_ttl(self.observation)


class Dane:
    """Knows at most `limit` next hops, of so many octets in all. `clock` gives seconds since the epoch."""

    def __init__(
        self, resolver: Resolver, limit: int, clock: Callable[[], float] = time.time, octets: float = math.inf
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._turns = Turns()
        self._seen: Bounded[NextHop, DaneEntry] = Bounded(limit, octets, _octets, self._dropped)
        self._hops: dict[PolicyDomain, tuple[NextHop, ...]] = {}  # Those of them that are seen.
        self._work: SingleFlight[NextHop, DaneObservation] = SingleFlight()

    def begin(self, hop: NextHop) -> None:
        """Look up a next hop, unless it is known: `of` will be asked for it."""
        if not self.at_hand(hop):
            self._work.begin(hop, lambda: self._look_up(hop))

    async def of(self, hop: NextHop) -> DaneObservation:
        """What DNS says of a next hop."""
        seen = self.at_hand(hop)
        return seen.observation if seen else await self._work.result(hop, lambda: self._look_up(hop))

    def at_hand(self, hop: NextHop) -> DaneEntry | None:
        """What is known of a next hop."""
        seen = self._seen.get(hop)
        return seen if seen and self._holds(seen) else None

    def known(self, domain: PolicyDomain) -> list[tuple[NextHop, DaneEntry]]:
        """What is known of the next hops of a domain."""
        return [(hop, seen) for hop in self._hops.get(domain, ()) if (seen := self.at_hand(hop))]

    def failing(self) -> set[PolicyDomain]:
        """The domains that have a next hop of which it is unknown whether it has TLSA records."""
        return {
            hop.domain
            for hop, seen in self._seen.items()
            if isinstance(seen.observation, DaneFailed) and self._holds(seen)
        }

    async def aclose(self) -> None:
        """Give up all lookups."""
        await self._work.aclose()

    def _holds(self, seen: DaneEntry) -> bool:
        return seen.at <= self._clock() < seen.until()

    async def _look_up(self, hop: NextHop) -> DaneObservation:
        try:
            observation = await tlsa.look_up(self._resolver, hop, self._turns)
        except LocalShortageError as error:
            # This machine could not ask, while Postfix may well know the MX hosts.
            return DaneFailed(Failure(Stage.TLSA, f"{error}", result_type=None, is_local=True))
        except DnsError as error:
            # Without MX hosts Postfix cannot deliver. As soon as it can, it must be known if the domain is signed.
            return DaneAbsent(f"MX lookup: {error}", 0.0)
        if not self._seen.get(hop):
            self._hops[hop.domain] = (*self._hops.get(hop.domain, ()), hop)
        self._seen.put(hop, DaneEntry(observation, self._clock()))
        return observation

    def _dropped(self, hop: NextHop) -> None:
        rest = tuple(one for one in self._hops[hop.domain] if one != hop)
        if rest:
            self._hops[hop.domain] = rest
        else:
            del self._hops[hop.domain]


def _octets(seen: DaneEntry) -> int:
    """The memory that an entry takes, nearly."""
    match seen.observation:
        case DaneUsable(hosts):
            return _ENTRY + sum(_HOST + len(host) for host in hosts)
        case DaneAbsent(reason):
            return _ENTRY + len(reason)
        case DaneFailed(failure):
            return _ENTRY + len(failure.reason)
