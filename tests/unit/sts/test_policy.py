import base64
import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Finding, Mode, MxPattern, Policy, PolicyError, parse
from tests.unit.strategies import hostnames, labels, near, patterns, policies, policy_texts
from tests.unit.vectors import load, split

FETCHERS_REASONS = ("status", "redirect", "content-type", "too-large")
DECIDED, AMBIGUOUS = split([c for c in load("policies.json") if c["expect"]["reason"] not in FETCHERS_REASONS])
MX_DECIDED, MX_AMBIGUOUS = split(load("mx_match.json"))


def policy(mode: Mode, max_age: int, *mx: str) -> Policy:
    return Policy(mode, max_age, tuple(map(MxPattern, mx)))


PLAIN = policy(Mode.ENFORCE, 86400, "mail.example.com")
CAPPED = policy(Mode.ENFORCE, MAX_AGE_LIMIT, "mail.example.com")

OWN_ANSWERS: dict[str, tuple[tuple[Policy, tuple[Finding, ...]] | str, str]] = {
    "blank-line-middle": ((PLAIN, (Finding(2, "blank line"),)), "real policies have them; refusing them helps nobody"),
    "whitespace-only-line": ((PLAIN, (Finding(5, "blank line"),)), "as a blank line"),
    "utf8-bom": (
        (PLAIN, (Finding(1, "remove the byte order mark"),)),
        "Notepad writes one",
    ),
    "ext-empty-value": ((PLAIN, (Finding(5, "ext is empty"),)), "an unknown field is ignored anyway"),
    "max-age-max-plus-1": (
        (CAPPED, (Finding(4, "max_age 31557601 is treated as 31557600 (the maximum)"),)),
        "grammar and prose differ (erratum 7282): valid, and no longer than the prose allows",
    ),
    "max-age-8-digits": ((CAPPED, (Finding(4, "max_age 99999999 is treated as 31557600 (the maximum)"),)), "as above"),
    "max-age-2pow31": ((CAPPED, (Finding(4, "max_age 2147483648 is treated as 31557600 (the maximum)"),)), "as above"),
    "leading-space-one-line": (
        "line 3: remove the blank before mx",
        "the grammar has no blanks before a name, and mail clients that fold lines do not write policies",
    ),
    "space-before-colon": (
        "line 1: remove the blank after version",
        "the grammar has blanks after the colon only",
    ),
    "mx-empty-mode-none": ("line 3: mx is empty", "one bad mx voids the policy, whatever its mode"),
    "mx-bad-plus-good": (
        "line 3: mx '*.*.example.com': write one hostname, or *.domain",
        "a policy enforced without that host would refuse its mail",
    ),
    "mx-underscore": (
        "line 3: mx 'mail_1.example.com': write one hostname, or *.domain",
        "RFC 5321's Domain has no underscore",
    ),
    "mx-ipv4-looking": (
        "line 3: mx '1.2.3.4': write one hostname, or *.domain",
        "can match no MX host, so its owner should hear of it",
    ),
    "mx-name-over-255": (
        f"line 3: mx '{'a' * 60}...': longer than 253 characters",
        "no name in DNS is that long",
    ),
}
OWN_MATCHES: dict[str, tuple[bool | None, str]] = {
    "*.example.com *.example.com": (False, "a host with * in its name is no hostname"),
    "x.xn--aca-6ma.com x.ñaca.com": (True, "a U-label of an MX is compared as an A-label"),
    "ñaca.com ñaca.com": (None, "mx must be A-labels (RFC 8461, 3.2)"),
    "1.2.3.4 1.2.3.4": (None, "an MX host is never an address"),
    "*.2.3.4 1.2.3.4": (None, "an MX host is never an address"),
}
REASONS = {
    "empty": "the file is empty",
    "line-syntax": r"the file is empty|line \d+: "
    r"(expected name: value, got .*|remove the blank (before|after) \w+|not UTF-8|\w+ is empty)",
    "version": r"line \d+: version must be STSv1, not .*",
    "mode": r"line \d+: mode must be enforce, testing or none, not .*",
    "max_age": r"line \d+: max_age must be a number of up to 10 digits, not .*",
    "mx-syntax": r"line \d+: mx .*: (write .*|remove the dot at the end|longer than .*)",
    "missing-version": "no version line.*",
    "missing-mode": "no mode line.*",
    "missing-max_age": "no max_age line.*",
    "missing-mx": "no mx line.*",
}


