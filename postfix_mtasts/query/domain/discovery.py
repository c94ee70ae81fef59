"""Discovers the policy of a domain with the daemon's own adapters and rules, as if nothing were cached."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.dns import tlsa
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style, beside_dane, reply_to
from postfix_mtasts.query.domain import certificate
from postfix_mtasts.query.domain.report import (
    AnswerReport,
    DaneReport,
    LineReport,
    MxReport,
    PolicyHostReport,
    PolicyReport,
    ProbeReport,
    RecordReport,
    Report,
)
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import HTTPS_PORT
from postfix_mtasts.remote.probe import Probe, Prober
from postfix_mtasts.sts import policy
from postfix_mtasts.sts.decide import FetchPolicy, decide
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Answer, Apply, Entry, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.observation import (
    DaneAbsent,
    DaneFailed,
    DaneObservation,
    DaneUsable,
    DnsFailed,
    FetchFailed,
    FetchObservation,
    FetchTrace,
    PolicyFetched,
    PolicyInvalid,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    Stage,
)
from postfix_mtasts.sts.policy import MxPattern

_HEADERS = ("content-type", "content-encoding", "location", "server")  # The headers that may show why a fetch fails.


@dataclass(frozen=True, slots=True)
class Discovery:
    """Discovers policies. `rules` are the reply rules of the daemon."""

    resolver: Resolver
    fetcher: Fetcher
    prober: Prober
    rules: ReplyRules

    async def discover(self, hop: NextHop, *, probe: bool) -> Report:
        """Discover the policy of a next hop. With `probe`, connect to its MX hosts too."""
        begun = time.monotonic()
        dane = asyncio.create_task(Dane(self.resolver, limit=1).of(hop))
        hosts = asyncio.create_task(self._hosts(hop))
        record = await self.resolver.record(hop.domain)
        record_report = _record(hop, record, time.monotonic() - begun)
        fetched = await self.fetcher.fetch(hop.domain, record.record.id) if isinstance(record, RecordFound) else None
        patterns = fetched.policy.mx if isinstance(fetched, PolicyFetched) else ()
        mx, mx_problem = await hosts
        probes = await asyncio.gather(*(self.prober.probe(host) for host in mx)) if probe else []
        return Report(
            domain=hop.domain.name,
            next_hop=str(hop),
            record=record_report,
            policy_host=await self._policy_host(hop, fetched) if fetched else None,
            policy=_policy(fetched) if isinstance(fetched, PolicyFetched | PolicyInvalid) else None,
            mx=tuple(_mx(host, patterns, probe) for host, probe in itertools.zip_longest(mx, probes)),
            mx_problem=mx_problem,
            dane=_dane(await dane),
            answer=self._answer(hop, record, fetched, await dane),
        )

    async def _hosts(self, hop: NextHop) -> tuple[tuple[str, ...], str | None]:
        try:
            return (await tlsa.mail_hosts(self.resolver, hop)).records, None
        except DnsError as error:
            return (), str(error)

    async def _policy_host(self, hop: NextHop, fetched: FetchObservation) -> PolicyHostReport:
        trace = fetched.seen or FetchTrace()
        name = hop.domain.policy_host()
        failure = fetched.failure if isinstance(fetched, FetchFailed) else None
        shown = certificate.parse(trace.certificate)
        if failure and failure.stage in (Stage.CERTIFICATE, Stage.TLS):
            shown = certificate.parse(await self.prober.certificate_of(name, HTTPS_PORT))
        return PolicyHostReport(
            name=name,
            addresses=trace.addresses,
            address=trace.address or None,
            tls=trace.tls or None,
            certificate=shown,
            status=trace.status or None,
            headers={key: value for key, value in trace.headers if key in _HEADERS},
            stage=failure.stage if failure else None,
            problem=failure.reason if failure else None,
            result_type=failure.result_type.value if failure and failure.result_type else None,
            seconds={stage.value: end - begin for (stage, begin), (_, end) in itertools.pairwise(trace.entered)},
        )

    def _answer(
        self, hop: NextHop, record: RecordObservation, fetched: FetchObservation | None, dane: DaneObservation
    ) -> AnswerReport:
        now = time.time()
        decision = decide(Entry(), record, now)
        if fetched and isinstance(decision.action, FetchPolicy):
            decision = decide(decision.entry or Entry(), fetched, now)
        answer = decision.answer
        if not answer:
            raise AssertionError("neither an answer nor an action")
        replies = {}
        for style in Style:
            rules = replace(self.rules, style=style)
            left = beside_dane(answer, dane) if rules.heeds_dane(answer) else answer
            reply = reply_to(hop.domain, left, rules)
            replies[style] = f"{reply.status.value} {reply.text}".rstrip()
        return AnswerReport(replies[Style.PLAIN], replies[Style.TLSRPT], _reason(left))


def _record(hop: NextHop, record: RecordObservation, seconds: float) -> RecordReport:
    if isinstance(record, DnsFailed):
        return RecordReport((hop.domain.record_name(),), (), None, False, None, record.failure.reason, True, seconds)
    seen = record.seen
    if not seen:
        raise AssertionError("the resolver gave no record set")
    return RecordReport(
        names=seen.names,
        texts=tuple(text.decode("latin-1") for text in seen.texts),
        ttl=seen.ttl,
        secure=seen.secure,
        id=record.record.id if isinstance(record, RecordFound) else None,
        problem=record.reason if isinstance(record, RecordInvalid) else None,
        failed=False,
        seconds=seconds,
    )


def _policy(fetched: PolicyFetched | PolicyInvalid) -> PolicyReport:
    body = fetched.seen.body if fetched.seen else b""
    file = body.decode("utf-8", "replace")
    problems: dict[int, str] = {}
    for finding in fetched.findings:
        problems[finding.line] = "; ".join(filter(None, (problems.get(finding.line), finding.text)))
    lines = tuple(
        LineReport(number, text, problems.get(number)) for number, text in enumerate(policy.lines(file), start=1)
    )
    if isinstance(fetched, PolicyInvalid):
        return PolicyReport(None, None, (), lines, file, fetched.fault)
    valid = fetched.policy
    return PolicyReport(valid.mode, valid.max_age, tuple(map(str, valid.mx)), lines, file, None)


def _mx(host: str, patterns: Sequence[MxPattern], probe: Probe | None) -> MxReport:
    allowed_by = next((str(pattern) for pattern in patterns if pattern.matches(host)), None)
    return MxReport(host, allowed_by, _probe(probe) if probe else None)


def _probe(probe: Probe) -> ProbeReport:
    shown = certificate.parse(probe.certificate)
    return ProbeReport(probe.address or None, probe.tls or None, shown, probe.problem, probe.seconds)


def _dane(seen: DaneObservation) -> DaneReport:
    match seen:
        case DaneUsable(hosts):
            return DaneReport("usable", hosts, None)
        case DaneAbsent(reason):
            return DaneReport("absent", (), reason)
        case DaneFailed(failure):
            return DaneReport("failed", (), failure.reason)


def _reason(answer: Answer) -> str | None:
    match answer:
        case Apply():
            return None
        case NoPolicy(reason):
            return reason
        case Unavailable(failure):
            return str(failure)
        case YieldToDane(hosts):
            return f"DANE takes precedence over MTA-STS: TLSA records of {', '.join(hosts)}"
