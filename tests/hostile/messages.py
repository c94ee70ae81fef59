"""What the table of nameservers is made of: DNS messages made by hand (RFC 1035, 4.1)."""

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from tests.world.dns import Behaviour, Transport, framed

A, NS, CNAME, SOA, MX, TXT, AAAA, OPT = 1, 2, 5, 6, 15, 16, 28, 41
ASKED = b"\xc0\x0c"  # The name of the question.
RESPONSE, RD, RA, AA, AD, TC = 0x8000, 0x0100, 0x0080, 0x0400, 0x0020, 0x0200
_HEADER = struct.Struct("!6H")
TEXT = b"v=STSv1; id=1;"


def txt(*strings: bytes) -> bytes:
    """The data of a TXT record."""
    return b"".join(bytes([len(string)]) + string for string in strings)


GOOD = txt(TEXT)


def name(*labels: str | bytes) -> bytes:
    """A name without compression."""
    octets = [label.encode() if isinstance(label, str) else label for label in labels]
    return b"".join(bytes([len(label)]) + label for label in octets) + b"\0"


def record(
    data: bytes,
    kind: int = TXT,
    *,
    owner: bytes = ASKED,
    rdclass: int = 1,
    ttl: int = 300,
    size: int | None = None,
) -> bytes:
    """One record; `size` is a length of the data that is not true."""
    return owner + struct.pack("!HHIH", kind, rdclass, ttl, len(data) if size is None else size) + data


def soa(ttl: int = 60, minimum: int = 60, owner: bytes = b"\0") -> bytes:
    """The SOA record of a zone; the root if nothing else is given."""
    return record(b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, minimum), SOA, owner=owner, ttl=ttl)


def edns(data: bytes = b"", *, owner: bytes = b"\0", size: int = 1232, ttl: int = 0) -> bytes:
    """An OPT record (RFC 6891, 6.1.2); its TTL has the upper bits of the rcode, the version and flags."""
    return record(data, OPT, owner=owner, rdclass=size, ttl=ttl)


def message(
    query: bytes,
    *answers: bytes,
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    flags: int = RESPONSE | RD | RA,
    rcode: int = 0,
    counts: Sequence[int] | None = None,
    number: int = 0,
    question: bytes | None = None,
    rest: bytes = b"",
) -> bytes:
    """A response to the query. `number` is added to its id; `counts` and `question` are in place of the true ones."""
    asked = query[12 : query.index(0, 12) + 5] if question is None else question
    true = (1, len(answers), len(authority), len(additional))
    header = _HEADER.pack(query[0] << 8 ^ query[1] ^ number, flags | rcode, *(counts or true))
    return header + asked + b"".join((*answers, *authority, *additional)) + rest


def says(*answers: bytes, times: int = 1, **wrong: Any) -> Behaviour:
    """That message, over UDP and TCP."""

    def raw(query: bytes, by: Transport) -> list[bytes]:
        made = message(query, *answers, **wrong)
        return [made if by == "udp" else framed(made)] * times

    return Behaviour(raw=raw)


def truncated(*answers: bytes, **wrong: Any) -> Behaviour:
    """A truncated one over UDP, and that message over TCP."""

    def raw(query: bytes, by: Transport) -> list[bytes]:
        return [_truncated(query)] if by == "udp" else [framed(message(query, *answers, **wrong))]

    return Behaviour(raw=raw)


def over_tcp(
    *pieces: bytes, good: bool = False, interval: float = 0.0, closes: bool = False, size: int | None = None
) -> Behaviour:
    """A truncated response over UDP, and over TCP these octets, or the good response octet by octet."""

    def raw(query: bytes, by: Transport) -> list[bytes]:
        if by == "udp":
            return [_truncated(query)]
        sent = framed(message(query, record(GOOD)))
        if size is not None:
            sent = size.to_bytes(2, "big") + sent[2:]
        return [sent[at : at + 1] for at in range(len(sent))] if good else list(pieces)

    return Behaviour(raw=raw, interval=interval, closes=closes)


def before_the_answer(*others: Behaviour) -> Behaviour:
    """What others say first, and the good response then."""

    def raw(query: bytes, by: Transport) -> list[bytes]:
        said = itertools.chain.from_iterable(other.raw(query, by) for other in others if other.raw)
        return [*said, message(query, record(GOOD))]

    return Behaviour(raw=raw)


def chain(length: int, *, to: bytes = b"") -> Iterator[bytes]:
    """So many CNAME records, one after the other, and the data of a TXT record at the end of them."""
    names = [ASKED, *(name(f"c{number}", "chain", "test") for number in range(length))]
    for owner, target in itertools.pairwise(names):
        yield record(target, CNAME, owner=owner)
    if to:
        yield record(to, owner=names[-1])


def addresses(*data: bytes, kind: int = A) -> Behaviour:
    """These addresses of a policy host."""
    return says(*(record(one, kind) for one in data))


def _truncated(query: bytes) -> bytes:
    return message(query, flags=RESPONSE | RD | RA | TC)
