"""DNS messages: the query as it goes over the wire, which responses belong to it, and what they say.

dnspython's own messages are what they are held against.
"""

import contextlib
import struct
from collections.abc import Callable
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rrset
import dns.wire
import pytest
from dns.rdatatype import AAAA, CNAME, MX, TLSA, TXT, A, RdataType
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.dns.message import Answer, MalformedError, Query, ResponseError

NAME = "_mta-sts.example.com"
TEXT = '"v=STSv1; id=1;"'
SOA = "ns.example. hostmaster.example. 1 2 3 4 900"


def response(
    query: Query, *, rcode: str | int = "NOERROR", flags: int = 0, recursive: bool = True
) -> dns.message.Message:
    made = dns.message.make_response(dns.message.from_wire(query.wire), recursion_available=recursive)
    made.set_rcode(dns.rcode.Rcode.make(rcode))
    made.flags |= flags
    return made


def add(section: list[dns.rrset.RRset], owner: str, ttl: int, kind: str, *rdatas: str) -> None:
    section.append(dns.rrset.from_text(f"{owner}.", ttl, "IN", kind, *rdatas))


def wire(message: dns.message.Message) -> bytes:
    octets: bytes = message.to_wire(max_size=65535, want_shuffle=False)
    return octets


def texts(answer: Answer) -> list[str]:
    return [rdata.to_text() for rdata in answer.records]


@pytest.mark.parametrize("kind", [TXT, A, AAAA, MX, CNAME, TLSA])
def test_query(kind: RdataType) -> None:
    query = Query(NAME, kind)
    for made, edns in (query.wire, 0), (query.without_edns().wire, False):
        expected = dns.message.make_query(
            f"{NAME}.", kind, use_edns=edns, payload=1232, flags=dns.flags.RD | dns.flags.AD
        )
        expected.id = int.from_bytes(made[:2])
        assert made == expected.to_wire()


def test_ids_differ() -> None:
    assert len({Query(NAME, TXT).wire[:2] for _ in range(100)}) > 90


@pytest.mark.parametrize("name", ["x" * 64 + ".example", ".".join(["x" * 60] * 5), "a..example"])
def test_no_name(name: str) -> None:
    with pytest.raises(ResponseError):
        Query(name, TXT)


def test_records() -> None:
    query = Query(NAME, TXT)
    made = response(query, flags=dns.flags.AD)
    add(made.answer, NAME.upper(), 300, "TXT", TEXT, '"a" "b"')
    add(made.answer, NAME, 5, "RRSIG", "TXT 8 3 300 20300101000000 20200101000000 1 example.com. AAAA")
    add(made.answer, "other.example", 5, "TXT", '"of another name"')
    made.answer.append(dns.rrset.from_text(f"{NAME}.", 5, "CH", "TXT", '"of another class"'))
    add(made.authority, "example.com", 5, "SOA", SOA)
    answer = query.read(wire(made))
    assert (texts(answer), answer.names, answer.authentic, answer.ttl) == ([TEXT, '"a" "b"'], (NAME,), True, 300.0)


def test_aliases() -> None:
    query = Query(NAME, TXT)
    made = response(query)
    add(made.answer, "b.example", 200, "TXT", TEXT)
    add(made.answer, "a.example", 100, "CNAME", "B.example.")
    add(made.answer, NAME, 150, "CNAME", "a.example.")
    answer = query.read(wire(made))
    expected = ([TEXT], (NAME, "a.example", "b.example"), False, 100.0)
    assert (texts(answer), answer.names, answer.authentic, answer.ttl) == expected


def test_an_alias_is_a_record_if_it_is_asked_for() -> None:
    query = Query(NAME, CNAME)
    made = response(query)
    add(made.answer, NAME, 150, "CNAME", "a.example.")
    add(made.answer, "a.example", 100, "CNAME", "b.example.")
    answer = query.read(wire(made))
    assert (texts(answer), answer.names, answer.ttl) == (["a.example."], (NAME,), 150.0)


