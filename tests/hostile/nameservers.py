"""Nameservers that misbehave, or pass on what they should not: a line each."""

import ipaddress
from functools import partial
from typing import Any

from tests.hostile.case import DNS_TIMEOUT, SECURE, Case, Zone
from tests.hostile.messages import (
    AA,
    AAAA,
    AD,
    ASKED,
    CNAME,
    GOOD,
    MX,
    NS,
    RA,
    RD,
    RESPONSE,
    SOA,
    TC,
    TEXT,
    A,
    addresses,
    before_the_answer,
    chain,
    edns,
    name,
    over_tcp,
    record,
    says,
    soa,
    truncated,
    txt,
)  # fmt: skip
from tests.hostile.sites import SERVER
from tests.world.dns import Behaviour

ABSENT = "no policy: no _mta-sts TXT record"
INVALID = "no policy: invalid _mta-sts TXT record: {}".format
AT = "127.0.0.1: "
ENDED, NOT_OURS = f"{AT}closed the TCP connection", f"{AT}not a response to our query"
MALFORMED = f"{AT}malformed response"
NOWHERE = [f"127.0.2.{number}" for number in range(20, 90)]
SILENT, SILENT_OVER_TCP = f"{AT}no answer within {DNS_TIMEOUT} s", f"{AT}no answer over TCP"
CHAIN = f"{AT}chain of more than 16 CNAME records"
TOO_MANY, TOO_LARGE = f"{AT}more than 100 records in one section", f"{AT}more than 8192 bytes of TXT records"
NO_RESOLVER = f"{AT}not a resolver: it does not offer recursion"
LOCALHOST, INSIDE, OUTSIDE = name("localhost"), bytes([127, 0, 0, 1]), bytes([127, 0, 2, 1])
LOCAL = record(LOCALHOST, CNAME)
ODD = name(b"\0\xff.\x1b[2J")
LABELS = b"\x01a" * 100
A_TEST, DNAME, RRSIG, TSIG = name("a", "test"), 39, 46, 250

_bad = partial(Case, stage="TXT lookup", connections=0, octets=0, queries=1)
_slow = partial(_bad, queries=6)
_fine = partial(Case, stage="")
_again = partial(_bad, queries=20)
_host = partial(Case, stage="address of the policy host", connections=0, octets=0, queries=3)
_connect = partial(_host, stage="connection to the policy host")


def t(*answers: bytes, **wrong: Any) -> Zone:
    """A response for the record."""
    return Zone(txt=says(*answers, **wrong))


def large(*answers: bytes, **wrong: Any) -> Zone:
    """The same over TCP."""
    return Zone(txt=truncated(*answers, **wrong))


def at(*texts: str) -> Zone:
    """Addresses of the policy host."""
    found = [ipaddress.ip_address(text) for text in texts]
    four, six = ([one.packed for one in found if one.version == version] for version in (4, 6))
    return Zone(a=addresses(*four), aaaa=addresses(*six, kind=AAAA))


def only(*texts: str) -> str:
    """The cause if there are no others."""
    return f"mta-sts.* has no public address, only {', '.join(texts)}"


