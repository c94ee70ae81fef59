"""Prints a report as text: a block for each stage with its problems, then the remarks, then the reply to Postfix."""

import datetime
from collections.abc import Iterator, Sequence

from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.query.domain.remarks import Remark
from postfix_mtasts.query.domain.report import MxReport, PolicyHostReport, PolicyReport, RecordReport, Report
from postfix_mtasts.query.output import SEVERITIES, Output, Status

_Line = tuple[str, Status | None]
_MARGIN = 10


def show(
    report: Report, remarks: tuple[Remark, ...], now: datetime.datetime, cached: Sequence[str], output: Output
) -> None:
    """Print a report, the remarks on it, and the lines on what the daemon has `cached`."""
    output.text(report.next_hop)
    blocks = {
        "record": _record(report.record),
        "host": _policy_host(report.policy_host, now) if report.policy_host else (),
        "policy": _policy(report.policy) if report.policy else (),
        "mx": _mx_hosts(report, now),
        "dane": ((_dane(report), None),),
        "daemon": ((line, None) for line in cached),
    }
    for name, lines in blocks.items():
        for number, (line, status) in enumerate(lines):
            output.text(f"  {'' if number else name:{_MARGIN - 2}}{line}", status)
    output.text()
    for remark in remarks:
        output.text(f"{SEVERITIES[remark.status]}: {remark.text}", remark.status)
    if remarks:
        output.text()
    answer = report.answer
    output.text("Postfix gets")
    output.text(f"  {'plain':{_MARGIN - 2}}{answer.plain}")
    output.text(f"  {'tlsrpt':{_MARGIN - 2}}{answer.tlsrpt}")


def _record(record: RecordReport) -> Iterator[_Line]:
    yield f"{' -> '.join(record.names)}{_took(record.seconds)}", None
    for text in record.texts:
        yield f'"{text}"', Status.ERROR if record.problem else None
    if record.problem:
        yield record.problem, Status.ERROR
    elif not record.texts:
        yield "no TXT record", None
    elif record.id:
        yield f"id {record.id}{', signed with DNSSEC' if record.secure else ''}", Status.OK


def _policy_host(host: PolicyHostReport, now: datetime.datetime) -> Iterator[_Line]:
    yield f"{host.name}: {', '.join(host.addresses) or 'no address'}{_took(sum(host.seconds.values()))}", None
    if host.tls:
        yield f"{host.tls} with {host.address}", None
    if host.certificate:
        yield _certificate(host.certificate, now), None
    if host.status:
        headers = "".join(f", {name}: {value}" for name, value in host.headers.items())
        yield f"status {host.status}{headers}", None
    if host.problem and host.stage:
        yield f"{host.stage.value}: {host.problem}", Status.ERROR


def _policy(policy: PolicyReport) -> Iterator[_Line]:
    width = len(str(len(policy.lines)))
    for line in policy.lines:
        status = Status.ERROR if policy.problem else Status.WARNING
        problem = f"   <- {line.problem}" if line.problem else ""
        yield f"{line.number:{width}} {line.text}{problem}", status if line.problem else None
    if policy.problem and not any(line.problem for line in policy.lines):
        yield policy.problem, Status.ERROR


def _mx_hosts(report: Report, now: datetime.datetime) -> Iterator[_Line]:
    if report.mx_problem:
        yield report.mx_problem, Status.ERROR
    elif not report.mx:
        yield "no MX host", None
    checked = report.policy and report.policy.mode and report.policy.mode.checks_hosts
    for mx in report.mx:
        if not checked:
            yield mx.host, None
        elif mx.pattern:
            yield f"{mx.host} is allowed by mx: {mx.pattern}", Status.OK
        else:
            yield f"{mx.host} is not allowed by any mx line", Status.ERROR
        yield from _probe(mx, now)


def _probe(mx: MxReport, now: datetime.datetime) -> Iterator[_Line]:
    if not mx.probe:
        return
    if mx.probe.tls:
        yield f"  {mx.probe.tls} with {mx.probe.address}{_took(mx.probe.seconds)}", None
    if mx.probe.certificate:
        yield f"  {_certificate(mx.probe.certificate, now)}", None
    if mx.probe.problem:
        yield f"  {mx.probe.problem}", Status.ERROR


def _dane(report: Report) -> str:
    match report.dane.state:
        case "usable":
            return f"TLSA records of {', '.join(report.dane.hosts)}"
        case "failed":
            return f"unknown: the TLSA lookup failed: {report.dane.reason}"
        case _ if report.mx_problem:
            return "unknown: the MX lookup failed"
        case _:
            return f"no: {report.dane.reason}"


def _certificate(certificate: Certificate, now: datetime.datetime) -> str:
    names = f"for {', '.join(certificate.names)}" if certificate.names else "has no DNS name (SAN)"
    begin = f"; not valid before {certificate.not_before:%Y-%m-%d}" if certificate.not_before > now else ""
    return f"certificate {names}; issued by {certificate.issuer}; {certificate.expiry(now)}{begin}"


def _took(seconds: float) -> str:
    return f" ({seconds:.3f} s)"
