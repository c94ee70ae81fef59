"""Whether DANE decides over a next hop: from real DNS, which is signed here and not there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver, Tlsa
from postfix_mtasts.dns.tlsa import is_usable, look_up
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable, Failure, Stage
from postfix_mtasts.turns import Turns
from tests.world.dns import Behaviour, DnsServer

# Names below `signed.` are proved by DNSSEC.
DOMAIN = "example.signed"
MX = "mx.example.signed"
EE = "3 1 1 " + 32 * "ab"
SERVFAIL = Behaviour(rcode="SERVFAIL")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.authenticated = {"signed"}
        yield server


async def seen(
    dns: DnsServer, domain: str = DOMAIN, *, mx: bool = True, port: str = "25", timeout: float = 30
) -> DaneObservation:
    resolver = Resolver([InetEndpoint(dns.address, dns.port)], timeout=timeout)
    return await look_up(resolver, NextHop(PolicyDomain(domain), mx, port), Turns())


def host(dns: DnsServer, name: str, *tlsa: str, port: int = 25, ttl: int = 300) -> None:
    dns.add(name, "A", "192.0.2.1")
    for record in tlsa:
        dns.add(f"_{port}._tcp.{name}", "TLSA", record, ttl=ttl)


def absent(reason: str, ttl: float = 300.0) -> DaneAbsent:
    return DaneAbsent(reason, ttl)


def failed(name: str, word: str = "SERVFAIL") -> Callable[[DnsServer], DaneFailed]:
    return lambda dns: DaneFailed(
        Failure(Stage.TLSA, f"_25._tcp.{name}: 127.0.0.1 port {dns.port}: {word}", result_type=None)
    )


async def test_one_mx_host(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX.upper()}.", ttl=200)
    host(dns, MX, EE, ttl=100)
    assert await seen(dns) == DaneUsable((MX,), 100.0)
    dns.remove(DOMAIN)
    dns.add(DOMAIN, "MX", f"10 {MX}.", ttl=50)
    assert await seen(dns) == DaneUsable((MX,), 50.0)


async def test_no_tlsa_records(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX)
    assert await seen(dns) == absent(f"{MX} has no TLSA record that is signed with DNSSEC", 60.0)


@pytest.mark.parametrize("domain", ["example.unsigned", "none.unsigned"])
async def test_the_mx_records_are_not_secure(dns: DnsServer, domain: str) -> None:
    """Nothing below them is asked for, though the host is secure."""
    dns.add("example.unsigned", "MX", f"10 {MX}.")
    host(dns, MX, EE)
    assert await seen(dns, domain) == absent(
        "the MX records are not signed with DNSSEC", 300.0 if domain == "example.unsigned" else 60.0
    )
    assert [(query.name, query.rdtype) for query in dns.queries] == [(domain, "MX")]


async def test_a_host_is_not_secure(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", "10 mx.unsigned.")
    host(dns, "mx.unsigned", EE)
    dns.set_behaviour("_25._tcp.mx.unsigned", SERVFAIL)
    assert await seen(dns) == absent("mx.unsigned's address is not signed with DNSSEC")


async def test_tlsa_records_that_are_not_secure(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX)
    dns.add(f"_25._tcp.{MX}", "CNAME", "tlsa.unsigned.")
    dns.add("tlsa.unsigned", "TLSA", EE)
    assert await seen(dns) == absent(f"{MX} has no TLSA record that is signed with DNSSEC")


async def test_tlsa_records_behind_a_secure_cname(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX)
    dns.add(f"_25._tcp.{MX}", "CNAME", "tlsa.signed.", ttl=100)
    dns.add("tlsa.signed", "TLSA", EE)
    assert await seen(dns) == DaneUsable((MX,), 100.0)


async def test_without_mx_records_the_domain_is_its_own_host(dns: DnsServer) -> None:
    host(dns, DOMAIN, EE)
    assert await seen(dns) == DaneUsable((DOMAIN,), 60.0)


async def test_no_such_domain(dns: DnsServer) -> None:
    assert await seen(dns) == absent(f"{DOMAIN} has no address", 60.0)


async def test_a_domain_that_takes_no_mail(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", "0 .")
    assert await seen(dns) == absent("the domain accepts no mail (null MX record)")


async def test_a_domain_that_is_an_alias(dns: DnsServer) -> None:
    dns.add(DOMAIN, "CNAME", "other.signed.", ttl=250)
    dns.add("other.signed", "MX", f"10 {MX}.")
    host(dns, MX, EE)
    assert await seen(dns) == DaneUsable((MX,), 250.0)


async def test_a_domain_that_is_an_alias_into_a_zone_that_is_not_signed(dns: DnsServer) -> None:
    dns.add(DOMAIN, "CNAME", "other.unsigned.")
    dns.add("other.unsigned", "MX", f"10 {MX}.")
    host(dns, MX, EE)
    assert await seen(dns) == absent("the MX records are not signed with DNSSEC")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param(("real.signed",), DaneUsable((MX,), 300.0), id="at the end"),
        pytest.param((MX,), DaneUsable((MX,), 60.0), id="at the alias"),
        pytest.param(("real.signed", MX), DaneUsable((MX,), 300.0), id="at both: the end"),
    ],
)
async def test_a_host_that_is_an_alias(dns: DnsServer, at: tuple[str, ...], expected: DaneObservation) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    dns.add(MX, "CNAME", "real.signed.")
    dns.add("real.signed", "A", "192.0.2.1")
    for name in at:
        dns.add(f"_25._tcp.{name}", "TLSA", EE)
    assert await seen(dns) == expected


async def test_unusable_records_at_the_end_of_an_alias_keep_those_at_the_alias_from_being_asked_for(
    dns: DnsServer,
) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    dns.add(MX, "CNAME", "real.signed.")
    host(dns, "real.signed", "1 1 1 " + 32 * "ab")
    dns.add(f"_25._tcp.{MX}", "TLSA", EE)
    assert await seen(dns) == absent("no usable TLSA record at _25._tcp.real.signed")


async def test_a_signed_alias_of_a_host_that_is_not_signed(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    dns.add(MX, "CNAME", "real.unsigned.")
    host(dns, "real.unsigned", EE)
    assert await seen(dns) == absent(f"{MX} has no TLSA record that is signed with DNSSEC", 60.0)
    dns.add(f"_25._tcp.{MX}", "TLSA", EE)
    assert await seen(dns) == DaneUsable((MX,), 300.0)


async def test_an_unsigned_alias_of_a_signed_host(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", "10 alias.unsigned.")
    dns.add("alias.unsigned", "CNAME", f"{MX}.")
    host(dns, MX, EE)
    dns.add("_25._tcp.alias.unsigned", "TLSA", EE)
    assert await seen(dns) == absent("alias.unsigned's address is not signed with DNSSEC")


async def test_some_mx_hosts_have_tlsa_records(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", "30 c.signed.", "10 a.signed.", "20 b.signed.", "40 d.unsigned.")
    host(dns, "a.signed", EE)
    host(dns, "b.signed")
    host(dns, "c.signed", EE, ttl=90)
    host(dns, "d.unsigned", EE)
    assert await seen(dns) == DaneUsable(("a.signed", "c.signed"), 90.0, covers_all=False)


async def test_usable_records_of_one_host_go_before_a_failure_of_another(dns: DnsServer) -> None:
    """Postfix deals with each host by itself then."""
    dns.add(DOMAIN, "MX", "10 a.signed.", "20 b.signed.")
    host(dns, "a.signed")
    dns.set_behaviour("_25._tcp.a.signed", SERVFAIL)
    host(dns, "b.signed", EE)
    assert await seen(dns) == DaneUsable(("b.signed",), 300.0, covers_all=False)


async def test_a_failure_of_one_host_goes_before_the_absence_of_another(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", "10 a.signed.", "20 b.signed.")
    host(dns, "a.signed")
    host(dns, "b.signed")
    dns.set_behaviour("_25._tcp.b.signed", SERVFAIL)
    assert await seen(dns) == failed("b.signed")(dns)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_tlsa_lookup_fails(dns: DnsServer, rcode: str) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX, EE)
    dns.set_behaviour(f"_25._tcp.{MX}", Behaviour(rcode=rcode))
    assert await seen(dns) == failed(MX, rcode)(dns)


async def test_a_tlsa_lookup_fails_at_the_end_of_an_alias(dns: DnsServer) -> None:
    """What stands at the alias does not count then."""
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    dns.add(MX, "CNAME", "real.signed.")
    host(dns, "real.signed")
    dns.add(f"_25._tcp.{MX}", "TLSA", EE)
    dns.set_behaviour("_25._tcp.real.signed", SERVFAIL)
    assert await seen(dns) == failed("real.signed")(dns)


async def test_the_mx_lookup_fails(dns: DnsServer) -> None:
    """Perhaps the domain is not signed at all."""
    dns.set_behaviour(DOMAIN, SERVFAIL)
    with pytest.raises(DnsError, match=f"^127.0.0.1 port {dns.port}: SERVFAIL$"):
        await seen(dns)


async def test_the_addresses_of_a_host_cannot_be_looked_up(dns: DnsServer) -> None:
    """No mail goes there; it does to the other."""
    dns.add(DOMAIN, "MX", "10 a.signed.", "20 b.signed.")
    dns.set_behaviour("a.signed", SERVFAIL)
    host(dns, "b.signed")
    problem = f"the address lookup of a.signed failed: 127.0.0.1 port {dns.port}: SERVFAIL"
    assert await seen(dns) == absent(f"{problem}; b.signed has no TLSA record that is signed with DNSSEC", 0.0)


@pytest.mark.parametrize(("kind", "other"), [("A", "AAAA"), ("AAAA", "A")])
async def test_addresses_of_one_kind_are_enough(dns: DnsServer, kind: str, other: str) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    dns.add(MX, kind, "192.0.2.1" if kind == "A" else "2001:db8::1")
    dns.set_behaviour(MX, SERVFAIL, other)
    dns.add(f"_25._tcp.{MX}", "TLSA", EE)
    assert await seen(dns) == DaneUsable((MX,), 300.0)


async def test_twenty_of_the_hosts_are_looked_at(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", *(f"{preference} mx{preference}.signed." for preference in range(1, 31)))
    for number in range(1, 31):
        host(dns, f"mx{number}.signed", *([EE] if number > 20 else []))
    reasons = "; ".join(f"mx{number}.signed has no TLSA record that is signed with DNSSEC" for number in range(1, 21))
    assert await seen(dns) == absent(reasons, 60.0)


async def test_a_smart_host(dns: DnsServer) -> None:
    """Its MX records do not count, and its port does."""
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX, EE)
    host(dns, DOMAIN, EE, port=587)
    assert await seen(dns, mx=False) == absent(f"{DOMAIN} has no TLSA record that is signed with DNSSEC", 60.0)
    assert await seen(dns, mx=False, port="587") == DaneUsable((DOMAIN,), 300.0)
    assert await seen(dns, mx=False, port="submission") == DaneUsable((DOMAIN,), 300.0)
    assert await seen(dns, port="587") == absent(f"{MX} has no TLSA record that is signed with DNSSEC", 60.0)
    assert await seen(dns, mx=False, port="nonsense") == absent("nonsense is not the name of a TCP service", 0.0)


SHA256, SHA512 = bytes(32), bytes(64)


@pytest.mark.parametrize(
    ("record", "usable"),
    [
        pytest.param(Tlsa(3, 1, 1, SHA256), True, id="DANE-EE, key, SHA-256"),
        pytest.param(Tlsa(3, 0, 1, SHA256), True, id="certificate"),
        pytest.param(Tlsa(2, 0, 1, SHA256), True, id="DANE-TA"),
        pytest.param(Tlsa(2, 1, 2, SHA512), True, id="SHA-512"),
        pytest.param(Tlsa(3, 1, 0, b"0"), True, id="whole key"),
        pytest.param(Tlsa(3, 1, 0, b""), False, id="no key"),
        pytest.param(Tlsa(0, 1, 1, SHA256), False, id="PKIX-TA"),
        pytest.param(Tlsa(1, 1, 1, SHA256), False, id="PKIX-EE"),
        pytest.param(Tlsa(4, 1, 1, SHA256), False, id="unknown usage"),
        pytest.param(Tlsa(255, 1, 1, SHA256), False, id="private usage"),
        pytest.param(Tlsa(3, 2, 1, SHA256), False, id="unknown selector"),
        pytest.param(Tlsa(3, 1, 3, SHA256), False, id="unknown matching type"),
        pytest.param(Tlsa(3, 1, 1, SHA512), False, id="SHA-256 too long"),
        pytest.param(Tlsa(3, 1, 2, SHA256), False, id="SHA-512 too short"),
    ],
)
async def test_usable_records(dns: DnsServer, record: Tlsa, usable: bool) -> None:
    assert is_usable(record) is usable
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX)
    octets = bytes((record.usage, record.selector, record.matching_type)) + record.data
    dns.add_octets(f"_25._tcp.{MX}", "TLSA", octets)
    expected = DaneUsable((MX,), 300.0) if usable else absent(f"no usable TLSA record at _25._tcp.{MX}", 300.0)
    assert await seen(dns) == expected


@pytest.mark.parametrize(
    "octets", [b"", b"\3", b"\3\1", b"\3\1\1", b"\3\1\1" + bytes(31), b"\3\1\1" + bytes(33), b"\3\1\2" + bytes(63)]
)
async def test_a_record_that_nobody_can_use_does_not_hide_the_others(dns: DnsServer, octets: bytes) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX, EE)
    dns.add_octets(f"_25._tcp.{MX}", "TLSA", octets)
    assert await seen(dns) == DaneUsable((MX,), 300.0)


async def test_one_usable_record_is_enough(dns: DnsServer) -> None:
    dns.add(DOMAIN, "MX", f"10 {MX}.")
    host(dns, MX, "1 1 1 " + 32 * "ab", EE)
    assert await seen(dns) == DaneUsable((MX,), 300.0)


@pytest.mark.parametrize("options", ["", "options edns0", "options trust-ad"])
async def test_a_nameserver_of_resolv_conf_is_believed_as_postfix_believes_it(
    namespace: None, tmp_path: Path, options: str
) -> None:
    """Postfix turns on trust-ad by itself."""
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver 127.0.0.1\n{options}\n")
    with DnsServer("127.0.0.1", 53) as dns:
        dns.authenticated = {"signed"}
        dns.add(DOMAIN, "MX", f"10 {MX}.")
        host(dns, MX, EE)
        resolver = Resolver(timeout=30, resolv_conf=file)
        assert await look_up(resolver, NextHop(PolicyDomain(DOMAIN)), Turns()) == DaneUsable((MX,), 300.0)
