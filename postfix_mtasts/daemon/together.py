"""One discovery of a domain for all relays of a fleet.

Others are asked first, and told afterwards. Whoever has the turn discovers the domain. The others wait until what he
found is shared, or his turn has ended, and discover it themselves if that does not come in time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.fleet_jobs import TURN
from postfix_mtasts.config import ConfigError
from postfix_mtasts.config import Fleet as FleetSettings
from postfix_mtasts.config_fleet import read_fleet
from postfix_mtasts.sts.decide import Decision, FetchPolicy
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import ForgottenElsewhere, KnownElsewhere, seen_at
from postfix_mtasts.sts.entry import Entry

Learn = Callable[[PolicyDomain, KnownElsewhere | ForgottenElsewhere], Awaitable[None]]
# Seconds until it is looked again for what another relay finds. Twice as long each time, since most find it soon.
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 0.32


def fleet_of(settings: FleetSettings, file: str) -> Fleet | None:
    """The fleet that [fleet] in a configuration file names, if there is one. Raises ConfigError."""
    try:
        place = read_fleet(settings)
        if not place:
            return None
        # Only here is redis-py imported.
        from postfix_mtasts.cache.fleet_server import FleetServer
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except ImportError as error:
        raise ConfigError(f"{file}: [fleet] needs a library: apt install python3-redis") from error
    return Fleet(FleetServer(place), str(place))


class Others:
    """The other relays of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def turn(self, domain: PolicyDomain, known: Entry) -> "Turn":
        """The turn of a discovery that begins, with what is known of the domain."""
        return Turn(self._fleet, domain, known)

    def follow(self, learn: Learn, policies: Callable[[], Iterable[tuple[PolicyDomain, Entry]]]) -> None:
        """Have what others tell of domains learned from now on, and tell them the policies at hand if they need it."""

        async def changed(domain: PolicyDomain) -> None:
            theirs = await self._fleet.look(domain)
            if theirs and theirs.entry:
                await learn(domain, KnownElsewhere(theirs.entry))

        async def anew(since: float) -> bool:
            for domain, entry in policies():
                if seen_at(entry) >= since and not await self._fleet.share_anew(domain, entry):
                    return False
            return True

        self._fleet.on_changed = changed
        self._fleet.on_anew = anew
        self._fleet.on_forgotten = lambda domain, at: learn(domain, ForgottenElsewhere(at))


class Turn:
    """The turn of one discovery. `ask` others first, and `end` it with what was found."""

    def __init__(self, fleet: Fleet, domain: PolicyDomain, known: Entry) -> None:
        self._fleet = fleet
        self._domain = domain
        self._before = known
        self._token = ""

    async def ask(self, decision: Decision, decide: Callable[[KnownElsewhere], Decision]) -> Decision:
        """The decision that follows from what others know. If it still has an action, it is our turn, or nobody's."""
        clock = asyncio.get_running_loop().time
        end, pause = clock() + TURN, _FIRST_PAUSE
        token = self._fleet.token()
        while decision.action:
            theirs = await self._fleet.look(self._domain, token)
            if not theirs:
                return decision
            if theirs.is_ours:
                self._token = token
            if theirs.entry:
                fetch = decision.action.record_id if isinstance(decision.action, FetchPolicy) else None
                decision = decide(KnownElsewhere(theirs.entry, fetch))
                self._before = decision.entry or self._before
            if not theirs.is_theirs or clock() >= end:
                return decision
            if decision.action:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE)
        return decision

    def end(self, after: Entry | None) -> None:
        """Tell others what was found, if anything was: `after` is what is known now."""
        before = self._before
        if after and (after.cached, after.failed, after.note) != (before.cached, before.failed, before.note):
            self._fleet.share(self._domain, after, self._token, is_news=_is_news(before, after))
        elif self._token:
            self._fleet.release(self._domain, self._token)


def _is_news(before: Entry, after: Entry) -> bool:
    """Whether others, too, may know something else of the domain."""
    if not after.cached or not (before.cached or before.note or before.failed):
        return False
    return not before.cached or before.cached.policy != after.cached.policy
