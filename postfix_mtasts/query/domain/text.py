"""Prints a report as text: the verdict, what the daemon answers now, a block for each stage, remarks, the replies.

Lines have at most 80 columns. Of long lists, the first ten are printed and the rest is counted, unless `all` is wanted.
"""

import datetime
import textwrap
from collections.abc import Iterator, Sequence

from postfix_mtasts.counting import counted
from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.delivery.mx import MxReport
from postfix_mtasts.query.domain.remark import Remark
from postfix_mtasts.query.domain.remedy import STAGES
from postfix_mtasts.query.domain.report import (
    PolicyHostReport,
    PolicyReport,
    RecordReport,
    Report,
    RunningReport,
    TlsrptReport,
)
from postfix_mtasts.query.output import SEVERITIES, WIDTH, Output, Status, printable

_Line = tuple[str, Status | None]
_NO_BREAK = "\u00a0"  # A number stays with its unit.
_MARGIN = 10
_MOST = 10  # Items of a list.
_MOST_LETTERS = 600  # Of one text.


class Text:
    """Prints reports on `output`. With `everything`, nothing is left out."""

    def __init__(self, output: Output, *, everything: bool) -> None:
        self._output = output
        self._everything = everything

    def show(
        self,
        report: Report,
        verdict: Remark,
        differs: Sequence[Remark],
        remarks: Sequence[Remark],
        now: datetime.datetime,
    ) -> None:
        """Print a report."""
        self._print("", verdict.text, verdict.status)
        self._print("", report.next_hop)
        blocks = {
            "now": self._running(report.running),
            "record": self._record(report.record),
            "host": self._policy_host(report.policy_host, now) if report.policy_host else (),
            "policy": self._policy(report.policy) if report.policy else (),
            "mx": self._mx_hosts(report, now),
            "dane": ((self._dane(report), None),),
            "tlsrpt": self._tlsrpt(report.tlsrpt) if report.tlsrpt else (),
        }
        for name, lines in blocks.items():
            for number, (line, status) in enumerate(lines):
                self._print(f"  {'' if number else name:{_MARGIN - 2}}", line, status)
        self._remarks("differences", differs)
        self._remarks("", remarks)
        self._replies(report)

    def publish(self, record: str, *, is_wrong: bool) -> None:
        """Print the record to publish, on one line, so that it can be copied. `is_wrong` if there is an error."""
        self._output.text()
        self._output.text("publish only after correcting the error" if is_wrong else "publish")
        self._output.text(f"  {record}")

    def _print(self, margin: str, line: str, status: Status | None = None) -> None:
        line = printable(line)
        if len(line) > _MOST_LETTERS and not self._everything:
            line = f"{line[:_MOST_LETTERS]}… ({counted(len(line) - _MOST_LETTERS, 'more character')}; --all shows them)"
        own = line[: len(line) - len(line.lstrip(" "))]
        hanging = " " * len(margin) + own + "  "
        parts = textwrap.wrap(
            line.lstrip(" ").replace(" s)", f"{_NO_BREAK}s)"),
            WIDTH,
            initial_indent=margin + own,
            subsequent_indent=hanging,
            break_on_hyphens=False,
        )
        for part in parts or [margin]:
            self._output.text(part.replace(_NO_BREAK, " "), status)

    def _remarks(self, heading: str, remarks: Sequence[Remark]) -> None:
        if remarks:
            self._output.text()
        if remarks and heading:
            self._output.text(heading)
        for remark in remarks:
            self._print("", f"{SEVERITIES[remark.status]}: {remark.text}", remark.status)

    def _replies(self, report: Report) -> None:
        self._output.text()
        self._output.text("Postfix gets")
        running = report.running
        if running.exception:
            self._print(f"  {'now':{_MARGIN - 2}}", f"{running.exception.value} ({running.exception.table})")
        label = "daemon" if running.exception else "now"
        if running.silent:
            self._print(f"  {label:{_MARGIN - 2}}", "no answer")
            label = "then"
        self._print(f"  {label:{_MARGIN - 2}}", running.reply)
        if running.exempt:
            self._print(f"  {'without':{_MARGIN - 2}}", running.exempt.without)
        if running.next:
            self._print(f"  {'then':{_MARGIN - 2}}", running.next)
        fresh = report.answer.tlsrpt if running.style == "tlsrpt" else report.answer.plain
        if fresh not in (running.reply, running.next, running.exempt and running.exempt.without):
            self._print(f"  {'fresh':{_MARGIN - 2}}", fresh)
        if self._everything:
            self._print(f"  {'plain':{_MARGIN - 2}}", report.answer.plain)
            self._print(f"  {'tlsrpt':{_MARGIN - 2}}", report.answer.tlsrpt)

    def _running(self, running: RunningReport) -> Iterator[_Line]:
        if running.exception:
            yield f"an exception comes first: {running.exception.table} has {running.exception.value!a}", Status.WARNING
        if running.silent:
            yield (
                f"{running.silent}: Postfix defers all mail for which it asks there, until the daemon runs",
                Status.ERROR,
            )
        if not running.daemon:
            unknown = "its cache is unknown; what follows holds if nothing is cached"
            yield f"the daemon was not asked ({running.why}): {unknown}", None
        for line in running.because:
            yield line, None

    def _some(self, items: Sequence[str]) -> str:
        if len(items) <= _MOST or self._everything:
            return ", ".join(items)
        return f"{', '.join(items[:_MOST])} and {len(items) - _MOST} more"

    def _record(self, record: RecordReport) -> Iterator[_Line]:
        yield f"{' -> '.join(record.names)}{_took(record.seconds)}", None
        problems = {slip.text: slip.problem for slip in record.slips}
        ours = [text for text in record.texts if text in problems or text.startswith("v=STSv1")]
        others = [text for text in record.texts if text not in ours]
        shown = others if self._everything else others[:_MOST]
        for text in (text for text in record.texts if text in (*ours, *shown)):
            is_wrong = record.problem or text in problems
            yield f'"{text}"', Status.ERROR if is_wrong else None
            if text in problems:
                yield f"broken: {problems[text]}", Status.ERROR
        if len(shown) < len(others):
            yield f"… and {counted(len(others) - len(shown), 'more TXT record')} (--all shows them)", None
        if record.problem:
            yield record.problem, Status.ERROR
        elif record.id:
            yield f"id {record.id}{', signed with DNSSEC' if record.secure else ''}", Status.OK
        elif not record.exists and len(record.names) > 1:
            yield f"broken: {record.names[-1]} does not exist (NXDOMAIN)", Status.ERROR
        elif not record.texts:
            yield f"no TXT record{'' if record.exists else ': the name does not exist (NXDOMAIN)'}", None

    def _policy_host(self, host: PolicyHostReport, now: datetime.datetime) -> Iterator[_Line]:
        gone = "" if host.missing == host.name else f"{host.missing} "
        nothing = f"{gone}does not exist (NXDOMAIN)" if host.missing else "no address"
        where = f"through the proxy {host.proxy}" if host.proxy else self._some(host.addresses) or nothing
        yield f"{host.name}: {where}{_took(sum(host.seconds.values()))}", None
        for one in host.tried:
            if one.untried:
                yield f"{one.address} cannot be tried from this machine", Status.WARNING
            elif one.problem:
                yield f"{one.address}: {one.problem}{_took(one.seconds)}", Status.ERROR
            else:
                yield f"{one.address} serves the policy{_took(one.seconds)}", Status.OK
        if host.tls:
            yield f"{host.tls} with {host.address or host.name}", None
        if host.certificate:
            yield self._certificate(host.certificate, now), None
        if host.status:
            headers = "".join(f", {name}: {value}" for name, value in host.headers.items())
            yield f"status {host.status}{headers}", None
        if host.problem and host.stage:
            # A certificate is verified in the TLS handshake.
            took = host.seconds.get("tls" if host.stage == "certificate" else host.stage)
            yield f"{STAGES[host.stage]}: {host.problem}{_took(took) if took is not None else ''}", Status.ERROR

    def _policy(self, policy: PolicyReport) -> Iterator[_Line]:
        width = len(str(len(policy.lines)))
        hidden = shown = 0
        for line in policy.lines:
            is_mx = line.text.startswith("mx") or shown > 2 * _MOST
            if is_mx and not line.problem and shown >= _MOST and not self._everything:
                hidden += 1
                continue
            shown += 1
            status = Status.ERROR if policy.problem else Status.WARNING
            problem = f"   <- {line.problem}" if line.problem else ""
            yield f"{line.number:{width}} {line.text}{problem}", status if line.problem else None
        if hidden:
            yield f"… and {counted(hidden, 'more line')} (--all shows them)", None
        if policy.problem and not any(line.problem for line in policy.lines):
            yield policy.problem, Status.ERROR

    def _mx_hosts(self, report: Report, now: datetime.datetime) -> Iterator[_Line]:
        if report.mx_problem:
            yield report.mx_problem, Status.ERROR
        elif not report.exists:
            yield f"{report.domain} does not exist (NXDOMAIN)", Status.ERROR
        elif report.null_mx:
            yield "null MX: the domain accepts no mail (RFC 7505)", None
        checked = report.policy and report.policy.mode and report.policy.mode.checks_hosts
        hidden = 0
        for number, mx in enumerate(report.mx):
            if number >= _MOST and not self._everything and not _is_bad(mx):
                hidden += 1
                continue
            yield from self._mx(mx, bool(checked), report.running)
            yield from self._probes(mx, now)
        if hidden:
            yield f"… and {counted(hidden, 'more MX host')} (--all shows them)", None

    def _mx(self, mx: MxReport, checked: bool, running: RunningReport) -> Iterator[_Line]:
        if not checked:
            yield mx.host, None
        elif mx.pattern:
            yield f"{mx.host} is allowed by mx: {mx.pattern}", Status.OK
        else:
            yield f"{mx.host} is not allowed by any mx line", Status.ERROR
        in_force = running.policy and running.policy.checks_hosts and not running.waits
        if in_force and bool(mx.pattern) != bool(mx.pattern_in_force):
            allowed = f"allowed by mx: {mx.pattern_in_force}" if mx.pattern_in_force else "not allowed"
            yield f"  by the cached policy, which is in force: {allowed}", Status.WARNING

    def _probes(self, mx: MxReport, now: datetime.datetime) -> Iterator[_Line]:
        for probe in mx.probes:
            how = probe.tls or ("unverified TLS" if probe.certificate else "no TLS")
            if probe.address:
                yield f"  {how} with {probe.address}{_took(probe.seconds)}", None
            if probe.certificate:
                yield f"  {self._certificate(probe.certificate, now)}", None
            if probe.tlsa:
                yield "  a TLSA record matches the certificate", Status.OK
            if probe.problem:
                yield f"  {probe.problem}", Status.ERROR
            if probe.unclear:
                yield f"  could not be judged from here: {probe.unclear}", Status.WARNING

    def _dane(self, report: Report) -> str:
        match report.dane.state:
            case "usable":
                return f"TLSA records of {self._some(report.dane.hosts)}"
            case "failed":
                return f"unknown: the TLSA lookup failed: {report.dane.reason}"
            case _ if report.mx_problem:
                return "unknown: the MX lookup failed"
            case _:
                return f"no: {report.dane.reason}"

    def _tlsrpt(self, found: TlsrptReport) -> Iterator[_Line]:
        if found.problem:
            for text in found.texts:
                yield f'"{text}"', None
            yield found.problem, Status.WARNING
        elif found.rua:
            yield f"TLS reports go to {self._some(found.rua)}", Status.OK
        else:
            yield f"no TXT record {found.name}: no TLS reports are wanted", None

    def _certificate(self, certificate: Certificate, now: datetime.datetime) -> str:
        names = f"for {self._some(certificate.names)}" if certificate.names else "has no DNS name (SAN)"
        begin = f"; not valid before {certificate.not_before:%Y-%m-%d}" if certificate.not_before > now else ""
        return f"certificate {names}; issued by {certificate.issuer}; {certificate.expiry(now)}{begin}"


def _is_bad(mx: MxReport) -> bool:
    """Whether a probe of an MX host has found anything wrong."""
    return any(probe.problem or probe.unclear for probe in mx.probes)


def _took(seconds: float) -> str:
    return f" ({seconds:.3f} s)"
