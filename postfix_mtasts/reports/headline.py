"""One sentence that says how things are: what somebody reads who reads nothing else. Pure functions."""

from dataclasses import dataclass

from postfix_mtasts.counting import counted
from postfix_mtasts.reports.meaning import Severity
from postfix_mtasts.reports.report import Report
from postfix_mtasts.reports.views import ResultsView, Sender
from postfix_mtasts.reports.wording import SIGNS, TONES, number, share, shown

GOOD = "good"


@dataclass(frozen=True, slots=True)
class Headline:
    """`tone` chooses a colour. `sign` and the sentences say the same without it."""

    tone: str
    sign: str
    first: str
    then: str = ""


def of_view(view: ResultsView) -> Headline:
    """What the reports of a window say."""
    sessions = view.successes.sessions + view.failed
    if not sessions:
        return Headline(
            TONES[Severity.WARNING],
            SIGNS[Severity.WARNING],
            "No report counts in this window.",
            "If mail comes in every day, check that the TXT record at _smtp._tls names an address that arrives here.",
        )
    if not view.failed and not view.results:
        return Headline(GOOD, "✓", f"All is well: {counted(sessions, 'session')} succeeded.")
    first = f"{number(view.failed)} of {counted(sessions, 'session')} failed ({share(view.failed, sessions)})."
    if not view.results:
        return Headline(TONES[Severity.WARNING], SIGNS[Severity.WARNING], first, "The sources did not say why.")
    worst = view.results[0]
    severity = worst.meaning.severity
    then = f"The most serious: {shown(worst.result or 'failures without a type')}"
    if worst.mx and worst.mx[0]:
        more = len(worst.mx) - 1 + worst.more_mx
        then += f" at {shown(worst.mx[0])}" + (f" and {number(more)} more" if more else "")
    return Headline(TONES[severity], SIGNS[severity], first, f"{then}, last on {worst.last}.")


def of_report(report: Report, sender: Sender) -> Headline:
    """What one report says."""
    successful = sum(policy.successful for policy in report.policies)
    failed = sum(policy.failed for policy in report.policies)
    of_all = f"{number(failed)} of {counted(successful + failed, 'session')} failed"
    if not sender.verified:
        first = "This report counts nowhere: no DKIM signature verifies who sent it."
        return Headline(TONES[Severity.WARNING], SIGNS[Severity.WARNING], first, f"It says that {of_all}.")
    if failed:
        first = f"{of_all} ({share(failed, successful + failed)})."
        return Headline(TONES[Severity.ERROR], SIGNS[Severity.ERROR], first)
    if not successful:
        return Headline(TONES[Severity.NOTE], SIGNS[Severity.NOTE], "The report counts no session.")
    return Headline(GOOD, "✓", f"All is well: {counted(successful, 'session')} succeeded.")
