"""What a report means, for readers who do not know the RFC: what is wrong, what follows, and what to do."""

import datetime
from collections.abc import Iterator

from postfix_mtasts.counting import counted
from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.delivery.mx import NO_ADDRESS, NOT_THERE, MxReport, unmatched
from postfix_mtasts.log.events import span
from postfix_mtasts.query.domain.now import short
from postfix_mtasts.query.domain.remark import Remark, error, note, warning
from postfix_mtasts.query.domain.remedy import ASK, DOMAINS_DNS, STAGES, probe_remedy, remedy_for
from postfix_mtasts.query.domain.report import PolicyReport, Report
from postfix_mtasts.sts.policy import Mode, Protection

_EXPIRES_SOON = datetime.timedelta(days=14)  # Certificates are usually renewed a month before they expire.
_UNPROTECTED = "senders without a cached copy deliver unprotected"
_NAMED = 10  # So many hosts or lines have remarks of their own.


def remarks(report: Report, now: datetime.datetime, *, late: bool = False) -> tuple[Remark, ...]:
    """The remarks on what was found fresh, at the time `now`. `late` if Postfix would not have waited for it."""
    return (
        *_resolver(report),
        *_record(report),
        *_policy_host(report, now),
        *_lateness(report, late=late),
        *_policy(report),
        *_mx(report),
        *_certificates(report, now),
        *_dane(report),
        *_tlsrpt(report),
    )


def _resolver(report: Report) -> Iterator[Remark]:
    if not report.resolver_works:
        text = "the resolver of this machine answers neither for the root's NS records nor for example.com: see"
        yield error(f"{text} /etc/resolv.conf, or dns.nameservers; nothing here is the domain's fault", "resolver")


def _record(report: Report) -> Iterator[Remark]:
    record = report.record
    name, problem = record.names[0], record.problem
    if record.failed:
        if report.resolver_works:
            yield error(f"the TXT lookup for {name} failed: {problem}; {_UNPROTECTED}; {DOMAINS_DNS}: {ASK}", "record")
    elif problem:
        # The problem may end in "v=STSv1;".
        broken = f"the TXT record {name} is not valid: {problem.removesuffix(';')}; {_UNPROTECTED}"
        yield error(broken, "record")
    elif record.slips:
        first = record.slips[0]
        yield error(f"the TXT record {name} is broken, so senders see none: {first.problem}; {_UNPROTECTED}", "record")
    elif not record.id and len(record.names) > 1 and not record.exists:
        yield error(f"the CNAME record {name} leads to {record.names[-1]}, which does not exist", "record")
    elif not record.id:
        has_none = "has no policy" if report.running.expires_in is None else "publishes no policy any more"
        yield note(f"{report.domain} {has_none}: no TXT record {name} begins with v=STSv1;", "record")


