"""Remarks that no domain in tests/data/query leads to, because they depend on the time or on a threshold."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.delivery.mx import MxReport, ProbeReport
from postfix_mtasts.query.domain.asked import Outcome
from postfix_mtasts.query.domain.remark import Remark
from postfix_mtasts.query.domain.remarks import remarks
from postfix_mtasts.query.domain.report import (
    AnswerReport,
    DaneReport,
    ExemptReport,
    PolicyHostReport,
    PolicyReport,
    RecordReport,
    Report,
    RunningReport,
    TlsrptReport,
)
from postfix_mtasts.query.domain.verdict import verdict
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.entry import NoPolicy
from postfix_mtasts.sts.policy import Mode

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
WEEKS = 1209600


def certificate(left: timedelta) -> Certificate:
    return Certificate(("a.test",), "Test CA", NOW - timedelta(days=90), NOW + left)


def report(
    mode: Mode = Mode.ENFORCE,
    max_age: int = WEEKS,
    host: Certificate | None = None,
    mail: Certificate | None = None,
) -> Report:
    """All is well with a.test, but for these."""
    name = "mta-sts.a.test"
    return Report(
        domain="a.test",
        next_hop="a.test",
        running=RunningReport(False, "", "", "plain", True, None, False, mode, None, ()),
        record=RecordReport(("_mta-sts.a.test",), ("v=STSv1; id=1;",), 300.0, False, "1", None, False, True, (), 0.1),
        policy_host=PolicyHostReport(name, None, None, (), None, None, host, 200, {}, None, None, None, {}, ()),
        policy=PolicyReport(mode, max_age, ("mx.a.test",), (), "", None),
        mx=(MxReport("mx.a.test", "mx.a.test", "mx.a.test", (ProbeReport(None, None, mail, None, None, None, 0.1),)),),
        mx_problem=None,
        exists=True,
        null_mx=False,
        dane=DaneReport("absent", (), "no MX host"),
        tlsrpt=TlsrptReport("_smtp._tls.a.test", (), ("mailto:a@a.test",), None, False),
        answer=AnswerReport("", "", None),
        resolver_works=True,
        seconds=0.1,
    )


def blocked(span: str) -> str:
    return f"max_age is {span}: an attacker who blocks the policy that long disables it; weeks are usual"


TESTING = Remark(
    Status.OK, "the mode is testing: senders report failures but deliver anyway; only enforce protects mail", "policy"
)
NONE = Remark(Status.OK, "the mode is none: senders deliver without a policy", "policy")


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        pytest.param(
            0, Remark(Status.WARNING, "max_age 0: never cached, no protection; weeks are usual", "policy"), id="zero"
        ),
        pytest.param(1, Remark(Status.WARNING, blocked("1 second"), "policy"), id="a second"),
        pytest.param(86399, Remark(Status.WARNING, blocked("24 hours"), "policy"), id="nearly a day"),
        pytest.param(86400, Remark(Status.OK, blocked("24 hours"), "policy"), id="a day"),
        pytest.param(604799, Remark(Status.OK, blocked("7 days"), "policy"), id="nearly a week"),
        pytest.param(604800, None, id="a week"),
    ],
)
def test_max_age(max_age: int, expected: Remark | None) -> None:
    expected_too = (expected,) if expected else ()
    assert remarks(report(max_age=max_age), NOW) == expected_too
    assert remarks(report(Mode.TESTING, max_age), NOW) == (TESTING, *expected_too)
    assert remarks(report(Mode.NONE, max_age), NOW) == (NONE,)


@pytest.mark.parametrize(
    ("left", "expiry"),
    [
        pytest.param(timedelta(days=14), None, id="in two weeks"),
        pytest.param(timedelta(days=14, seconds=-1), "expires in 14 days (2026-12-09)", id="in less"),
        pytest.param(timedelta(days=1), "expires tomorrow (2026-11-26)", id="tomorrow"),
        pytest.param(timedelta(hours=1), "expires today (2026-11-25)", id="today"),
    ],
)
def test_certificates_that_expire_soon(left: timedelta, expiry: str | None) -> None:
    soon = certificate(left)
    host = f"the certificate of mta-sts.a.test {expiry}: then the policy cannot be fetched"
    mail = f"the certificate of mx.a.test {expiry}: then senders deliver nothing to it"
    checks = ((host, "host"), (mail, "probe"))
    expected = [Remark(Status.WARNING, text, check) for text, check in checks if expiry]
    assert list(remarks(report(host=soon, mail=soon), NOW)) == expected
    later = Remark(Status.WARNING, f"{mail} once the mode is enforce", "probe")
    assert remarks(report(Mode.TESTING, mail=soon), NOW) == ((TESTING, later) if expiry else (TESTING,))


def test_the_domain_is_not_accused_while_the_resolver_is_down() -> None:
    good = report()
    assert good.policy_host
    host = replace(good.policy_host, stage="address", problem="192.0.2.53: SERVFAIL")
    failed = replace(good, policy=None, policy_host=host, mx=())
    text = (
        "the policy could not be fetched: address lookup: 192.0.2.53: SERVFAIL; senders without a cached copy deliver "
        "unprotected; your resolver answers for other names, so probably the domain's nameservers or its DNSSEC are "
        "broken: ask its administrator"
    )
    assert remarks(failed, NOW) == (Remark(Status.ERROR, text, "host"),)
    assert [remark.check for remark in remarks(replace(failed, resolver_works=False), NOW)] == ["resolver"]


@pytest.mark.parametrize(("reply", "becomes"), [("NOTFOUND", "goes out without it"), ("TEMP x", "is deferred")])
def test_what_becomes_of_mail_when_a_policy_comes_too_late(reply: str, becomes: str) -> None:
    found = report()
    found = replace(found, seconds=39.0, running=replace(found.running, reply=reply))
    (late,) = (one.text for one in remarks(found, NOW, late=True) if one.status is Status.ERROR)
    assert late == (
        f"the policy came only after 39 s, too late for the first mail, which {becomes}; later mail gets it; the web "
        "server must answer sooner"
    )


SENT = "mail to a.test is sent without its policy: an exception decides until 2026-12-31 (ticket)"
DEFERRED = "mail to a.test is deferred in spite of an exception until 2026-12-31: TLSA lookup: SERVFAIL"
NO_POLICY = "a.test has no policy: mail to it is sent without MTA-STS"


@pytest.mark.parametrize(
    ("reply", "without", "expected"),
    [
        ("OK may", "NOTFOUND", Remark(Status.WARNING, f"{SENT}; without it: {NO_POLICY}")),
        ("NOTFOUND", "TEMP x", Remark(Status.WARNING, f"{SENT}; without it: mail to a.test is deferred: x")),
        ("TEMP TLSA lookup: SERVFAIL", "NOTFOUND", Remark(Status.ERROR, f"{DEFERRED}; without it: {NO_POLICY}")),
    ],
)
def test_what_is_said_of_mail_under_an_exception(reply: str, without: str, expected: Remark) -> None:
    """It does not overrule DANE, of which may be unknown whether it decides."""
    exempt = ExemptReport("a.test", "2026-12-31", "ticket", "may", False, True, without=without)
    found = report()
    found = replace(found, policy=None, running=replace(found.running, reply=reply, exempt=exempt))
    found = replace(found, record=replace(found.record, texts=(), id=None))
    judged = verdict(found, Outcome(NoPolicy("x"), NoPolicy("x"), False, False, None), (), ())
    assert (judged.status, judged.text) == (expected.status, expected.text)