# What is in the authority section, and for how long there is nothing.
NOTHING: list[tuple[str, list[tuple[str, int, str, str]], float]] = [
    ("no SOA", [], 300.0),
    ("the TTL is less", [("example.com", 45, "SOA", SOA)], 45.0),
    ("the minimum is less", [("com", 3600, "SOA", SOA)], 900.0),
    ("the SOA of another zone", [("example.net", 45, "SOA", SOA)], 300.0),
    ("the SOA of a zone below", [(f"x.{NAME}", 45, "SOA", SOA)], 300.0),
    ("other records first", [("example.com", 9, "NS", "ns.example."), ("example.com", 45, "SOA", SOA)], 45.0),
    ("a TTL beyond all", [("example.com", 2**31 - 1, "SOA", SOA)], 900.0),
]


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
@pytest.mark.parametrize(("authority", "ttl"), [row[1:] for row in NOTHING], ids=[row[0] for row in NOTHING])
def test_nothing(rcode: str, authority: list[tuple[str, int, str, str]], ttl: float) -> None:
    query = Query(NAME, TXT)
    made = response(query, rcode=rcode)
    for owner, time, kind, rdata in authority:
        add(made.authority, owner, time, kind, rdata)
    exists = rcode == "NOERROR"
    assert query.read(wire(made)) == Answer((), (NAME,), authentic=False, ttl=ttl, exists=exists)


def test_a_ttl_with_the_first_bit_is_none() -> None:
    query = Query(NAME, A)
    made = response(query)
    add(made.answer, NAME, 0x7FFFFFFF, "A", "192.0.2.1")
    octets = wire(made)
    assert query.read(octets).ttl == 2**31 - 1
    assert query.read(octets.replace(b"\x7f\xff\xff\xff", b"\x80\0\0\1")).ttl == 0.0


# Those above 15 are told by the OPT record too. The names of some are known to later versions of dnspython only.
@pytest.mark.parametrize(
    ("rcode", "name"),
    [
        (1, "FORMERR"),
        (2, "SERVFAIL"),
        (4, "NOTIMP"),
        (5, "REFUSED"),
        (6, "YXDOMAIN"),
        (12, "RCODE12"),
        (16, "BADVERS"),
        (19, "BADMODE"),
        (23, "BADCOOKIE"),
        (32, "RCODE32"),
        (4095, "RCODE4095"),
    ],
)
def test_failure(rcode: int, name: str) -> None:
    query = Query(NAME, TXT)
    octets = wire(response(query, rcode=rcode))
    assert query.is_answered_by(octets)
    with pytest.raises(ResponseError, match=f"^{name}$"):
        query.read(octets)


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP", "SERVFAIL", "REFUSED", "NOERROR"])
def test_a_server_that_does_not_know_edns(rcode: str) -> None:
    query = Query(NAME, TXT)
    plain = query.without_edns()
    refused = [one.is_refused_for_edns(wire(response(one, rcode=rcode))) for one in (query, plain)]
    assert refused == [rcode in {"FORMERR", "NOTIMP"}, False]
    assert query.wire[:2] != plain.wire[:2]  # A second response to the first query is none to this one.


def test_a_failure_in_a_broken_message() -> None:
    query = Query(NAME, TXT)
    octets = wire(response(query, rcode="SERVFAIL"))
    with pytest.raises(ResponseError, match=r"^SERVFAIL$"):
        query.read(octets[:-1])
    with pytest.raises(ResponseError, match=r"^SERVFAIL$"):
        query.read(octets[:4] + bytes(8))


NS = ("NS", "ns.example.")
SOA_RECORD = ("SOA", SOA)
# Whether the response has the flags RA and AA, its RCODE, answer and authority, and whether it is an answer.
REFERRALS: list[tuple[str, bool, bool, str, tuple[str, str] | None, tuple[str, str] | None, bool]] = [
    ("a referral", False, False, "NOERROR", None, NS, False),
    ("nothing at all", False, False, "NOERROR", None, None, False),
    ("from a resolver", True, False, "NOERROR", None, NS, True),
    ("from a server of the zone", False, True, "NOERROR", None, None, True),
    ("nothing, says the zone", False, False, "NOERROR", None, SOA_RECORD, True),
    ("no such name", False, False, "NXDOMAIN", None, None, True),
    ("a record", False, False, "NOERROR", ("TXT", TEXT), NS, True),
    ("an alias", False, False, "NOERROR", ("CNAME", "a.example."), NS, True),
    ("other records", False, False, "NOERROR", ("A", "192.0.2.1"), NS, False),
]


