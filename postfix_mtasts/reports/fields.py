"""Reads the members of a report's JSON objects as texts, counts, times and addresses.

What senders get wrong is read where the meaning is clear, and noted as a problem. Where it is not clear, the report is
refused with ReportError.
"""

import datetime
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from postfix_mtasts.counting import counted
from postfix_mtasts.reports.document import load
from postfix_mtasts.reports.report import ReportError

MAX_PROBLEMS = 20  # Of a report, that are listed.
MAX_TEXT = 1000  # Characters that are kept of a text that explains something.
MAX_NAME = 255  # Characters that are kept of another text. A hostname has 253.
_MAX_COUNT = 2**53 - 1  # The largest integer that I-JSON is sure of (RFC 7493, 2.2).
_COUNT = re.compile(r"-?[0-9]{1,20}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?)?"
    r"(?: ?(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?"
)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_ZONE = re.compile(r"[Zz]|[+-][0-9]{2}:[0-9]{2}")  # As in RFC 3339.
_QUOTED = 60  # Characters of the report in a message.


class Problems:
    """What is wrong with a report that is read all the same. The first 20 are kept, the others counted."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._others = 0

    def add(self, problem: str) -> None:
        """Note a problem. It names the member, and says what was assumed."""
        if len(self._kept) < MAX_PROBLEMS:
            self._kept.append(problem)
        else:
            self._others += 1

    def all(self) -> tuple[str, ...]:
        """Return them, in the order in which they were found."""
        return (*self._kept, counted(self._others, "more problem")) if self._others else tuple(self._kept)


class Object:
    """A JSON object in a report. `path` is where it stands, as in `policies[0].summary`, and empty for the report."""

    def __init__(self, members: Mapping[str, Any], path: str, problems: Problems) -> None:
        self._members = members
        self._path = path
        self._problems = problems

    def where(self, name: str) -> str:
        """The path of a member."""
        return f"{self._path}.{name}" if self._path else name

    def problem(self, name: str, what: str) -> None:
        """Note a problem of a member."""
        self._problems.add(f"{self.where(name)} {what}")

    def text(self, name: str, *, required: bool = False, most: int = MAX_NAME) -> str | None:
        """Return a text without the blanks around it, or None if there is none. What is longer is cut."""
        value = self._members.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.problem(name, "is a number instead of a text")
            value = str(value)
        elif value is not None and not isinstance(value, str):
            self.problem(name, f"is {_kind(value)} instead of a text: left out")
            return None
        text = _SURROGATE.sub("\ufffd", value or "").strip()
        if not text and required:
            self.problem(name, "is missing")
        elif value and _SURROGATE.search(value):
            self.problem(name, "has a half of a surrogate pair: replaced")
        if len(text) > most:
            self.problem(name, f"is longer than {most} characters: cut")
        return text[:most] or None

    def address(self, name: str) -> str | None:
        """Return an IP address in its usual form, or the text as it stands if it is none."""
        text = self.text(name)
        if not text:
            return None
        try:
            if "%" not in text:
                return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            pass
        self.problem(name, f"is not an IP address: {_quoted(text)}")
        return text

    def count(self, name: str) -> int:
        """Return a number of sessions. Raises ReportError if it is none. A missing one counts as 0."""
        value = self._members.get(name)
        if value is None or value == "":
            self.problem(name, "is missing: 0 is assumed")
            return 0
        count = _integer(value)
        if count is None:
            raise ReportError(f"{self.where(name)} is not a number of sessions: {_quoted(value)}")
        if not 0 <= count <= _MAX_COUNT:
            raise ReportError(f"{self.where(name)} is {'negative' if count < 0 else f'larger than {_MAX_COUNT}'}")
        if not isinstance(value, int):
            self.problem(name, f"is {_kind(value)} instead of an integer")
        return count

    def time(self, name: str, assumed: str) -> datetime.datetime:
        """Return a time in UTC, to the second. Raises ReportError if it is none.

        A date without a time of day stands for the time `assumed`, such as `23:59:59`.
        """
        value = self._members.get(name)
        match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
        try:
            if isinstance(value, int) and not isinstance(value, bool):
                self.problem(name, "is a number: read as seconds since 1970")
                time = _EPOCH + datetime.timedelta(seconds=value)
            elif match:
                time = self._time(name, match["date"], match["time"], match["zone"], assumed)
            else:
                time = None
        except (ValueError, OverflowError):
            time = None
        if time is None or time < _EPOCH:  # Some programs write the year 1 if they have no date.
            raise ReportError(f"{self.where(name)} is not a date: {_quoted(value)}")
        return time

    def _time(self, name: str, date: str, time: str | None, zone: str | None, assumed: str) -> datetime.datetime:
        if time is None:
            self.problem(name, f"has no time of day: {assumed} is assumed")
        if zone is None:
            self.problem(name, "has no time zone: UTC is assumed")
        elif not _ZONE.fullmatch(zone):
            self.problem(name, "has a time zone that is not written as in RFC 3339")
        later = datetime.timedelta()
        if time == "24:00:00":
            self.problem(name, "is 24:00:00: read as 00:00:00 of the next day")
            time, later = "00:00:00", datetime.timedelta(days=1)
        elif time and time.endswith(":60"):  # A leap second (RFC 3339, 5.6).
            time = f"{time[:-2]}59"
        offset = zone if zone and zone[0] in "+-" else "+00:00"
        return datetime.datetime.fromisoformat(f"{date}T{time or assumed}{offset}").astimezone(datetime.UTC) + later

    def object(self, name: str) -> "Object":
        """Return a member that is an object. A missing one is empty. Raises ReportError."""
        value = self._opened(name, self._members.get(name))
        if value is None:
            self.problem(name, "is missing")
            value = {}
        if not isinstance(value, dict):
            raise ReportError(f"{self.where(name)} is {_kind(value)} instead of an object")
        return Object(value, self.where(name), self._problems)

    def objects(self, name: str, most: int) -> "list[Object]":
        """Return a member that is a list of at most `most` objects. A missing one is empty. Raises ReportError."""
        value = self._opened(name, self._members.get(name))
        if isinstance(value, dict):
            self.problem(name, "is an object instead of a list")
            value = [value]
        if not isinstance(value, list | None):
            raise ReportError(f"{self.where(name)} is {_kind(value)} instead of a list")
        items = value or []
        if len(items) > most:
            raise ReportError(f"{self.where(name)} has more than {most} items")
        made = []
        for number, item in enumerate(items):
            inner = self._opened(f"{name}[{number}]", item)
            if not isinstance(inner, dict):
                raise ReportError(f"{self.where(name)}[{number}] is {_kind(inner)} instead of an object")
            made.append(Object(inner, f"{self.where(name)}[{number}]", self._problems))
        return made

    def texts(self, name: str) -> Sequence[str]:
        """Return a member that is a list of texts. Other items are left out."""
        value = self._opened(name, self._members.get(name))
        if isinstance(value, str):
            self.problem(name, "is a text instead of a list")
            value = value.splitlines()
        elif not isinstance(value, list | None):
            self.problem(name, f"is {_kind(value)} instead of a list: left out")
            value = []
        texts: list[str] = []
        for number, item in enumerate(value or []):
            inner = self._opened(f"{name}[{number}]", item)
            for text in inner if isinstance(inner, list) else [inner]:
                if isinstance(text, str):
                    texts.append(text)
                else:
                    self.problem(f"{name}[{number}]", f"is {_kind(text)} instead of a text: left out")
        return texts

    def _opened(self, name: str, value: Any) -> Any:
        """Return what stands in a string that holds JSON, or else the value itself."""
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
            return value
        try:
            inner = load(value.encode("utf-8", "replace"))
        except ReportError:
            return value
        self.problem(name, "is JSON in a string")
        return inner


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and _COUNT.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _quoted(value: Any) -> str:
    """A text or number for a message, or what else it is."""
    if isinstance(value, str):
        return ascii(value[:_QUOTED])
    return str(value)[:_QUOTED] if type(value) in (int, float) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    kinds = {str: "a text", int: "an integer", float: "a fraction", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
