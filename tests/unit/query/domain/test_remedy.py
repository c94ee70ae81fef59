"""What to do about an MX host that a probe could not judge, and about a policy host."""

import pytest

from postfix_mtasts.query.domain.remedy import ASK, DOMAINS_DNS, probe_remedy, remedy_for
from postfix_mtasts.query.domain.report import PolicyHostReport

LATER = "it may accept a connection later, or from another machine"
REFUSED = "it refuses this machine's address, so mail from here fails too"
ELSEWHERE = "probe from the mail server itself, and see whether your provider blocks port 25"


@pytest.mark.parametrize(
    ("unclear", "expected"),
    [
        ("its greeting is '554 go away'", REFUSED),
        ("its greeting is '421 come back'", LATER),
        ("its answer to EHLO is '450 later'", LATER),
        ("address lookup: 192.0.2.53: SERVFAIL", f"{DOMAINS_DNS}: {ASK}"),
        ("connection refused", ELSEWHERE),
        ("no greeting within 10 s", ELSEWHERE),
    ],
)
def test_an_mx_host_that_could_not_be_judged(unclear: str, expected: str) -> None:
    assert probe_remedy(unclear) == expected


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            "no common TLS version (TLS 1.2 or later is needed)",
            "the web server must support TLS 1.2 or later for the name mta-sts.a.test",
        ),
        ("the answer is not valid TLS", "port 443 does not speak TLS: the web server must offer HTTPS there"),
        (
            "the host sent TLS alert 'unrecognized name'",
            "the web server has no site for mta-sts.a.test: add the name and its certificate to its configuration",
        ),
    ],
)
def test_a_policy_host_whose_tls_fails(problem: str, expected: str) -> None:
    host = PolicyHostReport("mta-sts.a.test", None, None, (), None, None, None, None, {}, "tls", problem, None, {}, ())
    assert remedy_for(host) == expected
