import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from postfix_mtasts.config import DaneSetting, Level, OnFailure, OnTesting
from postfix_mtasts.postfix.reply import ReplyRules, Style, beside_dane, reply_to, temporary_failure
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, Exempt, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneUsable, Failure, ResultType, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy, PolicyError, parse
from tests.unit.strategies import domains, policies, policy_texts

DOMAIN = PolicyDomain("example.com")
TLS_FAILURE = Failure(Stage.CERTIFICATE, "expired on 2026-01-01", ResultType.WEBPKI_INVALID)
DNS_FAILURE = Failure(Stage.RECORD, "SERVFAIL", None)


def _policy(mode: Mode, max_age: int, *mx: str) -> Policy:
    return Policy(mode, max_age, tuple(map(MxPattern, mx)))


def _encode(answer: Answer, style: Style, on_failure: OnFailure = OnFailure.NOTFOUND) -> bytes:
    return reply_to(DOMAIN, answer, ReplyRules(style, on_failure)).encode()


@pytest.mark.parametrize(
    ("policy", "plain", "tlsrpt"),
    [
        pytest.param(
            _policy(Mode.ENFORCE, 604800, "mx1.example.com"),
            b"51:OK secure match=mx1.example.com servername=hostname,",
            b"270:OK secure match=mx1.example.com servername=hostname"
            b" policy_type=sts policy_domain=example.com mx_host_pattern=mx1.example.com"
            b" { policy_string = version: STSv1 } { policy_string = mode: enforce }"
            b" { policy_string = mx: mx1.example.com } { policy_string = max_age: 604800 },",
            id="one mx",
        ),
        pytest.param(
            _policy(Mode.ENFORCE, 1, "*.example.net"),
            b"48:OK secure match=.example.net servername=hostname,",
            b"258:OK secure match=.example.net servername=hostname"
            b" policy_type=sts policy_domain=example.com mx_host_pattern=*.example.net"
            b" { policy_string = version: STSv1 } { policy_string = mode: enforce }"
            b" { policy_string = mx: *.example.net } { policy_string = max_age: 1 },",
            id="wildcard, which Postfix writes in two ways",
        ),
        pytest.param(
            _policy(
                Mode.ENFORCE, 86400, "b.example", "A.example", "*.A.example", "a.EXAMPLE", "B.example", "b.example"
            ),
            b"66:OK secure match=b.example:A.example:.A.example servername=hostname,",
            b"498:OK secure match=b.example:A.example:.A.example servername=hostname policy_type=sts"
            b" policy_domain=example.com"
            b" mx_host_pattern=b.example mx_host_pattern=A.example mx_host_pattern=*.A.example"
            b" { policy_string = version: STSv1 } { policy_string = mode: enforce }"
            b" { policy_string = mx: b.example } { policy_string = mx: A.example } { policy_string = mx: *.A.example }"
            b" { policy_string = mx: a.EXAMPLE } { policy_string = mx: B.example } { policy_string = mx: b.example }"
            b" { policy_string = max_age: 86400 },",
            id="each pattern once whatever its case, in order, and the policy as published",
        ),
        pytest.param(
            _policy(Mode.ENFORCE, 31557600, "xn--mx-eka.example"),
            b"54:OK secure match=xn--mx-eka.example servername=hostname,",
            b"281:OK secure match=xn--mx-eka.example servername=hostname"
            b" policy_type=sts policy_domain=example.com mx_host_pattern=xn--mx-eka.example"
            b" { policy_string = version: STSv1 } { policy_string = mode: enforce }"
            b" { policy_string = mx: xn--mx-eka.example } { policy_string = max_age: 31557600 },",
            id="longest max_age",
        ),
        pytest.param(_policy(Mode.TESTING, 1, "a.example"), b"9:NOTFOUND ,", b"9:NOTFOUND ,", id="testing"),
        pytest.param(_policy(Mode.NONE, 1), b"9:NOTFOUND ,", b"9:NOTFOUND ,", id="none"),
        pytest.param(_policy(Mode.NONE, 1, "a.example"), b"9:NOTFOUND ,", b"9:NOTFOUND ,", id="none with mx"),
    ],
)
@pytest.mark.parametrize("fetched", [False, True], ids=["cached", "fetched"])
def test_policy(policy: Policy, plain: bytes, tlsrpt: bytes, fetched: bool) -> None:
    assert _encode(Apply(policy, fetched), Style.PLAIN) == plain
    assert _encode(Apply(policy, fetched), Style.TLSRPT) == tlsrpt


