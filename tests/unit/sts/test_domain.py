import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.sts.domain import HostnameError, NextHop, PolicyDomain, PolicyDomainError, hostname, next_hop
from tests.unit.strategies import domains, near
from tests.unit.vectors import load

OWN_ANSWERS: dict[str, tuple[str, str]] = {
    "localhost": ("NOTFOUND", "a single label: nobody can publish under it, so it costs no DNS query"),
}
_KEYS = load("query_keys.json")
_KEY_TOKENS = (
    "[",
    "]",
    ":",
    ".",
    "-",
    "example",
    "com",
    "25",
    "smtp",
    "xn--",
    "ü",
    "ß",
    "。",
    "K",
    "\0",
    "/",
    "@",
    "1",
)


def _parsed(key: bytes) -> PolicyDomain | str:
    try:
        return next_hop(key).domain
    except PolicyDomainError as error:
        return str(error)


@pytest.mark.parametrize(
    ("key", "expected"),
    [pytest.param(case["socketmap_key"], case["expect"], id=case["socketmap_key"][:40]) for case in _KEYS],
)
def test_vectors(key: str, expected: str) -> None:
    answer, _ = OWN_ANSWERS.get(key, (expected, ""))
    found = _parsed(key.encode())
    assert (f"lookup {found}" if isinstance(found, PolicyDomain) else "NOTFOUND") == answer


def test_every_ambiguous_vector_has_our_answer() -> None:
    assert set(OWN_ANSWERS) == {case["socketmap_key"] for case in _KEYS if " or " in case["expect"]}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param("Example.COM", "example.com", id="lower case"),
        pytest.param("example.com.", "example.com", id="without the root dot"),
        pytest.param("[Example.com.]", "example.com", id="root dot in brackets"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="U-label"),
        pytest.param("BÜCHER.Example.", "xn--bcher-kva.example", id="U-label in upper case, root dot"),
        pytest.param("[bücher.example]:25", "xn--bcher-kva.example", id="U-label of a smart host"),
        pytest.param("straße.example", "xn--strae-oqa.example", id="IDNA 2008: ß is not ss"),
        pytest.param("bücher。example", "xn--bcher-kva.example", id="ideographic full stop (UTS 46)"),
        pytest.param("ｂüｃｈｅｒ.example", "xn--bcher-kva.example", id="full width (UTS 46)"),
        pytest.param("\N{KELVIN SIGN}.example", "k.example", id="maps to an ASCII letter (UTS 46)"),
        pytest.param("1.example", "1.example", id="a label of digits that is not the last"),
        pytest.param("1.2.3.4a", "1.2.3.4a", id="last label not only digits"),
        pytest.param("a--b.example", "a--b.example", id="two hyphens inside"),
        pytest.param("x" * 63 + ".example", "x" * 63 + ".example", id="label of 63"),
        pytest.param(f"{'x' * 63}." * 3 + "x" * 52, f"{'x' * 63}." * 3 + "x" * 52, id="244 with _mta-sts. makes 253"),
        pytest.param("example.com:smtp", "example.com", id="port by its name"),
    ],
)
def test_name_of_a_key(key: str, name: str) -> None:
    domain = next_hop(key.encode()).domain
    assert domain == PolicyDomain(name)
    assert (domain.record_name(), domain.policy_host(), str(domain)) == (f"_mta-sts.{name}", f"mta-sts.{name}", name)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param(b"", "not a hostname", id="empty"),
        pytest.param(b"\xff.example", "not UTF-8", id="not UTF-8"),
        pytest.param(b"\xed\xa0\x80.example", "not UTF-8", id="surrogate in UTF-8"),
        pytest.param(b".example.com", "not a hostname", id="Postfix asks for parent domains"),
        pytest.param(b"example..com", "not a hostname", id="empty label"),
        pytest.param(b"example.com..", "not a hostname", id="two root dots"),
        pytest.param(b"localhost", "needs a dot, like example.com", id="single label"),
        pytest.param(b"localhost.", "needs a dot, like example.com", id="single label with a root dot"),
        pytest.param(b"[192.0.2.1]", "ends in a number, like an IP address", id="IPv4"),
        pytest.param(b"[192.0.2.1]:25", "ends in a number, like an IP address", id="IPv4 and port"),
        pytest.param(b"1", "ends in a number, like an IP address", id="number"),
        pytest.param(b"[IPv6:2001:db8::1]", "not a hostname", id="IPv6 literal"),
        pytest.param(b"[2001:db8::1]:25", "not a hostname", id="IPv6 and port"),
        pytest.param(b"[example.com", "not a hostname", id="no closing bracket"),
        pytest.param(b"[example.com]25", "not a hostname", id="no colon after the bracket"),
        pytest.param(b"[example.com]:", "not a hostname", id="empty port after the bracket"),
        pytest.param(b"[example.com]:25\n", "not a hostname", id="newline after the port"),
        pytest.param(b"[[example.com]]", "not a hostname", id="two brackets"),
        pytest.param(b"example.com:", "not a hostname", id="empty port"),
        pytest.param(b"example.com:25:25", "not a hostname", id="two ports"),
        pytest.param(b"example.com:" + b"9" * 32, "not a hostname", id="port of 32 digits"),
        pytest.param(b"example.com\n", "not a hostname", id="newline at the end"),
        pytest.param(b"example.com\0", "not a hostname", id="NUL"),
        pytest.param(b" example.com", "not a hostname", id="blank before"),
        pytest.param(b"\x0bexample.com", "not a hostname", id="vertical tab before"),
        pytest.param(b"exam_ple.com", "not a hostname", id="underscore"),
        pytest.param(b"-a.example", "not a hostname", id="hyphen first"),
        pytest.param(b"a-.example", "not a hostname", id="hyphen last"),
        pytest.param(b"*.example.com", "not a hostname", id="wildcard"),
        pytest.param(b"x" * 64 + b".example", "not a hostname", id="label of 64"),
        pytest.param(b"a." * 127, "too long to have a name with _mta-sts. before it", id="253"),
        pytest.param(
            b"x" * 63 + b"." + b"a." * 90 + b"a", "too long to have a name with _mta-sts. before it", id="245"
        ),
        pytest.param(b"a." * 127 + b"a", "longer than 253 characters", id="255"),
        pytest.param(
            ("ü." * 40).encode(), "cannot be converted to punycode: Domain too long", id="over 253 only as A-labels"
        ),
        pytest.param(
            "♥.example".encode(),
            "cannot be converted to punycode: Codepoint U+2665 at position 1 of '♥' not allowed",
            id="a code point that IDNA 2008 disallows",
        ),
        pytest.param("\N{SOFT HYPHEN}".encode(), "cannot be converted to punycode: Empty domain", id="maps to nothing"),
    ],
)
def test_no_domain(key: bytes, message: str) -> None:
    assert _parsed(key) == message


