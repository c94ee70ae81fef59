"""Prints the two views as text in 80 columns. What a report says is escaped."""

import textwrap
from collections.abc import Sequence

from postfix_mtasts.counting import counted
from postfix_mtasts.query.output import WIDTH, Output, Status, printable
from postfix_mtasts.reports.views import (
    Day,
    FailureGroup,
    LeftOut,
    ReportLine,
    ResultsView,
    Sender,
    Source,
    SourcesView,
    Window,
)

_TREND = 14  # Characters of a trend. Each stands for the same number of days.
_FEW = 3  # Failures, policies and reports of a row that are printed without --all.
_NOT_SAID = "not said"


def print_sources(view: SourcesView, output: Output, *, everything: bool) -> None:
    """Print the view by source."""
    _print_window(view.window, view.domain, output)
    if not view.sources:
        output.text("No other source." if view.hidden else "No reports.")
    else:
        days = -(-len(view.window.days()) // _TREND)
        span = "a day each" if days == 1 else f"{days} days each"
        output.text(f"{'source':26} {'sessions':>9} {'failed':>9} {'share':>6} {'last':10}  trend")
        for source in view.sources:
            output.text()
            _print_source(source, days, output, everything=everything)
        output.text()
        wrap(f"trend, {span}: _ no sessions, . none failed, 1 to 9 the tenths that failed, rounded up", output)
    if view.hidden:
        wrap(f"Hidden until they change, but with --all: {', '.join(view.hidden)}", output, hanging="  ")
    _print_more(view.more, "sources", output)
    _print_left_out(view.left_out, output)


def print_results(view: ResultsView, output: Output, *, everything: bool) -> None:
    """Print the view by result."""
    _print_window(view.window, view.domain, output)
    output.text(f"{'result':34} {'sessions':>9} {'sources':>8} {'MX hosts':>9}  since")
    successes = view.successes
    since = f"{successes.since}" if successes.since else "-"
    output.text(f"{'successful':34} {_number(successes.sessions):>9} {successes.sources:>8} {'':9}  {since}", Status.OK)
    for result in view.results:
        output.text()
        status = Status(int(result.meaning.severity))
        name = _first(result.result or _NOT_SAID, 34, output, status)
        hosts = len(result.mx) + result.more_mx
        numbers = f"{_number(result.sessions):>9} {result.sources:>8} {hosts:>9}"
        output.text(f"{name} {numbers}  {result.since}", status)
        wrap(result.meaning.text, output, "  ")
        if result.command:
            wrap(f"check it: {result.command}", output, "  ")
        _print_failures(result.failures, result.more_failures, output, everything=everything, result=False)
    if view.failed:
        output.text()
        failed = f"{counted(view.failed, 'session')} failed."
        wrap(f"{failed} A session may have several results, so these have another sum.", output)
    _print_more(view.more, "result types", output)
    _print_left_out(view.left_out, output)


def _print_window(window: Window, domain: str | None, output: Output) -> None:
    about = f" about {domain}" if domain else ""
    wrap(
        f"Reports{about} of {window.first} to {window.last} (UTC). A report on a day comes after its end, so today is"
        " left out.",
        output,
    )
    output.text()


def _print_source(source: Source, days: int, output: Output, *, everything: bool) -> None:
    status = Status(int(source.severity))
    share = f"{source.share:.1%}" if source.sessions else "-"
    name = _first(_sender(source.sender), 26, output, status)
    numbers = f"{_number(source.sessions):>9} {_number(source.failed):>9} {share:>6}"
    output.text(f"{name} {numbers} {source.last_report:%Y-%m-%d}  {_trend(source.days, days)}", status)
    worst = f"; worst result: {source.worst or _NOT_SAID}" if source.failures else ""
    wrap(f"{source.organization or 'no organization name'}{worst}", output, "  ", hanging="  ")
    few = None if everything else _FEW
    for policy in source.policies[:few]:
        kind = " ".join(filter(None, (policy.type or "policy of unknown type", policy.mode)))
        counts = f"{policy.successful} succeeded, {policy.failed} failed"
        wrap(f"{policy.domain or 'unknown domain'}, {kind}: {counts}", output, "  ", hanging="  ")
    _print_rest(len(source.policies[_FEW:]) if few else 0, "policies", output)
    _print_failures(source.failures, source.more_failures, output, everything=everything, result=True)
    reports = list({line.key: line for line in source.reports}.values())
    for line in reports[: None if everything else 1]:
        wrap(f"report {line.key}, {_period(line)}: {line.report_id or 'no id'}", output, "  ", hanging="  ")
    _print_rest(len(reports[1:]) * (not everything) + source.more_reports, "reports", output)


def _print_failures(
    failures: Sequence[FailureGroup], more: int, output: Output, *, everything: bool, result: bool
) -> None:
    """Print failures with their result, or with the source that reported them."""
    shown = failures if everything else failures[:_FEW]
    for group in shown:
        what = group.result or _NOT_SAID if result else f"told by {_sender(group.sender)}"
        receiver = " ".join(filter(None, (group.mx, group.receiving_ip and f"[{group.receiving_ip}]")))
        words = (
            f"{group.sessions} {what}",
            f" for {group.domain}" if group.domain else "",
            f" at {receiver}" if receiver else "",
            f" from {group.sending_ip}" if group.sending_ip else "",
            f", {group.since}" + (f" to {group.last}" if group.last != group.since else ""),
            f", code {group.code}" if group.code else "",
            f", see {group.information}" if group.information and everything else "",
        )
        wrap("".join(words), output, "  ", hanging="  ")
    _print_rest(len(failures) - len(shown) + more, "kinds of failures", output)


def _trend(days: Sequence[Day], each: int) -> str:
    """A character for each so many days, counted from the last one."""
    first = len(days) % each
    spans = [days[:first], *(days[start : start + each] for start in range(first, len(days), each))]
    return "".join(_mark(span) for span in spans if span)


def _mark(days: Sequence[Day]) -> str:
    failed = sum(day.failed for day in days)
    sessions = failed + sum(day.successful for day in days)
    if not sessions:
        return "_"
    return str(min(9, 1 + 10 * failed // sessions)) if failed else "."


def _sender(sender: Sender) -> str:
    return (sender.domain or "unknown sender") + ("" if sender.verified else " (not verified)")


def _first(name: str, width: int, output: Output, status: Status) -> str:
    """The first column. A name that is too wide gets lines of its own before."""
    shown = printable(name)
    if len(shown) <= width:
        return f"{shown:{width}}"
    for line in textwrap.wrap(shown, WIDTH):
        output.text(line, status)
    return " " * width


def _number(number: int) -> str:
    """A number in at most nine characters."""
    return str(number) if number < 10**9 else f"{number:.1e}"


def _period(line: ReportLine) -> str:
    first, last = line.start.date(), line.end.date()
    return f"{first}" if first == last else f"{first} to {last}"


def _print_rest(count: int, what: str, output: Output) -> None:
    if count:
        output.text(f"  {what} not shown: {count}")


def _print_more(count: int, what: str, output: Output) -> None:
    if count:
        output.text(f"{what} not shown: {count}; with --all, a thousand are")


def _print_left_out(left_out: LeftOut, output: Output) -> None:
    if left_out.unverified:
        wrap(
            f"Reports of senders that are not verified, which do not count: {left_out.unverified}; --all counts them.",
            output,
        )
    if left_out.quarantined:
        wrap(f"Messages in quarantine: {left_out.quarantined}; see `postfix-mtasts-reports quarantine list`.", output)


def wrap(text: str, output: Output, indent: str = "", hanging: str = "") -> None:
    """Print a text in as many lines as it takes."""
    for line in textwrap.wrap(printable(text), WIDTH, initial_indent=indent, subsequent_indent=indent + hanging):
        output.text(line)