@pytest.mark.parametrize(
    ("answer", "on_failure", "expected"),
    [
        pytest.param(NoPolicy("no record"), OnFailure.NOTFOUND, b"9:NOTFOUND ,", id="no policy"),
        pytest.param(NoPolicy("no record"), OnFailure.TEMP, b"9:NOTFOUND ,", id="no policy is no failure"),
        pytest.param(Unavailable(DNS_FAILURE), OnFailure.NOTFOUND, b"9:NOTFOUND ,", id="as though not implemented"),
        pytest.param(Unavailable(DNS_FAILURE), OnFailure.TEMP, b"25:TEMP TXT lookup: SERVFAIL,", id="TXT lookup"),
        pytest.param(
            Unavailable(TLS_FAILURE),
            OnFailure.TEMP,
            b"58:TEMP certificate of the policy host: expired on 2026-01-01,",
            id="certificate",
        ),
    ],
)
@pytest.mark.parametrize("style", Style)
def test_no_policy(answer: Answer, style: Style, on_failure: OnFailure, expected: bytes) -> None:
    assert _encode(answer, style, on_failure) == expected


@pytest.mark.parametrize(
    ("map_name", "style"),
    [
        pytest.param(b"plain", Style.PLAIN, id="plain"),
        pytest.param(b"tlsrpt", Style.TLSRPT, id="tlsrpt"),
        pytest.param(b"QUERYwithTLSRPT", Style.TLSRPT, id="as postfix-tlspol is asked"),
        pytest.param(b"postfix", None, id="as postfix-mta-sts-resolver is asked"),
        pytest.param(b"QUERY", None, id="as postfix-tlspol is asked for the plain style"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"TLSRPT", None, id="other case"),
        pytest.param(b"plain ", None, id="blank after it"),
        pytest.param(b"\xff", None, id="not UTF-8"),
    ],
)
@pytest.mark.parametrize("configured", Style)
def test_style_of_map(map_name: bytes, style: Style | None, configured: Style) -> None:
    rules = ReplyRules(configured, OnFailure.TEMP, OnTesting.REPORT, DaneSetting.YIELD)
    assert rules.of_map(map_name) == replace(rules, style=style or configured)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        pytest.param("no DNS", "no DNS", id="as it is"),
        pytest.param("", "", id="nothing"),
        pytest.param(" ~{}", " ~{}", id="all of ASCII that is printable"),
        pytest.param("a\r\nb\0\x1f\x7f\té\u2028😀\ud800", "a??b????????", id="what is not printable ASCII"),
        pytest.param("x" * 200, "x" * 200, id="200 characters"),
        pytest.param("x" * 200 + "y", "x" * 200, id="201 characters"),
        pytest.param("é" * 300, "?" * 200, id="300 characters beyond ASCII"),
    ],
)
def test_temporary_failure(reason: str, text: str) -> None:
    assert temporary_failure(reason) == Reply(Status.TEMP, text)


def _plain(domain: str, hosts: list[str]) -> str:
    return f"OK secure match={':'.join(hosts)} servername=hostname"


def _checked(domain: str, hosts: list[str]) -> str:
    patterns = "".join(f" mx_host_pattern={host}" for host in hosts)
    return f"{_plain(domain, hosts)} policy_type=sts policy_domain={domain}{patterns}"


def _short(domain: str, hosts: list[str]) -> str:
    return f"{_checked(domain, hosts)} {{ policy_string = version: STSv1 }}"


def _full(domain: str, hosts: list[str]) -> str:
    mx = "".join(f" {{ policy_string = mx: {host} }}" for host in hosts)
    end = f"{mx} {{ policy_string = max_age: 86400 }}"
    return f"{_short(domain, hosts)} {{ policy_string = mode: enforce }}{end}"


def _temp(domain: str, hosts: list[str]) -> str:
    return f"TEMP the mx lines of {domain}'s policy are too long for a reply"


Form = Callable[[str, list[str]], str]


