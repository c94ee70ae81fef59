"""Parses the `_mta-sts` TXT record (RFC 8461, 3.1).

    sts-text-record     = sts-version 1*(sts-field-delim sts-field) [sts-field-delim]
    sts-field-delim     = *WSP ";" *WSP
    sts-id              = %s"id" "=" 1*32(ALPHA / DIGIT)
    sts-extension       = name "=" 1*(%x21-3A / %x3C / %x3E-7E)

Records are read as bytes. A byte that is not US-ASCII makes the record malformed, and is never decoded.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VERSION = b"v=STSv1"
_DELIMITER = re.compile(rb"[ \t]*;[ \t]*")
_FIELD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)(?=[ \t]*(?:;|\Z))")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EMPTY_FIELD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=[ \t]*(?:;|\Z)")


class RecordError(ValueError):
    """The domain has a malformed record, or several. The sender "MUST assume" that there is no policy (RFC 8461, 3.1).

    The message says what is wrong.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """A valid record. Its `id` changes whenever the policy changes; ids have no order (RFC 8461, 3.1)."""

    id: str

    def __str__(self) -> str:
        return f"{_VERSION.decode()}; id={self.id};"


def find_record(records: Iterable[Sequence[bytes]]) -> Record | None:
    """Return the MTA-STS record among the TXT records of a name, or None if there is none.

    Each TXT record is given as its list of strings. Raises RecordError if several records are for MTA-STS, or if the
    only one is malformed.
    """
    texts = list(dict.fromkeys(b"".join(strings) for strings in records))  # An RRset has no duplicates (RFC 2181, 5).
    found = [text for text in texts if text.startswith(_VERSION + b";")]
    if not found and len(texts) == 1 and texts[0].startswith(_VERSION):
        # RFC 8461 says to discard records that do not begin with "v=STSv1;" when there are several. For a single
        # record only the grammar counts, and that allows blanks before the semicolon (see erratum 6285).
        found = texts
    if not found:
        return None
    if len(found) > 1:
        raise RecordError(f"{len(found)} records begin with {_VERSION.decode()}; remove all but one")
    return _parse(found[0])


def slip(text: bytes, version: bytes = _VERSION) -> str | None:
    """What keeps a TXT record, which was probably meant to begin with `version`, from being read as one.

    None if the record begins with that version, or is probably about something else.
    """
    family = re.escape(version.removesuffix(b"v1").removeprefix(b"v="))
    meant = re.search(rb"(?:^|[;\s\"'\xbf])(v\s*[=:-]\s*[\"']?" + family + rb"[a-z0-9]*)", text, re.IGNORECASE)
    if not meant or text.startswith(version + b";"):
        return None
    exact = version.decode()
    if text.startswith((b'"', b"'")):
        return "remove the quotes from the record itself"
    if text.startswith(_BYTE_ORDER_MARK):
        return "remove the byte order mark before the record"
    if text[:1].isspace():
        return "remove the blank before the record"
    if meant.start(1):
        return f"{exact} must come first"
    if meant[1] == version:
        return f'{exact} must be followed by ";"'
    return f"the record must begin with {exact}, not with {_shown(meant[1])}"


def _parse(text: bytes) -> Record:
    record_id: str | None = None
    at = len(_VERSION)
    while at < len(text):
        delimiter = _DELIMITER.match(text, at)
        if not delimiter:
            raise _no_semicolon(text[at:])
        at = delimiter.end()
        if at == len(text):
            break
        field = _FIELD.match(text, at)
        if not field:
            raise _no_field(text, at)
        name, value = field.groups()
        if name == b"id" and record_id is None:  # Later ones are ignored (RFC 8461, 3.2, last paragraph).
            if not _ID.fullmatch(value):
                raise RecordError(f"id must be 1 to 32 letters and digits, not {_shown(value)}")
            record_id = value.decode("ascii")
        at = field.end()
    if record_id is None:
        raise RecordError("id is missing")
    return Record(record_id)


def _no_semicolon(rest: bytes) -> RecordError:
    """What is wrong where a semicolon should be: after the version, or at blanks that end the record."""
    if not rest.strip(b" \t"):
        return RecordError("remove the blank at the end")
    return RecordError(f'{_VERSION.decode()} must be followed by ";", not by {_shown(rest)}')


def _no_field(text: bytes, at: int) -> RecordError:
    """What is wrong where `name=value` should be."""
    if text.startswith(b";", at):
        return RecordError(f"remove the extra semicolon in column {at + 1}")
    if empty := _EMPTY_FIELD.match(text, at):
        return RecordError(f"{empty[1].decode()} is empty")
    return RecordError(f"column {at + 1}: expected name=value, got {_shown(text[at:])}")


def _shown(text: bytes) -> str:
    """The beginning of a record's text for a message: quoted, and in ASCII."""
    return ascii(text[:20].decode("latin-1") + ("..." if len(text) > 20 else ""))
