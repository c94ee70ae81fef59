"""What a report means, for who never read the RFC: what is wrong, what follows from it, and what to do."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.log.events import span
from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.query.domain.report import PolicyHostReport, Report
from postfix_mtasts.query.output import Status, worst
from postfix_mtasts.sts.observation import Stage

_DAY = 86400  # Seconds.
_WEEK = 7 * _DAY  # RFC 8461, 3.2: max_age is "typically … in the range of weeks or greater".
_EXPIRES_SOON = datetime.timedelta(days=14)  # Certificates are usually renewed a month before.


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the owner of the domain, or who sends mail to it, should know. OK: no more than that."""

    status: Status
    text: str


def remarks(report: Report, now: datetime.datetime, cached_file: str | None = None) -> tuple[Remark, ...]:
    """What is to be said of a report at the time `now`.

    `cached_file` is the policy file that was fetched before for the same record id.
    """
    return (
        *_record(report),
        *_policy_host(report, now),
        *_policy(report),
        *_unchanged_id(report, cached_file),
        *_mx(report, now),
        *_dane(report),
    )


def verdict(report: Report, said: tuple[Remark, ...]) -> Status:
    """The worst that was said; of a domain without a record there is nothing to judge."""
    if not report.record.id and not report.record.problem:
        return Status.NOTHING
    return worst(remark.status for remark in said)


def _note(text: str) -> Remark:
    return Remark(Status.OK, text)


def _warning(text: str) -> Remark:
    return Remark(Status.WARNING, text)


def _error(text: str) -> Remark:
    return Remark(Status.ERROR, text)


def _record(report: Report) -> Iterator[Remark]:
    name, problem = report.record.names[0], report.record.problem
    if report.record.failed:
        yield _error(
            f"DNS fails, so whether {report.domain} has a policy is unknown, and senders do without: {problem}"
        )
    elif problem:
        yield _error(f"the TXT record {name} is not valid, so for senders there is no policy: {problem}")
    elif not report.record.id:
        yield _note(f"{report.domain} has no policy: no TXT record {name} begins with v=STSv1;")


def _policy_host(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    host = report.policy_host
    if host and host.problem:
        yield _error(f"the policy cannot be had; senders that have none cached deliver without one: {_cause(host)}")
    elif host and host.certificate:
        yield from _expiry(host.name, host.certificate, now, "then nobody can have the policy")


def _cause(host: PolicyHostReport) -> str:
    """Why there is no file, and what to do."""
    match host.stage:
        case Stage.ADDRESS:
            return f"{host.problem}: {host.name} needs an address in the public Internet"
        case Stage.CONNECT:
            return f"{host.problem}: a web server must answer there on port 443"
        case Stage.TLS:
            return f"TLS fails: {host.problem}: the web server must speak TLS 1.2 or later for the name {host.name}"
        case Stage.CERTIFICATE:
            return f"{host.problem}: the web server needs a certificate for {host.name}, valid today, of a public CA"
        case _:
            url = f"https://{host.name}/.well-known/mta-sts.txt"
            return f"{host.problem}: {url} must come with status 200, as text/plain and without a redirect"


def _policy(report: Report) -> Iterator[Remark]:
    policy = report.policy
    if not policy:
        return
    if policy.problem:
        yield _error(f"the policy file is not valid, so for senders there is no policy: {policy.problem}")
    for line in policy.lines:
        if line.problem and f"line {line.number}: {line.problem}" != policy.problem:
            yield _warning(f"line {line.number} of the policy file: {line.problem}")
    if policy.mode == "testing":
        yield _note("the mode is testing: senders deliver whatever they find, and report it; enforce protects mail")
    elif policy.mode == "none":
        yield _note("the mode is none: senders do without a policy")
    if policy.mode in ("enforce", "testing") and policy.max_age is not None and policy.max_age < _WEEK:
        words = (
            f"max_age is {span(policy.max_age)}: who blocks the policy for so long has switched it off; weeks are usual"
        )
        yield _warning(words) if policy.max_age < _DAY else _note(words)


def _unchanged_id(report: Report, cached_file: str | None) -> Iterator[Remark]:
    policy = report.policy
    if policy and cached_file is not None and policy.file != cached_file:
        yield _warning(
            "the policy file has changed, but not the id in the TXT record: senders that have the old file do not look"
            " for the new one at once; give the record another id"
        )


def _mx(report: Report, now: datetime.datetime) -> Iterator[Remark]:
    if report.mx_problem:
        yield _error(f"the MX hosts of {report.domain} cannot be looked up: {report.mx_problem}")
    policy = report.policy
    if not policy or policy.problem or policy.mode == "none":
        return
    enforced = policy.mode == "enforce"
    judge, when = (_error, "") if enforced else (_warning, " once the mode is enforce")
    outside = [mx.host for mx in report.mx if not mx.pattern]
    if outside and len(outside) == len(report.mx):
        yield judge(f"no mx line allows any MX host ({', '.join(outside)}): senders deliver no mail at all{when}")
    else:
        yield from (
            judge(f"no mx line allows the MX host {host}: senders deliver nothing to it{when}") for host in outside
        )
    used = {mx.pattern for mx in report.mx}
    for pattern in policy.mx:
        if report.mx and pattern not in used:
            yield _note(f"mx: {pattern} allows none of the MX hosts")
    for mx in report.mx:
        if mx.pattern and mx.probe and mx.probe.problem:
            yield judge(f"the MX host {mx.host}: {mx.probe.problem}: senders deliver nothing to it{when}")
        elif mx.pattern and mx.probe and mx.probe.certificate:
            yield from _expiry(mx.host, mx.probe.certificate, now, f"then senders deliver nothing to it{when}")


def _expiry(host: str, certificate: Certificate, now: datetime.datetime, what: str) -> Iterator[Remark]:
    left = certificate.not_after - now
    if left < _EXPIRES_SOON:
        end = f"ends in {left.days} days, on {certificate.not_after:%Y-%m-%d}"
        yield _warning(f"the certificate of {host} {end}: {what}")


def _dane(report: Report) -> Iterator[Remark]:
    dane = report.dane
    if dane.state == "usable":
        yield _note(f"senders that do DANE go by the TLSA records of {', '.join(dane.hosts)}, not by the policy")
    elif dane.state == "failed":
        yield _error(f"TLSA records cannot be looked up, so senders that do DANE hold mail back: {dane.reason}")
