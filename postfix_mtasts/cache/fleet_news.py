"""What relays of a fleet tell each other: that a policy has changed, or that a domain was forgotten.

And what a relay finds itself: that the server may not have what relays know.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from postfix_mtasts.cache.fleet_jobs import told_of
from postfix_mtasts.sts.domain import PolicyDomain, PolicyDomainError, next_hop

_MAX_WAITING = 10_000  # Domains that others told of, and that wait to be looked at. More are lost.


def news_of(data: bytes) -> tuple[str, float | None] | None:
    """The domain that a relay tells of, and when it was forgotten if it was; None if that is not what relays tell."""
    match told_of(data):
        case {"forget": str(name), "at": float(at)}:
            return name, at
        case {"change": str(name)}:
            return name, None
    return None


def told_domain(name: str) -> PolicyDomain | None:
    """The domain by the name with which relays tell of it; None if it is the name of none."""
    try:
        domain = next_hop(name.encode("utf-8", "surrogatepass")).domain
    except PolicyDomainError:
        return None
    return domain if domain.name == name else None


class News:
    """What others told, until somebody looks at it. News of one domain counts once."""

    def __init__(self) -> None:
        self._waiting: dict[PolicyDomain, float | None] = {}
        self._missing_since = math.inf
        self._has_some = asyncio.Event()

    def told(self, data: bytes) -> None:
        """Note what a relay tells. What is no news of ours is nothing."""
        if news := news_of(data):
            self.note(*news)

    def note(self, name: str, at: float | None) -> None:
        """Note that a domain was forgotten at a time, or has changed if that is None."""
        domain = told_domain(name)
        if domain and len(self._waiting) < _MAX_WAITING:
            self._waiting[domain] = self._waiting.get(domain) if at is None else at
            self._has_some.set()

    def anew(self, since: float) -> None:
        """Note that what was seen since a time may not be on the server."""
        self._missing_since = min(self._missing_since, since)
        self._has_some.set()

    async def follow(
        self,
        on_changed: Callable[[PolicyDomain], Awaitable[object]],
        on_forgotten: Callable[[PolicyDomain, float], Awaitable[object]],
        on_anew: Callable[[float], Awaitable[bool]],
    ) -> None:
        """Have all news looked at, one after the other, forever. `on_anew` says whether the server has all again."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            while self._waiting:
                domain = next(iter(self._waiting))
                at = self._waiting.pop(domain)
                await (on_changed(domain) if at is None else on_forgotten(domain, at))
            since, self._missing_since = self._missing_since, math.inf
            if since < math.inf and not await on_anew(since):
                self._missing_since = min(self._missing_since, since)  # Until it works again.
