"""Policies over real HTTPS: what is fetched, what is refused and how that is said, and what is never done."""

import asyncio
import base64
import gzip
import http
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts import __version__
from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import CaError, is_global, tls_context
from postfix_mtasts.sts import policy
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import Failure, FetchFailed, PolicyFetched, PolicyInvalid, ResultType, Stage
from tests.unit.vectors import load
from tests.world.ca import Ca, Kind
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HANG, Drip, End, Flood, HttpsServer, Request, Step, answer, chunked

DOMAIN = PolicyDomain("example.com")
HOST = "mta-sts.example.com"
TEXT = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"
BODY = TEXT.encode()
LOOPBACK = ("127.0.0.0/8", "::1/128")
PATIENCE = 30.0  # Seconds, where nothing should take long.
IMPATIENCE = 3.0  # Seconds, where only the end of the time is waited for.
LATE = f"timed out after {IMPATIENCE:g} s"


def fetched(text: str = TEXT) -> PolicyFetched:
    parsed, findings = policy.parse(text.encode())
    return PolicyFetched(parsed, text, "1", findings)


def failed(stage: Stage, reason: str, result_type: ResultType = ResultType.FETCH_ERROR) -> FetchFailed:
    return FetchFailed(Failure(stage, reason, result_type), "1")


def said(expected: str | re.Pattern[str], observation: object) -> str:
    """The reason to expect: the one given or, where a library words it, the one seen if it matches."""
    if isinstance(expected, str):
        return expected
    assert isinstance(observation, FetchFailed)
    assert expected.fullmatch(observation.failure.reason), observation
    return observation.failure.reason


@dataclass
class World:
    """A resolver, a policy host and a CA; `HOST` has the server's address."""

    ca: Ca
    dns: DnsServer
    https: HttpsServer

    def fetcher(self, timeout: float = PATIENCE, allow: Sequence[str] = LOOPBACK) -> Fetcher:
        resolver = Resolver([InetEndpoint(self.dns.address, self.dns.port)], timeout=PATIENCE)
        return Fetcher(
            resolver,
            tls_context(str(self.ca.file)),
            timeout=timeout,
            allow_addresses=[ipaddress.ip_network(network) for network in allow],
            port=self.https.port,
        )

    def serve(self, *steps: Step, host: str = HOST) -> None:
        self.https.site(host, self.ca.issue(host).server_context(), *steps)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(ca: Ca) -> Iterator[World]:
    with DnsServer() as dns, HttpsServer() as https:
        dns.add(HOST, "A", https.address)
        yield World(ca, dns, https)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
COMMENT = "comment: " + "x" * (65536 - len(TEXT) - len("comment: \n")) + "\n"

