"""What the daemon counts of itself, in plain integers that are read when somebody wants metrics.

Nothing here grows with the domains that are asked for: all keys are words of this program.
"""

import bisect
import collections
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.observation import (
    DiscoveryObservation,
    DnsFailed,
    FetchFailed,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    Stage,
)

NOTFOUND, TEMP = "notfound", "temp"
ANSWERS = ("secure", "dane-only", "encrypt", "may", NOTFOUND, TEMP)  # Levels of Postfix, then what is none.
FAILED = "failed"
# Upper bounds in seconds. A query is answered within server.answer_within, a discovery ends with fetch.timeout.
_WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)


@dataclass(frozen=True, slots=True)
class Extent:
    """How many of something there are, and when the first of them ends, in seconds since the epoch."""

    count: int = 0
    earliest_end: float | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked for at each scrape.

    `answers` makes test queries of so many seconds at most, and says whether all sockets answer. `withheld_since` is
    None while enforced policies are given to Postfix, and otherwise the time since which they are withheld, in seconds
    since the epoch. `fleet` is what `cache.fleet` says of its state, or None.
    """

    answers: Callable[[float], Awaitable[bool]]
    exceptions: Callable[[], Extent] = Extent
    withheld_since: Callable[[], float | None] = lambda: None
    fleet: Callable[[], Mapping[str, Any] | None] = lambda: None


class Histogram:
    """How long something took: how often it took at most each of `bounds` seconds, but longer than the one before."""

    def __init__(self, bounds: Sequence[float] = _WAITS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # The last one is of those that took longer than all bounds.
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Tally:
    """Counts of answers, of waits for them, and of discoveries."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {answer: [0] for answer in ANSWERS}
        self.waits = Histogram()
        self.discoveries: collections.Counter[tuple[str, str]] = collections.Counter()  # By their stage and result.
        self.discovery_seconds = Histogram()

    def answered(self, reply: Reply) -> list[int]:
        """Count a reply. What is returned is its count, to be increased whenever the same bytes are sent again."""
        count = self.answers[_answer(reply)]
        count[0] += 1
        return count

    def discovered(self, last: DiscoveryObservation, seconds: float) -> None:
        """Count a discovery that ended with an observation."""
        self.discoveries[_end(last)] += 1
        self.discovery_seconds.observe(seconds)


def _answer(reply: Reply) -> str:
    if reply.status is Status.NOTFOUND:
        return NOTFOUND
    if reply.status is not Status.OK:
        return TEMP
    return reply.text.partition(" ")[0]


def _end(last: DiscoveryObservation) -> tuple[str, str]:
    """The stage that a discovery ended in, and what came of it."""
    match last:
        case PolicyFetched(policy):
            return _word(Stage.POLICY), policy.mode.value
        case PolicyInvalid(failure) | FetchFailed(failure) | DnsFailed(failure):
            return _word(failure.stage), FAILED
        case RecordFound():
            return _word(Stage.RECORD), "unchanged"  # The policy that is cached still holds, or is not fetched yet.
        case RecordAbsent():
            return _word(Stage.RECORD), "no-policy"
        case RecordInvalid():
            return _word(Stage.RECORD), "invalid"


def _word(stage: Stage) -> str:
    return stage.name.lower()
