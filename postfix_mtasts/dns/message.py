"""DNS messages as a stub resolver needs them (RFC 1035, 4.1): one question, and what a response says to it.

dnspython reads names and records. Its own messages, which hold all records of all sections in sets, take three times as
long to make and to read, and with them that was half of what a domain without a policy costs.
"""

import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.wire
from dns.rdataclass import IN, RdataClass
from dns.rdatatype import CNAME, SOA, RdataType

_T = TypeVar("_T")

_HEADER = struct.Struct("!6H")
_RECORD = "!HHIH"
_RESPONSE, _OPCODE, _TRUNCATED, _RECURSION, _AUTHENTIC, _RCODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x0020, 0x000F
_ANSWERED = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
_MAX_ALIASES = 16
_MAX_TTL = 2**31 - 1  # Seconds. One "with the most significant bit set" means zero (RFC 2181, 8).
_TTL_WITHOUT_SOA = 300  # Seconds. Without an SOA a negative answer does not say how long it holds.


class ResponseError(Exception):
    """The nameserver gave no answer; says why, mostly with its RCODE."""


class MalformedError(ResponseError):
    """There is an answer, and it has no valid form."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is at a name, perhaps nothing; whether there is such a name makes no difference."""

    records: tuple[Any, ...]  # Of the type that was asked for, as dnspython has them.
    names: tuple[str, ...]  # The name that was asked for, and those that it is an alias of, one after the other.
    authentic: bool  # The AD bit.
    ttl: float  # Seconds that all of it may be believed.


class Query:
    """A question, for a name without its final dot. Raises ResponseError if there can be no such name."""

    def __init__(self, name: str, kind: RdataType) -> None:
        try:
            self._name = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ResponseError(str(error)) from error
        self._text = name
        self._kind = kind
        self._id = secrets.randbits(16)
        self._question = self._name.to_digestable() + struct.pack("!HH", kind, IN)
        # A query with AD asks for it in the answer (RFC 6840, 5.7).
        self.wire = _HEADER.pack(self._id, _RECURSION | _AUTHENTIC, 1, 0, 0, 0) + self._question

    def is_answered_by(self, response: bytes) -> bool:
        """Whether a message is a response to this query (RFC 5452, 9.1), whatever it says."""
        if len(response) < _HEADER.size:
            return False
        number, flags, questions, *_ = _HEADER.unpack_from(response)
        if number != self._id or flags & (_RESPONSE | _OPCODE) != _RESPONSE:
            return False
        if not questions:  # Who fails need not repeat the question.
            return flags & _RCODE not in _ANSWERED
        # Octets of lengths, types and classes are no letters.
        return response[_HEADER.size : self._end_of_question].lower() == self._question

    def is_truncated(self, response: bytes) -> bool:
        """Whether a response is to be asked for over TCP."""
        _, flags, *_ = _HEADER.unpack_from(response)
        return bool(flags & _TRUNCATED)

    def read(self, response: bytes) -> Answer:
        """What a response to this query says. Raises ResponseError."""
        _, flags, _, answers, authorities, _ = _HEADER.unpack_from(response)
        rcode = flags & _RCODE
        if rcode not in _ANSWERED:
            raise ResponseError(dns.rcode.to_text(dns.rcode.Rcode(rcode)))
        try:
            names, records, ttl = self._follow(dns.wire.Parser(response, self._end_of_question), answers, authorities)
        except dns.exception.DNSException as error:
            raise MalformedError(str(error)) from error
        if records and rcode == dns.rcode.NXDOMAIN:
            raise MalformedError("records of a name that does not exist")
        return Answer(tuple(records), (self._text, *map(text, names[1:])), bool(flags & _AUTHENTIC), float(ttl))

    @property
    def _end_of_question(self) -> int:
        return _HEADER.size + len(self._question)

    def _follow(
        self, parser: dns.wire.Parser, answers: int, authorities: int
    ) -> tuple[list[dns.name.Name], list[dns.rdata.Rdata], int]:
        """The names from the one that was asked for to the one that is no alias, the records there, and the TTL."""
        found: dict[tuple[dns.name.Name, RdataType], list[tuple[int, Any]]] = {}
        kinds = (self._kind, CNAME)
        for owner, kind, ttl, rdata in _records(parser, answers, kinds, dns.rdata.from_wire_parser):
            found.setdefault((owner, kind), []).append((ttl, rdata))
        names, ttls = [self._name], [_MAX_TTL]
        while not (records := found.get((names[-1], self._kind))) and (aliases := found.get((names[-1], CNAME))):
            if len(names) > _MAX_ALIASES:
                raise MalformedError(f"more than {_MAX_ALIASES} aliases")
            ttl, rdata = aliases[0]
            ttls.append(ttl)
            names.append(rdata.target)
        if records:
            return names, [rdata for _, rdata in records], min(*ttls, *(ttl for ttl, _ in records))
        # How long there is nothing, the SOA of the zone says (RFC 2308, 5).
        for owner, _, ttl, minimum in _records(parser, authorities, (SOA,), _minimum):
            if names[-1].is_subdomain(owner):
                return names, [], min(*ttls, ttl, minimum)
        return names, [], min(*ttls, _TTL_WITHOUT_SOA)


def text(name: dns.name.Name) -> str:
    """A name in lower case, without its final dot."""
    return name.to_text(omit_final_dot=True).lower()


def _minimum(_rdclass: RdataClass, _kind: RdataType, parser: dns.wire.Parser) -> int:
    """The last field of an SOA (RFC 1035, 3.3.13): nothing else of it matters here."""
    return int.from_bytes(parser.get_remaining()[-4:])


def _records(
    parser: dns.wire.Parser,
    count: int,
    kinds: tuple[RdataType, ...],
    read: Callable[[RdataClass, RdataType, dns.wire.Parser], _T],
) -> Iterator[tuple[dns.name.Name, RdataType, int, _T]]:
    """Owner, type, TTL and data of each of the next records that is of one of these types."""
    for _ in range(count):
        owner = dns.name.from_wire_parser(parser)
        kind, rdclass, ttl, size = parser.get_struct(_RECORD)
        with parser.restrict_to(size):
            if kind in kinds and rdclass == IN:
                yield owner, kind, ttl if ttl <= _MAX_TTL else 0, read(IN, kind, parser)
            else:
                parser.get_remaining()
