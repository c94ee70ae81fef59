"""A DNS response, held against dnspython's message classes. ResponseError and its MalformedError are declared.

The first octet chooses the type that is asked for, ten are the header without the id, the rest follows the question.
"""

import contextlib
from collections.abc import Iterator

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
from dns.rdatatype import AAAA, CNAME, MX, SOA, TLSA, TXT, A, RdataType

from postfix_mtasts.dns.message import Answer, MalformedError, Query, ResponseError, text
from postfix_mtasts.dns.resolver import tlsa
from postfix_mtasts.dns.tlsa import is_usable
from postfix_mtasts.sts.record import RecordError, find_record
from tests.fuzz.targets import cases

_NAME = "_mta-sts.example.com"
_KINDS = (TXT, A, AAAA, MX, CNAME, TLSA)
_QUERIES = [Query(_NAME, kind) for kind in _KINDS]
_MAX_TTL = 2**31 - 1
# What we refuse, and dnspython does not.
_OUR_BOUNDS = ("more than ", "chain of more than ", "not a resolver: ", "truncated over TCP")


def seeds() -> Iterator[bytes]:
    for case in cases("dns_cases.json"):
        yield _seed(0, *_records(case))
    yield _seed(1, (_NAME, "CNAME", "a.example."), ("a.example", "A", "192.0.2.1"), ("a.example", "A", "192.0.2.2"))
    yield _seed(2, (_NAME, "AAAA", "2001:db8::1"))
    yield _seed(3, (_NAME, "MX", "10 mx.example.com."), (_NAME, "MX", "20 mx.example.com."), (_NAME, "MX", "0 ."))
    yield _seed(4, (_NAME, "CNAME", "a.example."), ("a.example", "CNAME", f"{_NAME}."))
    yield _seed(5, (_NAME, "TLSA", f"3 1 1 {'ab' * 32}"), (_NAME, "TLSA", "2 0 0 00"))
    yield _seed(0, rcode="NXDOMAIN")
    yield _seed(0, rcode="SERVFAIL")
    # All that a message can hold, in the forms that cost most.
    yield _seed(0, *((_NAME, "TXT", '"" ' * 1000) for _ in range(8)))
    yield _seed(1, *((_NAME, "A", f"192.0.2.{number}") for number in range(100)))
    yield _seed(3, *((_NAME, "MX", f"{number} {'a.' * 120}") for number in range(20)))
    yield _seed(0, *((f"{number}.example", "CNAME", f"{number + 1}.example.") for number in range(99)))
    yield bytes([0]) + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\x3fa" * 30000


def run(data: bytes) -> None:
    kind, query, octets = _response(data)
    if not query.is_answered_by(octets):
        return
    query.is_truncated(octets)
    query.is_refused_for_edns(octets)
    with contextlib.suppress(ResponseError):
        _use(kind, query.read(octets))


def check(data: bytes) -> None:
    kind, query, octets = _response(data)
    if not query.is_answered_by(octets):
        return
    message = _by_dnspython(octets)
    try:
        answer = query.read(octets)
    except ResponseError as error:
        if message:
            _check_refusal(message, kind, error)
        return
    assert 0 <= answer.ttl <= _MAX_TTL
    assert answer.names[0] == _NAME
    assert len(answer.names) <= 17
    assert len(answer.records) <= 100
    if message:
        _check_answer(message, kind, answer)


def _response(data: bytes) -> tuple[RdataType, Query, bytes]:
    chosen = data[0] % len(_KINDS) if data else 0
    query = _QUERIES[chosen]
    return _KINDS[chosen], query, query.wire[:2] + data[1:11] + query.without_edns().wire[12:] + data[11:]


def _by_dnspython(octets: bytes) -> dns.message.QueryMessage | None:
    try:
        message = dns.message.from_wire(octets, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return message if isinstance(message, dns.message.QueryMessage) and message.question else None


def _check_refusal(message: dns.message.QueryMessage, kind: RdataType, error: ResponseError) -> None:
    rcode = message.rcode()
    if rcode not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        assert not isinstance(error, MalformedError) or str(error).startswith(_OUR_BOUNDS), error
        assert str(error).startswith(_OUR_BOUNDS) or str(error) in {dns.rcode.to_text(rcode), f"RCODE{rcode}"}, error
    elif not str(error).startswith(_OUR_BOUNDS):
        try:
            chain = message.resolve_chaining()
        except dns.exception.DNSException:
            return
        raise AssertionError(f"refused: {error}; dnspython reads {chain.answer} of {kind}") from error


def _check_answer(message: dns.message.QueryMessage, kind: RdataType, answer: Answer) -> None:
    assert message.rcode() in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
    assert answer.authentic == bool(message.flags & dns.flags.AD)
    if any(rrset.rdtype == CNAME and (len(rrset) > 1 or kind == CNAME) for rrset in message.answer):
        return  # Of several aliases dnspython takes the last one.
    chain = message.resolve_chaining()
    assert set(answer.records) == set(chain.answer or ())
    assert answer.names[-1] == text(chain.canonical_name)
    assert len(answer.names) == len(chain.cnames) + 1
    if chain.answer:
        assert answer.ttl == min(chain.answer.ttl, *(rrset.ttl for rrset in chain.cnames), _MAX_TTL)


def _use(kind: RdataType, answer: Answer) -> None:
    """What the resolver does with the records."""
    if kind == TXT:
        try:
            find_record([rdata.strings for rdata in answer.records])
        except RecordError:
            return
    for rdata in answer.records:
        match kind:
            case RdataType.MX:
                assert text(rdata.exchange).isascii()
            case RdataType.TLSA:
                is_usable(tlsa(rdata.data))
            case RdataType.A | RdataType.AAAA:
                assert isinstance(rdata.address, str)


def _records(case: dict[str, object]) -> Iterator[tuple[str, str, str]]:
    answers = case.get("answers")
    for one in answers if isinstance(answers, list) else ():
        if one.get("type") in {"TXT", "CNAME"} and "data" in one:
            data = one["data"]
            shown = " ".join(f'"{part}"' for part in data) if isinstance(data, list) else data
            yield one.get("owner", f"{_NAME}."), one["type"], shown


def _seed(chosen: int, *records: tuple[str, str, str], rcode: str = "NOERROR") -> bytes:
    query = _QUERIES[chosen]
    made = dns.message.make_response(dns.message.from_wire(query.wire), recursion_available=True)
    made.set_rcode(dns.rcode.from_text(rcode))
    for owner, kind, data in records:
        # Each is a set of its own, so that their order stays.
        made.answer.append(dns.rrset.from_text(dns.name.from_text(owner), 300, "IN", kind, data))
    made.authority.append(
        dns.rrset.from_text("example.com.", 300, "IN", SOA, "ns.example. hostmaster.example. 1 2 3 4 900")
    )
    octets: bytes = made.to_wire(max_size=65535, want_shuffle=False)
    return bytes([chosen]) + octets[2:12] + octets[len(query.without_edns().wire) :]
