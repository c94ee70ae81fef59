"""What is known of a domain whose policy we publish. Values only: `rules` says what follows.

Dates are in seconds of a clock of our own, which counts only time that has surely passed (`Clock`).
"""

import enum
import hashlib
from dataclasses import dataclass

from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

DAY = 86_400.0
# A longer time between two events may be a clock that was set, and is not counted. `check` runs daily.
MAX_GAP = 3 * DAY
# A clock that is set forward by less than MAX_GAP is not noticed. So every date is a day later than it need be.
MARGIN = DAY
# How long DNS must have been without an MX host before the policy forbids it. Resolvers rarely cache MX records for
# longer than a day.
PARTING_AFTER = DAY + MARGIN
# How long the file outlives the record: longer than resolvers cache a record of ours (`records.TTL`).
RECORD_GONE_FOR = 3600.0
# The policy that is served before a domain leaves MTA-STS, with "a small max_age (e.g., one day)" (RFC 8461, 8.3).
GOODBYE = Policy(Mode.NONE, int(DAY), ())


@dataclass(frozen=True, slots=True)
class Clock:
    """How much time has surely passed since the domain was added, in seconds, and the time of the last event.

    It never goes back, and a jump of the machine's clock by more than MAX_GAP does not move it.
    """

    counted: float
    at: float

    def advanced(self, now: float) -> "Clock":
        """The clock at the next event."""
        gap = now - self.at
        return Clock(self.counted + (gap if 0 <= gap <= MAX_GAP else 0.0), now)

    def date(self, counted: float) -> float:
        """The time of the machine's clock that a date of this clock is, as far as can be said now."""
        return self.at + counted - self.counted


class Stage(enum.Enum):
    """How far a domain has come. Each stage is left only for the next one, or back for PUBLISHED."""

    PUBLISHED = "published"
    LEAVING = "leaving"  # Mode none is served, until all other policies have expired.
    WITHDRAWN = "withdrawn"  # The records are taken out of DNS. The file is still served.
    CLEARED = "cleared"  # The file is deleted. The policy host may still have its certificate.
    REMOVED = "removed"  # Nothing is published. The history stays.


@dataclass(frozen=True, slots=True)
class Served:
    """A policy that senders may have in their caches. `until` is when it was last served; None: it may be still."""

    policy: Policy
    until: float | None = None

    def expires(self, counted: float) -> float:
        """When the last copy has surely expired, if it is not served after `counted`."""
        return (counted if self.until is None else self.until) + self.policy.max_age + MARGIN

    def forbids(self, host: str) -> bool:
        """Whether senders that have this policy deliver nothing to a host."""
        return self.policy.mode is Mode.ENFORCE and not any(pattern.matches(host) for pattern in self.policy.mx)


@dataclass(frozen=True, slots=True)
class Parting:
    """An mx that the policy keeps although it is not wanted any more, because DNS has it, or had it until lately.

    `gone_since` is when a check first missed it in DNS; None: DNS has it.
    """

    mx: MxPattern
    gone_since: float | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """An MX host that DNS had until lately, so resolvers may have it still. `since` is when it was first missed."""

    host: str
    since: float


@dataclass(frozen=True, slots=True)
class Checked:
    """When the domain was last looked at from outside, and what was wrong; whose certificates end when, as a time."""

    at: float
    problems: tuple[str, ...] = ()
    certificates: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """A domain.

    `wanted` is the policy that the administrator wants. `record` is the id that our TXT record is to have since
    `announced_at`; None: there is to be no record. `known` is whether DNS shows it. `findable` is whether senders can
    have found any policy of the domain, ours or another. `hosts` are the MX hosts that DNS had last, `left` are those
    that it had shortly before, and `points_here` is whether its policy host was ours when last seen. `version` grows
    with each change of the file. `salt` is the version if senders may have a policy of before, else 0.
    """

    domain: PolicyDomain
    wanted: Policy
    clock: Clock
    stage: Stage = Stage.PUBLISHED
    served: tuple[Served, ...] = ()
    parting: tuple[Parting, ...] = ()
    record: str | None = None
    announced_at: float = 0.0
    known: bool = False
    findable: bool = False
    hosts: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()
    points_here: bool = False
    record_gone_since: float | None = None
    checked: Checked | None = None
    version: int = 0
    salt: int = 0

    def id(self) -> str | None:
        """The id that announces the file; None: there is no file."""
        file = self.file()
        return None if file is None else record_id(file, self.salt)

    def file(self) -> Policy | None:
        """The policy that the file is to have now; None: there is to be no file."""
        match self.stage:
            case Stage.PUBLISHED if self.wanted.mode.checks_hosts:
                mx = (*self.wanted.mx, *(one.mx for one in self.parting))
                return Policy(self.wanted.mode, self.wanted.max_age, mx)
            case Stage.PUBLISHED | Stage.LEAVING | Stage.WITHDRAWN:
                return GOODBYE
            case _:
                return None


def body(policy: Policy) -> bytes:
    """The content of a policy file. Lines end in CRLF, which every version of the RFC's grammar allows."""
    return str(policy).replace("\n", "\r\n").encode("ascii")


def record_id(policy: Policy, salt: int = 0) -> str:
    """The id of the TXT record. It is a hash of the file, so it changes whenever the file does.

    The salt has the id never come back if an old policy does: senders that fetched the file in between, while DNS had
    the old id, would not fetch this one.
    """
    content = body(policy) + (b"%d" % salt if salt else b"")
    return hashlib.sha256(content).hexdigest()[:32]  # The grammar allows 32 characters (RFC 8461, 3.1).