@pytest.mark.parametrize(
    ("recursive", "authoritative", "rcode", "answer", "authority", "is_answer"),
    [row[1:] for row in REFERRALS],
    ids=[row[0] for row in REFERRALS],
)
def test_a_referral_is_no_answer(
    recursive: bool,
    authoritative: bool,
    rcode: str,
    answer: tuple[str, str] | None,
    authority: tuple[str, str] | None,
    is_answer: bool,
) -> None:
    query = Query(NAME, TXT)
    made = response(query, rcode=rcode, flags=dns.flags.AA if authoritative else 0, recursive=recursive)
    if answer:
        add(made.answer, NAME, 300, *answer)
    if authority:
        add(made.authority, "example.com", 300, *authority)
    if is_answer:
        query.read(wire(made))
    else:
        with pytest.raises(ResponseError, match=r"^not a resolver: it does not offer recursion$"):
            query.read(wire(made))


def test_more_aliases_than_anybody_has() -> None:
    query = Query(NAME, TXT)
    for count in (16, 17):
        made = response(query)
        for owner, target in zip([NAME, *"abcdefghijklmnop"], "abcdefghijklmnopq", strict=True):
            add(made.answer, owner, 300, "CNAME", f"{target}.")
            if len(made.answer) == count:
                break
        if count == 16:
            assert len(query.read(wire(made)).names) == 17
        else:
            with pytest.raises(MalformedError, match=r"^chain of more than 16 CNAME records$"):
                query.read(wire(made))


def test_an_alias_of_itself() -> None:
    query = Query(NAME, TXT)
    made = response(query)
    add(made.answer, NAME, 300, "CNAME", f"{NAME}.")
    with pytest.raises(MalformedError, match=r"^chain of more than 16 CNAME records$"):
        query.read(wire(made))


def test_a_response_that_is_still_truncated() -> None:
    query = Query(NAME, TXT)
    with pytest.raises(MalformedError, match=r"^truncated over TCP$"):
        query.read(wire(response(query, flags=dns.flags.TC)))


def test_records_of_a_name_that_does_not_exist() -> None:
    query = Query(NAME, TXT)
    made = response(query, rcode="NXDOMAIN")
    add(made.answer, NAME, 300, "TXT", TEXT)
    with pytest.raises(MalformedError, match=r"^NXDOMAIN in a response with records$"):
        query.read(wire(made))


def test_what_belongs_to_a_query() -> None:
    query = Query(NAME, TXT).without_edns()
    good = wire(response(query))
    header, question = good[:12], good[12:]
    failed = header[:3] + bytes([header[3] | dns.rcode.SERVFAIL])
    seen = {
        "as it is": good,
        "in upper case": header + question.upper(),
        "truncated": header[:2] + bytes([header[2] | 2]) + good[3:],
        "without the question, failed": failed + bytes(8),
    }
    assert {what: query.is_answered_by(octets) for what, octets in seen.items()} == dict.fromkeys(seen, True)
    others = {
        "nothing": b"",
        "less than a header": good[:11],
        "the header": header,
        "another id": bytes([header[0] ^ 1]) + good[1:],
        "a query": query.wire,
        "another opcode": header[:2] + bytes([header[2] | 0x20]) + good[3:],
        "without the question": header[:4] + bytes(8),
        "about another name": good.replace(b"example", b"exbmple"),
        "about another type": good[:-4] + b"\0\1\0\1",
        "about another class": good[:-2] + b"\0\3",
        "about a part of the name": header + question.removeprefix(b"\x08_mta-sts"),
    }
    assert {what: query.is_answered_by(octets) for what, octets in others.items()} == dict.fromkeys(others, False)
    assert [query.is_truncated(octets) for octets in (good, seen["truncated"])] == [False, True]


