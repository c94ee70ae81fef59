"""Ready replies: the bytes to send for the bytes of a request, for as long as they hold.

They are derived from the entry of a domain, and dropped when it changes. When there are too many, all are dropped, and
each is made again when it is asked for.
"""

import math
from collections.abc import Callable

from postfix_mtasts.sts.domain import PolicyDomain

_MAX_REPLIES = 20_000  # When there are so many, all are dropped.
_MAX_OCTETS = 1_200  # Of a request and its reply; a larger one is made anew each time.
_EACH = 400  # Octets that Python takes for a reply and its places, besides the texts.


class Ready:
    """Replies by their requests, both as they go over the wire. All take at most so many octets of memory.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float], octets: float = math.inf) -> None:
        self._clock = clock
        self._most = min(_MAX_REPLIES, octets / (_EACH + _MAX_OCTETS))
        self._replies: dict[bytes, tuple[float, float, bytes, list[int]]] = {}
        self._requests: dict[PolicyDomain | None, list[bytes]] = {}

    def get(self, request: bytes) -> bytes | None:
        """The reply to a request, if one is ready. It is counted."""
        if found := self._replies.get(request):
            since, until, reply, count = found
            if since <= self._clock() < until:
                count[0] += 1
                return reply
        return None

    def put(
        self, domain: PolicyDomain | None, request: bytes, reply: bytes, until: float, count: list[int] | None = None
    ) -> None:
        """Keep a reply ready, about a domain or about none, from now until that time.

        `count[0]` is increased each time that it is used.
        """
        if len(request) + len(reply) > _MAX_OCTETS:
            return
        if len(self._replies) >= self._most:
            self.clear()
        if request not in self._replies:
            self._requests.setdefault(domain, []).append(request)
        self._replies[request] = (self._clock(), until, reply, count or [0])

    def drop(self, domain: PolicyDomain) -> None:
        """Drop all replies about a domain."""
        for request in self._requests.pop(domain, ()):
            del self._replies[request]

    def clear(self) -> None:
        """Drop all."""
        self._replies.clear()
        self._requests.clear()
