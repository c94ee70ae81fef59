"""The socketmap protocol (socketmap_table(5)) as bytes in, requests out; no I/O.

    request = netstring( name SP key )        5-digit lengths at most: 10000 octets are more than Postfix sends
    reply   = netstring( status SP text )     100000 octets at most, more makes Postfix defer

    decoder.feed(data); while (request := decoder.next_request()) is not None: …

However the stream is split, the same requests come out. `next_request` gives None if it needs more, and raises
ProtocolError for a peer that speaks something else, at the first octet that shows it; nothing can follow then.
"""

import enum
from dataclasses import dataclass

MAX_REQUEST = 10_000  # Octets in the netstring; Postfix's own limit (socketmap_max_query_size).
MAX_REPLY = 100_000  # Octets in the netstring; Postfix's own limit (socketmap_max_reply_size).
_MAX_LENGTH_DIGITS = len(str(MAX_REQUEST))


class ProtocolError(ValueError):
    """The peer does not speak socketmap; says what came instead."""


@dataclass(frozen=True, slots=True)
class Request:
    """One query: the name of the map, as it stands in main.cf, and the key."""

    name: bytes
    key: bytes

    def encode(self) -> bytes:
        """The query as it goes over the wire."""
        payload = b"%b %b" % (self.name, self.key)
        return b"%d:%b," % (len(payload), payload)


class Status(enum.Enum):
    """The first word of a reply. Postfix retries all of TEMP, TIMEOUT and PERM later."""

    OK = "OK"
    NOTFOUND = "NOTFOUND"
    TEMP = "TEMP"
    TIMEOUT = "TIMEOUT"
    PERM = "PERM"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `text` is the value for OK, and the reason for TEMP, TIMEOUT and PERM."""

    status: Status
    text: str = ""

    def fits(self) -> bool:
        """Whether Postfix takes a reply of this size."""
        return len(self._payload()) <= MAX_REPLY

    def encode(self) -> bytes:
        """The reply as it goes over the wire."""
        payload = self._payload()
        return b"%d:%b," % (len(payload), payload)

    def _payload(self) -> bytes:
        # The blank is there even when nothing follows: Postfix 3.7 takes a bare "OK" for "not found".
        return f"{self.status.value} {self.text}".encode("ascii")


class Decoder:
    """The requests in a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        self._buffer += data

    @property
    def has_part(self) -> bool:
        """Whether something has come that is no complete request, or has not been taken."""
        return bool(self._buffer)

    def next_request(self) -> Request | None:
        """The next complete request, or None. Raises ProtocolError."""
        colon = self._buffer.find(b":", 0, _MAX_LENGTH_DIGITS + 1)
        digits = bytes(self._buffer[: colon if colon >= 0 else _MAX_LENGTH_DIGITS + 1])
        if digits and not digits.isdigit():
            raise self._error("expected the length of a netstring")
        if colon < 0 and len(digits) <= _MAX_LENGTH_DIGITS:
            return None
        if colon <= 0 or int(digits) > MAX_REQUEST:
            raise self._error(f"expected a netstring of at most {MAX_REQUEST} octets")
        end = colon + 1 + int(digits)
        if len(self._buffer) <= end:
            return None
        if self._buffer[end] != ord(","):
            raise self._error("expected a comma after the netstring")
        name, blank, key = bytes(self._buffer[colon + 1 : end]).partition(b" ")
        if not blank:
            raise self._error("expected the name of a map, a blank and a key")
        del self._buffer[: end + 1]
        return Request(name, key)

    def _error(self, expected: str) -> ProtocolError:
        return ProtocolError(f"{expected}, got {bytes(self._buffer[:40]).decode('latin-1')!a}")
