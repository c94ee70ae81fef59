"""The records of published domains, and what customers put into their zones."""

import dns.rdatatype
import dns.zone
import pytest

from postfix_mtasts.config import Publish
from postfix_mtasts.publish.events import RefusedError
from postfix_mtasts.publish.records import customer_records, domain_records, record_name, zone_records
from postfix_mtasts.sts.domain import PolicyDomain

DOMAIN = PolicyDomain("example.com")
REPORTS = ("mailto:tlsrpt@example.net", "https://example.net/tlsrpt")
FULL = Publish(zone="sts.example.net", addresses=("192.0.2.1", "2001:db8::1"), reports=REPORTS, ca="ca.example")


def lines(records: object) -> list[str]:
    return [str(record) for record in records]  # type: ignore[attr-defined]


def test_customers_point_three_names_to_ours() -> None:
    assert lines(customer_records(DOMAIN, FULL)) == [
        "_mta-sts.example.com. 300 IN CNAME example.com._mta-sts.sts.example.net.",
        "mta-sts.example.com. 300 IN CNAME policy.sts.example.net.",
        "_smtp._tls.example.com. 300 IN CNAME _smtp._tls.sts.example.net.",
    ]
    assert customer_records(DOMAIN, Publish()) == ()
    assert len(customer_records(DOMAIN, Publish(zone="sts.example.net"))) == 2  # Nowhere for reports to go.


def test_no_cname_of_our_zone_leads_to_itself() -> None:
    assert [one for one in customer_records(PolicyDomain(FULL.zone), FULL) if f"{one.name}." == one.data] == []


def test_our_zone() -> None:
    others = [(DOMAIN, "abc"), (PolicyDomain("example.org"), None), (PolicyDomain("a.example.org"), "def")]
    assert lines(zone_records(others, FULL)) == [
        "policy.sts.example.net. 300 IN A 192.0.2.1",
        "policy.sts.example.net. 300 IN AAAA 2001:db8::1",
        'policy.sts.example.net. 300 IN CAA 0 issue "ca.example"',
        '_smtp._tls.sts.example.net. 300 IN TXT "v=TLSRPTv1; rua=mailto:tlsrpt@example.net,https://example.net/tlsrpt"',
        'example.com._mta-sts.sts.example.net. 300 IN TXT "v=STSv1; id=abc;"',
        'a.example.org._mta-sts.sts.example.net. 300 IN TXT "v=STSv1; id=def;"',
    ]
    assert lines(zone_records([], FULL)) == []


def test_without_a_zone_the_records_are_the_domains_own() -> None:
    settings = Publish(addresses=("192.0.2.1",))
    assert lines(domain_records(DOMAIN, "abc", settings)) == [
        '_mta-sts.example.com. 300 IN TXT "v=STSv1; id=abc;"',
        "mta-sts.example.com. 300 IN A 192.0.2.1",
    ]
    assert lines(zone_records([(DOMAIN, "abc")], settings)) == lines(domain_records(DOMAIN, "abc", settings))


def test_a_long_record_is_several_strings_of_one_record() -> None:
    reports = tuple(f"mailto:{letter * 100}@example.net" for letter in "abc")
    zone = "\n".join(lines(zone_records([(DOMAIN, "abc")], Publish(zone="sts.example.net", reports=reports))))
    parsed = dns.zone.from_text(zone, "sts.example.net", check_origin=False)
    (rdata,) = list(parsed.get_rdataset("_smtp._tls", dns.rdatatype.TXT) or [])
    assert b"".join(rdata.strings).decode() == f"v=TLSRPTv1; rua={','.join(reports)}"


def test_a_domain_whose_name_is_too_long_with_ours_is_refused() -> None:
    domain = PolicyDomain(".".join(["x" * 54] * 4) + ".ab")
    assert len(record_name(domain, Publish(zone="s" * 16 + ".test"))) == 253
    with pytest.raises(RefusedError, match=r"^is too long: xxx"):
        record_name(domain, Publish(zone="s" * 17 + ".test"))
