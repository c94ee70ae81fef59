"""What `doctor` has to say."""

from dataclasses import dataclass

from postfix_mtasts.query.output import Status


@dataclass(frozen=True, slots=True)
class Finding:
    """What is the case, why it matters, and the line to write, or to run: at which place.

    `check` is a word for programs, that stays the same. Status OK: it is only to be known.
    """

    check: str
    status: Status
    what: str
    why: str
    place: str = ""
    line: str = ""