def _parsed(body: bytes) -> tuple[Policy, tuple[Finding, ...]] | str:
    try:
        return parse(body)
    except PolicyError as error:
        return str(error)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            base64.b64decode(case["body_base64"]),
            policy(Mode(case["expect"]["mode"]), case["expect"]["max_age"], *case["expect"]["mx"]),
            id=case["name"],
        )
        for case in DECIDED
        if case["expect"]["valid"]
    ],
)
def test_valid_vectors(body: bytes, expected: Policy) -> None:
    assert parse(body)[0] == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(base64.b64decode(case["body_base64"]), REASONS[case["expect"]["reason"]], id=case["name"])
        for case in DECIDED
        if not case["expect"]["valid"]
    ],
)
def test_invalid_vectors(body: bytes, reason: str) -> None:
    message = _parsed(body)
    assert isinstance(message, str)
    assert re.fullmatch(reason, message)


@pytest.mark.parametrize(
    ("body", "name"),
    [pytest.param(base64.b64decode(case["body_base64"]), case["name"], id=case["name"]) for case in AMBIGUOUS],
)
def test_ambiguous_vectors(body: bytes, name: str) -> None:
    answer, _ = OWN_ANSWERS[name]
    assert _parsed(body) == answer


def test_every_ambiguous_vector_has_our_answer() -> None:
    assert set(OWN_ANSWERS) == {case["name"] for case in AMBIGUOUS}
    assert set(OWN_MATCHES) == {f"{case['mx_pattern']} {case['host']}" for case in MX_AMBIGUOUS}


SECOND = tuple(
    Finding(line, f"a second {name}: only the first one counts")
    for line, name in ((4, "version"), (5, "mode"), (6, "mode"), (8, "max_age"), (9, "max_age"))
)


def _line(line: str) -> bytes:
    """A policy that is valid but for one line, the fourth."""
    return f"version: STSv1\nmode: enforce\nmx: a.example\n{line}\nmax_age: 1\n".encode()


def _age(text: str) -> bytes:
    return f"version: STSv1\nmode: none\nmax_age: {text}\n".encode()


