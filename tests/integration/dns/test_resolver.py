"""DNS as the daemon asks it, from servers that answer well, badly and not at all."""

import asyncio
import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts import config
from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import (
    DnsFailed,
    Failure,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    Stage,
)
from postfix_mtasts.sts.record import Record
from tests.unit.vectors import load
from tests.world.dns import Behaviour, DnsServer, Query
from tests.world.postfix import unfit

needs_namespace = pytest.mark.skipif(unfit() is not None, reason=str(unfit()))
DOMAIN = PolicyDomain("example.com")
NAME = "_mta-sts.example.com"
HOST = "mta-sts.example.com"
FOUND = RecordFound(Record("1"))
RRSIG = "TXT 8 3 300 20300101000000 20200101000000 1 example.com. AAAA"
CASES = load("dns_cases.json")


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def resolver(*servers: DnsServer, timeout: float = 30.0) -> Resolver:
    return Resolver([InetEndpoint(server.address, server.port) for server in servers], timeout=timeout)


@contextlib.contextmanager
def local_address(address: str) -> Iterator[None]:
    """An address that is this machine's for a while, in this namespace."""
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


def failed(reason: str) -> DnsFailed:
    return DnsFailed(Failure(Stage.RECORD, reason, result_type=None))


def publish(dns: DnsServer, answers: list[dict[str, Any]]) -> None:
    """Let `dns` give an answer section of dns_cases.json; what has no owner there belongs to the name asked for."""
    if not answers:
        dns.add(NAME, "A", "192.0.2.1")
    renamed = any(answer.get("type") == "DNAME" for answer in answers)
    for answer in answers:
        owner: str = answer.get("owner", NAME)
        data: Any = answer.get("data")
        match answer.get("type"):
            case "TXT":
                dns.add_txt(owner, *[text.encode() for text in data])
            case "RRSIG":
                dns.add(owner, "RRSIG", RRSIG)
            case "DNAME":
                dns.add("example.com", "DNAME", data)
            case "CNAME" if not renamed:  # The server makes the one that belongs to a DNAME.
                dns.add(owner, "CNAME", data)
                owner = data
        match answer.get("rcode"):  # What is not published is NXDOMAIN.
            case "SERVFAIL":
                dns.set_behaviour(owner, Behaviour(rcode="SERVFAIL", ede=answer.get("ede")))
            case "TIMEOUT":
                dns.set_behaviour(owner, Behaviour(silent=True))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_case(dns: DnsServer, case: dict[str, Any]) -> None:
    publish(dns, case["answers"])
    reason = "no answer within 0.2 s" if case["name"] == "timeout" else "SERVFAIL"
    expected: RecordObservation
    match case["expect"]["outcome"]:
        case "record":
            expected = RecordFound(Record(case["expect"]["id"]))
        case "none":
            # The TTL of the SOA or, in the last case, of the TXT record that is no MTA-STS record.
            expected = RecordAbsent(300.0 if case["name"] == "wildcard-spf" else 60.0)
        case _:
            expected = failed(f"127.0.0.1 port {dns.port}: {reason}")
    assert await resolver(dns, timeout=0.2 if reason.startswith("no answer") else 30.0).record(DOMAIN) == expected


RECORDS: list[tuple[str, list[tuple[bytes, ...]], RecordObservation]] = [
    ("strings are joined without a blank", [(b"v=STSv1; i", b"d=1", b";")], FOUND),
    ("other records are passed over", [(b"v=spf1 -all",), (b"v=STSv1; id=1;",), (b"\xff\x00",)], FOUND),
    (
        "two records",
        [(b"v=STSv1; id=1;",), (b"v=STSv1; id=2;",)],
        RecordInvalid("2 records begin with v=STSv1; remove all but one", 300.0),
    ),
    ("no id", [(b"v=STSv1;",)], RecordInvalid("id is missing", 300.0)),
    (
        "not ASCII",
        [(b"v=STSv1; id=\xc3\xa9;",)],
        RecordInvalid(r"column 10: expected name=value, got 'id=\xc3\xa9;'", 300.0),
    ),
    ("an empty string", [(b"",)], RecordAbsent(300.0)),
    ("too large for a datagram", [(b"v=STSv1; id=1;",), *[(b"%d" % i + b"x" * 250,) for i in range(20)]], FOUND),
]


