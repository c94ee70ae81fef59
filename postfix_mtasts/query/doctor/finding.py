"""One result of `doctor`."""

from dataclasses import dataclass

from postfix_mtasts.query.output import Status


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