# What the server sends, and the policy file that comes of it.
GOOD: list[tuple[str, list[Step], str]] = [
    ("as everybody does it", [answer(TEXT)], TEXT),
    ("in pieces", [Drip(answer(TEXT), 0.0)], TEXT),
    ("chunked", [answer(chunked(BODY, 7), headers=[("Transfer-Encoding", "chunked")])], TEXT),
    ("until the connection ends", [HEAD + b"\r\n" + BODY], TEXT),
    ("HTTP/1.0", [answer(TEXT).replace(b"HTTP/1.1", b"HTTP/1.0")], TEXT),
    ("after an interim response", [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", answer(TEXT)], TEXT),
    ("after five interim responses", [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5, answer(TEXT)], TEXT),
    ("a hundred header fields", [answer(TEXT, headers=[("X", "")] * 98)], TEXT),
    (
        "in chunks of one octet",
        [answer(chunked(BODY + b"\n" * 10_000, 1), headers=[("Transfer-Encoding", "chunked")])],
        TEXT + "\n" * 10_000,
    ),
    ("encoding identity", [answer(TEXT, headers=[("Content-Encoding", "Identity")])], TEXT),
    ("header fields are not only ASCII", [answer(TEXT, headers=[("X-Powered-By", "café")])], TEXT),
    ("exactly 64 KiB", [answer(TEXT + COMMENT)], TEXT + COMMENT),
    (
        "exactly 64 KiB, chunked",
        [answer(chunked((TEXT + COMMENT).encode(), 4096), headers=[("Transfer-Encoding", "chunked")])],
        TEXT + COMMENT,
    ),
    (
        "what a cache may do does not matter",
        [answer(TEXT, headers=[("Cache-Control", "no-store"), ("Age", "9")])],
        TEXT,
    ),
    ("not a byte beyond the body is read", [answer(TEXT) + b"mode: none\n"], TEXT),
    ("CRLF, and a finding", [answer(TEXT.replace("\n", "\r\n") + "\r\n")], TEXT.replace("\n", "\r\n") + "\r\n"),
]


@pytest.mark.parametrize(("steps", "text"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
async def test_policy(world: World, steps: list[Step], text: str) -> None:
    world.serve(*steps)
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched(text)


MISMATCH = re.compile(r"[Hh]ostname mismatch, certificate is not valid for 'mta-sts[.]example[.]com'[.]?")

# The names in the certificate, what else is wrong with it, and OpenSSL's reason to refuse it; None: it is accepted.
CERTIFICATES: list[tuple[str, list[str], Kind, str | re.Pattern[str] | None]] = [
    ("the policy host", [HOST], "good", None),
    ("the policy host second", ["www.example.com", HOST], "good", None),
    ("upper case", ["MTA-STS.EXAMPLE.COM"], "good", None),
    ("a wildcard for the first label", ["*.example.com"], "good", None),
    ("a wildcard in upper case", ["*.EXAMPLE.COM"], "good", None),
    ("another host", ["www.example.com"], "good", MISMATCH),
    ("the domain", ["example.com"], "good", MISMATCH),
    ("a wildcard for two labels", ["*.com"], "good", MISMATCH),
    ("a wildcard for no label", ["*.mta-sts.example.com"], "good", MISMATCH),
    ("a wildcard for the end of a label", ["mta-*.example.com"], "good", MISMATCH),
    ("a wildcard for the middle of a label", ["m*.example.com"], "good", MISMATCH),
    ("a wildcard for the start of a label", ["*sts.example.com"], "good", MISMATCH),
    ("a wildcard for another label", ["mta-sts.*.com"], "good", MISMATCH),
    ("a wildcard for everything", ["*"], "good", MISMATCH),
    ("the address", ["127.0.0.1"], "good", MISMATCH),
    ("the name only as a common name", [HOST], "no alternative names", MISMATCH),
    ("expired", [HOST], "expired", "certificate has expired"),
    ("not yet valid", [HOST], "not yet valid", "certificate is not yet valid"),
    ("self-signed", [HOST], "self-signed", re.compile("self[- ]signed certificate")),
    ("of an unknown CA", [HOST], "unknown CA", "intermediate certificate missing, or CA not trusted"),
]


@pytest.mark.parametrize(
    ("names", "kind", "reason"), [row[1:] for row in CERTIFICATES], ids=[row[0] for row in CERTIFICATES]
)
async def test_certificate(world: World, names: list[str], kind: Kind, reason: str | re.Pattern[str] | None) -> None:
    world.https.policy(HOST, TEXT, world.ca.issue(*names, kind=kind).server_context())
    observation = await world.fetcher().fetch(DOMAIN, "1")
    if reason is None:
        assert observation == fetched()
    else:
        assert observation == failed(Stage.CERTIFICATE, said(reason, observation), ResultType.WEBPKI_INVALID)
        assert world.https.requests == []
    assert world.https.sni == [HOST]


async def test_certificate_of_the_provider_behind_an_alias_is_refused(world: World) -> None:
    world.dns.remove(HOST)
    world.dns.add(HOST, "CNAME", "policies.provider.example.")
    world.dns.add("policies.provider.example", "A", world.https.address)
    world.https.policy(HOST, TEXT, world.ca.issue("policies.provider.example").server_context())
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == failed(Stage.CERTIFICATE, said(MISMATCH, observation), ResultType.WEBPKI_INVALID)
    assert world.https.sni == [HOST]


async def test_certificate_of_the_policy_host_behind_an_alias(world: World) -> None:
    world.dns.remove(HOST)
    world.dns.add(HOST, "CNAME", "policies.provider.example.")
    world.dns.add("policies.provider.example", "A", world.https.address)
    world.serve(answer(TEXT))
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched()
    assert world.https.sni == [HOST]


@pytest.mark.parametrize(
    "name",
    [
        "xn--bcher-kva.example",
        "xn--0.example",
        "xn--a-.example",
        "ab--c.example",
        "3com.example",
        f"{'x' * 63}.example",
    ],
    ids=["an A-label", "no A-label", "an A-label of nothing", "hyphens", "a digit first", "a long label"],
)
async def test_name_of_the_policy_host(world: World, name: str) -> None:
    domain = PolicyDomain(name)
    world.dns.add(domain.policy_host(), "A", world.https.address)
    world.serve(answer(TEXT), host=domain.policy_host())
    assert await world.fetcher().fetch(domain, "1") == fetched()
    assert world.https.sni == [domain.policy_host()]


TLS_VERSIONS: list[tuple[str, ssl.TLSVersion, ssl.TLSVersion, str | None]] = [
    ("1.3", ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3, None),
    ("1.2", ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, None),
    ("1.1", ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1, "no common TLS version (TLS 1.2 or later is needed)"),
]


@pytest.mark.parametrize(
    ("minimum", "maximum", "reason"), [row[1:] for row in TLS_VERSIONS], ids=[row[0] for row in TLS_VERSIONS]
)
async def test_tls_version(world: World, minimum: ssl.TLSVersion, maximum: ssl.TLSVersion, reason: str | None) -> None:
    world.https.policy(HOST, TEXT, world.ca.issue(HOST).server_context(minimum, maximum))
    expected = fetched() if reason is None else failed(Stage.TLS, reason)
    assert await world.fetcher().fetch(DOMAIN, "1") == expected


async def test_host_that_does_not_know_its_name(world: World) -> None:
    assert await world.fetcher().fetch(DOMAIN, "1") == failed(Stage.TLS, "the host sent TLS alert 'unrecognized name'")


CHUNKED = [("Transfer-Encoding", "chunked")]
CUT_SHORT = re.compile("peer closed connection without sending complete message body .*")
NOT_HTTP = "the answer is not HTTP/1.1"
TOO_LONG = "larger than 64 KiB"
CUT = "the connection was cut before the end of the response (no TLS close_notify)"
TOO_MANY_INTERIM = "more than 5 interim responses (1xx)"

# What the server sends instead of a handshake, and the reason. Patterns stand for the words of OpenSSL and of h11.
NO_HANDSHAKE: list[tuple[str, list[Step], str | re.Pattern[str]]] = [
    (
        "HTTP without TLS",
        [answer(TEXT)],
        "the answer is not valid TLS",
    ),
    ("a reset", [End.RESET], "connection reset by peer"),
    ("the end", [End.CUT], "the host closed the connection"),
    ("the end of TLS", [bytes.fromhex("15 0303 0002 0100")], "the host ended the TLS connection"),
    ("an alert that nobody knows", [bytes.fromhex("15 0303 0002 02ee")], "unknown TLS error"),
]
# What the server sends instead of a response, and the reason.
NO_RESPONSE: list[tuple[str, list[Step], str | re.Pattern[str]]] = [
    ("a reset", [End.RESET], "connection reset by peer"),
    ("the end", [], "server disconnected without sending a response"),
    ("the end in the header", [HEAD], "server disconnected without sending a response"),
    ("a reset in the body", [answer(TEXT)[:-5], End.RESET], "connection reset by peer"),
    ("a reset in a body of unknown length", [HEAD + b"\r\n" + BODY, End.RESET], "connection reset by peer"),
    ("the end in the body", [answer(TEXT)[:-5]], CUT_SHORT),
    ("the end in the body, without TLS's own", [answer(TEXT)[:-5], End.CUT], CUT),
    ("the end of a body of unknown length, without TLS's own", [HEAD + b"\r\n" + BODY, End.CUT], CUT),
    ("the end after some lines of it", [HEAD + b"\r\n" + BODY[:-3], End.CUT], CUT),
    ("the end in the header, without TLS's own", [HEAD, End.CUT], CUT),
    ("an interim response without end", [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 6, answer(TEXT)], TOO_MANY_INTERIM),
    ("interim responses without end", [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50_000], TOO_MANY_INTERIM),
    ("too many header fields", [answer(TEXT, headers=[("X", "")] * 99)], "more than 100 header fields"),
    ("thousands of header fields", [HEAD + b"X:\r\n" * 24_000 + b"\r\n"], "more than 100 header fields"),
    ("a header of 16 KiB", [answer(TEXT, headers=[("X", "x" * 17_000)])], "response headers too large"),
    (
        "chunks of one octet with extensions",
        [answer(b"1;xxxxxxxxxxxxxxxx\r\na\r\n" * 20_000, headers=CHUNKED)],
        "larger than 128 KiB with its headers and chunks",
    ),
    ("the end between chunks", [answer(chunked(BODY, 7)[:-5], headers=CHUNKED)], CUT_SHORT),
    ("broken chunks", [answer(b"zz\r\n", headers=CHUNKED)], re.compile("illegal chunk header.*")),
    ("garbage", [b"\x00\x01\r\n\r\n"], NOT_HTTP),
    ("zeros", [bytes(100)], NOT_HTTP),
    ("SMTP", [b"220 mx.example.com ESMTP\r\n\r\n"], NOT_HTTP),
    ("HTTP/2", [b"HTTP/2 200 OK\r\n\r\n"], NOT_HTTP),
    ("a policy and no header", [BODY + b"\r\n"], NOT_HTTP),
    ("a status of two digits", [answer(TEXT, status=20)], NOT_HTTP),
    (
        "two lengths",
        [answer(TEXT, headers=[("Content-Length", "5"), ("Content-Length", "6")])],
        re.compile("conflicting Content-Length headers"),
    ),
    ("a length of 5,000 digits", [answer(headers=[("Content-Length", "9" * 5000)])], "bad Content-Length"),
    ("a header without end", [HEAD + b"X: ", Flood(1_000_000)], "response headers too large"),
    ("one octet over 64 KiB", [answer(TEXT + "x" + COMMENT)], TOO_LONG),
    (
        "one octet over 64 KiB, chunked",
        [answer(chunked(BODY + b"x" + COMMENT.encode(), 999), headers=CHUNKED)],
        TOO_LONG,
    ),
    ("too much until the connection ends", [HEAD + b"\r\n" + BODY, Flood(1_000_000)], TOO_LONG),
    (
        "gzip",
        [answer(gzip.compress(BODY), headers=[("Content-Encoding", "gzip")])],
        "sent 'gzip'-encoded unasked; disable compression for this file",
    ),
    (
        "gzip that hides megabytes",
        [answer(gzip.compress(bytes(20_000_000)), headers=[("Content-Encoding", "gzip")])],
        "sent 'gzip'-encoded unasked; disable compression for this file",
    ),
    (
        "two encodings",
        [answer(gzip.compress(BODY), headers=[("Content-Encoding", "identity"), ("Content-Encoding", "gzip")])],
        "sent 'identity, gzip'-encoded unasked; disable compression for this file",
    ),
    (
        "gzip as a transfer encoding",
        [answer(gzip.compress(BODY), headers=[("Transfer-Encoding", "gzip, chunked")])],
        re.compile("only Transfer-Encoding: chunked is supported"),
    ),
    (
        "two media types",
        [answer(TEXT, headers=[("Content-Type", "text/html")])],
        "Content-Type is 'text/html, text/plain', must be text/plain",
    ),
    ("a long media type", [answer(TEXT, content_type="x" * 200)], f"Content-Type is '{'x' * 100}', must be text/plain"),
    (
        "a long redirect",
        [answer(status=301, headers=[("Location", "/" + "x" * 200)])],
        f"status 301, a redirect to '/{'x' * 99}', which must not be followed",
    ),
    (
        "a redirect to no URL",
        [answer(status=301, headers=[("Location", "https://[")])],
        "status 301, a redirect to 'https://[', which must not be followed",
    ),
]


@pytest.mark.parametrize(("steps", "reason"), [row[1:] for row in NO_HANDSHAKE], ids=[row[0] for row in NO_HANDSHAKE])
async def test_instead_of_a_handshake(world: World, steps: list[Step], reason: str | re.Pattern[str]) -> None:
    world.https.site(HOST, None, *steps)
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == failed(Stage.TLS, said(reason, observation))


@pytest.mark.parametrize(("steps", "reason"), [row[1:] for row in NO_RESPONSE], ids=[row[0] for row in NO_RESPONSE])
async def test_instead_of_a_response(world: World, steps: list[Step], reason: str | re.Pattern[str]) -> None:
    world.serve(*steps)
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == failed(Stage.RESPONSE, said(reason, observation))
    assert world.https.connections == 1


@pytest.mark.parametrize("start", [b"", HEAD], ids=["status line", "header line"])
async def test_long_garbage_makes_no_long_reason(world: World, start: bytes) -> None:
    world.serve(start + b"\x00" * 60_000 + b"\r\n\r\n")
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert isinstance(observation, FetchFailed)
    assert len(observation.failure.reason) <= 300


VECTORS = [
    case
    for case in load("policies.json")
    if case["expect"]["reason"] in {"status", "redirect", "content-type", "too-large"} or case["name"].startswith("ct-")
]


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
async def test_vector(world: World, case: dict[str, Any]) -> None:
    """Those of policies.json that HTTP decides. All that RFC 8461 leaves open there, we refuse."""
    body = base64.b64decode(case["body_base64"])
    headers: dict[str, str] = case.get("headers", {})
    world.serve(answer(body, status=case["status"], content_type=case["content_type"], headers=headers.items()))
    match case["expect"]["reason"]:
        case "ok":
            expected: PolicyFetched | FetchFailed = fetched(body.decode())
        case "too-large":
            expected = failed(Stage.RESPONSE, TOO_LONG)
        case "status":
            expected = failed(Stage.RESPONSE, f"status {case['status']}")
        case "redirect":
            to = f"a redirect to '{headers['Location']}', which must not be followed"
            expected = failed(Stage.RESPONSE, f"status {case['status']}, {to}")
        case _:
            shown = f"Content-Type is '{case['content_type']}'" if case["content_type"] else "no Content-Type"
            expected = failed(Stage.RESPONSE, f"{shown}, must be text/plain")
    assert await world.fetcher().fetch(DOMAIN, "1") == expected
    assert len(world.https.requests) == 1


STATUSES = sorted(
    {status.value for status in http.HTTPStatus if status > 200} | {226, 299, 306, 499, 520, 599, 600, 999}
)


@pytest.mark.parametrize("status", STATUSES)
async def test_status(world: World, status: int) -> None:
    world.serve(answer(TEXT, status=status))
    assert await world.fetcher().fetch(DOMAIN, "1") == failed(Stage.RESPONSE, f"status {status}")


@pytest.mark.parametrize(
    "location", [f"https://{HOST}/other.txt", "/.well-known/mta-sts.txt", "http://example.com/", "//example.com/"]
)
async def test_redirect_is_not_followed(world: World, location: str) -> None:
    world.dns.add("example.com", "A", world.https.address)
    world.serve(answer(TEXT, status=301, headers=[("Location", location), ("Refresh", "0; url=/")]))
    assert await world.fetcher().fetch(DOMAIN, "1") == failed(
        Stage.RESPONSE, f"status 301, a redirect to '{location}', which must not be followed"
    )
    assert (world.https.connections, len(world.https.requests)) == (1, 1)


INVALID: list[tuple[str, str, str]] = [
    ("empty", "", "the file is empty"),
    ("a page", "<html></html>\n", "line 1: expected name: value, got '<html></html>'"),
    ("a line is missing", TEXT.replace("mode: enforce\n", ""), "no mode line"),
    ("with a finding", "\n" + TEXT.replace("mode: enforce\n", ""), "no mode line; line 1: blank line"),
]


@pytest.mark.parametrize(("text", "reason"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
async def test_invalid_policy(world: World, text: str, reason: str) -> None:
    world.serve(answer(text))
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert isinstance(observation, PolicyInvalid)
    assert observation == PolicyInvalid(Failure(Stage.POLICY, reason, ResultType.POLICY_INVALID), "1")
    about_lines = [words for words in reason.split("; ") if words.startswith("line ")]
    assert (observation.fault, list(map(str, observation.findings))) == (reason.split("; ")[0], about_lines)


async def test_charset_is_not_heeded(world: World) -> None:
    text = TEXT + "comment: é\n"
    world.serve(answer(text, content_type="text/plain; charset=iso-8859-1"))
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched(text)


async def test_request(world: World) -> None:
    world.serve(answer(TEXT))
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched()
    assert world.https.requests == [request(f"{HOST}:{world.https.port}")]


def request(host: str) -> Request:
    headers = (
        ("Host", host),
        ("User-Agent", f"postfix-mtasts/{__version__}"),
        ("Accept", "text/plain"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    )
    return Request(HOST, "GET", "/.well-known/mta-sts.txt", headers)


@pytest.mark.usefixtures("namespace")
async def test_request_to_the_standard_port(ca: Ca) -> None:
    with DnsServer() as dns, HttpsServer("127.0.0.1", 443) as https:
        dns.add(HOST, "A", https.address)
        https.policy(HOST, TEXT, ca.issue(HOST).server_context())
        resolver = Resolver([InetEndpoint(dns.address, dns.port)], timeout=PATIENCE)
        allowed = [ipaddress.ip_network("127.0.0.1")]
        fetcher = Fetcher(resolver, tls_context(str(ca.file)), timeout=PATIENCE, allow_addresses=allowed)
        assert await fetcher.fetch(DOMAIN, "1") == fetched()
        assert https.requests == [request(HOST)]


async def test_no_state_is_kept_between_requests(world: World) -> None:
    fetcher = world.fetcher()
    remembered = [("Set-Cookie", "a=b; Path=/"), ("ETag", '"1"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")]
    world.serve(answer(TEXT, headers=[*remembered, ("Cache-Control", "max-age=86400, immutable")]))
    for _ in range(2):
        assert await fetcher.fetch(DOMAIN, "1") == fetched()
    assert world.https.requests == [request(f"{HOST}:{world.https.port}")] * 2


async def test_environment_is_not_heeded(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login name password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{world.dns.port}")  # Nobody speaks HTTP there.
    world.serve(answer(TEXT))
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched()
    assert world.https.requests == [request(f"{HOST}:{world.https.port}")]


async def test_reading_stops_at_the_limit(ca: Ca) -> None:
    with DnsServer() as dns, HttpsServer() as https:
        dns.add(HOST, "A", https.address)
        world = World(ca, dns, https)
        world.serve(answer(headers=[("Content-Length", "100000000")]), Flood(100_000_000))
        assert await world.fetcher().fetch(DOMAIN, "1") == failed(Stage.RESPONSE, TOO_LONG)
    assert https.sent.total() < 20_000_000  # What fits into the buffers on the way.


# What the server does, with or without TLS, and how far the fetch is when its time is up.
SLOW: list[tuple[str, bool, list[Step], Stage]] = [
    ("no handshake", False, [HANG], Stage.TLS),
    ("no response", True, [HANG], Stage.RESPONSE),
    ("no end of the header", True, [HEAD, HANG], Stage.RESPONSE),
    ("no end of the body", True, [answer(TEXT)[:-5], HANG], Stage.RESPONSE),
    ("a header drop by drop", True, [Drip(answer(TEXT), 0.1)], Stage.RESPONSE),
    ("a body drop by drop", True, [answer(TEXT)[: -len(TEXT)], Drip(BODY, 0.1)], Stage.RESPONSE),
]


@pytest.mark.parametrize(("tls", "steps", "stage"), [row[1:] for row in SLOW], ids=[row[0] for row in SLOW])
async def test_one_deadline_for_all(world: World, tls: bool, steps: list[Step], stage: Stage) -> None:
    world.https.site(HOST, world.ca.issue(HOST).server_context() if tls else None, *steps)
    async with asyncio.timeout(PATIENCE):
        observation = await world.fetcher(IMPATIENCE).fetch(DOMAIN, "1")
    assert observation == failed(stage, LATE)


def established(port: int) -> int:
    """How many connections to a port of 127.0.0.1 their clients hold open."""
    fields = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(remote == f"0100007F:{port:04X}" and state == "01" for _, _, remote, state, *_ in fields)


# What the server does before it waits for us to close the connection, and what we saw.
LEFT_OPEN: list[tuple[str, bool, list[Step], PolicyFetched | FetchFailed]] = [
    ("no handshake", False, [], failed(Stage.TLS, LATE)),
    ("no response", True, [], failed(Stage.RESPONSE, LATE)),
    ("a refused response", True, [answer(TEXT, status=404)[:-5]], failed(Stage.RESPONSE, "status 404")),
    ("a policy", True, [answer(TEXT)], fetched()),
]


@pytest.mark.parametrize(
    ("tls", "steps", "expected"), [row[1:] for row in LEFT_OPEN], ids=[row[0] for row in LEFT_OPEN]
)
async def test_connection_is_closed(
    world: World, tls: bool, steps: list[Step], expected: PolicyFetched | FetchFailed
) -> None:
    world.https.site(HOST, world.ca.issue(HOST).server_context() if tls else None, *steps, HANG)
    fetch = asyncio.create_task(world.fetcher(PATIENCE if steps else IMPATIENCE).fetch(DOMAIN, "1"))
    while not established(world.https.port) and not fetch.done():
        await asyncio.sleep(0)
    assert await fetch == expected
    await asyncio.sleep(0)  # asyncio closes in the next round.
    assert established(world.https.port) == 0


async def test_deadline_holds_for_dns(world: World) -> None:
    world.dns.set_behaviour(HOST, Behaviour(silent=True))
    assert await world.fetcher(IMPATIENCE).fetch(DOMAIN, "1") == failed(Stage.ADDRESS, LATE)


@contextmanager
def full(port: int) -> Iterator[str]:
    """An address where connections to a port are neither taken nor refused: the queue of who waits is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield "127.0.0.2"


async def test_deadline_holds_for_the_connection(ca: Ca) -> None:
    with DnsServer() as dns, HttpsServer() as https, full(https.port) as address:
        dns.add(HOST, "A", address, https.address)
        fetcher = World(ca, dns, https).fetcher(IMPATIENCE)
        assert await fetcher.fetch(DOMAIN, "1") == failed(Stage.CONNECT, LATE)
        assert https.connections == 0


async def test_address_that_does_not_answer_leaves_time_for_the_next(ca: Ca) -> None:
    with DnsServer() as dns, HttpsServer() as https, full(https.port) as address:
        dns.add(HOST, "A", address, https.address)
        world = World(ca, dns, https)
        world.serve(answer(TEXT))
        assert await world.fetcher().fetch(DOMAIN, "1") == fetched()


# The addresses of the policy host in the order in which they are tried, and why there is no connection; None: there is.
# The server listens on 127.0.0.1 and ::1 only.
CONNECTIONS: list[tuple[str, list[str], str | None]] = [
    ("IPv4", ["127.0.0.1"], None),
    ("IPv6", ["::1"], None),
    ("both", ["::1", "127.0.0.1"], None),
    ("the first refuses", ["127.0.0.2", "127.0.0.1"], None),
    ("all but the last refuse", ["127.0.0.4", "127.0.0.3", "127.0.0.2", "127.0.0.1"], None),
    ("IPv4 refuses", ["::1", "127.0.0.2"], None),
    ("one refuses", ["127.0.0.2"], "127.0.0.2: connection refused"),
    ("all refuse", ["127.0.0.3", "127.0.0.2"], "127.0.0.3: connection refused; 127.0.0.2: connection refused"),
]


@pytest.mark.parametrize(("addresses", "reason"), [row[1:] for row in CONNECTIONS], ids=[row[0] for row in CONNECTIONS])
async def test_connection(world: World, addresses: list[str], reason: str | None) -> None:
    world.dns.remove(HOST)
    for address in addresses:
        world.dns.add(HOST, "AAAA" if ":" in address else "A", address)
    world.serve(answer(TEXT))
    with HttpsServer("::1", world.https.port) as other:
        other.policy(HOST, TEXT, world.ca.issue(HOST).server_context())
        observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == (fetched() if reason is None else failed(Stage.CONNECT, reason))
    taken = [other, world.https] if addresses[0] == "::1" else [world.https, other]
    assert [server.connections for server in taken] == [int(reason is None), 0]


async def test_ipv6_that_refuses_leaves_ipv4(world: World) -> None:
    world.dns.add(HOST, "AAAA", "::1")
    world.serve(answer(TEXT))
    assert await world.fetcher().fetch(DOMAIN, "1") == fetched()


# What DNS says of the policy host, and why it has no address.
NO_ADDRESS: list[tuple[str, Behaviour | None, str]] = [
    ("no such host", None, f"{HOST} has no address"),
    ("DNS fails", Behaviour(rcode="SERVFAIL"), "{server}: SERVFAIL"),
]


@pytest.mark.parametrize(("behaviour", "reason"), [row[1:] for row in NO_ADDRESS], ids=[row[0] for row in NO_ADDRESS])
async def test_no_address(world: World, behaviour: Behaviour | None, reason: str) -> None:
    world.dns.remove(HOST)
    if behaviour:
        world.dns.set_behaviour(HOST, behaviour)
    assert await world.fetcher().fetch(DOMAIN, "1") == failed(
        Stage.ADDRESS, reason.format(server=f"127.0.0.1 port {world.dns.port}")
    )


# Addresses of a policy host that are never connected to.
INSIDE = [
    ["127.0.0.1"],
    ["::1"],
    ["::1", "127.0.0.1"],
    ["::ffff:127.0.0.1"],
    ["64:ff9b::7f00:1"],
    ["2002:7f00:1::"],
    ["0.0.0.0"],  # Linux connects to itself.
    ["::"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["fe80::1"],
    ["fd00::1"],
]


@pytest.mark.parametrize("addresses", INSIDE, ids=[" ".join(addresses) for addresses in INSIDE])
async def test_address_inside_is_refused(world: World, addresses: list[str]) -> None:
    world.dns.remove(HOST)
    for address in addresses:
        world.dns.add(HOST, "AAAA" if ":" in address else "A", address)
    world.serve(answer(TEXT))
    with HttpsServer("::1", world.https.port) as other:
        observation = await world.fetcher(allow=()).fetch(DOMAIN, "1")
        assert (world.https.connections, other.connections) == (0, 0)
    assert observation == failed(Stage.ADDRESS, f"{HOST} has no public address, only {', '.join(addresses)}")


async def test_only_allowed_addresses_are_connected_to(world: World) -> None:
    world.dns.remove(HOST)
    world.dns.add(HOST, "A", "127.0.0.1", "127.0.0.2")
    world.serve(answer(TEXT))
    with HttpsServer("127.0.0.2", world.https.port) as allowed:
        allowed.policy(HOST, TEXT, world.ca.issue(HOST).server_context())
        assert await world.fetcher(allow=["127.0.0.2/32"]).fetch(DOMAIN, "1") == fetched()
        assert (world.https.connections, allowed.connections) == (0, 1)


GLOBAL = ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1"]
NOT_GLOBAL = [
    *(address for addresses in INSIDE for address in addresses),
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "240.0.0.1",
    "255.255.255.255",
    "224.0.0.1",
    "ff0e::1",
    "2001:db8::1",
    "192.0.0.9",
    "192.0.0.170",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "::ffff:0:1.1.1.1",
    "::ffff:1.1.1.1",
    "::1.1.1.1",
    "64:ff9b:1::101:101",
    "fec0::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
    "::ffff:224.0.0.1",
]


@pytest.mark.parametrize(
    ("address", "expected"), [*((one, True) for one in GLOBAL), *((one, False) for one in NOT_GLOBAL)]
)
def test_is_global(address: str, expected: bool) -> None:
    assert is_global(ipaddress.ip_address(address)) is expected


BAD_CA_FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing", lambda file: None, "no such file or directory"),
    ("a folder", lambda file: file.mkdir(), "is a directory"),
    ("empty", lambda file: file.touch(), "the file has no certificate in PEM format"),
    ("no PEM", lambda file: file.write_bytes(b"\x30\x82"), "the file has no certificate in PEM format"),
    (
        "PEM cut short",
        lambda file: file.write_text("-----BEGIN CERTIFICATE-----\n"),
        "the file has no certificate in PEM format",
    ),
]


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in BAD_CA_FILES], ids=[row[0] for row in BAD_CA_FILES])
def test_bad_ca_file(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / "ca.pem")
    with pytest.raises(CaError) as raised:
        tls_context(str(tmp_path / "ca.pem"))
    assert str(raised.value) == reason