@pytest.mark.parametrize(("records", "expected"), [row[1:] for row in RECORDS], ids=[row[0] for row in RECORDS])
async def test_record(dns: DnsServer, records: list[tuple[bytes, ...]], expected: RecordObservation) -> None:
    for strings in records:
        dns.add_txt(NAME, *strings)
    assert await resolver(dns).record(DOMAIN) == expected


async def test_junk_from_a_wildcard_is_no_record(dns: DnsServer) -> None:
    dns.add_txt("*.example.com", b"v=spf1 -all", ttl=120)
    assert await resolver(dns).record(DOMAIN) == RecordAbsent(120.0)


@pytest.mark.parametrize("ttl", [45, 3000])
async def test_an_invalid_record_is_believed_as_long_as_dns_says(dns: DnsServer, ttl: int) -> None:
    dns.add_txt(NAME, b"v=STSv1; id=;", ttl=ttl)
    assert await resolver(dns).record(DOMAIN) == RecordInvalid("id is empty", ttl)


async def test_truncated_answer_is_asked_for_over_tcp(dns: DnsServer) -> None:
    dns.add_txt(NAME, b"v=STSv1; id=1;")
    dns.set_behaviour(NAME, Behaviour(truncate=True))
    assert await resolver(dns).record(DOMAIN) == FOUND
    assert dns.queries == [Query(NAME, "TXT", "udp"), Query(NAME, "TXT", "tcp")]


async def test_one_lookup_is_one_question(dns: DnsServer) -> None:
    dns.add_txt(NAME, b"v=STSv1; id=1;")
    assert await resolver(dns).record(DOMAIN) == FOUND
    assert dns.queries == [Query(NAME, "TXT", "udp")]


# How long a negative answer may be believed (RFC 2308, 5): the name, what the zone has, the TTL.
NEGATIVE: list[tuple[str, list[tuple[str, str, str, int]], float]] = [
    ("the SOA's TTL if it is smaller", [("example.com", "SOA", "ns. hostmaster. 1 2 3 4 900", 45)], 45.0),
    ("the SOA's minimum if it is smaller", [("example.com", "SOA", "ns. hostmaster. 1 2 3 4 45", 900)], 45.0),
    (
        "a name without TXT records",
        [("example.com", "SOA", "ns. hostmaster. 1 2 3 4 45", 900), (NAME, "A", "192.0.2.1", 5)],
        45.0,
    ),
    ("the alias's TTL if it is smaller", [(NAME, "CNAME", "gone.example.", 20)], 20.0),
    ("the SOA's TTL behind an alias", [(NAME, "CNAME", "gone.example.", 3600)], 60.0),
]


@pytest.mark.parametrize(("records", "ttl"), [row[1:] for row in NEGATIVE], ids=[row[0] for row in NEGATIVE])
async def test_negative_ttl(dns: DnsServer, records: list[tuple[str, str, str, int]], ttl: float) -> None:
    for owner, rdtype, rdata, record_ttl in records:
        dns.add(owner, rdtype, rdata, ttl=record_ttl)
    assert await resolver(dns).record(DOMAIN) == RecordAbsent(ttl)


# The same where the answer has no SOA.
NO_SOA: list[tuple[str, tuple[str, str, int] | None, float]] = [
    ("no such name", None, 300.0),
    ("a name without TXT records", ("A", "192.0.2.1", 5), 300.0),
    ("the alias's TTL if it is smaller", ("CNAME", "gone.example.", 20), 20.0),
    ("behind an alias", ("CNAME", "gone.example.", 3600), 300.0),
]


