"""Turns what was observed into the blocks of a report."""

import itertools
import math
from dataclasses import replace

from postfix_mtasts.daemon.explain import Explanation
from postfix_mtasts.delivery import certificate
from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import RRset
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.query.domain import asked
from postfix_mtasts.query.domain.asked import Fresh
from postfix_mtasts.query.domain.discovery import Seen, Tried
from postfix_mtasts.query.domain.report import (
    AddressReport,
    AnswerReport,
    DaneReport,
    LineReport,
    PolicyHostReport,
    PolicyReport,
    RecordReport,
    SlipReport,
    TlsrptReport,
)
from postfix_mtasts.sts import policy, record, tlsrpt
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Answer, Apply, Entry, Exempt, NoPolicy, Unavailable, YieldToDane
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
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    Stage,
)

_HEADERS = ("content-type", "content-encoding", "location", "server")  # The headers that may show why a fetch fails.


def record_report(hop: NextHop, seen: Seen) -> RecordReport:
    """The TXT record. One that is given, and not looked up, has no strings."""
    found, seconds = seen.fresh.record, seen.record_seconds
    name = hop.domain.record_name()
    if isinstance(found, DnsFailed):
        return RecordReport((name,), (), None, False, None, found.failure.reason, True, True, (), seconds)
    texts = found.seen
    if not texts:
        raise AssertionError("the resolver gave no record set")
    slips = [(text, record.slip(text)) for text in texts.texts] if isinstance(found, RecordAbsent) else []
    return RecordReport(
        names=texts.names,
        texts=tuple(text.decode("latin-1") for text in texts.texts),
        ttl=texts.ttl,
        secure=texts.secure,
        id=found.record.id if isinstance(found, RecordFound) else None,
        problem=found.reason if isinstance(found, RecordInvalid) else None,
        failed=False,
        exists=texts.exists,
        slips=tuple(SlipReport(text.decode("latin-1"), problem) for text, problem in slips if problem),
        seconds=seconds,
    )


def policy_host_report(
    hop: NextHop, fetched: FetchObservation, tried: tuple[Tried, ...], shown: Certificate | None, missing: str | None
) -> PolicyHostReport:
    """The policy host. `shown` is its certificate if it could not be verified, `missing` a name that does not exist."""
    trace = fetched.seen or FetchTrace()
    failure = fetched.failure if isinstance(fetched, FetchFailed) else None
    return PolicyHostReport(
        name=hop.domain.policy_host(),
        missing=missing,
        proxy=trace.proxy or None,
        addresses=trace.addresses,
        address=trace.address or None,
        tls=trace.tls or None,
        certificate=certificate.parse(trace.certificate) or shown,
        status=trace.status or None,
        headers={key: value for key, value in trace.headers if key in _HEADERS},
        stage=failure.stage.name.lower() if failure else None,
        problem=failure.reason if failure else None,
        result_type=failure.result_type.value if failure and failure.result_type else None,
        seconds={stage.name.lower(): end - begin for (stage, begin), (_, end) in itertools.pairwise(trace.entered)},
        tried=tuple(_tried(one, fetched) for one in tried),
    )


def _tried(one: Tried, main: FetchObservation) -> AddressReport:
    match one.fetched:
        case None:
            return AddressReport(one.address, None, None, True, one.seconds)
        case FetchFailed(failure) if failure.stage is Stage.ADDRESS:
            return AddressReport(one.address, "address", "not a public address", False, one.seconds)
        case FetchFailed(failure):
            reason = failure.reason.removeprefix(f"{one.address}: ")
            return AddressReport(one.address, failure.stage.name.lower(), reason, False, one.seconds)
        case PolicyFetched() | PolicyInvalid() as fetched:
            bodies = [seen.seen.body if seen.seen else b"" for seen in (fetched, main)]
            differs = not isinstance(main, FetchFailed) and bodies[0] != bodies[1]
            problem = "serves another policy file" if differs else None
            return AddressReport(one.address, "policy" if differs else None, problem, False, one.seconds)


def policy_report(fetched: PolicyFetched | PolicyInvalid) -> PolicyReport:
    """The policy file, line by line."""
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


def dane_report(seen: DaneObservation) -> DaneReport:
    """Whether DANE applies."""
    match seen:
        case DaneUsable(hosts):
            return DaneReport("usable", hosts, None)
        case DaneAbsent(reason):
            return DaneReport("absent", (), reason)
        case DaneFailed(failure):
            return DaneReport("failed", (), failure.reason)


def tlsrpt_report(hop: NextHop, found: RRset[tuple[bytes, ...]] | DnsError) -> TlsrptReport:
    """The record that asks for TLS reports, also one that senders do not read as such."""
    name = tlsrpt.record_name(hop.domain)
    if isinstance(found, DnsError):
        return TlsrptReport(name, (), (), str(found), True)
    texts = [b"".join(strings) for strings in found.records]
    shown = tuple(text.decode("latin-1") for text in texts)
    try:
        read = tlsrpt.find_record(found.records)
    except tlsrpt.TlsrptError as error:
        return TlsrptReport(name, shown, (), str(error), False)
    if read:
        unknown = [uri for uri in read.rua if uri not in read.usable()]
        problem = f"senders report to mailto: and https: only, not to {unknown[0]}" if unknown else None
        return TlsrptReport(name, shown, read.rua, problem, False)
    slips = [problem for text in texts if (problem := record.slip(text, tlsrpt.VERSION))]
    dangling = found.name != name and not found.exists
    nowhere = f"its CNAME record leads to {found.name}, which does not exist" if dangling else None
    return TlsrptReport(name, shown, (), slips[0] if slips else nowhere, False)


def answer_report(known: Explanation, hop: NextHop, fresh: Fresh, now: float) -> AnswerReport:
    """The reply in each style from a daemon that has nothing cached, and no exceptions."""
    given_up = not fresh.complete or math.isinf(fresh.dane_seconds)
    within = known.answer_within if given_up else math.inf
    nothing = replace(known, entry=Entry(), dane={}, answer_within=within, exception=None)
    replies = {}
    for style in Style:
        styled = replace(nothing, rules=replace(known.rules, style=style))
        outcome = asked.ask(styled, hop, fresh, now)
        replies[style] = asked.reply(outcome.answer, styled, hop)
    return AnswerReport(replies[Style.PLAIN], replies[Style.TLSRPT], why(outcome.answer))


def why(answer: Answer) -> str | None:
    """Why there is no policy in an answer."""
    match answer:
        case Exempt(exception):
            return exception.reason
        case Apply():
            return None
        case NoPolicy(reason):
            return reason
        case Unavailable(failure):
            return str(failure)
        case YieldToDane(hosts):
            return f"DANE takes precedence over MTA-STS: TLSA records of {', '.join(hosts)}"