LABELS = st.sampled_from(["a", "b", "_mta-sts", "example", "com"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join) | st.just(NAME)
RDATA = st.one_of(
    st.tuples(st.just("TXT"), st.sampled_from([TEXT, '"x" ""'])),
    st.tuples(st.just("A"), st.just("192.0.2.1")),
    st.tuples(st.just("CNAME"), NAMES.map(lambda name: f"{name}.")),
    st.tuples(st.just("MX"), NAMES.map(lambda name: f"10 {name}.")),
)
RECORDS = st.lists(st.tuples(NAMES, st.integers(0, 2**31 - 1), RDATA), max_size=5)
SOAS = st.lists(st.tuples(NAMES, st.integers(0, 2**31 - 1)), max_size=2, unique_by=lambda soa: soa[0])


@given(records=RECORDS, soas=SOAS, kind=st.sampled_from([TXT, A, MX]), rcode=st.sampled_from(["NOERROR", "NXDOMAIN"]))
def test_the_same_as_dnspython(
    records: list[tuple[str, int, tuple[str, str]]], soas: list[tuple[str, int]], kind: RdataType, rcode: str
) -> None:
    query = Query(NAME, kind)
    made = response(query, rcode=rcode)
    seen = set()
    for owner, ttl, (type_, rdata) in records:
        # One record each: what several of one type come to is above, and a second alias of a name has no meaning.
        if (owner, type_) not in seen:
            add(made.answer, owner, ttl, type_, rdata)
        seen.add((owner, type_))
    for owner, ttl in soas[:1]:
        add(made.authority, owner, ttl, "SOA", SOA)
    octets = wire(made)
    message = dns.message.from_wire(octets)
    assert isinstance(message, dns.message.QueryMessage)
    try:
        chain = message.resolve_chaining()
    except (dns.message.ChainTooLong, dns.message.AnswerForNXDOMAIN):
        with pytest.raises(MalformedError):
            query.read(octets)
        return
    answer = query.read(octets)
    assert texts(answer) == [rdata.to_text() for rdata in chain.answer or ()]
    assert answer.names[-1] == chain.canonical_name.to_text(omit_final_dot=True)
    assert len(answer.names) == len(chain.cnames) + 1
    heeded = [owner for owner, _ in soas[:1] if f".{answer.names[-1]}".endswith(f".{owner}")]
    assert answer.ttl == min(chain.minimum_ttl, 2**31 - 1 if chain.answer or heeded else 300)


def alias_and_record() -> tuple[Query, bytes]:
    query = Query(NAME, TXT)
    made = response(query)
    add(made.answer, NAME, 300, "CNAME", "a.example.")
    add(made.answer, "a.example", 300, "TXT", TEXT)
    return query, wire(made)


def nothing() -> tuple[Query, bytes]:
    query = Query(NAME, TXT)
    made = response(query, rcode="NXDOMAIN")
    add(made.authority, "example.com", 300, "SOA", SOA)
    return query, wire(made)


@pytest.mark.parametrize("whole", [alias_and_record, nothing])
def test_a_message_that_ends_too_early(whole: Callable[[], tuple[Query, bytes]]) -> None:
    query, octets = whole()
    query.read(octets)
    for end in range(len(query.without_edns().wire), len(octets)):
        with pytest.raises(MalformedError):
            query.read(octets[:end])


@pytest.mark.parametrize("whole", [alias_and_record, nothing])
@given(changes=st.lists(st.tuples(st.integers(12, 120), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5))
def test_garbage_is_malformed_or_an_answer(
    whole: Callable[[], tuple[Query, bytes]], changes: list[tuple[int, bytes]]
) -> None:
    query, octets = whole()
    broken = bytearray(octets)
    for position, octet in changes:
        broken[position : position + len(octet)] = octet
    if query.is_answered_by(bytes(broken)):
        with contextlib.suppress(ResponseError):
            query.read(bytes(broken))


@given(
    rcode=st.integers(0, 4095),
    edns=st.booleans(),
    padding=st.integers(0, 20),
    records=RECORDS,
)
def test_the_same_rcode_as_dnspython(
    rcode: int, edns: bool, padding: int, records: list[tuple[str, int, tuple[str, str]]]
) -> None:
    query = Query(NAME, TXT)
    made = response(query, rcode=rcode if edns else rcode & 15)
    made.use_edns(
        0 if edns else False,
        made.ednsflags,
        options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(padding))],
    )
    for owner, ttl, (type_, rdata) in records:
        add(made.authority, owner, ttl, type_, rdata)
        add(made.additional, owner, ttl, type_, rdata)
    octets = wire(made)
    expected = dns.message.from_wire(octets).rcode()
    assert expected == (rcode if edns else rcode & 15)
    if expected in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        query.read(octets)
        return
    with pytest.raises(ResponseError) as error:
        query.read(octets)
    assert str(error.value) in {dns.rcode.to_text(expected), f"RCODE{expected}"}


