"""What the command prints: text for people, with colours on a terminal, or JSON for programs; errors with a hint."""

import dataclasses
import datetime
import enum
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

PROGRAM = "postfix-mtasts-query"

JSON = Mapping[str, Any]


class Status(enum.IntEnum):
    """Exit status."""

    OK = 0  # All is in order.
    WARNING = 1  # It works, but its owner is about to break it.
    ERROR = 2  # It does not work.
    NOTHING = 3  # There is nothing to judge: no policy is published.
    USAGE = os.EX_USAGE  # 64: the command line is wrong.
    UNAVAILABLE = os.EX_UNAVAILABLE  # 69: the daemon or its database cannot be reached.
    CONFIG = os.EX_CONFIG  # 78: the configuration is wrong.


_FROM_BEST = (Status.OK, Status.NOTHING, Status.WARNING, Status.ERROR)


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of these; OK if there are none."""
    return max(statuses, key=_FROM_BEST.index, default=Status.OK)


class QueryError(Exception):
    """The command cannot do what it is asked to: the reason, what may help, and the exit status."""

    def __init__(self, reason: str, hint: str = "", status: Status = Status.UNAVAILABLE) -> None:
        super().__init__(reason)
        self.hint = hint
        self.status = status


def say(line: str) -> None:
    """A line for people beside the results."""
    print(f"{PROGRAM}: {line}", file=sys.stderr)  # noqa: T201 - this is the output


class Output:
    """Where results go: `json` for programs, otherwise text; colours only on a terminal that wants them."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.warned = False
        self._progress = ""
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def text(self, line: str = "", status: Status | None = None) -> None:
        """A line for people, in the colour of a status. What is not printable ASCII is escaped: it may be foreign."""
        if self._progress:
            self._progress = ""
            print(file=sys.stderr)  # noqa: T201 - this is the output
        shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in line).rstrip()
        code = _COLOURS.get(status) if self._colours else None
        print(f"\x1b[{code}m{shown}\x1b[0m" if code else shown)  # noqa: T201 - this is the output

    def warn(self, line: str) -> None:
        """A line for people beside the results; something was passed over."""
        self.warned = True
        say(f"warning: {line}")

    def progress(self, line: str) -> None:
        """How far it is, on a terminal, where the next such line takes its place."""
        if sys.stderr.isatty():
            print(f"\r{line:{len(self._progress)}}", end="", file=sys.stderr)  # noqa: T201 - this is the output
            self._progress = line

    def document(self, value: JSON) -> None:
        """One document on one line, for programs."""
        print(json.dumps(value, allow_nan=False))  # noqa: T201 - this is the output


def to_json(value: Any) -> Any:
    """A value of ours in JSON's types: times in ISO 8601 in UTC, spans in seconds."""
    match value:
        case enum.Enum():
            return value.value
        case datetime.datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%SZ")
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