@pytest.mark.parametrize(("record", "ttl"), [row[1:] for row in NO_SOA], ids=[row[0] for row in NO_SOA])
async def test_negative_ttl_without_soa(dns: DnsServer, record: tuple[str, str, int] | None, ttl: float) -> None:
    dns.negative_ttl = None
    if record:
        dns.add(NAME, record[0], record[1], ttl=record[2])
    assert await resolver(dns).record(DOMAIN) == RecordAbsent(ttl)


# What a server does instead of an answer, and how that is said; what comes from dnspython differs between versions.
FAILURES: list[tuple[str, Behaviour, str]] = [
    ("server fails", Behaviour(rcode="SERVFAIL"), "{server}: SERVFAIL"),
    ("server refuses", Behaviour(rcode="REFUSED"), "{server}: REFUSED"),
    ("server does not understand", Behaviour(rcode="FORMERR"), "{server}: FORMERR"),
    ("server cannot do that", Behaviour(rcode="NOTIMP"), "{server}: NOTIMP"),
    ("server is silent", Behaviour(silent=True), "{server}: no answer within 0.2 s"),
    ("server is late", Behaviour(delay=60), "{server}: no answer within 0.2 s"),
    ("short garbage", Behaviour(garbage=b"\x00"), "{server}: no answer within 0.2 s"),
    ("long garbage", Behaviour(garbage=b"\xff" * 600), "{server}: no answer within 0.2 s"),
]


