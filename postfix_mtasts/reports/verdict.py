"""Decides what becomes of a message. Rules, without I/O."""

import datetime
import enum
from collections.abc import Collection

from postfix_mtasts.reports.report import Dkim, DkimState, Report

# How long a key is looked up again. Mail servers try for as long (RFC 5321, 4.5.4.1), and keys are published longer.
WAIT = datetime.timedelta(days=5)
_MAX_NAMED = 3  # Domains in a reason.


class State(enum.Enum):
    """What became of a message."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # All that it reports had been stored before.
    WAITING = "waiting"  # Stored as not verified, until the key of its signature can be looked up.
    QUARANTINED = "quarantined"


def verdict(
    report: Report, dkim: Dkim, age: datetime.timedelta, domains: Collection[str], *, accepted: bool
) -> tuple[State, str]:
    """What becomes of a report that came so long ago, and why. An accepted one may be about any domain.

    A report that is in part about other domains goes to quarantine as a whole: a part of it would be taken for all.
    """
    named = {policy.domain for policy in report.policies if policy.domain is not None}
    foreign = sorted(domain for domain in named if not is_ours(domain, domains))
    if foreign and not accepted:
        listed = ", ".join(domain[:100] for domain in foreign[:_MAX_NAMED])
        more = f" and {len(foreign) - _MAX_NAMED} more" if len(foreign) > _MAX_NAMED else ""
        return State.QUARANTINED, f"about {listed}{more}: not in reports.domains"
    if dkim.state is DkimState.UNKNOWN and age < WAIT:
        return State.WAITING, dkim.reason
    return State.STORED, ""


def is_ours(domain: str, domains: Collection[str]) -> bool:
    """Whether it is one of these domains, or below one. Reports on DANE may name an MX host. Without any, all are."""
    return not domains or any(domain == one or domain.endswith(f".{one}") for one in domains)
