"""Reads certificates, if the package cryptography is installed."""

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_SOON = {0: "today", 1: "tomorrow"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """The parts of a certificate that matter here. Times are in UTC."""

    names: tuple[str, ...]  # The DNS names among the subject alternative names.
    issuer: str
    not_before: datetime.datetime
    not_after: datetime.datetime

    def expiry(self, now: datetime.datetime) -> str:
        """When it expires, as of `now` in UTC: `expires in 29 days (2026-12-24)`, `expired on 2026-11-23`."""
        date = f"{self.not_after:%Y-%m-%d}"
        if self.not_after < now:
            return f"expired on {date}"
        days = (self.not_after.date() - now.date()).days
        return f"expires {_SOON.get(days) or f'in {days} days'} ({date})"


def parse(der: bytes) -> Certificate | None:
    """Parse a certificate. None if `der` is empty or malformed, or if the package cryptography is not installed."""
    try:
        from cryptography import x509
    except ImportError:
        return None
    # cryptography parses each part when it is asked for.
    malformed = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    try:
        found = x509.load_der_x509_certificate(der)
        # Version 38, which is in Debian 12, gives times without a time zone. Later versions warn if these are used.
        if hasattr(found, "not_valid_after_utc"):
            begin, end = found.not_valid_before_utc, found.not_valid_after_utc
        else:
            begin, end = (time.replace(tzinfo=datetime.UTC) for time in (found.not_valid_before, found.not_valid_after))
        oids = (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME)
        issuer = [str(attribute.value) for oid in oids for attribute in found.issuer.get_attributes_for_oid(oid)]
        return Certificate(_dns_names(found), " ".join(issuer), begin, end)
    except malformed:
        return None


def _dns_names(certificate: "x509.Certificate") -> tuple[str, ...]:
    from cryptography import x509

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(alternatives.get_values_for_type(x509.DNSName))


def public_key(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate in DER, or b"" if it cannot be read."""
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    except ImportError:
        return b""
    try:
        return (
            x509.load_der_x509_certificate(der)
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm):
        return b""
