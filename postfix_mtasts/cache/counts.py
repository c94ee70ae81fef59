"""What the store says of itself: how many policies there are, and what is wrong with the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from postfix_mtasts.sts.policy import Mode


@dataclass(frozen=True, slots=True)
class Counts:
    """How many policies there are, how many of them live and cannot be renewed, and how many of those end soon.

    `live` has how many live, by mode.
    """

    stored: int = 0
    not_renewed: int = 0
    ending: int = 0
    first_ends_at: float | None = None  # Of those that cannot be renewed, in seconds since the epoch.
    live: Mapping[Mode, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both together, which have no policy in common."""
        ends = [one for one in (self.first_ends_at, other.first_ends_at) if one is not None]
        return Counts(
            self.stored + other.stored,
            self.not_renewed + other.not_renewed,
            self.ending + other.ending,
            min(ends, default=None),
            {mode: self.live.get(mode, 0) + other.live.get(mode, 0) for mode in Mode},
        )


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The counts of what is stored, if they can be read; the trouble with the database; how many writes wait.

    `anew` says why the database was begun anew, and `anew_at` when, if it was while it was open.
    """

    counts: Counts | None
    trouble: str | None
    trouble_since: float | None
    waiting: int
    anew: str | None = None
    anew_at: float | None = None