_MX = "write one hostname, or *.domain"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"\r\n \t\n\xef\xbb\xbf", "the file is empty", id="nothing but blanks"),
        pytest.param(b"version: STSv1\nx: \xff\n", "line 2: not UTF-8", id="not UTF-8"),
        pytest.param(b"mode: none\nmax_age: 1\n", "no version line", id="no version"),
        pytest.param(b"version: STSv1\nmax_age: 1\n", "no mode line", id="no mode"),
        pytest.param(b"version: STSv1\nmode: none\n", "no max_age line", id="no max_age"),
        pytest.param(b"version: STSv1\nmode: testing\nmax_age: 1\n", "no mx line", id="no mx, testing"),
        pytest.param(b"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx line", id="no mx, enforce"),
        pytest.param(_line("bogus"), "line 4: expected name: value, got 'bogus'", id="no colon"),
        pytest.param(_line("=" * 61), f"line 4: expected name: value, got '{'=' * 60}...'", id="quotes 60 letters"),
        pytest.param(_line("=" * 60), f"line 4: expected name: value, got '{'=' * 60}'", id="60 letters uncut"),
        pytest.param(_line("x: ü\0"), "line 4: expected name: value, got 'x: \\xfc\\x00'", id="quotes in ASCII"),
        pytest.param(
            b"\xef\xbb\xbf" * 2 + _age("1"),
            "line 1: expected name: value, got '\\ufeffversion: STSv1'; line 1: remove the byte order mark",
            id="two BOMs",
        ),
        pytest.param(b"version: stsv1\n", "line 1: version must be STSv1, not 'stsv1'", id="version"),
        pytest.param(b"version:\n", "line 1: version is empty", id="version empty"),
        pytest.param(b"mode: Enforce\n", "line 1: mode must be enforce, testing or none, not 'Enforce'", id="mode"),
        pytest.param(b"mode: \t \n", "line 1: mode is empty", id="mode empty"),
        pytest.param(b"max_age:\n", "line 1: max_age is empty", id="max_age empty"),
        pytest.param(_line("mx:"), "line 4: mx is empty", id="mx empty"),
        pytest.param(
            _line("mx: 10 mx.example"),
            "line 4: mx '10 mx.example': leave out the preference 10: write the name of the host alone",
            id="as in an MX record",
        ),
        pytest.param(_line("mx: ü.example"), "line 4: mx '\\xfc.example': write it in punycode (xn--…)", id="mx"),
        pytest.param(_line("mx: a.example."), "line 4: mx 'a.example.': remove the dot at the end", id="mx root dot"),
        pytest.param(_line("mx: *."), f"line 4: mx '*.': {_MX}", id="mx star dot"),
        pytest.param(_line("mx: *"), f"line 4: mx '*': {_MX}", id="mx star"),
        pytest.param(_line("mx: *example.com"), f"line 4: mx '*example.com': {_MX}", id="mx no dot"),
        pytest.param(_line("mx: *.*.com"), f"line 4: mx '*.*.com': {_MX}", id="mx two stars"),
        pytest.param(_line("mx: *.1"), f"line 4: mx '*.1': {_MX}", id="mx address"),
        pytest.param(
            _age("1_0"),
            "line 3: max_age must be a number of up to 10 digits, not '1_0'",
            id="int() takes an underscore",
        ),
        pytest.param(
            _age("+5"), "line 3: max_age must be a number of up to 10 digits, not '+5'", id="int() takes a plus sign"
        ),
        pytest.param(_age("-5"), "line 3: max_age must be a number of up to 10 digits, not '-5'", id="negative"),
        pytest.param(
            _age("١٢"),
            "line 3: max_age must be a number of up to 10 digits, not '\\u0661\\u0662'",
            id="int() takes Arabic digits",
        ),
        pytest.param(
            _age("²"), "line 3: max_age must be a number of up to 10 digits, not '\\xb2'", id="isdigit() of superscript"
        ),
        pytest.param(
            _age("9" * 5000),
            f"line 3: max_age must be a number of up to 10 digits, not '{'9' * 60}...'",
            id="int() refuses 5000",
        ),
        pytest.param(
            b"version: STSv1\nmode:\xc2\xa0none\n",
            "line 2: mode must be enforce, testing or none, not '\\xa0none'",
            id="strip() eats a no-break space",
        ),
        pytest.param(
            b"version: STSv1\nmode: none\xe3\x80\x80\n",
            "line 2: mode must be enforce, testing or none, not 'none\\u3000'",
            id="strip() eats an ideographic space",
        ),
        pytest.param(_line("x: a\x0b"), "line 4: expected name: value, got 'x: a\\x0b'", id="strip() eats VT"),
        pytest.param(_line("\x0b"), "line 4: expected name: value, got '\\x0b'", id="strip() empties a line of VT"),
        pytest.param(
            _line("mx:\x0bb.example"), "line 4: expected name: value, got 'mx:\\x0bb.example'", id="VT is no WSP"
        ),
        pytest.param(_line("x: a\x1c"), "line 4: expected name: value, got 'x: a\\x1c'", id="strip() eats FS"),
        pytest.param(_line("x: a\x0cb"), "line 4: expected name: value, got 'x: a\\x0cb'", id="splitlines() at FF"),
        pytest.param(
            b"version: STSv1\rmode: none\r",
            "line 1: expected name: value, got 'version: STSv1\\rmode: none\\r'",
            id="CR ends no line",
        ),
        pytest.param(
            b"version: STSv1\nmode: none\nmax_age: 1\r",
            "line 3: expected name: value, got 'max_age: 1\\r'",
            id="CR ends no last line",
        ),
        pytest.param(
            b"version: STSv1\nmode: enforce\n" + b"mx: a.example\n" * 1001 + b"max_age: 1\n",
            "line 1003: more than 1000 mx lines",
            id="more than 1000 mx",
        ),
        pytest.param(
            b"version: STSv1\nMode: none\n\nmax_age: 1\n",
            "no mode line; line 2: unknown field Mode, did you mean mode?; line 3: blank line",
            id="with the findings, missing line",
        ),
        pytest.param(
            b"mx1: a.example\nmx: *\n",
            f"line 2: mx '*': {_MX}; line 1: unknown field mx1, did you mean mx?",
            id="with the findings, wrong line",
        ),
    ],
)
def test_messages(body: bytes, message: str) -> None:
    assert _parsed(body) == message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(_age("0"), (policy(Mode.NONE, 0), ()), id="nothing to mend"),
        pytest.param(_age("0031557600"), (policy(Mode.NONE, MAX_AGE_LIMIT), ()), id="the maximum, ten digits"),
        pytest.param(
            _age("0031557601"),
            (policy(Mode.NONE, MAX_AGE_LIMIT), (Finding(3, "max_age 31557601 is treated as 31557600 (the maximum)"),)),
            id="over the maximum",
        ),
        pytest.param(
            b"\xef\xbb\xbfversion: STSv1\r\n\r\nmode: none\r\nmax_age: 1\r\n \r\n",
            (
                policy(Mode.NONE, 1),
                (
                    Finding(1, "remove the byte order mark"),
                    Finding(2, "blank line"),
                    Finding(5, "blank line"),
                ),
            ),
            id="BOM and blank lines with CRLF",
        ),
        pytest.param(
            _line("max-age: 2"),
            (policy(Mode.ENFORCE, 1, "a.example"), (Finding(4, "unknown field max-age, did you mean max_age?"),)),
            id="slip",
        ),
        pytest.param(
            _line("Version: 2"),
            (policy(Mode.ENFORCE, 1, "a.example"), (Finding(4, "unknown field Version, did you mean version?"),)),
            id="other case",
        ),
        pytest.param(
            _line("note: a\u2028mode: none\u2029mode: none\x85mode: none"),
            (policy(Mode.ENFORCE, 1, "a.example"), ()),
            id="splitlines() breaks at these",
        ),
        pytest.param(
            _line("mx:" + " \t" * 9 + "*.b.example" + "\t " * 9),
            (policy(Mode.ENFORCE, 1, "a.example", "*.b.example"), ()),
            id="blanks around a value",
        ),
        pytest.param(
            _line("version: STSv9\nmode: none\nmode:\nmax_age: 9\nmax_age: x"),
            (policy(Mode.ENFORCE, 9, "a.example"), SECOND),
            id="the first of each counts, even before a bad one",
        ),
        pytest.param(
            _line("mx: A.example\nmx: a.example"),
            (policy(Mode.ENFORCE, 1, "a.example", "A.example", "a.example"), ()),
            id="each mx counts, as published",
        ),
        pytest.param(
            b"version: STSv1\nmode: enforce\n" + b"mx: a.example\n" * 1000 + b"max_age: 1\n",
            (policy(Mode.ENFORCE, 1, *["a.example"] * 1000), ()),
            id="1000 mx",
        ),
        pytest.param(
            b"\n" * 30 + _age("99999999"),
            (
                policy(Mode.NONE, MAX_AGE_LIMIT),
                (
                    *(Finding(line, "blank line") for line in range(1, 21)),
                    Finding(33, "max_age 99999999 is treated as 31557600 (the maximum)"),
                ),
            ),
            id="20 findings, and the cap of max_age",
        ),
        pytest.param(
            _age("1") + b"x: y\n" * 96 + b"mxx: a\n" * 2,
            (policy(Mode.NONE, 1), (Finding(100, "unknown field mxx, did you mean mx?"),)),
            id="slips are searched in 100 lines",
        ),
    ],
)
def test_findings(body: bytes, expected: tuple[Policy, tuple[Finding, ...]]) -> None:
    assert parse(body) == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("x:" + " " * 65_000 + "\0", id="blanks before a bad character"),
        pytest.param("x: a" + " " * 65_000 + "\0", id="blanks after a value"),
        pytest.param("x: " + "a " * 32_000 + "\0", id="words"),
        pytest.param("x" * 65_000, id="name"),
        pytest.param(":" * 65_000, id="colons"),
    ],
)
def test_long_malformed_line(line: str) -> None:
    assert _parsed(_line(line)) == f"line 4: expected name: value, got '{line[:60]}...'"


