"""The socketmap protocol (socketmap_table(5)): bytes go in, requests come out. There is no I/O.

    request = netstring( name SP key )        at most 10000 bytes, which is more than Postfix sends
    reply   = netstring( status SP text )     at most 100000 bytes; after a longer one Postfix defers the mail

    decoder.feed(data); while (request := decoder.next_request()) is not None: …

The requests do not depend on how the stream is split. `next_request` returns None if it needs more data. It raises
ProtocolError at the first byte that shows that the peer does not speak socketmap. The decoder is unusable after that.
"""

import enum
from dataclasses import dataclass

MAX_REQUEST = 10_000  # Bytes in the netstring; Postfix's own limit (socketmap_max_query_size).
MAX_REPLY = 100_000  # Bytes in the netstring; Postfix's own limit (socketmap_max_reply_size).
_MAX_LENGTH_DIGITS = len(str(MAX_REQUEST))


class ProtocolError(ValueError):
    """The peer does not speak socketmap. The message says what it sent instead."""


@dataclass(frozen=True, slots=True)
class Request:
    """One query: the name of the map, as in main.cf, and the key."""

    name: bytes
    key: bytes

    def encode(self) -> bytes:
        """Return the query in its wire format."""
        payload = b"%b %b" % (self.name, self.key)
        return b"%d:%b," % (len(payload), payload)


class Status(enum.Enum):
    """The first word of a reply. After TEMP, TIMEOUT and PERM, Postfix tries again later."""

    OK = "OK"
    NOTFOUND = "NOTFOUND"
    TEMP = "TEMP"
    TIMEOUT = "TIMEOUT"
    PERM = "PERM"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` is the value for OK, and the reason for TEMP, TIMEOUT and PERM."""

    status: Status
    text: str = ""

    def fits(self) -> bool:
        """Whether the reply is not too long for Postfix."""
        return len(self._payload()) <= MAX_REPLY

    def encode(self) -> bytes:
        """Return the reply in its wire format."""
        payload = self._payload()
        return b"%d:%b," % (len(payload), payload)

    def _payload(self) -> bytes:
        # The space must be sent even if no text follows. Postfix 3.7 takes "OK" without it for "not found".
        return f"{self.status.value} {self.text}".encode("ascii")


class Decoder:
    """Reads requests from a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add data that was received."""
        self._buffer += data

    @property
    def has_part(self) -> bool:
        """Whether there is data that `next_request` has not returned yet, such as a part of a request."""
        return bool(self._buffer)

    def next_request(self) -> Request | None:
        """Return the next complete request, or None. Raises ProtocolError."""
        colon = self._buffer.find(b":", 0, _MAX_LENGTH_DIGITS + 1)
        digits = bytes(self._buffer[: colon if colon >= 0 else _MAX_LENGTH_DIGITS + 1])
        if digits and not digits.isdigit():
            raise self._error("expected the length of a netstring")
        if colon < 0 and len(digits) <= _MAX_LENGTH_DIGITS:
            return None
        if colon <= 0 or int(digits) > MAX_REQUEST:
            raise self._error(f"expected a netstring of at most {MAX_REQUEST} bytes")
        end = colon + 1 + int(digits)
        if len(self._buffer) <= end:
            return None
        if self._buffer[end] != ord(","):
            raise self._error("expected a comma after the netstring")
        name, blank, key = bytes(self._buffer[colon + 1 : end]).partition(b" ")
        if not blank:
            raise self._error("expected the name of a map, a space and a key")
        del self._buffer[: end + 1]
        return Request(name, key)

    def _error(self, expected: str) -> ProtocolError:
        return ProtocolError(f"{expected}, got {bytes(self._buffer[:40]).decode('latin-1')!a}")