def _of_size(form: Form, octets: int) -> tuple[str, list[str]]:
    """A domain and MX hosts for which a form of the reply has exactly that many octets."""
    host = "x" * 49 + ".mx{:05}.example"
    per_host = len(form("a.example", [host.format(0)] * 2)) - len(form("a.example", [host.format(0)]))
    hosts = [host.format(number) for number in range(octets // per_host - 1)]
    while len(form("a.example", [*hosts, "z.example"])) > octets:
        hosts.pop()
    for length in range(1, 60):
        for domain in (f"{'a' * count}.example" for count in range(1, 5)):
            with_last = [*hosts, f"{'z' * length}.example"]
            if len(form(domain, with_last)) == octets:
                return domain, with_last
    raise AssertionError(f"no reply of {octets} octets")


@pytest.mark.parametrize(
    ("style", "form", "octets", "expected"),
    [
        pytest.param(Style.TLSRPT, _full, 100_000, _full, id="all fits"),
        pytest.param(Style.TLSRPT, _full, 100_001, _short, id="policy strings go first"),
        pytest.param(Style.TLSRPT, _short, 100_000, _short, id="one policy string fits"),
        pytest.param(Style.TLSRPT, _short, 100_001, _plain, id="then the style"),
        pytest.param(Style.TLSRPT, _plain, 100_000, _plain, id="plain fits"),
        pytest.param(Style.TLSRPT, _plain, 100_001, _temp, id="then temporary failure"),
        pytest.param(Style.PLAIN, _plain, 100_000, _plain, id="plain fits in its own style"),
        pytest.param(Style.PLAIN, _plain, 100_001, _temp, id="nothing is left"),
    ],
)
def test_reply_that_is_too_long(style: Style, form: Form, octets: int, expected: Form) -> None:
    domain, hosts = _of_size(form, octets)
    apply = Apply(_policy(Mode.ENFORCE, 86400, *hosts))
    payload = expected(domain, hosts)
    reply = reply_to(PolicyDomain(domain), apply, ReplyRules(style))
    assert reply.encode() == f"{len(payload)}:{payload},".encode()


_GROUP = re.compile(r" \{ policy_string = ([^{}]*) \}")


def _tokens(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Level and attributes, split as Postfix 3.10 does: at blanks and commas outside braces, then at the first `=`."""
    words, depth, word = [], 0, ""
    for c in f"{text} ":
        depth += (c == "{") - (c == "}")
        if depth == 0 and c in ", \t\r\n":
            words += [word] if word else []
            word = ""
        else:
            word += c
    assert depth == 0
    level, *attributes = words
    pairs = [(word[1:-1] if word.startswith("{") else word).partition("=") for word in attributes]
    return level, [(name.strip(), value.strip()) for name, _, value in pairs]


def _check_reply(domain: PolicyDomain, policy: Policy) -> None:
    """Postfix reads what the policy says, and nothing else."""
    plain = reply_to(domain, Apply(policy), ReplyRules(Style.PLAIN))
    tlsrpt = reply_to(domain, Apply(policy), ReplyRules(Style.TLSRPT))
    if policy.mode is not Mode.ENFORCE:
        assert (plain, tlsrpt) == (Reply(Status.NOTFOUND), Reply(Status.NOTFOUND))
        return
    once = [p.text for i, p in enumerate(policy.mx) if p.text.lower() not in [q.text.lower() for q in policy.mx[:i]]]
    with_dot = [one for one in once if "." in one]
    if not with_dot:
        assert plain.status is tlsrpt.status is Status.TEMP
        return
    match = ":".join(one.removeprefix("*") for one in with_dot)
    attributes = [("match", match), ("servername", "hostname")]
    assert plain.status is tlsrpt.status is Status.OK
    assert _tokens(plain.text) == ("secure", attributes)
    attributes += [("policy_type", "sts"), ("policy_domain", domain.name)]
    attributes += [("mx_host_pattern", one) for one in once]
    attributes += [("policy_string", line) for line in str(policy).splitlines()]
    assert _tokens(tlsrpt.text) == ("secure", attributes)
    for text in (plain.text, tlsrpt.text):
        assert text.isascii()
        assert text.isprintable()
        assert text.count("match=") == 1
        assert not re.search("[{}]", _GROUP.sub("", text))
    assert "".join(f"{line}\n" for line in _GROUP.findall(tlsrpt.text)) == str(policy)


@given(domains, policies)
def test_postfix_reads_what_the_policy_says(domain: PolicyDomain, policy: Policy) -> None:
    _check_reply(domain, policy)


@given(domains, policy_texts)
def test_no_policy_file_adds_to_the_reply(domain: PolicyDomain, text: str) -> None:
    try:
        policy, _ = parse(text.encode())
    except PolicyError:
        assume(False)
    else:
        _check_reply(domain, policy)


@given(st.text(st.characters()))
def test_reason_is_short_printable_ascii(reason: str) -> None:
    text = temporary_failure(reason).text
    assert text.isascii()
    assert text.isprintable() or not text
    assert len(text) == min(len(reason), 200)


def test_a_policy_in_mode_testing_is_reported_where_postfix_can_take_it_in() -> None:
    """At level may, for encrypt would refuse mail, and without match=, which is an error there."""
    testing = Apply(_policy(Mode.TESTING, 1, "a.example", "*.b.example"))
    replies = {
        (style, setting): reply_to(DOMAIN, testing, ReplyRules(style, testing=setting)).encode()
        for style in Style
        for setting in OnTesting
    }
    reported = (
        b"272:OK may policy_type=sts policy_domain=example.com mx_host_pattern=a.example mx_host_pattern=*.b.example"
        b" { policy_string = version: STSv1 } { policy_string = mode: testing } { policy_string = mx: a.example }"
        b" { policy_string = mx: *.b.example } { policy_string = max_age: 1 },"
    )
    nothing = b"9:NOTFOUND ,"
    assert replies == {
        (Style.PLAIN, OnTesting.IGNORE): nothing,
        (Style.PLAIN, OnTesting.REPORT): nothing,
        (Style.TLSRPT, OnTesting.IGNORE): nothing,
        (Style.TLSRPT, OnTesting.REPORT): reported,
    }


@pytest.mark.parametrize(
    "policy", [_policy(Mode.ENFORCE, 1, "a.example"), _policy(Mode.NONE, 1)], ids=["enforce", "none"]
)
@pytest.mark.parametrize("style", Style)
def test_other_modes_are_answered_the_same_whatever_becomes_of_testing(policy: Policy, style: Style) -> None:
    ignored, reported = (reply_to(DOMAIN, Apply(policy), ReplyRules(style, testing=setting)) for setting in OnTesting)
    assert ignored == reported


ENFORCED = Apply(_policy(Mode.ENFORCE, 1, "a.example"))
IN_TESTING = Apply(_policy(Mode.TESTING, 1, "a.example"))
REST = (Apply(_policy(Mode.NONE, 1)), NoPolicy("none"), Unavailable(DNS_FAILURE))


# With match=hostname, Postfix would accept every MX host, and with nexthop the domain's own name.
@pytest.mark.parametrize("word", ["hostname", "nexthop", "dot-nexthop", "localhost"])
@pytest.mark.parametrize("style", Style)
def test_patterns_without_a_dot_never_reach_match(word: str, style: Style) -> None:
    both = Apply(_policy(Mode.ENFORCE, 1, word, "mx.example.com"))
    reply = reply_to(DOMAIN, both, ReplyRules(style)).text
    assert reply.split(" ")[:3] == ["secure", "match=mx.example.com", "servername=hostname"]
    alone = Apply(_policy(Mode.ENFORCE, 1, word))
    reason = f"the mx lines of {DOMAIN}'s policy name no MX host: they have no dot"
    assert reply_to(DOMAIN, alone, ReplyRules(style)) == Reply(Status.TEMP, reason)


@pytest.mark.parametrize("style", Style)
def test_a_domain_with_dane_is_left_to_postfix_or_told_to_use_it(style: Style) -> None:
    answer = YieldToDane(("mx.example.com",))
    replies = {
        dane: reply_to(DOMAIN, answer, ReplyRules(style, OnFailure.TEMP, dane=dane)).encode() for dane in DaneSetting
    }
    nothing = b"9:NOTFOUND ,"
    assert replies == {
        DaneSetting.AUTO: nothing,
        DaneSetting.YIELD: nothing,
        DaneSetting.OFF: nothing,
        DaneSetting.DANE_ONLY: b"12:OK dane-only,",
    }


@pytest.mark.parametrize("dane", [setting for setting in DaneSetting if setting is not DaneSetting.DANE_ONLY])
def test_mail_goes_to_hosts_with_tlsa_records_only_if_the_policy_protects_the_others(dane: DaneSetting) -> None:
    """Postfix's level `dane` is `may` for them, which is less than the policy asks."""
    some = DaneUsable(("mx1.example.com",), 300.0, covers_all=False)
    answers = [beside_dane(answer, some) for answer in (ENFORCED, IN_TESTING, *REST)]
    only, left = YieldToDane(("mx1.example.com",), only=True), YieldToDane(("mx1.example.com",))
    assert answers == [only, left, left, left, left]
    replies = [reply_to(DOMAIN, answer, ReplyRules(Style.TLSRPT, dane=dane)).encode() for answer in (only, left)]
    assert replies == [b"12:OK dane-only,", b"9:NOTFOUND ,"]


@pytest.mark.parametrize("answer", [ENFORCED, IN_TESTING, *REST])
def test_dane_goes_before_every_answer(answer: Answer) -> None:
    assert beside_dane(answer, DaneUsable(("mx1.example.com", "mx2.example.com"), 300.0)) == YieldToDane(
        ("mx1.example.com", "mx2.example.com")
    )
    assert beside_dane(answer, DaneFailed(DNS_FAILURE)) == Unavailable(DNS_FAILURE, defer=True)
    assert beside_dane(answer, DaneAbsent("no MX host", 300.0)) is answer


@pytest.mark.parametrize("on_failure", OnFailure)
def test_mail_waits_when_whether_dane_applies_is_unknown(on_failure: OnFailure) -> None:
    failure = Failure(Stage.TLSA, "_25._tcp.mx.example.com: 192.0.2.1: SERVFAIL", None)
    assert _encode(Unavailable(failure, defer=True), Style.PLAIN, on_failure) == (
        b"62:TEMP TLSA lookup: _25._tcp.mx.example.com: 192.0.2.1: SERVFAIL,"
    )


def test_which_answers_wait_for_dane() -> None:
    """With yield, those that would take the place of Postfix's own level; with dane-only, all."""
    answers: dict[str, Answer] = {
        "enforced": ENFORCED,
        "in testing": IN_TESTING,
        "rest": REST[0],
        "no policy": REST[1],
        "failed": REST[2],
    }
    waiting = {
        (dane, style, testing): [
            name for name, a in answers.items() if ReplyRules(style, testing=testing, dane=dane).heeds_dane(a)
        ]
        for dane in (DaneSetting.OFF, DaneSetting.YIELD, DaneSetting.DANE_ONLY)
        for style in Style
        for testing in OnTesting
    }
    assert waiting == {
        (dane, style, testing): {
            DaneSetting.OFF: [],
            DaneSetting.YIELD: ["enforced", "in testing"]
            if (style, testing) == (Style.TLSRPT, OnTesting.REPORT)
            else ["enforced"],
            DaneSetting.DANE_ONLY: list(answers),
        }[dane]
        for dane, style, testing in waiting
    }


def _exempt(level: Level, *, dane: bool = False) -> Exempt:
    return Exempt(PolicyException("example.com", "2026-12-31", 0.0, "ticket 4711", level, dane))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param(Level.NONE, b"9:NOTFOUND ,", id="as if there were no policy"),
        pytest.param(Level.MAY, b"6:OK may,", id="whatever the host offers"),
        pytest.param(Level.ENCRYPT, b"10:OK encrypt,", id="without verifying"),
    ],
)
@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("dane", DaneSetting)
def test_an_exception_is_answered_by_its_level(level: Level, expected: bytes, style: Style, dane: DaneSetting) -> None:
    rules = ReplyRules(style, OnFailure.TEMP, OnTesting.REPORT, dane)
    assert reply_to(DOMAIN, _exempt(level), rules).encode() == expected


def test_an_exception_waits_for_dane_where_it_would_take_its_place_and_may_not() -> None:
    exceptions = {(level, dane): _exempt(level, dane=dane) for level in Level for dane in (False, True)}
    waiting = {
        setting: [
            name for name, exempt in exceptions.items() if ReplyRules(Style.PLAIN, dane=setting).heeds_dane(exempt)
        ]
        for setting in (DaneSetting.OFF, DaneSetting.YIELD, DaneSetting.DANE_ONLY)
    }
    assert waiting == {
        DaneSetting.OFF: [],
        DaneSetting.YIELD: [(Level.MAY, False), (Level.ENCRYPT, False)],
        DaneSetting.DANE_ONLY: [(Level.NONE, False), (Level.MAY, False), (Level.ENCRYPT, False)],
    }


@pytest.mark.parametrize("level", Level)
def test_dane_goes_before_an_exception_and_protects_no_policy_then(level: Level) -> None:
    exempt = _exempt(level)
    some = DaneUsable(("mx1.example.com",), 300.0, covers_all=False)
    assert beside_dane(exempt, some) == YieldToDane(("mx1.example.com",))
    assert beside_dane(exempt, DaneFailed(DNS_FAILURE)) == Unavailable(DNS_FAILURE, defer=True)
    assert beside_dane(exempt, DaneAbsent("no MX host", 300.0)) is exempt