@pytest.mark.parametrize(("behaviour", "reason"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
async def test_failure(dns: DnsServer, behaviour: Behaviour, reason: str) -> None:
    dns.add_txt(NAME, b"v=STSv1; id=1;")
    dns.set_behaviour(NAME, behaviour)
    observation = await resolver(dns, timeout=30.0 if behaviour.rcode else 0.2).record(DOMAIN)
    assert isinstance(observation, DnsFailed)
    assert observation == failed(observation.failure.reason)
    assert re.fullmatch(reason.format(server=f"127[.]0[.]0[.]1 port {dns.port}"), observation.failure.reason)


@pytest.mark.parametrize("behaviour", [row[1] for row in FAILURES], ids=[row[0] for row in FAILURES])
async def test_next_server_is_asked(dns: DnsServer, behaviour: Behaviour) -> None:
    with DnsServer("127.0.0.2") as second:
        dns.set_behaviour(".", behaviour)
        second.add_txt(NAME, b"v=STSv1; id=1;")
        assert await resolver(dns, second, timeout=9.0).record(DOMAIN) == FOUND
        assert second.queries == [Query(NAME, "TXT", "udp")]


async def test_next_server_is_asked_when_the_first_is_dead(dns: DnsServer) -> None:
    dns.add_txt(NAME, b"v=STSv1; id=1;")
    with DnsServer("127.0.0.2") as dead:
        pass
    assert await resolver(dead, dns).record(DOMAIN) == FOUND


@needs_namespace
async def test_no_way_to_the_nameserver() -> None:
    asked = Resolver([InetEndpoint("192.0.2.53", 53)], timeout=0.5)
    assert await asked.record(DOMAIN) == failed("192.0.2.53: network is unreachable")


@needs_namespace
async def test_the_way_to_the_nameserver_comes_back_within_the_time() -> None:
    server = InetEndpoint("192.0.2.53", 5353)
    lookup = asyncio.create_task(Resolver([server], timeout=20.0).record(DOMAIN))
    await asyncio.sleep(0)  # It has tried once.
    with local_address(server.host), DnsServer(server.host, server.port) as dns:
        dns.add_txt(NAME, b"v=STSv1; id=1;")
        assert await lookup == FOUND


async def test_next_server_is_not_asked_when_the_first_knows(dns: DnsServer) -> None:
    with DnsServer("127.0.0.2") as second:
        second.add_txt(NAME, b"v=STSv1; id=1;")
        assert await resolver(dns, second).record(DOMAIN) == RecordAbsent(60.0)
        assert second.queries == []


async def test_each_server_that_failed_is_named(dns: DnsServer) -> None:
    with DnsServer("::1") as second, DnsServer("127.0.0.2") as third:
        dns.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        second.set_behaviour(".", Behaviour(rcode="REFUSED"))
        third.set_behaviour(".", Behaviour(silent=True))
        assert await resolver(dns, second, third, timeout=4.0).record(DOMAIN) == failed(
            f"127.0.0.1 port {dns.port}: SERVFAIL; ::1 port {second.port}: REFUSED;"
            f" 127.0.0.2 port {third.port}: no answer within 4 s"
        )


async def test_silent_servers_cost_one_timeout_for_all(dns: DnsServer) -> None:
    with DnsServer("127.0.0.2") as second, DnsServer("127.0.0.3") as third:
        for server in (dns, second, third):
            server.set_behaviour(".", Behaviour(silent=True))
        async with asyncio.timeout(11):  # With a time-out for each it would be 12 seconds.
            observation = await resolver(dns, second, third, timeout=4.0).record(DOMAIN)
    assert observation == failed(
        "; ".join(f"{server.address} port {server.port}: no answer within 4 s" for server in (dns, second, third))
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_server_of_the_configuration(address: str) -> None:
    with DnsServer(address) as dns:
        dns.add_txt(NAME, b"v=STSv1; id=1;")
        written = f"[{address}]:{dns.port}" if ":" in address else f"{address}:{dns.port}"
        settings = config.parse(f'[dns]\nnameservers = ["{written}"]'.encode(), "test").dns
        assert await Resolver(settings.nameservers, timeout=settings.timeout).record(DOMAIN) == FOUND


# What the host has, how it behaves for one type, and its addresses, or why they are unknown.
ADDRESSES: list[tuple[str, list[tuple[str, str]], tuple[str, Behaviour] | None, tuple[str, ...] | str]] = [
    (
        "IPv6 and IPv4 by turns",
        [("A", "192.0.2.1"), ("A", "192.0.2.2"), ("A", "192.0.2.3"), ("AAAA", "2001:db8::1"), ("AAAA", "2001:db8::2")],
        None,
        ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"),
    ),
    ("IPv4 only", [("A", "192.0.2.1")], None, ("192.0.2.1",)),
    ("IPv6 only", [("AAAA", "2001:db8::1")], None, ("2001:db8::1",)),
    ("behind an alias", [("CNAME", "provider.example.")], None, ("2001:db8::9", "192.0.2.9")),
    ("a host without addresses", [("TXT", "x")], None, ()),
    ("no such host", [], None, ()),
    (
        "one type fails, the other has addresses",
        [("A", "192.0.2.1")],
        ("AAAA", Behaviour(rcode="SERVFAIL")),
        ("192.0.2.1",),
    ),
    (
        "one type is silent, the other has addresses",
        [("AAAA", "2001:db8::1")],
        ("A", Behaviour(silent=True)),
        ("2001:db8::1",),
    ),
    ("one type fails, the other has none", [("TXT", "x")], ("A", Behaviour(rcode="SERVFAIL")), "{server}: SERVFAIL"),
    (
        "one type is silent, the other has none",
        [("TXT", "x")],
        ("AAAA", Behaviour(silent=True)),
        "{server}: no answer within 3 s",
    ),
]


@pytest.mark.parametrize(
    ("records", "behaviour", "expected"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES]
)
async def test_addresses(
    dns: DnsServer,
    records: list[tuple[str, str]],
    behaviour: tuple[str, Behaviour] | None,
    expected: tuple[str, ...] | str,
) -> None:
    dns.add("provider.example", "A", "192.0.2.9")
    dns.add("provider.example", "AAAA", "2001:db8::9")
    for rdtype, rdata in records:
        dns.add(HOST, rdtype, rdata)
    if behaviour:
        dns.set_behaviour(HOST, behaviour[1], behaviour[0])
    try:
        found: tuple[str, ...] | str = await resolver(
            dns, timeout=3.0 if behaviour and behaviour[1].silent else 30.0
        ).addresses(HOST)
    except DnsError as error:
        found = str(error).replace(f"127.0.0.1 port {dns.port}", "{server}")
    assert found == expected
    assert set(dns.queries) == {Query(HOST, "A", "udp"), Query(HOST, "AAAA", "udp")}


@pytest.mark.usefixtures("namespace")
async def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"

    def write(text: str) -> None:
        # As resolvconf(8) and others do it.
        fresh = tmp_path / "resolv.conf.new"
        fresh.write_text(text)
        fresh.replace(resolv_conf)

    with contextlib.ExitStack() as stack:
        for number, address in enumerate(["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]):
            server = stack.enter_context(DnsServer(address, 53))
            server.add_txt(NAME, f"v=STSv1; id={number};".encode())
            if address == "127.0.0.3":
                server.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        asked = Resolver(timeout=30.0, resolv_conf=resolv_conf)
        seen = []
        for text in [
            None,
            "nameserver 127.0.0.2\n",
            "# nothing\nnameserver ::1\noptions edns0\n",
            "search test\nnameserver 127.0.0.3\nnameserver 127.0.0.2\n",
            "options timeout:1\n",
        ]:
            if text is not None:
                write(text)
            seen.append(await asked.record(DOMAIN))
        resolv_conf.unlink()
        seen.append(await asked.record(DOMAIN))
    assert seen == [RecordFound(Record(str(number))) for number in (0, 1, 3, 1, 0, 0)]


@pytest.mark.usefixtures("namespace")
async def test_resolv_conf_edited_in_place(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    with DnsServer("127.0.0.1", 53), DnsServer("127.0.0.2", 53) as second:
        second.add_txt(NAME, b"v=STSv1; id=1;")
        asked = Resolver(timeout=30.0, resolv_conf=resolv_conf)
        assert await asked.record(DOMAIN) == RecordAbsent(60.0)
        resolv_conf.write_text("nameserver 127.0.0.2\n")
        os.utime(resolv_conf, (1, 1))  # The clock of file times is coarse.
        assert await asked.record(DOMAIN) == FOUND


@pytest.mark.usefixtures("namespace")
async def test_standard_port_is_not_named(tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver ::1\nnameserver 127.0.0.1\n")
    with DnsServer("127.0.0.1", 53) as first, DnsServer("::1", 53) as second:
        for server in (first, second):
            server.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        asked = Resolver(timeout=30.0, resolv_conf=resolv_conf)
        assert await asked.record(DOMAIN) == failed("::1: SERVFAIL; 127.0.0.1: SERVFAIL")


@pytest.mark.usefixtures("namespace")
async def test_resolv_conf_edited_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    """Only its size has changed."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    os.utime(resolv_conf, (1, 1))
    with DnsServer("127.0.0.1", 53), DnsServer("127.0.0.2", 53) as second:
        second.add_txt(NAME, b"v=STSv1; id=1;")
        asked = Resolver(timeout=30.0, resolv_conf=resolv_conf)
        assert await asked.record(DOMAIN) == RecordAbsent(60.0)
        resolv_conf.write_text("nameserver 127.0.0.2\n# more\n")
        os.utime(resolv_conf, (1, 1))
        assert await asked.record(DOMAIN) == FOUND


async def test_sixteen_addresses_of_a_host_count(dns: DnsServer) -> None:
    dns.add(HOST, "A", *(f"192.0.2.{number}" for number in range(90)))
    addresses = await resolver(dns).addresses(HOST)
    assert addresses == tuple(f"192.0.2.{number}" for number in range(16))
    assert (await resolver(dns).host(HOST)).records == addresses
    dns.add(HOST, "AAAA", *(f"2001:db8::{number}" for number in range(90)))
    assert len(await resolver(dns).addresses(HOST)) == 16


async def test_more_text_than_anybody_has(dns: DnsServer) -> None:
    for number in range(40):
        dns.add_txt(NAME, b"v=STSv1; id=1;" if not number else b"%d" % number + 240 * b"x")
    reason = f"127.0.0.1 port {dns.port}: more than 8192 bytes of TXT records"
    assert await resolver(dns).record(DOMAIN) == failed(reason)
