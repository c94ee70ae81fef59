"""What an MX host sends before TLS, read by the probe: pieces with a zero octet in between.

Nothing is declared: the result says what is wrong.
"""

from collections.abc import Iterator

from postfix_mtasts.remote import probe
from tests.fuzz.received import RESOLVER, TLS, Host, ToHost
from tests.fuzz.received import run as run_to_the_end
from tests.fuzz.targets import check_words

vars(probe)["Network"] = ToHost
_PROBER = probe.Prober(RESOLVER, TLS, "client.example")


def seeds() -> Iterator[bytes]:
    yield b"220 mx.example.com ESMTP\r\n\0250-mx.example.com\r\n250-SIZE\r\n\x00250 STARTTLS\r\n\x00220 go ahead\r\n"
    yield b"220 a\r\n\x00250-b\r\n250-starttls\n\x00250 8BITMIME\n\x00454 no\r\n"
    yield b"220-mx.example.com\r\n220 ESMTP\r\n"
    yield b"554 go away\r\n"
    yield b"220 \xe9\n"
    yield b"220-" + b"a" * 60000
    yield b"220-a\r\n" * 9000


def run(data: bytes) -> None:
    Host.pieces = data.split(b"\0")
    found = run_to_the_end(_PROBER.probe("mx.example.com", "192.0.2.1", 25))
    if words := found.problem or found.unclear:
        check_words(words)
        assert len(words) < 1000
    else:  # All steps were taken.
        assert b"STARTTLS" in data.upper()
