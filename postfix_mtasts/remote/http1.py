"""HTTP/1.1 over a stream of ours, by httpcore, with bounds on what a response costs.

httpcore's own connections look up addresses and make connections by themselves, so only its HTTP/1.1 is used.
"""

import httpcore

from postfix_mtasts.remote.network import in_words
from postfix_mtasts.remote.stream import Stream

# What it costs to parse a response is bounded by these.
_MAX_RESPONSE = 131_072  # Octets, with headers and chunk sizes: twice what a policy takes.
_MAX_HEAD = 16_384  # Octets until the header is complete; h11 has the same limit in httpcore 0.16.
_MAX_FIELDS = 100  # Header fields of one response.
_MAX_INTERIM = 5  # 1xx responses; nobody has a use for one.
_BEGINNING, _NOT_HTTP = b"HTTP/", "the answer is not HTTP/1.1"


class ResponseError(Exception):
    """The host answered, but not with what was asked for, or with too much."""


class Http(httpcore.AsyncHTTP11Connection):
    """Holds fields behind the last chunk against the bound of the header too: h11 parses all of them at once."""

    MAX_INCOMPLETE_EVENT_SIZE = _MAX_HEAD


class Connection:
    """A stream as httpcore wants it (AsyncNetworkStream)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._received = 0
        self._head: bytearray | None = bytearray()  # What has come while the header is incomplete; None after that.

    def expect_body(self) -> None:
        """The header of the response has come."""
        self._head = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's name
        data = await self._stream.read(max_bytes)
        self._received += len(data)
        if self._received > _MAX_RESPONSE:
            raise ResponseError(f"larger than {_MAX_RESPONSE // 1024} KiB with its headers and chunks")
        if self._head is not None:
            self._head += data
            _check_head(self._head)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's name
        await self._stream.write(buffer)

    async def aclose(self) -> None:
        self._stream.abort()


def _check_head(received: bytearray) -> None:
    """Hold what has come of a response against the bounds, before h11 takes its time for it. Raises ResponseError."""
    if not received.startswith(_BEGINNING[: len(received)]):  # h11 would wait for the end of a header.
        raise ResponseError(_NOT_HTTP)
    if len(received) > _MAX_HEAD:
        raise ResponseError("response headers too large")
    heads = [part for part in received.split(b"\r\n\r\n") if part.startswith(b"HTTP/")]
    if any(head.count(b"\n") > _MAX_FIELDS for head in heads):
        raise ResponseError(f"more than {_MAX_FIELDS} header fields")
    if len(heads) > _MAX_INTERIM + 1:
        raise ResponseError(f"more than {_MAX_INTERIM} interim responses (1xx)")


def protocol_words(error: httpcore.ProtocolError) -> str:
    """What the host did not do as HTTP wants it; h11's words where they are good."""
    words = in_words(error)
    if words.startswith(("illegal status line", "illegal request line")):  # The latter of octets that are no text.
        return _NOT_HTTP
    if "_SWITCH_" in words:
        return "switches protocols unasked"
    if words == "receive buffer too long":
        return "response headers too large"
    return words
