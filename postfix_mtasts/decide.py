"""The life of a cached policy: what an observation makes of an entry, what Postfix is told, what is to be done next.

    decide(entry, observation, now) -> Decision(entry, answer, action)

`lookup` feeds it: first `Asked`, then whatever the action that it asked for brought to light, until there is an answer.
All rules of RFC 8461, 3.3 and 5.1 about the cache stand here, and only here.
"""

import enum
from dataclasses import dataclass

from postfix_mtasts.observation import (
    Asked,
    DnsFailed,
    Failure,
    FetchFailed,
    Observation,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
)
from postfix_mtasts.policy import Policy


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a domain that has had a policy: facts, never a reply. Times are seconds since the epoch."""

    policy: Policy
    text: str  # The policy file as it was published.
    record_id: str
    fetched_at: float

    def is_live(self, now: float) -> bool:
        """Whether the policy still binds: its age "has not exceeded" max_age (RFC 8461, 5.1)."""
        return now <= self.fetched_at + self.policy.max_age


class Source(enum.Enum):
    """Where an applied policy came from."""

    CACHE = "cache"
    FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class Apply:
    """The domain has this policy; what that means for Postfix depends on its mode."""

    policy: Policy
    source: Source


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """The domain has none."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Whether the domain has a policy could not be found out, and none is cached."""

    failure: Failure


Answer = Apply | NoPolicy | Unavailable


@dataclass(frozen=True, slots=True)
class LookUpRecord:
    """Ask DNS for the TXT record."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Fetch the policy that the record with this id announces."""

    record_id: str


Action = LookUpRecord | FetchPolicy


@dataclass(frozen=True, slots=True)
class Decision:
    """The entry as it is now, and either an answer or the action that will lead to one."""

    entry: Entry | None
    answer: Answer | None = None
    action: Action | None = None


def decide(entry: Entry | None, observation: Observation, now: float) -> Decision:
    """What follows from an observation at the time `now`."""
    match observation:
        case Asked():
            if entry and entry.is_live(now):
                return Decision(entry, Apply(entry.policy, Source.CACHE))
            return Decision(entry, action=LookUpRecord())
        case RecordFound(record):
            # An expired policy may not come back on a DNS answer alone, though its id be the same.
            return Decision(entry, action=FetchPolicy(record.id))
        case RecordAbsent():
            return Decision(entry, NoPolicy("no _mta-sts TXT record"))
        case RecordInvalid(reason):
            return Decision(entry, NoPolicy(f"invalid _mta-sts TXT record: {reason}"))
        case PolicyFetched(policy, text, record_id):
            # With max_age 0 it is expired at once, and still holds for the mail that asked (cf. RFC 8461, 3.2).
            return Decision(Entry(policy, text, record_id, now), Apply(policy, Source.FETCH))
        case DnsFailed(failure) | PolicyInvalid(failure) | FetchFailed(failure):
            return Decision(entry, Unavailable(failure))
