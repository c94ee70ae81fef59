"""A certificate in words. It takes the package cryptography; without it, nothing is known of a certificate."""

import datetime
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says; times in UTC."""

    names: tuple[str, ...]  # The DNS names among the subject alternative names.
    issuer: str
    not_before: datetime.datetime
    not_after: datetime.datetime


def parse(der: bytes) -> Certificate | None:
    """The certificate in these octets; None without octets, and without the package."""
    try:
        from cryptography import x509
    except ImportError:
        return None
    try:
        found = x509.load_der_x509_certificate(der)
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(alternatives.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    except ValueError:
        return None
    # Debian 12 has version 38, which gives the times without their zone; later ones warn of that.
    if hasattr(found, "not_valid_after_utc"):
        begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    else:
        begin, end = (time.replace(tzinfo=datetime.UTC) for time in (found.not_valid_before, found.not_valid_after))
    oids = (x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME)
    issuer = [str(attribute.value) for oid in oids for attribute in found.issuer.get_attributes_for_oid(oid)]
    return Certificate(names, " ".join(issuer), begin, end)
