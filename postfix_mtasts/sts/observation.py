"""What the adapters observed: the facts that `decide` works on, in the terms of RFC 8461 and RFC 8460.

The field `seen` has the raw data behind an observation. It is only shown to people, and two observations are equal
whatever it has.
"""

import enum
from dataclasses import dataclass, field

from postfix_mtasts.sts.policy import Finding, Policy
from postfix_mtasts.sts.record import Record

MAX_REASON = 300  # Characters of a failure's reason.


class ResultType(enum.Enum):
    """The names of RFC 8460, 4.3.2 for a failure to get a policy."""

    FETCH_ERROR = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    WEBPKI_INVALID = "sts-webpki-invalid"


class Stage(enum.Enum):
    """The step of a discovery that failed; DISCOVERY stands for the whole of it. The values are stored in rows."""

    DISCOVERY = "discovery"
    RECORD = "TXT lookup"
    PROXY = "proxy"
    ADDRESS = "address of the policy host"
    CONNECT = "connection to the policy host"
    TLS = "TLS handshake with the policy host"
    CERTIFICATE = "certificate of the policy host"
    RESPONSE = "HTTP response"
    POLICY = "policy file"
    TLSA = "TLSA lookup"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a discovery failed. `result_type` is None for a failed DNS lookup, which RFC 8460 has no name for."""

    stage: Stage
    reason: str
    result_type: ResultType | None = ResultType.FETCH_ERROR
    is_local: bool = False  # The reason lies with this machine: nothing follows for the domain.

    def __post_init__(self) -> None:
        """Keep the reason short: strangers have a say in it, and it is logged, and kept for each domain."""
        if len(self.reason) > MAX_REASON:
            object.__setattr__(self, "reason", f"{self.reason[: MAX_REASON - 3]}...")

    def __str__(self) -> str:
        return f"{self.stage.value}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RecordTexts:
    """All TXT records at a name. `names` is its CNAME chain; the records are at the last name of it."""

    names: tuple[str, ...]
    texts: tuple[bytes, ...]
    ttl: float  # Seconds.
    secure: bool  # The nameserver says that they are signed with DNSSEC.
    exists: bool = True  # If false, the last name does not exist (NXDOMAIN).


@dataclass(slots=True)
class FetchTrace:
    """How far the fetch of a policy file got, and what it received. For a probe of an MX host, it ends with TLS."""

    stage: Stage = Stage.ADDRESS
    entered: list[tuple[Stage, float]] = field(default_factory=list)  # When each stage began, on the loop's clock.
    proxy: str = ""  # The URL of the proxy that was to make the connection. It looks up the address.
    addresses: tuple[str, ...] = ()
    address: str = ""  # The address that accepted the connection.
    tls: str = ""  # The TLS version and the cipher.
    certificate: bytes = b""  # The host's certificate, in DER.
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def enter(self, stage: Stage, now: float) -> None:
        """Note that the next stage begins."""
        self.stage = stage
        self.entered.append((stage, now))


@dataclass(frozen=True, slots=True)
class Asked:
    """Postfix asks for the domain."""


@dataclass(frozen=True, slots=True)
class Due:
    """It is time to check whether a cached policy should be fetched again or forgotten."""


@dataclass(frozen=True, slots=True)
class RecordFound:
    """The domain has a valid record, so it publishes a policy."""

    record: Record
    seen: RecordTexts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RecordAbsent:
    """DNS says that there is no record. This may be cached for `ttl` seconds."""

    ttl: float
    seen: RecordTexts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RecordInvalid:
    """The domain has an invalid record, or several records. This may be cached for `ttl` seconds."""

    reason: str
    ttl: float
    seen: RecordTexts | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DnsFailed:
    """The DNS lookup failed, so it is unknown whether there is a record."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class PolicyFetched:
    """A valid policy was fetched over authenticated HTTPS while the record had `record_id`. `text` is its file."""

    policy: Policy
    text: str
    record_id: str
    findings: tuple[Finding, ...] = ()
    seen: FetchTrace | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PolicyInvalid:
    """A file was fetched over authenticated HTTPS, but it is not a valid policy."""

    failure: Failure
    record_id: str
    fault: str = field(default="", compare=False)  # As in PolicyError.
    findings: tuple[Finding, ...] = field(default=(), compare=False)  # As in PolicyError.
    seen: FetchTrace | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The policy file could not be fetched."""

    failure: Failure
    record_id: str
    seen: FetchTrace | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DaneUsable:
    """These MX hosts have TLSA records that Postfix can use. This may be cached for `ttl` seconds."""

    hosts: tuple[str, ...]
    ttl: float
    covers_all: bool = True  # There is no other MX host.


@dataclass(frozen=True, slots=True)
class DaneAbsent:
    """No MX host has TLSA records that Postfix can use, and why. This may be cached for `ttl` seconds."""

    reason: str
    ttl: float


@dataclass(frozen=True, slots=True)
class DaneFailed:
    """It is unknown whether MX hosts of a signed domain have TLSA records. Mail is deferred (RFC 7672, 2.1.2)."""

    failure: Failure


RecordObservation = RecordFound | RecordAbsent | RecordInvalid | DnsFailed
FetchObservation = PolicyFetched | PolicyInvalid | FetchFailed
DaneObservation = DaneUsable | DaneAbsent | DaneFailed
DiscoveryObservation = RecordObservation | FetchObservation
Observation = Asked | Due | DiscoveryObservation