@pytest.mark.parametrize(
    ("key", "hop", "text"),
    [
        ("example.com", NextHop(PolicyDomain("example.com"), mx=True, port="25"), "example.com"),
        ("example.com:587", NextHop(PolicyDomain("example.com"), mx=True, port="587"), "example.com:587"),
        ("[Example.com]", NextHop(PolicyDomain("example.com"), mx=False, port="25"), "[example.com]"),
        ("[example.com]:25", NextHop(PolicyDomain("example.com"), mx=False, port="25"), "[example.com]"),
        (
            "[example.com]:submission",
            NextHop(PolicyDomain("example.com"), mx=False, port="submission"),
            "[example.com]:submission",
        ),
    ],
)
def test_next_hop(key: str, hop: NextHop, text: str) -> None:
    assert next_hop(key.encode()) == hop
    assert str(hop) == text
    assert next_hop(text.encode()) == hop


@pytest.mark.parametrize("name", ["é\u00a0", "²", "٣.٣", "example\N{IDEOGRAPHIC SPACE}", "a\u0085", "\ud800.example"])
def test_what_python_calls_space_digit_or_letter_is_none(name: str) -> None:
    with pytest.raises(HostnameError):
        hostname(name)


@given(domains)
def test_printed_domain_parses(domain: PolicyDomain) -> None:
    assert next_hop(str(domain).encode()).domain == domain


@given(st.binary() | near(*_KEY_TOKENS).map(str.encode))
def test_any_key_gives_a_name_for_dns_or_our_error(key: bytes) -> None:
    match _parsed(key):
        case PolicyDomain(name) as domain:
            assert re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", name)
            assert len(domain.record_name()) <= 253
            assert next_hop(name.encode()).domain == domain
        case message:
            assert message.isprintable()


@given(st.text(st.characters(), max_size=300) | near(*_KEY_TOKENS))
def test_any_text_gives_a_hostname_or_our_error(text: str) -> None:
    try:
        name = hostname(text)
    except HostnameError:
        return
    assert hostname(name) == name