@pytest.mark.parametrize(
    "text", ["", ".", "*", "*.", "*..a", ".a", "a.", "a..b", "*.a\n", "a.example\n", "**.a", "a b"]
)
def test_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(write one hostname, or \*\.domain|remove the dot at the end)$"):
        MxPattern(text)


def _matches(pattern: str, host: str) -> bool | None:
    """None for a pattern that is refused."""
    try:
        return MxPattern(pattern).matches(host)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        pytest.param(case["mx_pattern"], case["host"], case["expect"], id=f"{case['mx_pattern']} {case['host']}")
        for case in MX_DECIDED
    ],
)
def test_match_vectors(pattern: str, host: str, expected: bool) -> None:
    refused = not re.fullmatch(r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", pattern)
    assert _matches(pattern, host) is (None if refused else expected)
    assert not (refused and expected)


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        pytest.param(case["mx_pattern"], case["host"], id=f"{case['mx_pattern']} {case['host']}")
        for case in MX_AMBIGUOUS
    ],
)
def test_ambiguous_match_vectors(pattern: str, host: str) -> None:
    answer, _ = OWN_MATCHES[f"{pattern} {host}"]
    assert _matches(pattern, host) is answer


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def _is_hostname(name: list[str]) -> bool:
    return not name[-1].isdigit() and all(
        0 < len(label) < 64 and _LETTERS.issuperset(label) and label[0] != "-" and label[-1] != "-" for label in name
    )


