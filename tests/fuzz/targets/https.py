"""What a policy host sends in answer to our request, read by the transport as from a connection. Nothing is declared.

The first octet chooses whether the host ends the connection with TLS's close_notify (even) or somebody cuts it, and the
size of the pieces that are read.
"""

import base64
import http.client
import io
from collections.abc import Iterator

from postfix_mtasts.remote import fetcher
from postfix_mtasts.sts import policy
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import MAX_REASON, PolicyFetched
from tests.fuzz.received import RESOLVER, TLS, Host, ToHost
from tests.fuzz.received import run as run_to_the_end
from tests.fuzz.targets import cases, check_words, slices
from tests.world.https import answer, chunked

_POLICY = b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"
_CHUNKED = [("Transfer-Encoding", "chunked")]
_DOMAIN = PolicyDomain("example.com")
vars(fetcher)["Network"] = ToHost
vars(http.client)["_MAXHEADERS"] = 1000  # It counts lines, also the empty one behind a hundred fields.
_FETCHER = fetcher.Fetcher(RESOLVER, TLS, timeout=60)


def seeds() -> Iterator[bytes]:
    for case in cases("policies.json"):
        if case.get("body_base64"):
            body = base64.b64decode(case["body_base64"])[:65000]
            kind = case.get("content_type", "text/plain")
            yield b"\0" + answer(body, status=case.get("status", 200), content_type=kind)
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    for end in b"\0", b"\1":
        yield end + answer(_POLICY)
        yield end + answer(chunked(_POLICY, 7), headers=_CHUNKED)
        yield end + answer(_POLICY, headers=[("Content-Length", "70")])
        yield end + b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + _POLICY
        yield end + interim * 5 + answer(_POLICY)
        yield end + answer(_POLICY, headers=[("Content-Encoding", "gzip"), ("Set-Cookie", "a=b")])
        yield end + answer(status=301, headers=[("Location", "https://example.com/\xe9")])
    yield b"\0" + answer(chunked(b"a" * 10000, 1), headers=_CHUNKED)
    yield b"\0" + answer(_POLICY + b"\n" * 60000)
    yield b"\0" + answer(_POLICY, headers=[("A", "b")] * 98)
    yield b"\0HTTP/1.1 200 OK\r\n" + b"a" * 60000
    yield b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n1;" + b"a" * 60000


def run(data: bytes) -> None:
    chosen, sent = data[0] if data else 0, data[1:]
    Host.pieces, Host.cut = list(slices(sent, chosen // 2 * 32 or len(sent) or 1)), bool(chosen % 2)
    seen = run_to_the_end(_FETCHER.fetch(_DOMAIN, "1"))
    if isinstance(seen, PolicyFetched):
        assert len(seen.text.encode()) <= policy.MAX_SIZE
        # It knows of interim responses 100 alone, and h11 takes HTTP/2.1 for HTTP/1.1.
        if sent.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")):
            assert _by_http_client(sent) == seen.text.encode()
        return
    check_words(seen.failure.reason)
    assert len(seen.failure.reason) <= MAX_REASON
    assert not seen.failure.is_local, seen


def _by_http_client(data: bytes) -> bytes:
    """The body as Python's own HTTP client reads it."""

    class Connection:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(data)

    response = http.client.HTTPResponse(Connection())  # type: ignore[arg-type]
    response.begin()
    return response.read()
