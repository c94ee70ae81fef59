"""One discovery of a domain for all relays of a fleet.

Others are asked first, and told afterwards. Whoever has the turn discovers the domain. The others wait until what he
found is shared, or his turn has ended, and discover it themselves if that does not come in time. If Postfix waits for
the answer, they wait for `WITHIN`: whatever becomes of him or of the server, no answer comes later by more than this.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from postfix_mtasts.cache.fleet import WITHIN, Fleet
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
_LAST_LOOK = 0.05  # Seconds that the last look has.


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

    def turn(self, domain: PolicyDomain, known: Entry, *, is_waited_for: bool) -> "Turn":
        """The turn of a discovery that begins, with what is known of the domain, and whether Postfix waits for it."""
        return Turn(self._fleet, domain, known, WITHIN if is_waited_for else TURN)

    def follow(self, learn: Learn, policies: Callable[[], Iterable[tuple[PolicyDomain, Entry]]]) -> None:
        """Have what others tell of domains learned from now on, and tell them the policies at hand if they need it."""

        async def changed(domain: PolicyDomain) -> None:
            theirs = await self._fleet.look(domain, within=TURN)  # Nobody waits for it.
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
    """The turn of one discovery. `ask` others first, for some seconds, and `end` it with what was found."""

    def __init__(self, fleet: Fleet, domain: PolicyDomain, known: Entry, seconds: float) -> None:
        self._fleet = fleet
        self._domain = domain
        self._before = known
        self._seconds = seconds
        self._token = ""

    async def ask(self, decision: Decision, decide: Callable[[KnownElsewhere], Decision]) -> Decision:
        """The decision that follows from what others know. If it still has an action, it is our turn, or nobody's.

        Most of what is asked for is known to others, and then nobody needs the turn: to take it, and to end it, would
        take the server three times as long. So it is taken only after a look.
        """
        clock = asyncio.get_running_loop().time
        end, pause, token = clock() + self._seconds, _FIRST_PAUSE, ""
        while decision.action:
            theirs = await self._fleet.look(self._domain, token, max(_LAST_LOOK, end - clock()))
            if not theirs:
                return decision
            if theirs.is_ours:
                self._token = token
            if theirs.entry:
                fetch = decision.action.record_id if isinstance(decision.action, FetchPolicy) else None
                decision = decide(KnownElsewhere(theirs.entry, fetch))
                self._before = decision.entry or self._before
            if not token:
                token = self._fleet.token()
            elif not theirs.is_theirs or (left := end - _LAST_LOOK - clock()) <= 0:
                return decision
            elif decision.action:
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _LAST_PAUSE)
        return decision

    def end(self, after: Entry | None) -> None:
        """Tell others what was found, if anything was: `after` is what is known now."""
        before = self._before
        if after and _observed(after) != _observed(before):
            self._fleet.share(self._domain, after, self._token, is_news=_is_news(before, after))
        elif self._token:
            self._fleet.release(self._domain, self._token)


def _observed(entry: Entry) -> tuple[object, ...]:
    """What others may use. The same, found out again at another time, holds for longer, and so is something else."""
    return entry.cached, entry.failed, entry.note, entry.checked_at


def _is_news(before: Entry, after: Entry) -> bool:
    """Whether others, too, may know something else of the domain."""
    if not after.cached or not (before.cached or before.note or before.failed):
        return False
    return not before.cached or before.cached.policy != after.cached.policy
