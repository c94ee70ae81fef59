"""Policy hosts that misbehave in HTTP: a line each."""

import gzip
import http
from functools import partial

from tests.hostile.case import KIB, LATE, POLICY, SECURE, Case, Site
from tests.hostile.sites import ANSWER, https
from tests.world.https import HANG, Drip, End, Flood, answer, chunked

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = ("Transfer-Encoding", "chunked")
GZIP = ("Content-Encoding", "gzip")
NOT_HTTP = "the answer is not HTTP/1.1"
CUT = "the connection was cut before the end of the response (no TLS close_notify)"
ENDED = "server disconnected without sending a response"
INCOMPLETE = "peer closed connection without sending complete message body *"
TOO_LARGE, TOO_LARGE_WITH_ALL = "larger than 64 KiB", "larger than 128 KiB with its headers and chunks"
HEADERS_TOO_LARGE, TOO_MANY_FIELDS = "response headers too large", "more than 100 header fields"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"
TOO_MANY_INTERIM = "more than 5 interim responses (1xx)"
IN_CHUNKS = chunked(POLICY.encode(), 9)
GZIPPED, BOMB = gzip.compress(POLICY.encode()), gzip.compress(bytes(20_000_000))
PATH = "/.well-known/mta-sts.txt"
TO = "a redirect to "
HTML = b"Content-Type: text/html\r\n\r\n"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"

_http = partial(Case, stage="HTTP response")
_large = partial(_http, octets=128 * KIB, cpu=0.3)


def fields(*headers: tuple[str, str], body: bytes | str = POLICY) -> bytes:
    """A good answer but for these header fields."""
    return answer(body, headers=headers)


def trailers(count: int) -> bytes:
    """A good body in chunks, with so many fields behind it."""
    return IN_CHUNKS[:-2] + b"X:\r\n" * count + b"\r\n"


def redirect(to: str, status: int = 302) -> Site:
    """A redirect that nobody may follow."""
    return https(answer(status=status, headers=[("Location", to)]))