SILENCE = [
    _slow("nothing", Zone(txt=Behaviour(silent=True)), SILENT),
    _slow("nothing over TCP", Zone(txt=over_tcp()), SILENT_OVER_TCP),
    _again("the end over TCP", Zone(txt=over_tcp(closes=True)), ENDED),
    _again("the end after a length", Zone(txt=over_tcp(b"\xff\xff", closes=True)), ENDED),
    _again("the end in the response", Zone(txt=over_tcp(b"\x00\x40abc", closes=True)), ENDED),
    _slow("a length over TCP, and nothing", Zone(txt=over_tcp(b"\xff\xff")), SILENT_OVER_TCP),
    _slow("64 KB over TCP that are fewer", Zone(txt=over_tcp(b"\xff\xff" + bytes(60_000))), SILENT_OVER_TCP),
    _bad("64 KB of zeros over TCP", Zone(txt=over_tcp(b"\xff\xff" + bytes(65_535))), NOT_OURS, queries=2),
    _slow("a drop each tenth of a second", Zone(txt=over_tcp(good=True, interval=0.1)), SILENT_OVER_TCP),
    _fine("a drop each millisecond", Zone(txt=over_tcp(good=True, interval=0.001)), SECURE, queries=4, cpu=0.2),
    _bad("a length too small over TCP", Zone(txt=over_tcp(good=True, size=20)), "*", queries=2),
    _slow("a length too large over TCP", Zone(txt=over_tcp(good=True, size=20_000)), SILENT_OVER_TCP),
    _bad("an empty response over TCP", Zone(txt=over_tcp(b"\x00\x00")), NOT_OURS, queries=2),
    _bad("truncated over TCP too", t(flags=RESPONSE | RD | RA | TC), f"{AT}truncated over TCP", queries=2),
    _slow("an answer of one octet", Zone(txt=Behaviour(garbage=b"\0")), SILENT),
    _slow("an answer of 0xff", Zone(txt=Behaviour(garbage=b"\xff" * 1200)), SILENT),
]  # fmt: skip
FORGERIES = [
    _slow("another id", t(record(GOOD), number=1), SILENT),
    _slow("another id, 5,000 times", t(record(GOOD), number=1, times=5000), SILENT, cpu=1),
    _slow("another name in the question", t(record(GOOD), question=name("x", "test") + b"\0\x10\0\x01"), SILENT),
    _slow("another type in the question", t(record(GOOD), question=name("x") + b"\0\x01\0\x01"), SILENT),
    _slow("the query in return", t(flags=RD), SILENT),
    _slow("another opcode", t(record(GOOD), flags=RESPONSE | RD | RA | 0x2800), SILENT),
    _slow("no question", t(record(GOOD), counts=(0, 1, 0, 0), question=b""), SILENT),
    _slow("from another port", Zone(txt=Behaviour(raw=says(record(GOOD)).raw, source=("127.0.0.1", 0))), SILENT),
    _slow("from another address", Zone(txt=Behaviour(raw=says(record(GOOD)).raw, source=("127.0.0.9", 0))), SILENT),
    _fine("100 forged ones, and the answer", Zone(txt=before_the_answer(says(number=1, times=100))), SECURE),
    _fine("the answer twice", t(record(GOOD), times=2), SECURE),
    _bad("two questions that are one", t(record(GOOD), counts=(2, 1, 0, 0)), f"{AT}more than one question"),
]  # fmt: skip
RCODES = [
    *(
        _bad(f"rcode {what}", Zone(txt=says(rcode=code)), f"{AT}{what}")
        for code, what in {2: "SERVFAIL", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH"}.items()
    ),
    *(_bad(f"rcode {code}", Zone(txt=says(rcode=code)), f"{AT}RCODE{code}") for code in (12, 15)),
    _bad("rcode NOTZONE", t(rcode=10), f"{AT}NOTZONE"),
    _bad("rcode FORMERR", t(rcode=1), f"{AT}FORMERR", queries=2),
    _bad("rcode NOTIMP", t(rcode=4), f"{AT}NOTIMP", queries=2),
    _bad("BADVERS", t(additional=[edns(ttl=1 << 24)]), f"{AT}BADVERS"),
    _bad("rcode 4095", t(rcode=15, additional=[edns(ttl=0xFF << 24)]), f"{AT}RCODE4095"),
    _bad("SERVFAIL with a record", t(record(GOOD), rcode=2), f"{AT}SERVFAIL"),
    _bad("SERVFAIL and garbage", t(rcode=2, counts=(1, 50, 0, 0), rest=b"\xff" * 100), f"{AT}SERVFAIL"),
    _bad("NXDOMAIN with a record", t(record(GOOD), rcode=3), f"{AT}NXDOMAIN in a response with records"),
    _bad("NXDOMAIN", t(rcode=3), ABSENT),
    _bad("NXDOMAIN, TTL of 68 years", t(rcode=3, authority=[soa(2**31 - 1, 2**32 - 1)]), ABSENT),
    _bad("no records, SOA of another zone", t(authority=[soa(owner=name("other", "test"))]), ABSENT),
    _bad("no records, an empty SOA", t(authority=[record(b"", SOA, owner=b"\0")]), ABSENT),
    _bad("no records, 30 SOA", t(authority=[soa()] * 30), ABSENT),
    _bad("no records, and no SOA", t(), ABSENT),
    _bad("no records, and no resolver", t(flags=RESPONSE | RD), NO_RESOLVER),
    _bad("a referral", t(authority=[record(name("ns"), NS, owner=name("test"))], flags=RESPONSE), NO_RESOLVER),
    _bad("no records of an authority", t(flags=RESPONSE | AA), ABSENT),
    _fine("EDNS of version 255", t(record(GOOD), additional=[edns(ttl=0xFF << 16)]), SECURE),
    _fine("EDNS twice", t(record(GOOD), additional=[edns()] * 2), SECURE),
    _fine("EDNS of a name", t(record(GOOD), additional=[edns(owner=ASKED)]), SECURE),
    _fine("EDNS with options without end", t(record(GOOD), additional=[edns(b"\xff" * 900)]), SECURE),
    _fine("EDNS with a size of 0", t(record(GOOD), additional=[edns(size=0)]), SECURE),
]  # fmt: skip
FORMS = [
    _bad("more records than there are", t(record(GOOD), counts=(1, 2, 0, 0)), MALFORMED),
    _bad("65,535 records that are one", t(record(GOOD), counts=(1, 65_535, 0, 0)), TOO_MANY),
    _bad("fewer records than there are", t(record(GOOD), record(txt(TEXT + b"x=y")), counts=(1, 0, 0, 0)), ABSENT),
    _fine("garbage behind the records", t(record(GOOD), rest=b"\xff" * 500), SECURE),
    _bad("a name that is a loop", t(record(GOOD, owner=b"\xc0\x3c" * 20)), "*"),
    _bad("a pointer to itself", t(record(GOOD, owner=b"\xff\xff")), MALFORMED),
    _bad("a pointer ahead", t(record(GOOD, owner=b"\xc1\x00"), rest=bytes(300)), MALFORMED),
    _bad("a pointer to the flags", t(record(GOOD, owner=b"\xc0\x02")), MALFORMED),
    _bad("a label of a reserved kind", t(record(GOOD, owner=b"\x80\x0c")), MALFORMED),
    _bad("an extended label", t(record(GOOD, owner=b"\x41\x00\0")), MALFORMED),
    _bad("a name of 300 octets", t(record(GOOD, owner=name(*["a" * 63] * 5))), MALFORMED),
    _bad("a name without end", t(record(GOOD, owner=LABELS * 5)), MALFORMED),
    _bad("data longer than the message", t(record(GOOD, size=500)), MALFORMED),
    _bad("data of 65,535 octets", t(record(GOOD, size=65_535)), MALFORMED),
    _bad("data too short", t(record(GOOD, size=5)), MALFORMED),
    _bad("data of an empty string", t(record(txt(b""))), ABSENT),
    _bad("a string longer than the data", t(record(b"\xffv=STSv1; id=1;")), MALFORMED),
    _bad("another class", t(record(GOOD, rdclass=3)), ABSENT),
    _bad("another name", t(record(GOOD, owner=name("other", "test"))), ABSENT),
    _bad("another type", t(record(name("x"), MX)), ABSENT),
    _bad("records of all types", t(*(record(b"\0" * 4, kind) for kind in (1, 2, 6, 12, 15, 28, 33, 46, 255))), ABSENT),
    _bad("in the wrong section", t(authority=[record(GOOD)]), ABSENT),
    _bad("in the last section", t(additional=[record(GOOD)]), ABSENT),
    _fine("all flags", t(record(GOOD), flags=RESPONSE | RA | AD | AA), SECURE),
]  # fmt: skip
RECORDS = [
    _fine("many strings", t(record(txt(*(bytes([octet]) for octet in TEXT)))), SECURE),
    _fine("empty strings", t(record(txt(*[b""] * 100, TEXT, b""))), SECURE),
    _fine("the same record twice", t(record(GOOD), record(GOOD)), SECURE),
    _bad("two records", t(record(GOOD), record(txt(b"v=STSv1; id=2;"))), INVALID("2 records begin with *")),
    _fine("60 other records", t(*(record(txt(b"%d" % number)) for number in range(60)), record(GOOD)), SECURE),
    _bad("101 records", t(*[record(b"\0")] * 80, counts=(1, 101, 0, 0)), TOO_MANY),
    _bad("no id", t(record(txt(b"v=STSv1;"))), INVALID("id is missing")),
    _bad("an id of 33 letters", t(record(txt(b"v=STSv1; id=" + b"x" * 33))), INVALID("id must be 1 to 32 *")),
    _bad("escapes as an id", t(record(txt(b"v=STSv1; id=\x1b[2J;"))), INVALID("*")),
    _bad("a line of the log", t(record(txt(b"v=STSv1; id=1\ndomain=x.test, fetched:;"))), INVALID("*")),
    _bad("octets that are no text", t(record(txt(b"v=STSv1;\xff\x00\xfe"))), INVALID("*")),
    _bad("a NUL at the end", t(record(txt(TEXT + b"\0"))), INVALID("*")),
    _bad("an SPF record", t(record(txt(b"v=spf1 -all"))), ABSENT),
    _fine("a TTL of 0", t(record(GOOD, ttl=0)), SECURE),
    _fine("a TTL of 2^32 - 1", t(record(GOOD, ttl=2**32 - 1)), SECURE),
    _fine("a TTL of 68 years", t(record(GOOD, ttl=2**31 - 1)), SECURE),
    _bad("a CNAME to itself", t(record(ASKED, CNAME)), "*"),
    _bad("two CNAME in a circle", t(record(A_TEST, CNAME), record(ASKED, CNAME, owner=A_TEST)), "*"),
    _bad("a DNAME alone", t(record(name("test"), DNAME, owner=name("hostile", "test"))), ABSENT),
    _fine("a DNAME, its CNAME and the record", t(record(A_TEST, DNAME), *chain(1, to=GOOD)), SECURE),
    _fine("a signature too", t(record(GOOD), record(bytes(100), RRSIG)), SECURE),
    _bad("a signature alone", t(record(bytes(100), RRSIG)), ABSENT),
    _bad("the type of all types", t(record(GOOD, kind=255)), ABSENT),
    _fine("a key of the transaction", t(record(GOOD), additional=[record(bytes(20), TSIG, rdclass=255)]), SECURE),
    _bad("EDNS among the answers", t(edns()), ABSENT),
    _bad("a record at the root", t(record(GOOD, owner=b"\0")), ABSENT),
    _bad("a CNAME to nowhere", t(record(name("nowhere", "test"), CNAME)), ABSENT),
    _bad("two CNAME", t(record(name("a", "test"), CNAME), record(name("b", "test"), CNAME)), ABSENT),
    _fine("a CNAME and the record", t(record(name("a", "test"), CNAME), record(GOOD)), SECURE),
    _bad("a CNAME of garbage", t(record(b"\xc0\xff", CNAME)), MALFORMED),
    _bad("a CNAME with something behind it", t(record(name("a") + b"xx", CNAME)), MALFORMED),
    _fine("a chain of 16 CNAME", t(*chain(16, to=GOOD)), SECURE),
    _bad("a chain of 17 CNAME", t(*chain(17, to=GOOD)), CHAIN),
    _fine("a chain in disorder", t(*reversed(list(chain(5, to=GOOD)))), SECURE),
    _fine("a CNAME to a name of odd octets", t(record(ODD, CNAME), record(GOOD, owner=ODD)), SECURE),
]  # fmt: skip
LARGE = [
    _bad("a record of 8 KB", large(record(txt(TEXT, *[b"x" * 255] * 33))), TOO_LARGE, queries=2),
    _bad("100 records of 600 octets", large(*[record(txt(b"x" * 255, b"y" * 255))] * 100), TOO_LARGE, queries=2),
    _bad("64 KB of records", large(*[record(b"\0")] * 5000), TOO_MANY, queries=2),
    _bad("64 KB of records in the last section", large(additional=[record(b"\0")] * 5000), TOO_MANY, queries=2),
    _bad("64 KB of strings", large(record(bytes(60_000))), TOO_LARGE, queries=2),
    _bad("64 KB of pointers", large(record(GOOD, owner=b"\xc0\x0c" * 30_000)), ABSENT, queries=2),
    _bad("64 KB of labels", large(record(GOOD, owner=b"\x01a" * 30_000)), MALFORMED, queries=2),
    _bad("100 names of many labels", large(*[record(GOOD, owner=LABELS + b"\0")] * 100), ABSENT, queries=2),
    _bad("99 CNAME in disorder", large(*reversed(list(chain(99, to=GOOD)))), f"{AT}chain of *", queries=2),
    _fine("garbage of 60 KB", large(record(GOOD), rest=bytes(60_000)), SECURE, queries=4),
]
HOSTS = [
    _host("SERVFAIL", Zone(a=says(rcode=2), aaaa=says(rcode=2)), f"{AT}SERVFAIL"),
    _host("no address", Zone(a=says()), "mta-sts.* has no address"),
    _host("NXDOMAIN", Zone(a=says(rcode=3), aaaa=says(rcode=3)), "mta-sts.* has no address"),
    _host("nothing", Zone(a=Behaviour(silent=True), aaaa=Behaviour(silent=True)), SILENT, queries=12),
    _fine("nothing for IPv6", Zone(aaaa=Behaviour(silent=True)), SECURE, queries=5),
    _fine("SERVFAIL for IPv6", Zone(aaaa=says(rcode=2)), SECURE),
    _fine("garbage for IPv6", Zone(aaaa=says(record(b"x", AAAA))), SECURE),
    _host("IPv4 addresses of 16 octets", Zone(a=says(record(bytes(16), A))), MALFORMED),
    _host("IPv4 addresses of 3 octets", Zone(a=says(record(bytes(3), A))), MALFORMED),
    _host("IPv6 addresses of 4 octets", Zone(a=says(), aaaa=says(record(bytes(4), AAAA))), MALFORMED),
    *(
        _host(f"the address {address}", at(address), only(address))
        for address in (
            *("127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
            *("192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
            *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "fec0::1", "100::1"),
            *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a00:1::1", "2001::1"),
        )
    ),
    _host("a mapped address", at("::ffff:127.0.0.1"), only("::ffff:*")),
    _host("a mapped address of the metadata", at("::ffff:169.254.169.254"), only("::ffff:*")),
    _host("a compatible address", at("::127.0.0.1"), only("::*")),
    _fine("private addresses, and the server", at("10.0.0.1", "::1", "127.0.0.1", SERVER), SECURE),
    _host("a CNAME to localhost", Zone(a=says(LOCAL, record(INSIDE, A, owner=LOCALHOST))), only("127*")),
    _host("69 private addresses", at(*(f"10.0.0.{number}" for number in range(1, 70))), only("10.0.0.1", "*")),
    _connect("70 addresses where nobody listens", at(*NOWHERE), "127.0.2.20: connection refused; *"),
    _host("1,000 addresses", Zone(a=says(record(OUTSIDE, A), counts=(1, 1000, 0, 0))), TOO_MANY),
    _host("a CNAME to itself", Zone(a=says(record(ASKED, CNAME)), aaaa=says(record(ASKED, CNAME))), "*"),
    _host("a chain of 17 CNAME", Zone(a=says(*chain(17)), aaaa=says(*chain(17))), CHAIN),
    _fine("addresses with TTL 0", Zone(a=says(record(OUTSIDE, A, ttl=0))), SECURE),
]  # fmt: skip
