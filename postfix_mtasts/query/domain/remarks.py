"""What a report means, for readers who do not know the RFC: what is wrong, what follows, and what to do."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.log.events import span
from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.query.domain.report import PolicyHostReport, Report
from postfix_mtasts.query.output import Status, worst
from postfix_mtasts.sts.observation import Stage
from postfix_mtasts.sts.policy import Mode, Protection

_EXPIRES_SOON = datetime.timedelta(days=14)  # Certificates are usually renewed a month before they expire.
_UNPROTECTED = "senders without a cached copy deliver unprotected"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the owner of the domain, or a sender, should know. With status OK it is only information."""

    status: Status
    text: str


def remarks(report: Report, now: datetime.datetime, cached_file: str | None = None) -> tuple[Remark, ...]:
    """The remarks on a report at the time `now`.

    `cached_file` is the policy file that the daemon fetched before for the same record id.
    """
    return (
        *_record(report),
        *_policy_host(report, now),
        *_policy(report),
        *_unchanged_id(report, cached_file),
        *_mx(report, now),
        *_dane(report),
    )


def verdict(report: Report, judged: tuple[Remark, ...]) -> Status:
    """The worst status of the remarks, or NOTHING for a domain without a record."""
    if not report.record.id and not report.record.problem:
        return Status.NOTHING
    return worst(remark.status for remark in judged)


def _note(text: str) -> Remark:
    return Remark(Status.OK, text)


def _warning(text: str) -> Remark:
    return Remark(Status.WARNING, text)


def _error(text: str) -> Remark:
    return Remark(Status.ERROR, text)


def _record(report: Report) -> Iterator[Remark]:
    name, problem = report.record.names[0], report.record.problem
    if report.record.failed:
        yield _error(f"the TXT lookup for {name} failed: {problem}; {_UNPROTECTED}")
    elif problem:
        # The problem may end in "v=STSv1;".
        yield _error(f"the TXT record {name} is not valid: {problem.removesuffix(';')}; {_UNPROTECTED}")
    elif not report.record.id:
        yield _note(f"{report.domain} has no policy: no TXT record {name} begins with v=STSv1;")


def _policy_host(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    host = report.policy_host
    if host and host.problem and host.stage:
        cause = f"{host.stage.value}: {host.problem}"
        yield _error(f"the policy could not be fetched: {cause}; {_UNPROTECTED}; {_remedy(host)}")
    elif host and host.certificate:
        yield from _expiry(host.name, host.certificate, now, "then the policy cannot be fetched")


def _remedy(host: PolicyHostReport) -> str:
    """What makes the policy host work."""
    match host.stage:
        case Stage.ADDRESS:
            return f"{host.name} needs a public IP address"
        case Stage.CONNECT:
            return "a web server must answer there on port 443"
        case Stage.TLS:
            return f"the web server must support TLS 1.2 or later for the name {host.name}"
        case Stage.CERTIFICATE:
            return f"the web server needs a certificate for {host.name} that is valid and issued by a public CA"
        case _:
            url = f"https://{host.name}/.well-known/mta-sts.txt"
            return f"{url} must be served with status 200, as text/plain and without a redirect"


def _policy(report: Report) -> Iterator[Remark]:
    policy = report.policy
    if not policy:
        return
    if policy.problem:
        yield _error(f"the policy file is not valid: {policy.problem}; {_UNPROTECTED}")
    for line in policy.lines:
        if line.problem and f"line {line.number}: {line.problem}" != policy.problem:
            yield _warning(f"line {line.number} of the policy file: {line.problem}")
    match policy.mode:
        case Mode.TESTING:
            yield _note("the mode is testing: senders report failures but deliver anyway; only enforce protects mail")
        case Mode.NONE:
            yield _note("the mode is none: senders deliver without a policy")
    if policy.mode and policy.mode.checks_hosts and policy.max_age is not None:
        yield from _max_age(policy.max_age)


def _max_age(seconds: int) -> Iterator[Remark]:
    brief = f"max_age is {span(seconds)}: an attacker who blocks the policy that long disables it; weeks are usual"
    match Protection.of(seconds):
        case Protection.NONE:
            yield _warning("max_age 0: never cached, no protection; weeks are usual")
        case Protection.HOURS:
            yield _warning(brief)
        case Protection.DAYS:
            yield _note(brief)


def _unchanged_id(report: Report, cached_file: str | None) -> Iterator[Remark]:
    policy = report.policy
    if policy and cached_file is not None and policy.file != cached_file:
        yield _warning(
            "the policy file has changed, but the id in the TXT record has not: senders that cached the old file do not"
            " fetch the new one at once; give the record a new id"
        )


def _mx(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    if report.mx_problem:
        yield _error(f"the MX lookup for {report.domain} failed: {report.mx_problem}")
    policy = report.policy
    if not policy or not policy.mode or not policy.mode.checks_hosts:
        return
    enforced = policy.mode is Mode.ENFORCE
    judge, when = (_error, "") if enforced else (_warning, " once the mode is enforce")
    undelivered = f"senders deliver nothing to it{when}"
    outside = [mx.host for mx in report.mx if not mx.pattern]
    if outside and len(outside) == len(report.mx):
        hosts = ", ".join(outside)
        yield judge(
            f"no mx line allows any MX host ({hosts}): senders deliver no mail at all{when}; add mx lines for them"
        )
    else:
        yield from (
            judge(f"no mx line allows the MX host {host}: {undelivered}; add an mx line for it") for host in outside
        )
    used = {mx.pattern for mx in report.mx}
    for pattern in policy.mx:
        if report.mx and pattern not in used:
            yield _note(f"the line mx: {pattern} allows none of the MX hosts")
    for mx in report.mx:
        if mx.pattern and mx.probe and mx.probe.problem:
            yield judge(f"the MX host {mx.host}: {mx.probe.problem}; {undelivered}")
        elif mx.pattern and mx.probe and mx.probe.certificate:
            yield from _expiry(mx.host, mx.probe.certificate, now, f"then {undelivered}")


def _expiry(host: str, certificate: Certificate, now: datetime.datetime, consequence: str) -> Iterator[Remark]:
    if certificate.not_after - now < _EXPIRES_SOON:
        yield _warning(f"the certificate of {host} {certificate.expiry(now)}: {consequence}")


def _dane(report: Report) -> Iterator[Remark]:
    dane = report.dane
    if dane.state == "usable":
        yield _note(f"senders that support DANE use the TLSA records of {', '.join(dane.hosts)}, not the policy")
    elif dane.state == "failed":
        yield _error(f"the TLSA lookup failed: {dane.reason}; senders that support DANE defer mail")
