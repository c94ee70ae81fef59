"""The week in one mail: what the views say, in narrow lines. Pure functions."""

from collections.abc import Iterator

from postfix_mtasts.counting import counted
from postfix_mtasts.reports.meaning import Severity
from postfix_mtasts.reports.plain import fill, listed, plain
from postfix_mtasts.reports.viewing import Limits
from postfix_mtasts.reports.views import LeftOut, Result, ResultsView, Source, SourcesView
from postfix_mtasts.reports.wording import share

DAYS = 7  # That `summary` looks at.
LIMITS = Limits(rows=10, failures=0, reports=1, policies=0, mx=3)
_NOT_SAID = "failures without a type"


def subject(results: ResultsView) -> str:
    """The verdict."""
    return f"TLS reports: {_verdict(results)}"


def body(sources: SourcesView, results: ResultsView) -> list[str]:
    """The lines of the mail."""
    verdict = _verdict(results)
    lines = fill(f"{verdict[0].upper()}{verdict[1:]}.")
    span = results.window
    lines += ["", *fill(f"Reports about {span.first} to {span.last} (UTC).")]
    if not sources.sources:
        lines += fill(
            "If mail comes in every day, reports should come too. What may be wrong: postfix-mtasts-reports doctor"
        )
    else:
        total = results.successes.sessions + results.failed
        lines += fill(
            f"{counted(total, 'session')}, {results.failed:,} failed ({share(results.failed, total)}),"
            f" told by {counted(len(sources.sources) + sources.more, 'source')}."
        )
    for result in results.results:
        lines += ["", *_result(result)]
    if results.more:
        lines += ["", f"And {counted(results.more, 'more result type')}."]
    if sources.sources:
        lines += ["", "Sources", *(line for source in sources.sources for line in _source(source))]
    if sources.more:
        lines += [f"  and {sources.more:,} more"]
    left_out = list(_left_out(results.left_out))
    return [*lines, *(["", *left_out] if left_out else [])]


def _verdict(results: ResultsView) -> str:
    total = results.successes.sessions + results.failed
    if not total and not results.results:
        return "no reports this week"
    troubles = [result for result in results.results if result.meaning.severity is not Severity.NOTE]
    if not results.failed and not troubles:
        return f"all is well, {counted(total, 'session')}"
    failed = f"failed: {results.failed:,} of {counted(total, 'session')}"
    if not troubles:
        return failed
    first = plain(troubles[0].result or _NOT_SAID)
    more = len(troubles) - 1 + results.more
    return f"{failed}, {first}{f' and {more:,} more' if more else ''}"


def _result(result: Result) -> Iterator[str]:
    yield from fill(f"{plain(result.result or _NOT_SAID)}: {counted(result.sessions, 'session')}")
    if result.mx:
        yield from fill(f"at {listed(result.mx, len(result.mx), result.more_mx)}", "  ")
    days = f"on {result.since}" if result.since == result.last else f"from {result.since} to {result.last}"
    yield from fill(f"told by {counted(result.sources, 'source')}, {days}", "  ")
    yield from fill(result.meaning.text, "  ")
    if result.command:
        yield "  Check it:"
        yield f"  {result.command}"


def _source(source: Source) -> Iterator[str]:
    yield from fill(plain(source.sender.domain or "unknown sender"), "  ")
    sessions = f"{counted(source.sessions, 'session')}, {source.failed:,} failed"
    yield from fill(f"{sessions}, last {source.last_report:%Y-%m-%d}", "    ")


def _left_out(left_out: LeftOut) -> Iterator[str]:
    if left_out.unverified:
        yield from fill(f"Not counted: {counted(left_out.unverified, 'report')} whose sender is not verified.")
    if left_out.quarantined:
        yield from fill(f"In quarantine: {left_out.quarantined:,}. To see them:")
        yield "postfix-mtasts-reports quarantine list"
