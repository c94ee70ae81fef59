"""What a policy discovery found, stage by stage. The JSON has the same fields.

Later versions may add fields, but keep the names and meanings of these. In JSON, times are ISO 8601 in UTC, and
durations are in seconds.
"""

from dataclasses import dataclass

from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.sts.observation import Stage
from postfix_mtasts.sts.policy import Mode


@dataclass(frozen=True, slots=True)
class RecordReport:
    """The TXT record. `names` is the CNAME chain, and begins with the name that was looked up."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    ttl: float | None
    secure: bool
    id: str | None
    problem: str | None
    failed: bool  # The DNS lookup failed, so there may be a record.
    seconds: float


@dataclass(frozen=True, slots=True)
class PolicyHostReport:
    """The policy host, and the connection to it as far as that got. `seconds` has the duration of each stage."""

    name: str
    addresses: tuple[str, ...]
    address: str | None
    tls: str | None
    certificate: Certificate | None
    status: int | None
    headers: dict[str, str]
    stage: Stage | None
    problem: str | None
    result_type: str | None
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class LineReport:
    """A line of the policy file, and what is wrong with it."""

    number: int
    text: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """The policy file. If it is not valid, `mode` is None and `problem` has the reason."""

    mode: Mode | None
    max_age: int | None
    mx: tuple[str, ...]
    lines: tuple[LineReport, ...]
    file: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A connection to an MX host as Postfix would make it. `problem` is why Postfix would not deliver to the host."""

    address: str | None
    tls: str | None
    certificate: Certificate | None
    problem: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class MxReport:
    """An MX host, and the mx pattern of the policy that allows it."""

    host: str
    pattern: str | None
    probe: ProbeReport | None


@dataclass(frozen=True, slots=True)
class DaneReport:
    """Whether DANE applies. `state` is `usable`, with `hosts` that have TLSA records, or `absent` or `failed`, with the
    reason.
    """

    state: str
    hosts: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """The reply to Postfix in each style, if the daemon has nothing cached. `reason` is why there is no policy."""

    plain: str
    tlsrpt: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole discovery. A stage that was not reached is None."""

    domain: str
    next_hop: str
    record: RecordReport
    policy_host: PolicyHostReport | None
    policy: PolicyReport | None
    mx: tuple[MxReport, ...]
    mx_problem: str | None
    dane: DaneReport
    answer: AnswerReport
