"""Parses the `_smtp._tls` TXT record, by which a domain asks for TLS reports (RFC 8460, 3).

    tlsrpt-record     = tlsrpt-version 1*(field-delim tlsrpt-field) [field-delim]
    field-delim       = *WSP ";" *WSP
    tlsrpt-rua        = %s"rua=" tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri)
    tlsrpt-extension  = name "=" 1*(%x21-3A / %x3C / %x3E-7E)

In a URI, commas, exclamation marks and semicolons must be percent-encoded. Other schemes than mailto and https are
valid URIs, but no sender reports to them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from postfix_mtasts.sts.domain import PolicyDomain

VERSION = b"v=TLSRPTv1"
SCHEMES = ("mailto", "https")
_DELIMITER = re.compile(rb"[ \t]*;[ \t]*")
_EXTENSION = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+")
_RUA = b"rua="
_BETWEEN_URIS = re.compile(rb"[ \t]*,[ \t]*")
# RFC 3986, 2, without the characters that RFC 8460 wants encoded.
_URI = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+")


class TlsrptError(ValueError):
    """The record is malformed, or there are several: senders "MUST assume" that no reports are wanted.

    The message says what is wrong.
    """


@dataclass(frozen=True, slots=True)
class TlsrptRecord:
    """A valid record. `rua` are the URIs that reports go to, in order; there is at least one."""

    rua: tuple[str, ...]

    def usable(self) -> tuple[str, ...]:
        """The URIs whose scheme senders know."""
        return tuple(uri for uri in self.rua if uri.partition(":")[0].lower() in SCHEMES)


def record_name(domain: PolicyDomain) -> str:
    """The name of the TXT record of a domain."""
    return f"_smtp._tls.{domain.name}"


def find_record(records: Iterable[Sequence[bytes]]) -> TlsrptRecord | None:
    """Return the record among the TXT records of a name, or None if there is none. Raises TlsrptError.

    Each TXT record is given as its list of strings.
    """
    texts = list(dict.fromkeys(b"".join(strings) for strings in records))  # An RRset has no duplicates (RFC 2181, 5).
    found = [text for text in texts if text.startswith(VERSION + b";")]
    if not found and len(texts) == 1 and texts[0].startswith(VERSION):
        found = texts  # Records that do not begin with "v=TLSRPTv1;" are discarded only if there are several.
    if not found:
        return None
    if len(found) > 1:
        raise TlsrptError(f"{len(found)} records begin with {VERSION.decode()}; remove all but one")
    return _parse(found[0])


def _parse(text: bytes) -> TlsrptRecord:
    version, *fields = _DELIMITER.split(text)
    if version != VERSION:
        raise TlsrptError(f'{VERSION.decode()} must be followed by ";"')
    if fields and not fields[-1]:
        fields.pop()
    rua: tuple[str, ...] = ()
    for field in fields:
        if field.startswith(_RUA) and not rua:  # Of a field that occurs twice, the first one counts.
            rua = tuple(_uri(uri) for uri in _BETWEEN_URIS.split(field.removeprefix(_RUA)))
        elif not field.startswith(_RUA) and not _EXTENSION.fullmatch(field):
            raise TlsrptError(f"expected name=value, got {_shown(field)}" if field else "remove the extra semicolon")
    if not rua:
        raise TlsrptError("rua is missing")
    return TlsrptRecord(rua)


def _uri(text: bytes) -> str:
    if not text:
        raise TlsrptError("rua is empty, or has an extra comma")
    if b"@" in text and b":" not in text:
        raise TlsrptError(f"write mailto: before {_shown(text)}")
    if not _URI.fullmatch(text):
        raise TlsrptError(f"{_shown(text)} is not a URI, such as mailto:tls@example.com")
    return text.decode("ascii")


def _shown(text: bytes) -> str:
    """The beginning of a foreign text for a message: quoted, and in ASCII."""
    return ascii(text[:40].decode("latin-1") + ("..." if len(text) > 40 else ""))
