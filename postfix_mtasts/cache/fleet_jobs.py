"""What the daemon has the fleet's server do, and what that sees: values, so that nothing else needs redis-py."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from postfix_mtasts.cache.shared import Value
from postfix_mtasts.sts.entry import Entry

BATCH = 32  # Jobs in one round trip.
MAX_FORGOTTEN = 1000  # Domains that are read at once of those that were forgotten.
MAX_TOLD = 1024  # Octets of what relays say of themselves, and tell others; what is longer is none of ours.
TURN = 5.0  # Seconds for a discovery. What takes longer, others discover too.


class FleetError(Exception):
    """The server could not be used; says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read what is known of a domain; with a token, take the turn to discover it if nobody has it."""

    domain: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Put:
    """Share a value, end the turn of the token, and tell others if `is_news`."""

    domain: str
    value: Value
    token: str = ""
    is_news: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """End the turn of the token."""

    domain: str
    token: str


Job = Look | Put | Release


class Seen(NamedTuple):
    """What was read: the value, if there is one; whether we have the turn to discover; whether another has."""

    value: bytes | None
    is_ours: bool = False
    is_theirs: bool = False


class Here(NamedTuple):
    """What a beat found: the server's clock in seconds, and what was forgotten since the last one.

    `begun` differs from the last one if the server was emptied in between. If it is in an older state than at the last
    one, as from a backup, or another one has taken its place, `restored` is the time of that state by its clock.
    """

    clock: float
    forgotten: Sequence[tuple[str, float]]
    begun: bytes = b""
    restored: float | None = None


@dataclass(frozen=True, slots=True)
class Theirs:
    """What another relay knows of a domain, if any does; whether we have the turn to discover it, or another has."""

    entry: Entry | None
    is_ours: bool
    is_theirs: bool


def told_of(data: bytes) -> Any:
    """The JSON that a relay tells; None if it is none, or too long for one of ours."""
    try:
        return json.loads(data) if len(data) <= MAX_TOLD else None
    except (ValueError, RecursionError):
        return None


def relay_of(told: tuple[bytes, float]) -> dict[str, Any] | None:
    """A relay by what it says of itself, and when it was last seen; None if that is not what relays say."""
    data, seen = told
    match told_of(data):
        case {"relay": str(name), "since": int(since), "version": str(version)}:
            return {"relay": name[:255], "since": since, "version": version[:40], "seen": seen}
    return None
