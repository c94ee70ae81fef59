"""One result of `doctor`."""

from collections.abc import Iterable
from dataclasses import dataclass

from postfix_mtasts.query.output import JSON, SEVERITIES, Output, Status, to_json


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, why it matters, and the line that fixes it.

    `place` is the file that the line belongs in, or "run" if the line is a command. Both are empty if no line helps.
    `check` is a name for programs, and later versions keep it. A finding with status OK is only information.
    """

    check: str
    status: Status
    what: str
    why: str
    place: str = ""
    line: str = ""


def documents(findings: Iterable[Finding]) -> list[JSON]:
    """Findings as JSON."""
    return [{**to_json(finding), "status": finding.status.name.lower()} for finding in findings]


def show(findings: Iterable[Finding], output: Output) -> None:
    """Print findings as text."""
    for finding in findings:
        output.text(f"{SEVERITIES[finding.status]}: {finding.what}", finding.status)
        output.text(f"    {finding.why}")
        if finding.line:
            output.text(f"  {finding.place}:" if finding.place == "run" else f"  in {finding.place}:")
            output.text(f"    {finding.line}")
