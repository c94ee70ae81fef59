"""Makes DNS queries with one question and reads the responses to them, as a stub resolver does (RFC 1035, 4.1).

dnspython parses the records. Its message classes are not used, because they keep every record of every section and are
three times slower. They took half of the time that a domain without a policy costs.

The owner of a domain chooses what is in a response. A nameserver may pass on anything that a message can hold, and a
message over TCP has up to 64 KiB. So the work for one response is bounded by the constants below.
"""

import contextlib
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.wire
from dns.rdataclass import IN
from dns.rdatatype import CNAME, OPT, SOA, TLSA, TXT, RdataType

MAX_DATAGRAM = 1232  # Bytes that we offer to receive over UDP. No path is known to fragment them (DNS flag day 2020).
# Records in a section. BIND 9.20 does not resolve larger RRsets either (max-records-per-type).
_MAX_RECORDS = 100
_MAX_TEXT = 8192  # Bytes of TXT records at a name. A record with all its fields has fewer than 200.
# Labels and pointers that are read for a name. It has at most 128 labels, as it has 255 bytes (RFC 1035, 3.1). With a
# pointer before each, that is twice as many.
_MAX_STEPS = 256
_MAX_ALIASES = 16  # CNAME records that are followed. BIND and Unbound follow 11 to 17.

_HEADER = struct.Struct("!6H")
_RECORD = "!HHIH"
_RESPONSE, _OPCODE, _AUTHORITATIVE, _TRUNCATED = 0x8000, 0x7800, 0x0400, 0x0200
_RECURSION, _RECURSIVE, _AUTHENTIC, _RCODE = 0x0100, 0x0080, 0x0020, 0x000F
_ANSWERED = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP)  # From servers that do not know it (RFC 6891, 7).
_POINTER = 0xC0
_MAX_LABEL = 63
_MAX_TTL = 2**31 - 1  # Seconds. One "with the most significant bit set" means zero (RFC 2181, 8).
_TTL_WITHOUT_SOA = 300  # Seconds. Without an SOA record, a negative answer does not say how long it is valid.


class ResponseError(Exception):
    """The query was not answered. The message says why, in most cases by the RCODE."""


class MalformedError(ResponseError):
    """The response is malformed, or larger than what we read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records at a name. There are none if the name has no records of the type, or does not exist."""

    records: tuple[Any, ...]  # dnspython's rdata objects, of the type that was asked for.
    names: tuple[str, ...]  # The name that was asked for, and the rest of its CNAME chain in order.
    authentic: bool  # The AD bit.
    ttl: float  # Seconds for which the answer may be cached.
    exists: bool = True  # If false, the last of `names` does not exist (NXDOMAIN).


class Query:
    """A query for a name, which is given without the final dot. Raises ResponseError if the name is not valid."""

    def __init__(self, name: str, kind: RdataType, *, edns: bool = True) -> None:
        try:
            self._name = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ResponseError(f"{name} is not a valid DNS name") from error
        self._text = name
        self._kind = kind
        self._edns = edns
        self._id = secrets.randbits(16)
        self._question = self._name.to_digestable() + struct.pack("!HH", kind, IN)
        # The AD bit in a query asks the nameserver to set it in the response (RFC 6840, 5.7).
        self.wire = _HEADER.pack(self._id, _RECURSION | _AUTHENTIC, 1, 0, 0, edns) + self._question
        if edns:  # The OPT record has the size in place of the class (RFC 6891, 6.1.2).
            self.wire += b"\0" + struct.pack(_RECORD, OPT, MAX_DATAGRAM, 0, 0)

    def without_edns(self) -> "Query":
        """Return another query with the same question, for servers that do not know EDNS(0)."""
        return Query(self._text, self._kind, edns=False)

    def is_answered_by(self, response: bytes) -> bool:
        """Whether a message is a response to this query (RFC 5452, 9.1). Its content is not checked."""
        if len(response) < _HEADER.size:
            return False
        number, flags, questions, *_ = _HEADER.unpack_from(response)
        if number != self._id or flags & (_RESPONSE | _OPCODE) != _RESPONSE:
            return False
        if not questions:  # A response with an error may leave out the question.
            return flags & _RCODE not in _ANSWERED
        # lower() changes only the names: the bytes of lengths, types and classes are not letters.
        return response[_HEADER.size : self._end_of_question].lower() == self._question

    def is_truncated(self, response: bytes) -> bool:
        """Whether a response is truncated, so that the query must be repeated over TCP."""
        _, flags, *_ = _HEADER.unpack_from(response)
        return bool(flags & _TRUNCATED)

    def is_refused_for_edns(self, response: bytes) -> bool:
        """Whether a response means that the query must be repeated without EDNS(0)."""
        _, flags, *_ = _HEADER.unpack_from(response)
        return self._edns and flags & _RCODE in _WITHOUT_EDNS

    def read(self, response: bytes) -> Answer:
        """Return the answer in a response to this query. Raises ResponseError."""
        _, flags, questions, *counts = _HEADER.unpack_from(response)
        if flags & _TRUNCATED:  # What is missing may be the records.
            raise MalformedError("truncated over TCP")
        if questions > 1:  # RFC 9619
            raise MalformedError("more than one question")
        if max(counts) > _MAX_RECORDS:
            raise MalformedError(f"more than {_MAX_RECORDS} records in one section")
        rcode = flags & _RCODE
        parser = _Parser(response, self._end_of_question if questions else _HEADER.size)
        try:
            answers, authorities, additional = [list(_records(parser, count)) for count in counts]
            for record in additional:
                if record.kind == OPT:  # It has the upper bits of the RCODE in place of the TTL (RFC 6891, 6.1.3).
                    rcode |= record.ttl >> 24 << 4
            if rcode in _ANSWERED:
                soas = [record for record in authorities if record.kind == SOA]
                return self._answer(response, flags, answers, soas)
        except dns.exception.DNSException as error:
            if rcode in _ANSWERED:
                raise MalformedError("malformed response") from error
        raise ResponseError(_rcode_text(rcode))

    @property
    def _end_of_question(self) -> int:
        return _HEADER.size + len(self._question)

    def _answer(self, response: bytes, flags: int, answers: "Sequence[_Record]", soas: "Sequence[_Record]") -> Answer:
        names, records, ttl = self._follow(response, answers)
        if records:
            if flags & _RCODE == dns.rcode.NXDOMAIN:
                raise MalformedError("NXDOMAIN in a response with records")
            if self._kind == TXT and sum(record.end - record.start for record in records) > _MAX_TEXT:
                raise MalformedError(f"more than {_MAX_TEXT} bytes of TXT records")
        elif flags & (_RCODE | _AUTHORITATIVE | _RECURSIVE) == dns.rcode.NOERROR and not soas and len(names) == 1:
            # It is a referral, or empty. A resolver would have set RA, a server of the zone AA.
            raise ResponseError("not a resolver: it does not offer recursion")
        else:
            ttl = min(ttl, _negative_ttl(response, names[-1], soas))
        rdatas = tuple(record.read(response) for record in records)
        exists = flags & _RCODE != dns.rcode.NXDOMAIN
        return Answer(rdatas, (self._text, *map(text, names[1:])), bool(flags & _AUTHENTIC), float(ttl), exists)

    def _follow(
        self, response: bytes, answers: "Sequence[_Record]"
    ) -> "tuple[list[dns.name.Name], Sequence[_Record], int]":
        """Follow the CNAME chain. Return its names, the records at the last name, and the lowest TTL."""
        found: dict[tuple[dns.name.Name, int], list[_Record]] = {}
        for record in answers:
            if record.kind in (self._kind, CNAME):
                found.setdefault((record.owner, record.kind), []).append(record)
        names, ttls = [self._name], [_MAX_TTL]
        while not (records := found.get((names[-1], self._kind), [])) and (aliases := found.get((names[-1], CNAME))):
            if len(names) > _MAX_ALIASES:
                raise MalformedError(f"chain of more than {_MAX_ALIASES} CNAME records")
            ttls.append(aliases[0].ttl)
            names.append(aliases[0].read(response).target)
        return names, records, min([*ttls, *(record.ttl for record in records)])


