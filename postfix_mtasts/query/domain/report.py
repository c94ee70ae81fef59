"""What is known of a domain: what holds now, and what a fresh discovery found, stage by stage. The JSON has the same
fields.

Later versions may add fields, but keep the names and meanings of these. In JSON, times are ISO 8601 in UTC, and
durations are in seconds. A stage is one of these words: record, proxy, address, connect, tls, certificate, response,
policy, tlsa, discovery.
"""

from dataclasses import dataclass

from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.delivery.mx import MxReport
from postfix_mtasts.sts.policy import Mode


@dataclass(frozen=True, slots=True)
class SlipReport:
    """A TXT record that was probably meant for MTA-STS, and what keeps senders from reading it so."""

    text: str
    problem: str


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
    exists: bool  # The last of `names` exists in DNS.
    slips: tuple[SlipReport, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class AddressReport:
    """An address of the policy host, and why it does not serve the policy; `stage` is where that failed.

    If `untried`, this machine cannot reach such an address at all, or must not.
    """

    address: str
    stage: str | None
    problem: str | None
    untried: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class PolicyHostReport:
    """The policy host, and the connection to it as far as that got. `seconds` has the duration of each stage.

    With a `proxy`, which is its URL, no address of the host is looked up here.
    """

    name: str
    missing: str | None  # It, or the host to which its CNAME record leads, if that does not exist in DNS.
    proxy: str | None
    addresses: tuple[str, ...]
    address: str | None
    tls: str | None
    certificate: Certificate | None
    status: int | None
    headers: dict[str, str]
    stage: str | None
    problem: str | None
    result_type: str | None
    seconds: dict[str, float]
    tried: tuple[AddressReport, ...]


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
class DaneReport:
    """Whether DANE applies. `state` is `usable`, with `hosts` that have TLSA records, or `absent` or `failed`, with the
    reason.
    """

    state: str
    hosts: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class TlsrptReport:
    """The TXT record that asks for TLS reports (RFC 8460, 3), and the URIs that they go to."""

    name: str
    texts: tuple[str, ...]
    rua: tuple[str, ...]
    problem: str | None
    failed: bool  # The DNS lookup failed.


@dataclass(frozen=True, slots=True)
class AnswerReport:
    """The reply to Postfix in each style, if the daemon has nothing cached. `reason` is why there is no policy."""

    plain: str
    tlsrpt: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """A table of Postfix that comes before the daemon, and what it has for the next hop."""

    table: str
    value: str


@dataclass(frozen=True, slots=True)
class ExemptReport:
    """The daemon's own exception for the domain, by which Postfix is answered, and the reply there is without it.

    `domain` may begin with `*.`. Its last day is `until`. If not `added` by command, the configuration has it.
    """

    domain: str
    until: str
    reason: str
    level: str
    dane: bool
    added: bool
    without: str


@dataclass(frozen=True, slots=True)
class RunningReport:
    """What the running daemon answers Postfix now, unless Postfix finds an `exception` first, and asks it nothing.

    `daemon` is false if it was not asked; then it is judged as one with nothing cached, and `why` says why. If
    `waits`, it has nothing valid cached, and Postfix waits for a discovery. `next` is the reply to the query after
    that, if it is another one. `policy` is the mode in force, which expires in `expires_in` seconds; `because`
    explains. `silent` is why it does not answer where Postfix asks it, so that Postfix defers all mail.
    """

    daemon: bool
    why: str | None
    reply: str
    style: str
    waits: bool
    next: str | None
    withheld: bool  # Postfix is not told of the enforced policy.
    policy: Mode | None
    expires_in: float | None
    because: tuple[str, ...]
    exception: ExceptionReport | None = None
    exempt: ExemptReport | None = None  # If it changes the reply.
    silent: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. A stage that was not reached is None."""

    domain: str
    next_hop: str
    running: RunningReport
    record: RecordReport
    policy_host: PolicyHostReport | None
    policy: PolicyReport | None
    mx: tuple[MxReport, ...]
    mx_problem: str | None
    exists: bool  # The domain exists in DNS.
    null_mx: bool  # It accepts no mail (RFC 7505).
    dane: DaneReport
    tlsrpt: TlsrptReport | None
    answer: AnswerReport
    resolver_works: bool  # If false, this machine's resolver answers for no name.
    seconds: float
