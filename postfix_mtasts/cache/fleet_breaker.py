"""The breaker before the server of a fleet: whether it is used, and if not, why, and when it is tried again.

The log hears of trouble once a minute.
"""

import random
import time
from collections.abc import Callable

from postfix_mtasts.log import events

OPEN_FOR = 30.0  # Seconds that it is open at least.
_SPREAD = 10.0  # Seconds over which relays come back: five hundred at once are more than a server can greet in time.
_COMPLAIN_AFTER = 60.0  # Seconds between two lines in the log.


class Breaker:
    """It is open at first. `clock` gives seconds since the epoch."""

    def __init__(self, place: str, clock: Callable[[], float]) -> None:
        self.works = False
        self.trouble: str | None = None
        self.trouble_since: float | None = None
        self.failures = 0
        self._place = place
        self._clock = clock
        self._open_until = 0.0
        self._complained_at = -_COMPLAIN_AFTER

    def open(self, reason: str) -> None:
        """Do without the server from now on."""
        self.works, self.trouble = False, reason
        self.failures += 1
        if self.trouble_since is None:
            self.trouble_since = self._clock()
        self._open_until = time.monotonic() + random.uniform(OPEN_FOR, OPEN_FOR + _SPREAD)  # noqa: S311 - no secret
        self.complain(f"{reason}; policies are found without it")

    def close(self) -> None:
        """Use the server from now on."""
        if not self.works:
            events.fleet_works(self._place)
        self.works, self.trouble, self.trouble_since = True, None, None

    def left(self) -> float:
        """For how many seconds it is still open."""
        return max(0.0, self._open_until - time.monotonic())

    def complain(self, reason: str) -> None:
        """Tell the log, unless it was told a short time ago."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_AFTER:
            self._complained_at = now
            events.fleet_trouble(self._place, reason)
