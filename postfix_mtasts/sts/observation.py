"""What the adapters saw: facts for `decide`, in the words of RFC 8461 and RFC 8460.

`seen` is what an observation was made from: for people, and no part of what it says.
"""

import enum
from dataclasses import dataclass, field

from postfix_mtasts.sts.policy import Finding, Policy
from postfix_mtasts.sts.record import Record


class ResultType(enum.Enum):
    """How RFC 8460, 4.3.2 names a failure to get a policy."""

    FETCH_ERROR = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    WEBPKI_INVALID = "sts-webpki-invalid"


class Stage(enum.Enum):
    """The step of a discovery that failed; DISCOVERY is all of it."""

    DISCOVERY = "discovery"
    RECORD = "TXT lookup"
    ADDRESS = "address of the policy host"
    CONNECT = "connection to the policy host"
    TLS = "TLS handshake with the policy host"
    CERTIFICATE = "certificate of the policy host"
    RESPONSE = "HTTP response"
    POLICY = "policy file"
    TLSA = "TLSA lookup"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a discovery failed. `result_type` is None where RFC 8460 has no name for it: a failed lookup in DNS."""

    stage: Stage
    reason: str
    result_type: ResultType | None = ResultType.FETCH_ERROR

    def __str__(self) -> str:
        return f"{self.stage.value}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Texts:
    """The TXT records at a name, or at the end of its CNAME chain; `names` are those of the chain."""

    names: tuple[str, ...]
    texts: tuple[bytes, ...]
    ttl: float
    secure: bool  # Whether DNSSEC proves them.


@dataclass(slots=True)
class Exchange:
    """How far the way to a policy file led, and what was met on it."""

    stage: Stage = Stage.ADDRESS
    entered: list[tuple[Stage, float]] = field(default_factory=list)  # When each stage began, by a clock of its own.
    addresses: tuple[str, ...] = ()
    address: str = ""  # The one that took the connection.
    tls: str = ""  # The version, and the cipher.
    certificate: bytes = b""  # DER.
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def enter(self, stage: Stage, now: float) -> None:
        """The next stage begins."""
        self.stage = stage
        self.entered.append((stage, now))


@dataclass(frozen=True, slots=True)
class Asked:
    """Postfix asks."""


@dataclass(frozen=True, slots=True)
class Due:
    """It is time to see whether a cached policy should be fetched again, or forgotten."""


@dataclass(frozen=True, slots=True)
class RecordFound:
    """The domain publishes a policy."""

    record: Record
    seen: Texts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RecordAbsent:
    """DNS says that there is no record; it may be believed for `ttl` seconds."""

    ttl: float
    seen: Texts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RecordInvalid:
    """There is a record, but not one valid one; DNS may be believed for `ttl` seconds."""

    reason: str
    ttl: float
    seen: Texts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DnsFailed:
    """DNS said nothing: whether there is a record is unknown."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class PolicyFetched:
    """A valid policy came over authenticated HTTPS, when the record had `record_id`. `text` is the file as it was."""

    policy: Policy
    text: str
    record_id: str
    findings: tuple[Finding, ...] = ()
    seen: Exchange | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PolicyInvalid:
    """A file came over authenticated HTTPS, and it is no valid policy."""

    failure: Failure
    record_id: str
    fault: str = field(default="", compare=False)  # The first of the reasons alone.
    findings: tuple[Finding, ...] = field(default=(), compare=False)  # What is about lines.
    seen: Exchange | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """No file came."""

    failure: Failure
    record_id: str
    seen: Exchange | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DaneUsable:
    """These MX hosts have TLSA records that Postfix can check them by; DNS may be believed for `ttl` seconds."""

    hosts: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class DaneAbsent:
    """No host has, for this reason; DNS may be believed for `ttl` seconds."""

    reason: str
    ttl: float


@dataclass(frozen=True, slots=True)
class DaneFailed:
    """Whether the hosts of a signed domain have TLSA records is unknown: mail must wait (RFC 7672, 2.1.2)."""

    failure: Failure


RecordObservation = RecordFound | RecordAbsent | RecordInvalid | DnsFailed
FetchObservation = PolicyFetched | PolicyInvalid | FetchFailed
DaneObservation = DaneUsable | DaneAbsent | DaneFailed
Observation = Asked | Due | RecordObservation | FetchObservation
