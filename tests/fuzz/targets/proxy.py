"""What a proxy sends in answer to our request for a connection. Nothing is declared.

The first octet chooses what it speaks, whether there are credentials, and the size of the pieces that are read.
"""

from collections.abc import Iterator

from postfix_mtasts.config import ProxyUrl
from postfix_mtasts.config_file import Proxy
from postfix_mtasts.remote import fetcher
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import MAX_REASON, PolicyFetched
from tests.fuzz.received import RESOLVER, TLS, Host, ToHost
from tests.fuzz.received import run as run_to_the_end
from tests.fuzz.targets import check_words, slices
from tests.world.https import answer

_POLICY = b"version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400\n"
_CONNECTED = {"http": b"HTTP/1.1 200 OK\r\n\r\n", "socks5": b"\x05\x00\x05\x00\x00\x01" + bytes(6)}
_SCHEMES = tuple(_CONNECTED)
_DOMAIN = PolicyDomain("example.com")
vars(fetcher)["Network"] = ToHost


def seeds() -> Iterator[bytes]:
    yield b"\0" + _CONNECTED["http"] + answer(_POLICY)
    yield b"\1" + _CONNECTED["socks5"] + answer(_POLICY)
    yield b"\2HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno"
    yield b"\0HTTP/1.0 502 Bad Gateway\r\nServer: x\r\n\r\n<html>"
    yield b"\0HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"
    yield b"\0HTTP/1.1 103 Hints\r\n\r\n" * 6
    yield b"\3\x05\x02\x01\x00\x05\x00\x00\x03\x04host\x01\xbb" + answer(_POLICY)
    yield b"\3\x05\x02\x01\x01"
    yield b"\1\x05\xff"
    yield b"\1\x05\x00\x05\x04\x00\x04" + bytes(18)


def run(data: bytes) -> None:
    chosen, sent = data[0] if data else 0, data[1:]
    url = ProxyUrl(_SCHEMES[chosen % 2], "127.0.0.1", 1)
    proxy = Proxy(url, "me", "secret") if chosen & 2 else Proxy(url)
    Host.pieces, Host.cut = list(slices(sent, chosen // 4 * 32 or len(sent) or 1)), False
    seen = run_to_the_end(fetcher.Fetcher(RESOLVER, TLS, timeout=60, proxy=proxy).fetch(_DOMAIN, "1"))
    if isinstance(seen, PolicyFetched):
        return
    check_words(seen.failure.reason)
    assert len(seen.failure.reason) <= MAX_REASON
    assert "secret" not in seen.failure.reason
    assert not seen.failure.is_local, seen
