"""What the command prints: text for people, in colour on a terminal, or JSON for programs.

Results go to standard output. Errors, hints and warnings go to standard error.
"""

import dataclasses
import datetime
import enum
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

PROGRAM = "postfix-mtasts-query"
WIDTH = 80  # Columns of a line.

JSON = Mapping[str, Any]


class Status(enum.IntEnum):
    """An exit status of the command. OK, WARNING and ERROR also say how serious a finding or a remark is."""

    OK = 0  # No problem was found.
    WARNING = 1  # It works now, but may soon fail.
    ERROR = 2  # It does not work.
    NOTHING = 3  # There is nothing to check: no policy is published.
    USAGE = os.EX_USAGE  # 64: the command line is wrong.
    UNAVAILABLE = os.EX_UNAVAILABLE  # 69: the daemon or its database cannot be reached.
    CONFIG = os.EX_CONFIG  # 78: the configuration is wrong.
    INTERRUPTED = 130  # By Ctrl-C, as shells have it: 128 and the number of the signal.


SEVERITIES = {Status.OK: "note", Status.WARNING: "warning", Status.ERROR: "error"}
_BEST_FIRST = (Status.OK, Status.NOTHING, Status.WARNING, Status.ERROR)


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of these statuses, or OK if there are none. NOTHING is worse than OK, and better than WARNING."""
    return max(statuses, key=_BEST_FIRST.index, default=Status.OK)


class QueryError(Exception):
    """The command cannot do what it was asked to do. The message says why.

    `hint` is what may help, or empty. `status` is the exit status of the command.
    """

    def __init__(self, reason: str, hint: str = "", status: Status = Status.UNAVAILABLE) -> None:
        super().__init__(reason)
        self.hint = hint
        self.status = status


def say(line: str) -> None:
    """Print a line on standard error."""
    print(f"{PROGRAM}: {line}", file=sys.stderr)  # noqa: T201 - this is the output


def fail(program: str, words: list[str], reason: str, hint: str, status: Status) -> Status:
    """Tell the error of a command that has these arguments, with --json also as a document. Return the exit status."""
    if "--json" in words:
        Output(json=True).document({"error": {"kind": status.name.lower(), "text": reason, "hint": hint or None}})
    print(f"{program}: error: {reason}", file=sys.stderr)  # noqa: T201 - this is the output
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201 - this is the output
    return status


def printable(text: str) -> str:
    """Escape all but printable ASCII, such as control sequences of terminals. The mark of what was cut stays."""
    if text.isascii() and text.isprintable():
        return text
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    cut = "…" if is_utf8 else "..."
    return "".join(c if " " <= c <= "~" else cut if c == "…" else c.encode("unicode_escape").decode() for c in text)


class Output:
    """Prints results as text, or with `json` as JSON.

    Text is in colour if standard output is a terminal, NO_COLOR is not set, and TERM is not dumb.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.warned = False
        self._progress = ""
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def text(self, line: str = "", status: Status | None = None) -> None:
        """Print a line in the colour of a status.

        All but printable ASCII is escaped: the text may come from a foreign server and hold control sequences.
        """
        self._end_progress()
        shown = printable(line).rstrip()
        code = _COLOURS.get(status) if self._colours else None
        print(f"\x1b[{code}m{shown}\x1b[0m" if code else shown)  # noqa: T201 - this is the output

    def warn(self, line: str) -> None:
        """Print a warning on standard error, and remember that there was one."""
        self.warned = True
        say(f"warning: {line}")

    def progress(self, line: str) -> None:
        """Show on a terminal how far the command has come. Each such line overwrites the one before."""
        if sys.stderr.isatty():
            print(f"\r{line:{len(self._progress)}}", end="", file=sys.stderr)  # noqa: T201 - this is the output
            self._progress = line

    def _end_progress(self) -> None:
        if self._progress:
            print(f"\r{'':{len(self._progress)}}\r", end="", file=sys.stderr, flush=True)  # noqa: T201 - this is the output
            self._progress = ""

    def document(self, value: JSON) -> None:
        """Print one JSON document on one line."""
        self._end_progress()
        print(json.dumps(value, allow_nan=False))  # noqa: T201 - this is the output


def to_json(value: Any) -> Any:
    """Convert a dataclass, or a value of one, to what JSON has: times to ISO 8601 in UTC, durations to seconds."""
    match value:
        case enum.Enum():
            return value.value
        case datetime.datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
        case datetime.date():
            return value.isoformat()
        case dict():
            return {name: to_json(item) for name, item in value.items()}
        case tuple() | list():
            return [to_json(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {one.name: to_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
        case float():
            return round(value, 4)
        case _:
            return value


_COLOURS: Mapping[Status | None, str] = {Status.OK: "32", Status.WARNING: "33", Status.ERROR: "31"}
