"""What a proxy may answer, and what becomes of a fetch: each way to fail is one line, and bounded."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_mtasts.config import InetEndpoint, ProxyUrl
from postfix_mtasts.config_file import Proxy
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import Failure, FetchFailed, Stage
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HANG, Drip, End, Flood, HttpsServer, Step

DOMAIN = PolicyDomain("example.com")
TARGET = "mta-sts.example.com:443"
PATIENCE, IMPATIENCE = 30.0, 1.0
LATE = f"timed out after {IMPATIENCE:g} s"
OK = b"HTTP/1.1 200 Connection established\r\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


def fetcher(ca: Ca, proxy: Proxy, timeout: float, dns: DnsServer | None = None) -> Fetcher:
    """Without DNS: nobody is asked for a name."""
    nameserver = InetEndpoint(dns.address, dns.port) if dns else InetEndpoint("127.0.0.9", 9)
    resolver = Resolver([nameserver], timeout=PATIENCE)
    return Fetcher(resolver, tls_context(str(ca.file)), timeout=timeout, proxy=proxy)


def failed(stage: Stage, reason: str) -> FetchFailed:
    return FetchFailed(Failure(stage, reason), "1")


# What speaks to us, whether we have credentials, what it sends at once, and why there is no connection.
# URL stands for that of the proxy.
WRONG: list[tuple[str, str, bool, list[Step], str]] = [
    ("it wants credentials", "http", False, [b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", HANG],
     "URL asks for a user and a password: set fetch.proxy_credentials (status 407)"),
    ("it does not like ours", "http", True, [b"HTTP/1.1 407 No\r\n\r\n", HANG],
     "URL does not accept the user and password in fetch.proxy_credentials (status 407)"),
    ("it refuses", "http", False, [b"HTTP/1.0 403 Filtered\r\n\r\n", HANG],
     f"URL did not connect to {TARGET}: status 403 Filtered"),
    ("it does not like ours, as tinyproxy says it", "http", True, [b"HTTP/1.1 401 Unauthorized\r\n\r\n", HANG],
     "URL does not accept the user and password in fetch.proxy_credentials (status 401)"),
    ("it finds nobody", "http", False, [b"HTTP/1.1 502 \r\n\r\n", HANG],
     f"URL did not connect to {TARGET}: status 502"),
    ("its phrase is long", "http", False, [b"HTTP/1.1 500 " + b"x" * 9000 + b"\r\n\r\n", HANG],
     f"URL did not connect to {TARGET}: status 500 {'x' * 60}"),
    ("it switches protocols", "http", False, [b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\n\r\n", HANG],
     "URL answers wrongly: switches protocols unasked"),
    ("it redirects", "http", False, [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", HANG],
     f"URL did not connect to {TARGET}: status 302 Found"),
    ("it speaks something else", "http", False, [b"220 smtp.example ESMTP\r\n", HANG],
     "URL answers wrongly: the answer is not HTTP/1.1"),
    ("it closes", "http", False, [b"HTTP/1.1 200 OK\r\n", End.HALF],
     "URL closed the connection before the end of its answer"),
    ("endless headers", "http", False, [OK, Flood(100_000_000)], "URL answers wrongly: response headers too large"),
    ("many headers", "http", False, [OK + b"a: b\r\n" * 101 + b"\r\n", HANG],
     "URL answers wrongly: more than 100 header fields"),
    ("many interim responses", "http", False, [b"HTTP/1.1 103 Wait\r\n\r\n" * 7, HANG],
     "URL answers wrongly: more than 5 interim responses (1xx)"),
    ("it speaks HTTP", "socks5", False, [b"HTTP/1.1 400 Bad Request\r\n\r\n", HANG], "URL does not speak SOCKS5"),
    ("it is SOCKS4", "socks5", False, [b"\x00\x5b" + bytes(6), HANG], "URL does not speak SOCKS5"),
    ("no method", "socks5", False, [b"\x05\xff", HANG],
     "URL asks for a user and a password: set fetch.proxy_credentials"),
    ("no method though we have credentials", "socks5", True, [b"\x05\xff", HANG],
     "URL does not accept the user and password in fetch.proxy_credentials"),
    ("a method that we did not offer", "socks5", False, [b"\x05\x02", HANG], "URL does not speak SOCKS5"),
    ("wrong password", "socks5", True, [b"\x05\x02\x01\x01", HANG],
     "URL does not accept the user and password in fetch.proxy_credentials"),
    ("its rules", "socks5", False, [b"\x05\x00\x05\x02\x00\x01", HANG],
     f"URL did not connect to {TARGET}: not allowed by its rules"),
    ("host unreachable", "socks5", True, [b"\x05\x02\x01\x00\x05\x04\x00\x01", HANG],
     f"URL did not connect to {TARGET}: host unreachable"),
    ("a reply that nobody knows", "socks5", False, [b"\x05\x00\x05\x63\x00\x01", HANG],
     f"URL did not connect to {TARGET}: reply 99"),
    ("an address that nobody knows", "socks5", False, [b"\x05\x00\x05\x00\x00\x02", HANG], "URL does not speak SOCKS5"),
    ("another version in the reply", "socks5", False, [b"\x05\x00\x04\x00\x00\x01", HANG], "URL does not speak SOCKS5"),
    ("it closes at once", "socks5", False, [End.HALF], "URL closed the connection before the end of its answer"),
    ("it closes in its reply", "socks5", False, [b"\x05\x00\x05\x00\x00\x01\x7f", End.HALF],
     "URL closed the connection before the end of its answer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "credentials", "steps", "reason"), [row[1:] for row in WRONG], ids=[f"{r[1]}: {r[0]}" for r in WRONG]
)
async def test_wrong_answer(ca: Ca, scheme: str, credentials: bool, steps: list[Step], reason: str) -> None:
    with HttpsServer(at_once=steps) as server:
        url = ProxyUrl(scheme, server.address, server.port)
        proxy = Proxy(url, "me", "secret") if credentials else Proxy(url)
        observation = await fetcher(ca, proxy, PATIENCE).fetch(DOMAIN, "1")
        assert server.sent.total() < 20_000_000  # What fits into the buffers on the way.
    assert observation == failed(Stage.PROXY, reason.replace("URL", str(url)))
    assert isinstance(observation, FetchFailed)
    assert observation.seen
    assert observation.seen.proxy == str(url)


SLOW: list[tuple[str, str, list[Step], Stage]] = [
    ("silent", "http", [HANG], Stage.PROXY),
    ("silent", "socks5", [HANG], Stage.PROXY),
    ("no end of the header", "http", [OK, HANG], Stage.PROXY),
    ("drop by drop", "http", [Drip(OK + b"a: b\r\n" * 50, 0.1)], Stage.PROXY),
    ("no end of the reply", "socks5", [b"\x05\x00\x05\x00\x00\x03\xff", HANG], Stage.PROXY),
    ("connected, and silent", "http", [OK + b"\r\n", HANG], Stage.TLS),
    ("connected, and silent", "socks5", [Drip(b"\x05\x00\x05\x00\x00\x03\x01x\x01\xbb", 0.001), HANG], Stage.TLS),
    ("connected from IPv4", "socks5", [b"\x05\x00\x05\x00\x00\x01" + bytes(6), HANG], Stage.TLS),
    ("connected from IPv6", "socks5", [b"\x05\x00\x05\x00\x00\x04" + bytes(18), HANG], Stage.TLS),
]


@pytest.mark.parametrize(
    ("scheme", "steps", "stage"), [row[1:] for row in SLOW], ids=[f"{row[1]}: {row[0]}" for row in SLOW]
)
async def test_one_deadline_for_all(ca: Ca, scheme: str, steps: list[Step], stage: Stage) -> None:
    with HttpsServer(at_once=steps) as server:
        proxy = Proxy(ProxyUrl(scheme, server.address, server.port))
        async with asyncio.timeout(PATIENCE):
            assert await fetcher(ca, proxy, IMPATIENCE).fetch(DOMAIN, "1") == failed(stage, LATE)


@pytest.mark.parametrize(
    ("behaviour", "addresses", "reason"),
    [
        pytest.param(None, (), "has no address", id="no address"),
        pytest.param(Behaviour(rcode="SERVFAIL"), (), "127.0.0.1 port PORT: SERVFAIL", id="DNS fails"),
        pytest.param(None, ("127.0.0.7",), "cannot be reached: 127.0.0.7: connection refused", id="dead"),
    ],
)
async def test_proxy_without_an_address(
    ca: Ca, behaviour: Behaviour | None, addresses: tuple[str, ...], reason: str
) -> None:
    with DnsServer() as dns:
        if addresses:
            dns.add("proxy.example", "A", *addresses)
        if behaviour:
            dns.set_behaviour("proxy.example", behaviour)
        observation = await fetcher(ca, Proxy(ProxyUrl("http", "proxy.example", 1)), PATIENCE, dns).fetch(DOMAIN, "1")
        assert {query.name for query in dns.queries} == {"proxy.example"}
    expected = f"http://proxy.example:1 {reason}".replace("PORT", str(dns.port))
    assert observation == failed(Stage.PROXY, expected)


@contextmanager
def listener(answers: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Takes one connection, and answers each thing that it receives; its port, and what it has received."""
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            for answer in answers:
                received.append(connection.recv(4096))
                connection.sendall(answer)
            received.append(connection.recv(4096)[:3])

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], received
        thread.join()


