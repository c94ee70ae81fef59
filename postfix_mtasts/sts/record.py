"""The `_mta-sts` TXT record (RFC 8461, 3.1).

    sts-text-record     = sts-version 1*(sts-field-delim sts-field) [sts-field-delim]
    sts-field-delim     = *WSP ";" *WSP
    sts-id              = %s"id" "=" 1*32(ALPHA / DIGIT)
    sts-extension       = name "=" 1*(%x21-3A / %x3C / %x3E-7E)

Records are octets: whatever is not US-ASCII is malformed, never decoded.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VERSION = b"v=STSv1"
_DELIMITER = re.compile(rb"[ \t]*;[ \t]*")
_FIELD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)(?=[ \t]*(?:;|\Z))")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}")


class RecordError(ValueError):
    """The domain has a record, and it is malformed: the sender "MUST assume" there is no policy (RFC 8461, 3.1)."""


@dataclass(frozen=True, slots=True)
class Record:
    """A policy exists; `id` changes whenever the policy does. Ids have no order (RFC 8461, 3.1)."""

    id: str

    def __str__(self) -> str:
        return f"{_VERSION.decode()}; id={self.id};"


def find_record(records: Iterable[Sequence[bytes]]) -> Record | None:
    """The one valid record among a name's TXT records, each given as its strings; None if none speaks of MTA-STS.

    Raises RecordError if there are several, or the one is malformed.
    """
    texts = list(dict.fromkeys(b"".join(strings) for strings in records))  # An RRset has no duplicates (RFC 2181, 5).
    found = [text for text in texts if text.startswith(_VERSION + b";")]
    if not found and len(texts) == 1 and texts[0].startswith(_VERSION):
        # The rule that discards others speaks of several records. A single one stands by the grammar alone, which
        # allows blanks before the semicolon (erratum 6285 is about this contradiction).
        found = texts
    if not found:
        return None
    if len(found) > 1:
        raise RecordError(f"{len(found)} records begin with {_VERSION.decode()};")
    return _parse(found[0])


def _parse(text: bytes) -> Record:
    record_id: str | None = None
    at = len(_VERSION)
    while at < len(text):
        delimiter = _DELIMITER.match(text, at)
        if not delimiter:
            raise _malformed(text, at, 'expected ";"')
        at = delimiter.end()
        if at == len(text):
            break
        field = _FIELD.match(text, at)
        if not field:
            raise _malformed(text, at, "expected name=value")
        name, value = field.groups()
        if name == b"id" and record_id is None:  # Later ones are ignored (RFC 8461, 3.2, last paragraph).
            if not _ID.fullmatch(value):
                raise _malformed(text, field.start(2), "id takes 1 to 32 letters and digits")
            record_id = value.decode("ascii")
        at = field.end()
    if record_id is None:
        raise RecordError("no id")
    return Record(record_id)


def _malformed(text: bytes, at: int, expected: str) -> RecordError:
    return RecordError(f"column {at + 1}: {expected}, got {text[at : at + 20].decode('latin-1')!a}")