# What the owner of a domain can put into a response, and how much of it is read.

POINTER = b"\xc0\x0c"  # To the question.


def record(kind: RdataType, data: bytes, owner: bytes = POINTER) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 300, len(data)) + data


def message(query: Query, *counts: int, records: bytes = b"") -> bytes:
    question = query.without_edns().wire[12:]
    return query.wire[:2] + struct.pack("!5H", 0x8180, 1, *counts) + question + records


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often dnspython's parser was asked for these."""
    counts = {"get_struct": 0, "get_counted_bytes": 0}

    def count(name: str) -> None:
        original = getattr(dns.wire.Parser, name)

        def counted(*args: Any) -> Any:
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(dns.wire.Parser, name, counted)

    for name in counts:
        count(name)
    return counts


@pytest.mark.parametrize("section", [0, 1, 2], ids=["answer", "authority", "additional"])
@pytest.mark.parametrize("number", [100, 101, 5000])
def test_a_hundred_records_of_a_section_are_read(calls: dict[str, int], section: int, number: int) -> None:
    query = Query(NAME, A)
    counts = [0, 0, 0]
    counts[section] = number
    octets = message(query, *counts, records=number * record(A, b"\xc0\0\2\1"))
    if number == 100:
        assert len(query.read(octets).records) == (100 if section == 0 else 0)
        assert calls["get_struct"] == 100
    else:
        with pytest.raises(MalformedError, match=r"^more than 100 records in one section$"):
            query.read(octets)
        assert calls["get_struct"] == 0


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("size", [8192, 8194, 60000])
def test_eight_kilobytes_of_text_are_read(calls: dict[str, int], number: int, size: int) -> None:
    """All of empty strings, which are most work."""
    query = Query(NAME, TXT)
    octets = message(query, number, 0, 0, records=number * record(TXT, bytes(size // number)))
    if size == 8192:
        assert sum(len(rdata.strings) for rdata in query.read(octets).records) == 8192
    else:
        with pytest.raises(MalformedError, match=r"^more than 8192 bytes of TXT records$"):
            query.read(octets)
    assert calls["get_counted_bytes"] <= 8192


def test_text_at_other_names_does_not_count() -> None:
    query = Query(NAME, TXT)
    records = record(TXT, bytes(9000), b"\1x" + POINTER) + record(TXT, b"\1x")
    assert texts(query.read(message(query, 2, 0, 0, records=records))) == ['"x"']


class Watched(bytes):
    """A message that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


def test_a_long_chain_of_pointers_is_not_followed() -> None:
    """Each points to the one before it. The answers have names at the end of the chain."""
    query = Query(NAME, MX)
    start = len(message(query, 0, 0, 0)) + 11
    chain = b"\0\0" + b"".join(struct.pack("!H", 0xC000 | start + at) for at in range(0, 15000, 2))
    end = struct.pack("!H", 0xC000 | start + len(chain) - 2)
    answers = 99 * record(MX, b"\0\1" + end, owner=end)
    octets = Watched(message(query, 100, 0, 0, records=record(TXT, chain, owner=b"\0") + answers))
    with pytest.raises(MalformedError):
        query.read(octets)
    assert octets.looks < 1000


def test_the_longest_name_has_a_pointer_before_each_label() -> None:
    """127 labels of one letter, the last one first, then pointers that lead back to the one before."""
    query = Query(NAME, MX)
    at = len(message(query, 0, 0, 0)) + 12
    parts = b"\1a\0"
    for _ in range(126):
        previous = at if len(parts) == 3 else at + len(parts) - 4
        parts += b"\1a" + struct.pack("!H", 0xC000 | previous)
    whole = struct.pack("!H", 0xC000 | at + len(parts) - 4)
    records = record(TXT, b"\xff" + parts, owner=b"\0") + record(MX, b"\0\1" + whole)
    answer = query.read(message(query, 2, 0, 0, records=records))
    assert [rdata.exchange.to_text() for rdata in answer.records] == [127 * "a."]