HELLO = b"\x16\x03\x01"  # A record of TLS with a ClientHello.
NAME = b"mta-sts.example.com"


async def test_what_an_http_proxy_is_sent(ca: Ca) -> None:
    with listener([OK + b"\r\n"]) as (port, received):
        proxy = Proxy(ProxyUrl("http", "127.0.0.1", port), "me", "pass:wörd")
        await fetcher(ca, proxy, IMPATIENCE).fetch(DOMAIN, "1")
    head, *lines = received[0].removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert head == b"CONNECT mta-sts.example.com:443 HTTP/1.1"
    assert lines[0] == b"Host: mta-sts.example.com:443"
    assert lines[2:] == [b"Proxy-Authorization: Basic bWU6cGFzczp3w7ZyZA=="]
    assert received[1:] == [HELLO]


async def test_what_a_socks_proxy_is_sent(ca: Ca) -> None:
    with listener([b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x01" + bytes(6)]) as (port, received):
        proxy = Proxy(ProxyUrl("socks5", "127.0.0.1", port), "me", "pass:wörd")
        await fetcher(ca, proxy, IMPATIENCE).fetch(DOMAIN, "1")
    connect = b"\x05\x01\x00\x03" + bytes([len(NAME)]) + NAME + b"\x01\xbb"
    assert received == [b"\x05\x02\x00\x02", b"\x01\x02me\x0apass:w\xc3\xb6rd", connect, HELLO]


async def test_without_credentials_a_socks_proxy_is_offered_no_password(ca: Ca) -> None:
    with listener([b"\x05\x00"]) as (port, received):
        await fetcher(ca, Proxy(ProxyUrl("socks5", "127.0.0.1", port)), IMPATIENCE).fetch(DOMAIN, "1")
    assert received[0] == b"\x05\x01\x00"


def test_the_password_is_in_no_repr(tmp_path: Path) -> None:
    assert "secret" not in repr(Proxy(ProxyUrl("http", "proxy.example", 1), "me", "secret"))