def text(name: dns.name.Name) -> str:
    """Return a name in lower case, without its final dot."""
    return name.to_text(omit_final_dot=True).lower()


class _Parser(dns.wire.Parser):
    """Reads names in a bounded number of steps. dnspython 2.3 would follow pointers through the whole message."""

    def get_name(self, origin: dns.name.Name | None = None, decompress: bool = True) -> dns.name.Name:
        """Read a name, which may be compressed (RFC 1035, 4.1.4)."""
        labels: list[bytes] = []
        at, start, end = self.current, self.current, 0
        with contextlib.suppress(IndexError):
            for _ in range(_MAX_STEPS):
                size = self.wire[at]
                at += 1
                if size <= _MAX_LABEL:
                    labels.append(self.wire[at : at + size])
                    at += size
                    if not size:
                        self.get_bytes((end or at) - self.current)
                        return dns.name.Name(labels)
                    continue
                target = (size & ~_POINTER) << 8 | self.wire[at]
                if size < _POINTER or target >= start:  # A pointer leads to "a prior occurrence" of the name.
                    break
                end = end or at + 1
                at = start = target
        raise dns.exception.FormError


class _Record(NamedTuple):
    """A record of class IN, or OPT. Its data is between `start` and `end` in the message."""

    owner: dns.name.Name
    kind: RdataType
    ttl: int
    start: int
    end: int

    def read(self, wire: bytes) -> Any:
        """Return the data as an rdata object of dnspython, and that of a TLSA record as it is: others may be sound."""
        if self.kind == TLSA:
            return dns.rdata.GenericRdata(IN, TLSA, wire[self.start : self.end])
        parser = _Parser(wire, self.start)
        with parser.restrict_to(self.end - self.start):
            return dns.rdata.from_wire_parser(IN, self.kind, parser)


def _records(parser: dns.wire.Parser, count: int) -> Iterator[_Record]:
    """Read the next `count` records, except their data."""
    for _ in range(count):
        owner = parser.get_name()
        kind, rdclass, ttl, size = parser.get_struct(_RECORD)
        start = parser.current
        parser.get_bytes(size)
        if rdclass == IN or kind == OPT:
            yield _Record(owner, kind, ttl if ttl <= _MAX_TTL or kind == OPT else 0, start, start + size)


def _negative_ttl(response: bytes, name: dns.name.Name, soas: Sequence[_Record]) -> int:
    """For how many seconds a name has no records, as the SOA record of its zone says (RFC 2308, 5)."""
    for soa in soas:
        if name.is_subdomain(soa.owner):
            minimum = response[max(soa.start, soa.end - 4) : soa.end]  # The last field (RFC 1035, 3.3.13).
            return min(soa.ttl, int.from_bytes(minimum))
    return _TTL_WITHOUT_SOA


def _rcode_text(rcode: int) -> str:
    """The name of an RCODE, as in `SERVFAIL`, or in `RCODE17` if it has none."""
    name = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
    return f"RCODE{name}" if name.isdigit() else name
