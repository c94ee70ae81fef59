"""What a live discovery found out of a domain, stage by stage; the shape of its JSON.

Fields keep their names and meaning; later versions may add some. Times are ISO 8601 in UTC, spans are seconds.
"""

from dataclasses import dataclass

from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.sts.observation import Stage


@dataclass(frozen=True, slots=True)
class RecordReport:
    """The TXT record. `names` are those of the CNAME chain, the first the one that was asked for."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    ttl: float | None
    secure: bool
    id: str | None
    problem: str | None
    failed: bool  # DNS gave no answer, so that there may be a record.
    seconds: float


@dataclass(frozen=True, slots=True)
class PolicyHostReport:
    """The policy host and how it was spoken to, as far as that went. `seconds` are those that each stage took."""

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
    """The policy file. Without a mode it is not valid."""

    mode: str | None
    max_age: int | None
    mx: tuple[str, ...]
    lines: tuple[LineReport, ...]
    file: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What an MX host showed when it was connected to as Postfix would; `problem` is why it would not get mail."""

    address: str | None
    tls: str | None
    certificate: Certificate | None
    problem: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class MxReport:
    """An MX host, and the pattern of the policy that allows it."""

    host: str
    pattern: str | None
    probe: ProbeReport | None


@dataclass(frozen=True, slots=True)
class DaneReport:
    """Whether DANE decides: `usable`, with the hosts that have TLSA records, `absent` or `failed`, with the reason."""

    state: str
    hosts: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """What Postfix gets, in each style, from a daemon that has nothing cached; `reason` is why there is no policy."""

    plain: str
    tlsrpt: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. What was not come to is None."""

    domain: str
    next_hop: str
    record: RecordReport
    policy_host: PolicyHostReport | None
    policy: PolicyReport | None
    mx: tuple[MxReport, ...]
    mx_problem: str | None
    dane: DaneReport
    answer: AnswerReport