def _reference(pattern: str, host: str) -> bool:
    """Label by label."""
    wanted = pattern.lower().split(".")
    name = host.removesuffix(".").lower().split(".")
    if not _is_hostname(name) or len(name) != len(wanted):
        return False
    return all(label in ("*", own) for label, own in zip(wanted, name, strict=True))


_few_labels = st.lists(st.sampled_from(["a", "B", "b", "example", "Com", "1", "xn--a"]), min_size=1, max_size=4)
_few_hosts = st.builds(
    lambda names, odd, end: ".".join([*names, *odd]) + end,
    _few_labels,
    st.lists(st.sampled_from(["", "*", "-a", "a_", "b", "com"]), max_size=1),
    st.sampled_from(["", "", ".", "..", "\n"]),
)
_few_patterns = st.builds(
    lambda star, names: f"{star}{'.'.join(names)}", st.sampled_from(["", "*."]), _few_labels
).filter(lambda text: not text.rpartition(".")[2].isdigit())


@given(_few_patterns.map(MxPattern), _few_hosts)
def test_matches_as_the_reference_does(pattern: MxPattern, host: str) -> None:
    assert pattern.matches(host) is _reference(str(pattern), host)


@given(hostnames, labels, st.booleans())
def test_wildcard_stands_for_one_label(host: str, label: str, dot: bool) -> None:
    end = "." if dot else ""
    pattern = MxPattern(f"*.{host}")
    assert pattern.matches(f"{label}.{host.swapcase()}{end}")
    assert not pattern.matches(f"{host}{end}")
    assert not pattern.matches(f"{label}.{label}.{host}{end}")
    assert MxPattern(host).matches(f"{host.swapcase()}{end}")


@given(patterns, st.text() | near("a", ".", "*", "example", "com", "ü", "xn--", "\0"))
def test_any_host_matches_or_not(pattern: MxPattern, host: str) -> None:
    assert pattern.matches(host) in (True, False)


@given(policies)
def test_printed_policy_parses(policy: Policy) -> None:
    assert parse(str(policy).encode()) == (policy, ())


@given(policy_texts)
@example("version: STSv1\nmode: none\nmax_age: 9999999999")
def test_what_parses_prints_and_parses_again(text: str) -> None:
    with contextlib.suppress(PolicyError):
        policy, _ = parse(text.encode())
        assert _parsed(str(policy).encode()) == (policy, ())


_TOKENS = ("version: STSv1", "mode:", "enforce", "none", "mx:", "max_age:", "86400", "\n", "\r", "\r\n", " ", "\ufeff")


@given(st.binary() | near(*_TOKENS).map(str.encode) | policy_texts.map(str.encode))
def test_any_octets_give_a_policy_or_our_error(body: bytes) -> None:
    match _parsed(body):
        case str(message):
            assert message.isprintable()
            assert len(message) < 3000
        case policy, findings:
            assert 0 <= policy.max_age <= MAX_AGE_LIMIT
            assert policy.mx or policy.mode is Mode.NONE
            assert len(findings) <= 21
            assert all(str(finding).isprintable() for finding in findings)
