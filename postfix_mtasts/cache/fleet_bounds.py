"""Connections of redis-py that read no more than a server of ours ever answers.

redis-py keeps whatever it is sent, for as long as each step is in time. So the socket beneath counts: what is read
between two requests has bounds in octets, lines and seconds. Each part of a reply ends with a line, so these bound how
many parts there are, too, and with them what redis-py makes of them. Its own parser takes the octets as it needs them;
hiredis would make room at once for as many parts as a server promises.
"""

import time
from typing import Any

import redis

from postfix_mtasts.cache.fleet_jobs import BATCH, MAX_FORGOTTEN
from postfix_mtasts.cache.shared import MAX_VALUE

MAX_OCTETS = (BATCH + 1) * MAX_VALUE  # As many of the longest values as are asked for at once, and all else.
MAX_LINES = 20 * MAX_FORGOTTEN  # The longest list has four for each domain. What comes with the shortest news is less.
NEWS_AT_ONCE = 2**17  # Octets for one message of a channel: what redis-py reads at once is half of it.
STEPS = 5  # A round trip has as long as so many steps of it. One who sends octet by octet is in time with each.
_PIECE = 2**14  # Octets that are sent in one step.
# In Debian 12's redis-py the parser has another name.
PARSER: Any = vars(redis.connection).get("_RESP2Parser") or vars(redis.connection)["PythonParser"]


class TooLongError(redis.ConnectionError):
    """An answer has more octets or lines than any that this program asks for."""


class BoundedSocket:
    """A socket of which no more is read than that, until something else is sent. `seconds` are for a round trip."""

    def __init__(self, socket: Any, seconds: float) -> None:
        self._socket = socket
        self._seconds = seconds
        self.begin()

    def begin(self, most: int = MAX_OCTETS) -> None:
        """Let another round trip begin, in which no more octets than that are read."""
        self._has_read = False
        self._most = most
        self.octets = 0  # That were read in this round trip.
        self._lines = 0
        self._end = time.monotonic() + self._seconds

    def sendall(self, data: bytes) -> None:
        """Send all."""
        if self._has_read:
            self.begin()
        view = memoryview(data)
        for at in range(0, len(view), _PIECE):
            self._check_time()
            self._socket.sendall(view[at : at + _PIECE])

    def recv(self, size: int) -> bytes:
        """Some octets."""
        self._has_read = True
        if self._socket.gettimeout() != 0:  # Otherwise nobody waits: redis-py looks whether something was left over.
            self._check_time()
        data: bytes = self._socket.recv(size)
        self.octets += len(data)
        self._lines += data.count(b"\n")
        if self.octets > self._most or self._lines > MAX_LINES:
            raise TooLongError("an answer that is too long")
        return data

    def _check_time(self) -> None:
        if time.monotonic() > self._end:
            raise redis.TimeoutError(f"no complete answer within {self._seconds:g} s")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _Bounded:
    """Beside a kind of connection of redis-py."""

    bounded: BoundedSocket
    socket_timeout: Any  # Seconds for a step.

    def _connect(self) -> Any:
        socket = super()._connect()  # type: ignore[misc]  # The kind of connection has it.
        self.bounded = BoundedSocket(socket, STEPS * self.socket_timeout)
        return self.bounded


class Tcp(_Bounded, redis.Connection):
    """Over TCP."""


class Tls(_Bounded, redis.SSLConnection):
    """Over TLS."""


class Unix(_Bounded, redis.UnixDomainSocketConnection):
    """Over a Unix socket."""