def _policy_host(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    host = report.policy_host
    if not host:
        return
    if host.stage == "address" and not report.resolver_works:
        return
    if host.problem and host.stage:
        cause = f"{STAGES[host.stage]}: {host.problem}"
        remedy = remedy_for(host)
        follows = "that is not the domain's fault" if host.stage == "proxy" else _UNPROTECTED
        yield error(f"the policy could not be fetched: {cause}; {follows}; {remedy}", "host")
    elif host.certificate:
        yield from _expiry(host.name, host.certificate, now, "then the policy cannot be fetched", "host")
    for one in host.tried[:_NAMED]:
        if one.problem and not host.problem:
            stage = f"{STAGES[one.stage]}: " if one.stage and one.stage not in ("policy", "address") else ""
            text = f"the address {one.address} of {host.name} does not serve the policy: {stage}{one.problem}"
            yield warning(f"{text}; senders that try it first wait or fail: correct it, or take it out of DNS", "host")


def _lateness(report: Report, *, late: bool) -> Iterator[Remark]:
    host = report.policy_host
    if late and host and not host.problem:
        becomes = "is deferred" if report.running.reply.startswith("TEMP") else "goes out without it"
        text = f"the policy came only after {report.seconds:.0f} s, too late for the first mail, which {becomes}"
        yield error(f"{text}; later mail gets it; the web server must answer sooner", "host")


def _policy(report: Report) -> Iterator[Remark]:
    policy = report.policy
    if not policy:
        return
    if policy.problem:
        yield error(f"the policy file is not valid: {policy.problem}; {_UNPROTECTED}", "policy")
    for line in policy.lines:
        if line.problem and f"line {line.number}: {line.problem}" != policy.problem:
            yield warning(f"line {line.number} of the policy file: {line.problem}", "policy")
    match policy.mode:
        case Mode.TESTING:
            text = "the mode is testing: senders report failures but deliver anyway; only enforce protects mail"
            yield note(text, "policy")
        case Mode.NONE:
            yield note("the mode is none: senders deliver without a policy", "policy")
    if policy.mode and policy.mode.checks_hosts and policy.max_age is not None:
        yield from _max_age(policy.max_age)


def _max_age(seconds: int) -> Iterator[Remark]:
    brief = f"max_age is {span(seconds)}: an attacker who blocks the policy that long disables it; weeks are usual"
    match Protection.of(seconds):
        case Protection.NONE:
            yield warning("max_age 0: never cached, no protection; weeks are usual", "policy")
        case Protection.HOURS:
            yield warning(brief, "policy")
        case Protection.DAYS:
            yield note(brief, "policy")


def _mx(report: Report) -> Iterator[Remark]:
    if report.mx_problem and report.resolver_works:
        text = f"the MX lookup for {report.domain} failed: {report.mx_problem}"
        yield error(f"{text}; {DOMAINS_DNS}: mail is deferred; {ASK}", "mx")
    policy = report.policy
    if not policy or not policy.mode or not policy.mode.checks_hosts or report.null_mx or not report.exists:
        return
    yield from _names(report, policy)
    judge, when = (error, "") if policy.mode is Mode.ENFORCE else (warning, " once the mode is enforce")
    for mx in report.mx:
        bad = [probe for probe in mx.probes if probe.problem]
        unclear = [probe for probe in mx.probes if probe.unclear]
        if mx.pattern and bad:
            where = "" if len(bad) == len(mx.probes) else f" at {bad[0].address}"
            yield judge(f"the MX host {mx.host}{where}: {bad[0].problem}; {_consequence(mx, when)}", "probe")
        if unclear and len(unclear) == len(mx.probes):
            text = f"the MX host {mx.host} could not be judged from here: {unclear[0].unclear}"
            step = "" if unclear[0].certificate else f"; {probe_remedy(unclear[0].unclear or '')}"
            yield warning(f"{text}{step}", "probe")
        elif unclear:
            addresses = ", ".join(probe.address or "" for probe in unclear)
            yield note(f"the MX host {mx.host} does not answer here at {addresses}: {unclear[0].unclear}", "probe")


def _consequence(mx: MxReport, when: str) -> str:
    """What follows from a bad probe, and what to do."""
    problem = next(probe.problem for probe in mx.probes if probe.problem) or ""
    if "cached policy" in problem:
        return "Postfix delivers nothing to it as long as the cached policy applies here"
    if problem in (NO_ADDRESS, NOT_THERE):
        return "nobody delivers to it: give it an address, or take it out of the MX records"
    remedies = {
        "STARTTLS": "it must offer STARTTLS",
        "TLSA": "its TLSA records must be those of its certificate",
        "certificate has expired": "its certificate must be renewed",
        "certificate": f"it needs a certificate for {mx.host} that is valid and issued by a public CA",
    }
    remedy = next((remedy for word, remedy in remedies.items() if word in problem), "")
    return f"senders deliver nothing to it{when}{remedy and f'; {remedy}'}"


def _names(report: Report, policy: PolicyReport) -> Iterator[Remark]:
    judge, when = (error, "") if policy.mode is Mode.ENFORCE else (warning, " once the mode is enforce")
    outside = [mx.host for mx in report.mx if not mx.pattern]
    if outside and len(outside) == len(report.mx):
        hosts = ", ".join(outside[:_NAMED]) + (f" and {len(outside) - _NAMED} more" if len(outside) > _NAMED else "")
        text = f"no mx line allows any MX host ({hosts}): senders deliver no mail at all{when}; add mx lines for them"
        yield judge(text, "mx")
    else:
        for host in outside[:_NAMED]:
            text = f"no mx line allows the MX host {host}: senders deliver nothing to it{when}; add an mx line for it"
            yield judge(text, "mx")
        if len(outside) > _NAMED:
            yield judge(f"no mx line allows {counted(len(outside) - _NAMED, 'more MX host')}", "mx")
    unused = unmatched(policy.mx, report.mx) if report.mx else []
    for pattern in unused[:_NAMED]:
        yield note(f"the line mx: {pattern} matches none of the MX hosts", "mx")
    if len(unused) > _NAMED:
        more = counted(len(unused) - _NAMED, "more mx line matches", "more mx lines match")
        yield note(f"{more} none of the MX hosts", "mx")


def _certificates(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    when = "" if report.policy and report.policy.mode is Mode.ENFORCE else " once the mode is enforce"
    if not report.policy or not report.policy.mode or not report.policy.mode.checks_hosts:
        return
    for mx in report.mx:
        probe = next((one for one in mx.probes if one.certificate and not one.problem and one.tlsa is None), None)
        if mx.pattern and probe and probe.certificate:
            yield from _expiry(mx.host, probe.certificate, now, f"then senders deliver nothing to it{when}", "probe")


def _expiry(
    host: str, certificate: Certificate, now: datetime.datetime, consequence: str, check: str
) -> Iterator[Remark]:
    if certificate.not_after - now < _EXPIRES_SOON:
        yield warning(f"the certificate of {host} {certificate.expiry(now)}: {consequence}", check)


def _dane(report: Report) -> Iterator[Remark]:
    dane = report.dane
    if dane.state == "usable":
        text = f"senders that support DANE use the TLSA records of {short(list(dane.hosts))}, not the policy"
        yield note(text, "dane")
    elif dane.state == "failed" and report.resolver_works:
        text = f"the TLSA lookup failed: {dane.reason}; {DOMAINS_DNS}"
        yield error(f"{text}: senders that support DANE defer mail; {ASK}", "dane")


def _tlsrpt(report: Report) -> Iterator[Remark]:
    found = report.tlsrpt
    if not found or (found.failed and not report.resolver_works):
        return
    if found.failed:
        text = f"the TXT lookup for {found.name} failed: {found.problem}; {DOMAINS_DNS}"
        yield warning(f"{text}: senders send no TLS reports; {ASK}", "tlsrpt")
    elif found.problem and found.rua:
        yield warning(f"the TXT record {found.name}: {found.problem}", "tlsrpt")
    elif found.problem:
        text = f"the TXT record {found.name} is not valid: {found.problem}; senders send no TLS reports"
        yield warning(text, "tlsrpt")
