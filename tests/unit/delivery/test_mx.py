"""What TLSA records say of a certificate, also where this machine cannot compare them, and what mx lines allow."""

import hashlib
from dataclasses import replace

import pytest

from postfix_mtasts.delivery.mx import Judgement, MxReport, Rules, judge, probe_report, unmatched
from postfix_mtasts.dns.resolver import Tlsa
from postfix_mtasts.remote.probe import Probe
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

CERTIFICATE = b"no certificate that could be parsed"
DIGEST = hashlib.sha256(CERTIFICATE).digest()
OTHER = bytes(32)
OF_A_CA = "its TLSA records are for a CA, whose certificate Python shows since version 3.13"
NO_KEY = "without the package python3-cryptography, its TLSA records cannot be compared"
NO_MATCH = "no TLSA record matches its certificate"


@pytest.mark.parametrize(
    ("record", "chain", "expected"),
    [
        (Tlsa(3, 0, 1, DIGEST), (), (None, None, True)),
        (Tlsa(3, 0, 0, CERTIFICATE), (), (None, None, True)),
        (Tlsa(3, 0, 1, OTHER), (), (NO_MATCH, None, False)),
        (Tlsa(3, 1, 1, OTHER), (), (None, NO_KEY, None)),
        (Tlsa(2, 0, 1, OTHER), (), (None, OF_A_CA, None)),
        (Tlsa(2, 0, 1, OTHER), (CERTIFICATE,), (NO_MATCH, None, False)),
        (Tlsa(2, 0, 1, DIGEST), (b"the host's", CERTIFICATE), (None, None, True)),
        (Tlsa(3, 0, 1, DIGEST), (b"the host's", CERTIFICATE), (None, None, True)),
    ],
)
def test_tlsa_records(record: Tlsa, chain: tuple[bytes, ...], expected: object) -> None:
    probe = Probe("192.0.2.1", certificate=CERTIFICATE, chain=chain, problem="self-signed certificate")
    found = probe_report("mx.example.com", probe, Rules(None, by_hostname=False), [record])
    assert (found.problem, found.unclear, found.tlsa) == expected


def test_only_patterns_that_match_no_host_are_unmatched() -> None:
    hosts = [MxReport("mx.a.test", "mx.a.test", None, ()), MxReport("mx.b.test", None, None, ())]
    patterns = ["*.a.test", "*.c.test", "mx.a.test", "MX.b.test", "*.c.test", "a.test"]
    assert unmatched(patterns, hosts) == ["*.c.test", "a.test"]


NOT_ALLOWED = Judgement("refused", "is not allowed by the cached policy")
REFRESH = Judgement("refused", "is not allowed by the cached policy, which is out of date: refresh it")


@pytest.mark.parametrize(("fresh", "expected"), [(None, NOT_ALLOWED), ("mx.a.test", REFRESH)])
def test_a_host_that_no_mx_line_allows(fresh: str | None, expected: Judgement) -> None:
    cached = Policy(Mode.ENFORCE, 86400, (MxPattern("old.a.test"),))
    rules = Rules(cached, by_hostname=False, name="the cached policy")
    probe = probe_report("mx.a.test", Probe("192.0.2.1", certificate=CERTIFICATE, names=("mx.a.test",)), rules, [])
    assert judge(MxReport("mx.a.test", fresh, None, (probe,)), rules) == expected
    assert judge(MxReport("mx.a.test", fresh, None, ()), rules) == expected
    other = replace(probe, problem="does not offer STARTTLS")
    assert judge(MxReport("mx.a.test", fresh, None, (other,)), rules).reason == "does not offer STARTTLS"
