"""Which exception of an administrator holds for a domain at a time: then its policy does not count.

RFC 8461 knows no exceptions.

An exception for a name holds for that Policy Domain, one for `*.name` for all those below it, however deep. Of several
that have not ended, the one with the most labels counts; of two for the same name, the one that was added later, by
command: whoever is awake at night must have his way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from postfix_mtasts.config_values import Level
from postfix_mtasts.sts.domain import PolicyDomain

_BELOW = "*."


@dataclass(frozen=True, slots=True)
class PolicyException:
    """What Postfix is told in place of the policy of a domain, or of all those below `*.domain`, until its end.

    `until` is the last day, in ISO 8601, and `ends_at` the moment after it, in seconds since the epoch. DANE is
    overruled only if `dane` is set. `added` is true if it was added by command, false if the configuration has it.
    """

    domain: str
    until: str
    ends_at: float
    reason: str
    level: Level = Level.NONE
    dane: bool = False
    added: bool = False

    def is_over(self, now: float) -> bool:
        """Whether it has ended."""
        return now >= self.ends_at


Exceptions = Mapping[str, PolicyException]  # By their domains.


def exception_for(
    domain: PolicyDomain, now: float, added: Exceptions, configured: Exceptions
) -> PolicyException | None:
    """Return the exception that holds for a domain at the time `now`, if there is one."""
    for name in names_for(domain.name):
        for known in (added, configured):
            found = known.get(name)
            if found and not found.is_over(now):
                return found
    return None


def names_for(domain: str) -> Iterator[str]:
    """The names under which an exception for a domain may be found, the nearest first."""
    yield domain
    while domain:
        domain = domain.partition(".")[2]
        yield _BELOW + domain
