"""Makes DNS queries with one question and reads the responses to them, as a stub resolver does (RFC 1035, 4.1).

dnspython parses the names and records. Its message classes are not used, because they keep every record of every
section and are three times slower. They took half of the time that a domain without a policy costs.
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
_TTL_WITHOUT_SOA = 300  # Seconds. Without an SOA record, a negative answer does not say how long it is valid.


class ResponseError(Exception):
    """The query was not answered. The message says why, in most cases by the RCODE."""


class MalformedError(ResponseError):
    """The response is malformed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records at a name. There are none if the name has no records of the type, or does not exist."""

    records: tuple[Any, ...]  # dnspython's rdata objects, of the type that was asked for.
    names: tuple[str, ...]  # The name that was asked for, and the rest of its CNAME chain in order.
    authentic: bool  # The AD bit.
    ttl: float  # Seconds for which the answer may be cached.


class Query:
    """A query for a name, which is given without the final dot. Raises ResponseError if the name is not valid."""

    def __init__(self, name: str, kind: RdataType) -> None:
        try:
            self._name = dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ResponseError(f"{name} is not a valid DNS name") from error
        self._text = name
        self._kind = kind
        self._id = secrets.randbits(16)
        self._question = self._name.to_digestable() + struct.pack("!HH", kind, IN)
        # The AD bit in a query asks the nameserver to set it in the response (RFC 6840, 5.7).
        self.wire = _HEADER.pack(self._id, _RECURSION | _AUTHENTIC, 1, 0, 0, 0) + self._question

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

    def read(self, response: bytes) -> Answer:
        """Return the answer in a response to this query. Raises ResponseError."""
        _, flags, _, answers, authorities, _ = _HEADER.unpack_from(response)
        rcode = flags & _RCODE
        if rcode not in _ANSWERED:
            raise ResponseError(dns.rcode.to_text(dns.rcode.Rcode(rcode)))
        try:
            names, records, ttl = self._follow(dns.wire.Parser(response, self._end_of_question), answers, authorities)
        except dns.exception.DNSException as error:
            raise MalformedError("malformed response") from error
        if records and rcode == dns.rcode.NXDOMAIN:
            raise MalformedError("NXDOMAIN in a response with records")
        return Answer(tuple(records), (self._text, *map(text, names[1:])), bool(flags & _AUTHENTIC), float(ttl))

    @property
    def _end_of_question(self) -> int:
        return _HEADER.size + len(self._question)

    def _follow(
        self, parser: dns.wire.Parser, answers: int, authorities: int
    ) -> tuple[list[dns.name.Name], list[dns.rdata.Rdata], int]:
        """Follow the CNAME chain. Return its names, the records at the last name, and the lowest TTL."""
        found: dict[tuple[dns.name.Name, RdataType], list[tuple[int, Any]]] = {}
        kinds = (self._kind, CNAME)
        for owner, kind, ttl, rdata in _records(parser, answers, kinds, dns.rdata.from_wire_parser):
            found.setdefault((owner, kind), []).append((ttl, rdata))
        names, ttls = [self._name], [_MAX_TTL]
        while not (records := found.get((names[-1], self._kind))) and (aliases := found.get((names[-1], CNAME))):
            if len(names) > _MAX_ALIASES:
                raise MalformedError(f"chain of more than {_MAX_ALIASES} CNAME records")
            ttl, rdata = aliases[0]
            ttls.append(ttl)
            names.append(rdata.target)
        if records:
            return names, [rdata for _, rdata in records], min(*ttls, *(ttl for ttl, _ in records))
        # The SOA record of the zone says for how long a negative answer is valid (RFC 2308, 5).
        for owner, _, ttl, minimum in _records(parser, authorities, (SOA,), _minimum):
            if names[-1].is_subdomain(owner):
                return names, [], min(*ttls, ttl, minimum)
        return names, [], min(*ttls, _TTL_WITHOUT_SOA)


def text(name: dns.name.Name) -> str:
    """Return a name in lower case, without its final dot."""
    return name.to_text(omit_final_dot=True).lower()


def _minimum(_rdclass: RdataClass, _kind: RdataType, parser: dns.wire.Parser) -> int:
    """Read MINIMUM, the last field of an SOA record (RFC 1035, 3.3.13)."""
    return int.from_bytes(parser.get_remaining()[-4:])


def _records(
    parser: dns.wire.Parser,
    count: int,
    kinds: tuple[RdataType, ...],
    read: Callable[[RdataClass, RdataType, dns.wire.Parser], _T],
) -> Iterator[tuple[dns.name.Name, RdataType, int, _T]]:
    """Read the next `count` records. Yield owner, type, TTL and data of those that are of one of these types."""
    for _ in range(count):
        owner = dns.name.from_wire_parser(parser)
        kind, rdclass, ttl, size = parser.get_struct(_RECORD)
        with parser.restrict_to(size):
            if kind in kinds and rdclass == IN:
                yield owner, kind, ttl if ttl <= _MAX_TTL else 0, read(IN, kind, parser)
            else:
                parser.get_remaining()