STATUSES = [
    *(_http(f"status {code}", https(answer(POLICY, status=code)), f"status {code}") for code in (201, 203, 206, 226)),
    *(
        _http(f"status {status.value}", https(answer(POLICY, status=status)), f"status {status.value}")
        for status in http.HTTPStatus
        if status in {204, 300, 304, 400, 401, 403, 404, 410, 418, 421, 429, 500, 502, 503, 504, 511}
    ),
    *(_http(f"status {code}", https(answer(POLICY, status=code)), f"status {code}") for code in (299, 599, 600, 999)),
    _http("status 0", https(HEAD.replace(b"200", b"000") + b"\r\n"), "*"),
    _http("status 20", https(HEAD.replace(b"200", b"20") + b"\r\n"), NOT_HTTP),
    _http("status 2000", https(HEAD.replace(b"200", b"2000") + b"\r\n"), NOT_HTTP),
    _http("status -200", https(HEAD.replace(b"200", b"-200") + b"\r\n"), NOT_HTTP),
    *(
        _http(f"a redirect, {code}", redirect("/x", code), f"status {code}, {TO}'/x', *")
        for code in (301, 302, 303, 307, 308)
    ),
    _http("a redirect to itself", redirect(PATH), f"status 302, {TO}'{PATH}', *"),
    _http("a redirect to escapes", redirect(ESCAPES), f"status 302, {TO}'\\x1b]0;owned\\x07\\x1b[2J\\x9b31m', *"),
    _http("a redirect of 8 KB", redirect("x" * 8000), f"status 302, {TO}'{'x' * 100}', *"),
    _http("a switch of protocols", https(answer(status=101, headers=[("Upgrade", "websocket")]), HANG), "*"),
    _http("continue, and nothing", https(b"HTTP/1.1 100 Continue\r\n\r\n", HANG), LATE),
    _http("interim responses without end", https(INTERIM * 20_000), TOO_MANY_INTERIM),
    _http("six interim responses", https(INTERIM * 6 + ANSWER), TOO_MANY_INTERIM),
    _http("interim responses one by one", https(INTERIM, Drip(INTERIM * 4, 0.1)), LATE),
]  # fmt: skip
HEADERS = [
    _http("nothing", https(HANG), LATE),
    _http("garbage", https(b"\x00\x01\xff\r\n\r\n"), NOT_HTTP),
    _http("zeros without end", https(Flood(1_000_000)), NOT_HTTP),
    _http("line ends without end", https(b"\r\n" * 100_000), "*"),
    _http("line feeds without end", https(b"\n" * 100_000), "*"),
    _http("HTTP/0.9", https(POLICY.encode()), "*"),
    _http("HTTP/0.9 that looks like a header", https(b"version: STSv1\r\n\r\n"), NOT_HTTP),
    _http("HTTP/1.0", https(ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0")), SECURE),
    _http("HTTP/1.2", https(ANSWER.replace(b"HTTP/1.1", b"HTTP/1.2")), SECURE),
    _http("HTTP/2 by name", https(ANSWER.replace(b"HTTP/1.1", b"HTTP/2")), NOT_HTTP),
    _http("HTTP/2", https(bytes.fromhex("000000 04 00 00000000") * 10, HANG), NOT_HTTP),
    _http("SMTP", https(b"220 mx.example.com ESMTP\r\n\r\n"), NOT_HTTP),
    _http("a request", https(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), NOT_HTTP),
    _http("a status line without end", https(b"HTTP/1.1 200 ", Flood(1_000_000)), HEADERS_TOO_LARGE),
    _http("a field without end", https(HEAD + b"X: ", Flood(1_000_000)), HEADERS_TOO_LARGE),
    _http("24,000 fields", https(HEAD + b"X:\r\n" * 24_000 + b"\r\n"), TOO_MANY_FIELDS),
    _http("100 cookies", https(fields(*[("Set-Cookie", "a=b")] * 97)), SECURE),
    _http("no reason", https(ANSWER.replace(b"200 OK", b"200 ")), SECURE),
    _http("nothing behind the status", https(ANSWER.replace(b"200 OK", b"200")), SECURE),
    _http("HTTP in lower case", https(ANSWER.replace(b"HTTP/1.1", b"http/1.1")), NOT_HTTP),
    _http("line ends of LF", https(ANSWER.replace(b"\r\n", b"\n")), SECURE),
    _http("a good answer, and an upgrade", https(fields(("Upgrade", "h2c"), ("Connection", "upgrade"))), SECURE),
    _http("part of a file", https(fields(("Content-Range", "bytes 0-9/1000"))), SECURE),
    _http("a NUL in the media type", https(answer(POLICY, content_type="text/plain\0")), "*"),
    _http("encoding identity, and gzip", https(fields(("Content-Encoding", "identity, gzip"))), "sent *"),
    _http("encoding br", https(fields(("Content-Encoding", "br"))), "sent 'br'-encoded unasked; *"),
    _http("transfer encoding identity", https(fields(("Transfer-Encoding", "identity"))), "*"),
    _http("a field of 17 KB", https(fields(("X", "x" * 17_000))), HEADERS_TOO_LARGE),
    _http("a header drop by drop", https(Drip(ANSWER, 0.2)), LATE),
    _http("a folded field", https(ANSWER.replace(b"OK\r\n", b"OK\r\nX: a\r\n b\r\n")), SECURE),
    _http("a blank before the first field", https(b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n"), "*"),
    _http("a blank before the colon", https(b"HTTP/1.1 200 OK\r\nContent-Type : text/plain\r\n\r\n"), "*"),
    _http("a field without a name", https(HEAD + b": x\r\n\r\n"), "*"),
    _http("a line without a colon", https(HEAD + b"x\r\n\r\n"), "*"),
    _http("a NUL in a field", https(HEAD + b"X: a\0b\r\n\r\n"), "*"),
    _http("a NUL in a name", https(HEAD + b"X\0: a\r\n\r\n"), "*"),
    _http("a bare CR in a field", https(HEAD + b"X: a\rContent-Length: 3\r\n\r\n"), "*"),
    _http("escapes in a field", https(fields(("X", ESCAPES))), SECURE),
    _http("escapes in the reason", https(ANSWER.replace(b"OK", ESCAPES.encode())), SECURE),
    _http("Latin-1 in a field", https(fields(("X", "caf\xe9"))), SECURE),
    _http("no length, but the end", https(HEAD + b"\r\n" + POLICY.encode()), SECURE),
    _http("a length of -1", https(fields(("Content-Length", "-1"))), "*"),
    _http("a length of +90", https(fields(("Content-Length", "+90"))), "*"),
    _http("a length in hexadecimal", https(fields(("Content-Length", "0x40"))), "*"),
    _http("a length of blanks", https(fields(("Content-Length", "  "))), "*"),
    _http("a length of many digits", https(fields(("Content-Length", "9" * 5000))), "bad Content-Length"),
    _http("a length of 10 TB", https(fields(("Content-Length", str(10**13))), HANG), LATE),
    _http("two lengths", https(fields(("Content-Length", "5"), ("Content-Length", "6"))), "*"),
    _http("two lengths in one field", https(fields(("Content-Length", "5, 6"))), "*"),
    _http("a length too short", https(fields(("Content-Length", "14"))), "no mode line", stage="policy file"),
    _http("a length, and chunks", https(fields(CHUNKED, ("Content-Length", "5"), body=IN_CHUNKS)), SECURE),
    _http("chunks, and another encoding", https(fields(("Transfer-Encoding", "chunked, gzip"))), "*"),
    _http("chunked twice", https(fields(CHUNKED, CHUNKED, body=IN_CHUNKS)), "*"),
    _http("an encoding that looks like chunked", https(fields(("Transfer-Encoding", "xchunked"))), "*"),
    _http("no media type", https(answer(POLICY, content_type=None)), "no Content-Type, must be text/plain"),
    _http("HTML", https(answer(POLICY, content_type="text/html")), "Content-Type is 'text/html', must be text/plain"),
    _http("two media types", https(fields(("Content-Type", "text/html"))), "*must be text/plain"),
    _http("text/plainer", https(answer(POLICY, content_type="text/plainer")), "*must be text/plain"),
    _http("escapes as a media type", https(answer(POLICY, content_type=ESCAPES)), "*must be text/plain"),
    _http("text/plain and parameters", https(answer(POLICY, content_type="Text/Plain ; charset=x")), SECURE),
    _http("gzip", https(fields(GZIP, body=GZIPPED)), "sent 'gzip'-encoded unasked; *"),
    _http("20 MB in gzip", https(fields(GZIP, body=BOMB)), "sent 'gzip'-encoded unasked; *"),
    _http("an encoding of a kilobyte", https(fields(("Content-Encoding", "x" * 1000))), "sent *-encoded unasked; *"),
]  # fmt: skip
BODIES = [
    *(_http(f"the end after {at} octets", https(ANSWER[:at]), f"{ENDED}*") for at in (1, 15, 40)),
    *(_http(f"cut after {at} octets", https(ANSWER[:at], End.CUT), CUT) for at in (0, 1, 15, 40, 80, len(ANSWER) - 1)),
    *(_http(f"a reset after {at} octets", https(ANSWER[:at], End.RESET), "*") for at in (1, 40, len(ANSWER) - 1)),
    *(_http(f"silence after {at} octets", https(ANSWER[:at], HANG), LATE) for at in (1, 40, len(ANSWER) - 1)),
    _http("the end in the body", https(ANSWER[:-1]), INCOMPLETE),
    _http("no length, and cut", https(HEAD + b"\r\n" + POLICY.encode(), End.CUT), CUT),
    _http("a body drop by drop", https(ANSWER[:-50], Drip(ANSWER[-50:], 0.3)), LATE),
    _large("a body one octet over 64 KiB", https(answer(POLICY + "x: " + "y" * 65_536)), TOO_LARGE),
    _large("a body without end", https(HEAD + b"\r\n", Flood(4_000_000)), TOO_LARGE),
    _large("a body of 100 MB", https(HEAD + b"Content-Length: 100000000\r\n\r\n", Flood(4_000_000)), TOO_LARGE),
    _http("more than the body", https(ANSWER + ANSWER, HANG), SECURE),
    _http("the end between chunks", https(fields(CHUNKED, body=IN_CHUNKS[:-5])), INCOMPLETE),
    _http("a chunk of no number", https(fields(CHUNKED, body="zz\r\n")), "*"),
    _http("a chunk of -1", https(fields(CHUNKED, body="-1\r\nx\r\n")), "*"),
    _http("a chunk of 21 digits", https(fields(CHUNKED, body="f" * 21 + "\r\n")), "*"),
    _http("a chunk of 16 EB", https(fields(CHUNKED, body="f" * 16 + "\r\nx", ), HANG), LATE),
    _http("a chunk that is longer than it says", https(fields(CHUNKED, body="3\r\nversion\r\n0\r\n\r\n")), "*"),
    _large("a chunk size without end", https(fields(CHUNKED, body=b"0" * 200_000)), "*", octets=128 * KIB),
    _large("chunks of one octet", https(fields(CHUNKED, body=b"1\r\na\r\n" * 50_000)), TOO_LARGE_WITH_ALL, cpu=1),
    _large("extensions of chunks", https(fields(CHUNKED, body=b"1;x=y\r\na\r\n" * 40_000)), TOO_LARGE_WITH_ALL, cpu=1),
    _large("an extension without end", https(fields(CHUNKED, body=b"1;"), Flood(1_000_000)), "*"),
    _large("trailers without end", https(fields(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 100_000)), "*"),
    _http("24,000 trailers", https(fields(CHUNKED, body=trailers(24_000))), HEADERS_TOO_LARGE),
    _http("3,000 trailers", https(fields(CHUNKED, body=trailers(3000))), SECURE),
    _http("a length of 0", https(fields(("Content-Length", "0"), body="")), "the file is empty", stage="policy file"),
    _http("a chunk size with a sign", https(fields(CHUNKED, body="+5\r\nversi\r\n0\r\n\r\n")), "*"),
    _http("a chunk size behind a blank", https(fields(CHUNKED, body=" 5\r\nversi\r\n0\r\n\r\n")), "*"),
    _http("chunks that end in LF", https(fields(CHUNKED, body=IN_CHUNKS.replace(b"\r\n", b"\n"))), "*"),
    _http("no chunk but the last", https(fields(CHUNKED, body="0\r\n\r\n")), "the file is empty", stage="policy file"),
    _http("a trailer that is none", https(fields(CHUNKED, body=IN_CHUNKS[:-2] + b"x\r\n\r\n")), "*"),
    _http("a media type as a trailer", https(fields(CHUNKED, body=IN_CHUNKS[:-2] + HTML)), SECURE),
]  # fmt: skip
