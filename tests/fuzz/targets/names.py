"""Keys of Postfix, hostnames with IDNA, and MX patterns: two lines, a pattern and a host, are also matched.

PolicyDomainError, HostnameError and, for patterns, ValueError are declared.
"""

import re
from collections.abc import Iterator

from postfix_mtasts.sts.domain import HostnameError, PolicyDomainError, hostname, next_hop
from postfix_mtasts.sts.policy import MxPattern
from tests.fuzz.targets import cases

_HOSTNAME = re.compile(r"(?!.*\.[0-9]+\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.(?!\Z)|\Z))+")


def seeds() -> Iterator[bytes]:
    for case in cases("query_keys.json"):
        yield case["socketmap_key"].encode("utf-8", "surrogatepass")
    for case in cases("mx_match.json"):
        yield f"{case['mx_pattern']}\n{case['host']}".encode("utf-8", "surrogatepass")
    yield "straße.example\nxn--strae-oqa.example".encode()
    yield "*.пример.рф\nmail.пример.рф".encode()
    yield ("ü" * 60 + ".").encode() * 4 + b"example"
    yield "١٢.example\u3002com".encode()
    yield "\u0301\u0f71\u0f72".encode() * 5000
    yield b"a." * 32000
    yield ("ü." * 20000).encode()


def run(data: bytes) -> None:
    _check_key(data)
    text = data.decode("utf-8", "surrogateescape")
    pattern, _, host = text.partition("\n")
    try:
        name = hostname(host)
    except HostnameError:
        name = ""
    else:
        _check_hostname(name)
    try:
        mx = MxPattern(pattern)
    except ValueError:
        return
    # The definition in RFC 8461, 4.1, said in other words.
    own, labels = pattern.lower().split("."), name.split(".")
    expected = labels[1:] == own[1:] and len(labels) == len(own) if own[0] == "*" else labels == own
    assert mx.matches(host) == (bool(name) and expected), (pattern, host)


def _check_key(key: bytes) -> None:
    try:
        hop = next_hop(key)
    except PolicyDomainError as error:
        assert "\n" not in str(error)
        return
    _check_hostname(hop.domain.name)
    assert "." in hop.domain.name
    assert len(hop.domain.record_name()) <= 253
    assert next_hop(str(hop).encode()) == hop
    assert next_hop(key.upper() if key.isascii() and hop.port.isdigit() else key).domain == hop.domain


def _check_hostname(name: str) -> None:
    assert len(name) <= 253, name
    assert _HOSTNAME.fullmatch(name), name
    assert hostname(name) == name, name
