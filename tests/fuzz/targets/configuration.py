"""The configuration file. ConfigError is declared."""

import ipaddress
from collections.abc import Iterator

from postfix_mtasts.config import Config, ConfigError, InetEndpoint, parse
from tests.fuzz.targets import DATA

LONGEST = 1.0  # Seconds: the file is the administrator's own, and tomllib takes long for a key of many parts.


def seeds() -> Iterator[bytes]:
    for file in sorted((DATA / "config").glob("*.toml")):
        yield file.read_bytes()
    yield (DATA.parents[1] / "docs" / "postfix-mtasts.toml").read_bytes()
    yield b"[dns]\nnameservers = [" + b'"192.0.2.1", ' * 4500 + b"]"
    yield b"[dns]\nnameservers = " + b"[" * 60000
    yield b"[" + b"a." * 30000 + b"b]"
    yield b"".join(b"[t%d]\n" % number for number in range(8000))
    yield b"[dns]\ntimeout = " + b"9" * 60000
    yield b"[dns]\n" + b"x" * 60000 + b" = 1"


def run(data: bytes) -> None:
    try:
        found = parse(data, "f")
    except ConfigError as error:
        assert str(error).startswith("f: ")
        assert "\n" not in str(error), error
        return
    assert isinstance(found, Config)
    assert all(0.1 <= seconds <= 90 for seconds in (found.server.answer_within, found.dns.timeout, found.fetch.timeout))
    assert found.cache.path.startswith("/")
    assert found.server.control == "" or found.server.control.startswith("/")
    for endpoint in (*found.server.listen, *found.dns.nameservers):
        if isinstance(endpoint, InetEndpoint):
            ipaddress.ip_address(endpoint.host)
            assert 1 <= endpoint.port <= 65535
        else:
            assert len(endpoint.path.encode()) <= 107
