"""A TLS report as values (RFC 8460, 4.4), and what is known of who sent it."""

import datetime
import enum
from dataclasses import dataclass


class ReportError(ValueError):
    """There is no report that can be read. The message is the reason, and may quote what the report says."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item of `failure-details`. What the report leaves out is None."""

    result: str | None  # `result-type`: one of RFC 8460, 4.3, or another one as it was written.
    sessions: int
    mx: str | None
    receiving_ip: str | None
    sending_ip: str | None
    code: str | None
    information: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """An item of `policies`: how sessions under one policy ended. What the report leaves out is None.

    `successful` and `failed` are the totals of `summary`. The failures may overlap, and may have other sums.
    """

    domain: str | None  # In lower-case A-labels if it is a hostname.
    type: str | None  # `sts`, `tlsa`, `no-policy-found`, or another one as it was written.
    mode: str | None  # Of an MTA-STS policy, as it was written.
    successful: int
    failed: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report. `problems` says where it breaks RFC 8460, and what was assumed."""

    organization: str | None
    report_id: str | None
    start: datetime.datetime  # In UTC.
    end: datetime.datetime
    policies: tuple[Policy, ...]
    problems: tuple[str, ...] = ()


class DkimState(enum.Enum):
    """What DKIM says about the sender of a report. Only VERIFIED reports may count."""

    VERIFIED = "verified"  # A valid signature is of the domain in From, or of its organizational domain.
    NONE = "none"  # No signature, or not a mail.
    OTHER_DOMAIN = "other-domain"  # All signatures are of other domains.
    INVALID = "invalid"  # The signature is not valid, or covers only a part of the mail.
    UNKNOWN = "unknown"  # The key could not be looked up.


@dataclass(frozen=True, slots=True)
class Dkim:
    """The result for the best signature of a mail: its domain, as the signature says, and why it is not verified."""

    state: DkimState
    domain: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is in a file: a report with what DKIM says of its sender, or why there is none."""

    file: str
    report: Report | None
    dkim: Dkim
    rejected: str = ""
