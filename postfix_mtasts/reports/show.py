"""Shows reports, as text in 80 columns or as JSON. What a report says is escaped."""

import textwrap
from collections.abc import Iterator

from postfix_mtasts.query.output import JSON, WIDTH, Output, Status, printable, to_json
from postfix_mtasts.reports.report import DkimState, Failure, Policy, Reading, Report

_MARGIN = 11


def document(reading: Reading) -> JSON:
    """Return what is in a file as JSON. The manual lists the members."""
    report = reading.report
    if not report:
        return {"file": reading.file, "rejected": reading.rejected}
    return {
        "file": reading.file,
        "organization": report.organization,
        "report_id": report.report_id,
        "start": to_json(report.start),
        "end": to_json(report.end),
        "dkim": {"state": reading.dkim.state.value, "domain": reading.dkim.domain},
        "policies": to_json(report.policies),
        "problems": to_json(report.problems),
    }


def show(reading: Reading, output: Output) -> None:
    """Print what is in a file as text."""
    output.text(reading.file)
    if not reading.report:
        _print("rejected", reading.rejected, output, Status.ERROR)
        return
    dkim = reading.dkim
    _print("from", reading.report.organization or "unknown", output)
    if dkim.state is DkimState.VERIFIED:
        _print("dkim", f"verified, signed by {dkim.domain}", output, Status.OK)
    else:
        domain = f" (signed by {dkim.domain})" if dkim.domain else ""
        _print("dkim", f"not verified: {dkim.reason}{domain}", output, Status.WARNING)
    _print_report(reading.report, output)


def _print_report(report: Report, output: Output) -> None:
    _print("id", report.report_id or "none", output)
    _print("time", f"{report.start:%Y-%m-%d %H:%M:%S} to {report.end:%Y-%m-%d %H:%M:%S} UTC", output)
    for policy in report.policies:
        _print("policy", _policy(policy), output, Status.ERROR if policy.failed else Status.OK)
        for failure in policy.failures:
            for line in _failure(failure):
                _print("", line, output)
    for problem in report.problems:
        _print("problem", problem, output, Status.WARNING)


def _policy(policy: Policy) -> str:
    mode = f" in mode {policy.mode}" if policy.mode else ""
    kind = f"{policy.type or 'policy of unknown type'}{mode}"
    return f"{policy.domain or 'unknown domain'}, {kind}: {policy.successful} succeeded, {policy.failed} failed"


def _failure(failure: Failure) -> Iterator[str]:
    receiver = " ".join(filter(None, (failure.mx, failure.receiving_ip and f"[{failure.receiving_ip}]")))
    yield "".join(
        (
            f"{failure.sessions} {failure.result or 'unknown'}",
            f" at {receiver}" if receiver else "",
            f" from {failure.sending_ip}" if failure.sending_ip else "",
        )
    )
    if failure.code:
        yield f"  code: {failure.code}"
    if failure.information:
        yield f"  see: {failure.information}"


def _print(name: str, text: str, output: Output, status: Status | None = None) -> None:
    """Print a line with its name before it, in as many lines as it takes."""
    indent = " " * _MARGIN + " " * (len(text) - len(text.lstrip()))
    first = f"  {name:{_MARGIN - 2}}{indent[_MARGIN:]}"
    for line in textwrap.wrap(printable(text), WIDTH, initial_indent=first, subsequent_indent=f"{indent}  "):
        output.text(line, status)
