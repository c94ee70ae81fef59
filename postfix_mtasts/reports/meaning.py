"""What each result type (RFC 8460, 4.3) means for the owner of the domain, and what to do about it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How much a result needs the owner of the domain."""

    NOTE = 0  # Nothing is wrong.
    WARNING = 1  # Mail arrives, though not as the owner meant it.
    ERROR = 2  # Senders that keep to the policy defer the mail, and return it in the end.


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a result says of a domain, and what to do, in one or two sentences."""

    severity: Severity
    text: str


# Microsoft's code for an MX host that the policy does not name. Its result type is `validation-failure`.
MX_HOSTS_MISMATCH = "MX_HOSTS_MISMATCH"

_MEANINGS: Mapping[str, Meaning] = {
    "starttls-not-supported": Meaning(
        Severity.ERROR,
        "The MX host offered no STARTTLS. If only one sender reports it, something between you and that sender removes"
        " it; if several do, turn on TLS on the MX host.",
    ),
    "certificate-expired": Meaning(
        Severity.ERROR, "The certificate of the MX host has expired. Renew it, and have the mail server load it."
    ),
    "certificate-host-mismatch": Meaning(
        Severity.ERROR,
        "The certificate of the MX host is for other names. Add the name of the MX host to its DNS names (SAN).",
    ),
    "certificate-not-trusted": Meaning(
        Severity.ERROR,
        "The certificate of the MX host is not from a CA that the sender trusts, or its chain is incomplete. Use a"
        " public CA, and send all intermediate certificates.",
    ),
    "validation-failure": Meaning(
        Severity.ERROR,
        "TLS failed for a reason that has no type of its own. The code may name it: with MX_HOSTS_MISMATCH, compare the"
        " MX records with the policy; otherwise check the MX host.",
    ),
    "sts-policy-fetch-error": Meaning(
        Severity.WARNING,
        "The policy could not be fetched. See that the policy host is reachable over HTTPS; senders without a cached"
        " copy deliver unprotected.",
    ),
    "sts-policy-invalid": Meaning(
        Severity.WARNING,
        "The policy was fetched, but has an error. Correct the policy file, then change the id in the TXT record.",
    ),
    "sts-webpki-invalid": Meaning(
        Severity.WARNING,
        "The certificate of the policy host is not valid for its name. Renew or replace the certificate of the web"
        " server.",
    ),
    "tlsa-invalid": Meaning(
        Severity.ERROR,
        "The TLSA records of the MX host do not match its certificate, or are malformed. Compare the two, and publish"
        " new records before the certificate changes.",
    ),
    "dnssec-invalid": Meaning(
        Severity.ERROR,
        "The sender's resolver found no valid DNSSEC signatures. Check the signatures of the zone and the DS records"
        " above it.",
    ),
    "dane-required": Meaning(
        Severity.ERROR,
        "The sender requires DANE, and found no usable TLSA records for the MX host. Publish them, or ask the sender.",
    ),
    "no-policy-found": Meaning(
        Severity.NOTE,
        "The sender knows no policy of the domain. If you publish one, the sender does not know it yet, or does not"
        " use MTA-STS.",
    ),
}  # fmt: skip
_MX_MISMATCH = Meaning(
    Severity.ERROR, "The policy does not name an MX host of the domain. Compare the MX records with the policy's mx."
)
_NOT_SAID = Meaning(
    Severity.WARNING, "The sender counted failures, and did not say of what kind. Check the domain, or ask the sender."
)
_UNKNOWN = Meaning(
    Severity.WARNING,
    "This result type is not in RFC 8460. Check the domain; the code and the sender's explanation may say more.",
)
RESULTS = tuple(_MEANINGS)  # The result types that are known here.


def meaning(result: str | None, code: str | None = None) -> Meaning:
    """What a result type means, or None for failures of which the report gives no type.

    `code` is the `failure-reason-code` that is the same for all of these failures, if there is one.
    """
    if result is None:
        return _NOT_SAID
    if result == "validation-failure" and code == MX_HOSTS_MISMATCH:
        return _MX_MISMATCH
    return _MEANINGS.get(result, _UNKNOWN)
