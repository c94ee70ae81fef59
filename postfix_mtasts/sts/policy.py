"""Parses the policy file (RFC 8461, 3.2) and matches MX hosts with it (RFC 8461, 4.1).

A file has lines `name: value`, which end in LF or CRLF (erratum 6253). Where the RFC leaves room, the parser is lenient
and reports a `Finding`. It skips blank lines and a byte order mark, and accepts an unknown field without a value. It
treats a `max_age` above the maximum as the maximum, because the grammar allows ten digits but the prose only 31557600
(erratum 7282). Anything else that the grammar does not allow makes the policy invalid. So does a single bad `mx`:
without that host in the policy, mail to it would be refused.
"""

import difflib
import enum
import re
from dataclasses import dataclass

from postfix_mtasts.sts.domain import MAX_NAME, HostnameError, hostname

MAX_AGE_LIMIT = 31_557_600  # Seconds, about a year (RFC 8461, 3.2).
MAX_SIZE = 65_536  # Octets of a file (RFC 8461, 3.3 suggests 64 KB).
TOO_LARGE = f"larger than {MAX_SIZE // 1024} KiB"

_DAY, _WEEK = 86_400, 604_800  # Seconds.
_VERSION = "STSv1"
# Blanks around the value are not part of it. Non-ASCII characters are legal in the values of extension fields.
_FIELD = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*+([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?|)[ \t]*"
)
_LINE_END = re.compile(r"\r?\n")
_MAX_AGE = re.compile(r"[0-9]{1,10}")
_NAME_AND_COLON = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:")
_PREFERENCE = re.compile(r"([0-9]{1,5})[ \t]+")  # As in an MX record.
_KNOWN = ("version", "mode", "mx", "max_age")
# A hostile file of 64 KiB must neither take long to parse nor fill the log.
_MAX_FINDINGS = 20
_MAX_MX = 1000  # In memory, each takes twice the room of its line. No domain is known to have a hundred.
_LINES_SEARCHED_FOR_SLIPS = 100
_LIKENESS = 0.8  # How alike two names are, from 0 to 1. "nmx" and "mx" are 0.8 alike.


class PolicyError(ValueError):
    """The file is not a valid policy. The message says which rule it breaks, and lists the findings up to there.

    `fault` is the broken rule alone, with its line. `findings` has everything that belongs to a line.
    """

    def __init__(self, reason: str, line: int | None = None, findings: tuple["Finding", ...] = ()) -> None:
        broken = (Finding(line, reason),) if line else ()
        self.fault = str(broken[0]) if broken else reason
        self.findings = (*broken, *findings)
        super().__init__("; ".join([self.fault, *map(str, findings)]))


class Mode(enum.Enum):
    """What a sender does when an MX host fails the policy (RFC 8461, 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"

    @property
    def checks_hosts(self) -> bool:
        """Whether senders compare MX hosts with the policy. In mode none they act as if there were no policy."""
        return self is not Mode.NONE


class Protection(enum.Enum):
    """How long an attacker must block a policy to disable it. RFC 8461, 3.2 expects a `max_age` of weeks or more."""

    NONE = "none"  # Not at all: with max_age 0 no sender caches the policy.
    HOURS = "hours"  # Less than a day. The owner may not notice an attack as short as that.
    DAYS = "days"  # Less than a week.
    WEEKS = "weeks"

    @classmethod
    def of(cls, max_age: int) -> "Protection":
        """The protection by a `max_age` in seconds."""
        if not max_age:
            return cls.NONE
        return cls.HOURS if max_age < _DAY else cls.DAYS if max_age < _WEEK else cls.WEEKS


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a policy file that its owner should correct, although the policy is valid."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class MxPattern:
    """The value of an `mx` line, as published: a hostname, or `*.` and a domain."""

    text: str

    def __post_init__(self) -> None:
        """Raise ValueError unless the text is a hostname or `*.` and a domain, in ASCII and without a final dot."""
        host = self.text.removeprefix("*.")
        preference = _PREFERENCE.match(host)
        if preference:
            raise ValueError(f"leave out the preference {preference[1]}: write the name of the host alone")
        if not host.isascii():
            raise ValueError("write it in punycode (xn--…)")  # RFC 8461, 3.2
        if host.endswith("."):
            raise ValueError("remove the dot at the end")
        if len(host) > MAX_NAME:
            raise ValueError(f"longer than {MAX_NAME} characters")
        try:
            hostname(host)
        except HostnameError as error:
            raise ValueError("write one hostname, or *.domain") from error

    def matches(self, host: str) -> bool:
        """Whether the pattern matches the name of an MX host. `*` stands for exactly one label (RFC 8461, 4.1)."""
        try:
            name = hostname(host)
        except HostnameError:
            return False
        if self.text.startswith("*."):
            return name.partition(".")[2] == self.text[2:].lower()
        return name == self.text.lower()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Policy:
    """A valid policy. `max_age` is in seconds from the fetch (RFC 8461, 3.2)."""

    mode: Mode
    max_age: int
    mx: tuple[MxPattern, ...]

    def __str__(self) -> str:
        """The shortest policy file with this content."""
        mx = "".join(f"mx: {pattern}\n" for pattern in self.mx)
        return f"version: {_VERSION}\nmode: {self.mode.value}\n{mx}max_age: {self.max_age}\n"


def parse(body: bytes) -> tuple[Policy, tuple[Finding, ...]]:
    """Parse the content of a policy file. Return the policy, and what its owner should correct. Raises PolicyError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        number = body.count(b"\n", 0, error.start) + 1
        raise PolicyError("not UTF-8", number) from error
    if not text.strip("\ufeff \t\r\n"):
        raise PolicyError("the file is empty")
    fields = _Fields()
    if text.startswith("\ufeff"):
        fields.note(1, "remove the byte order mark")
        text = text[1:]
    for number, line in enumerate(lines(text), start=1):
        fields.read(number, line)
    return fields.policy(), tuple(fields.findings)


def lines(text: str) -> list[str]:
    """Split a policy file into lines, without their LF or CRLF."""
    # splitlines() would also split at U+2028 and other characters.
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]


class _Fields:
    """Collects the fields of a file line by line.

    If a field other than mx occurs again, only the first one counts (RFC 8461, 3.2, last paragraph).
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._seen: set[str] = set()
        self._mode: Mode | None = None
        self._max_age: int | None = None
        self._mx: list[MxPattern] = []

    def note(self, number: int, text: str) -> None:
        """Remember a finding, unless there are many already."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(number, text))

    def read(self, number: int, line: str) -> None:
        """Read one line. Raises PolicyError."""
        if not line.strip(" \t"):
            self.note(number, "blank line")
            return
        field = _FIELD.fullmatch(line)
        if not field:
            raise self._error(number, _no_field(line))
        name, value = field.groups()
        if name not in _KNOWN:
            self._read_extension(number, name, value)
        elif name == "mx" or name not in self._seen:
            if not value:
                raise self._error(number, f"{name} is empty")
            self._read_field(number, name, value)
        else:
            self.note(number, f"a second {name}: only the first one counts")
        self._seen.add(name)

    def policy(self) -> Policy:
        """Make the policy of the fields that were read. Raises PolicyError if a required field is missing."""
        if "version" not in self._seen:
            raise self._missing("version")
        if self._mode is None:
            raise self._missing("mode")
        if self._max_age is None:
            raise self._missing("max_age")
        if not self._mx and self._mode.checks_hosts:
            raise self._missing("mx")
        return Policy(self._mode, self._max_age, tuple(self._mx))

    def _read_field(self, number: int, name: str, value: str) -> None:
        match name:
            case "version":
                if value != _VERSION:
                    raise self._error(number, f"version must be {_VERSION}, not {_shown(value)}")
            case "mode":
                try:
                    self._mode = Mode(value)
                except ValueError:
                    raise self._error(number, f"mode must be enforce, testing or none, not {_shown(value)}") from None
            case "max_age":
                if not _MAX_AGE.fullmatch(value):
                    raise self._error(number, f"max_age must be a number of up to 10 digits, not {_shown(value)}")
                self._max_age = min(int(value), MAX_AGE_LIMIT)
                if int(value) > MAX_AGE_LIMIT:
                    self.findings.append(
                        Finding(number, f"max_age {int(value)} is treated as {MAX_AGE_LIMIT} (the maximum)")
                    )
            case _ if len(self._mx) == _MAX_MX:
                raise self._error(number, f"more than {_MAX_MX} mx lines")
            case _:
                try:
                    self._mx.append(MxPattern(value))
                except ValueError as error:
                    raise self._error(number, f"mx {_shown(value)}: {error}") from None

    def _read_extension(self, number: int, name: str, value: str) -> None:
        """Ignore an extension field (RFC 8461, 3.2). If it looks like a typo or is empty, remember a finding."""
        near: list[str] = []
        if number <= _LINES_SEARCHED_FOR_SLIPS:
            near = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=_LIKENESS)
        if near:
            self.note(number, f"unknown field {name}, did you mean {near[0]}?")
        elif not value:
            self.note(number, f"{name} is empty")

    def _error(self, number: int, reason: str) -> PolicyError:
        return PolicyError(reason, number, tuple(self.findings))

    def _missing(self, name: str) -> PolicyError:
        return PolicyError(f"no {name} line", findings=tuple(self.findings))


def _no_field(line: str) -> str:
    """Why a line is not a field."""
    without_indent = line.lstrip(" \t")
    named = _NAME_AND_COLON.match(without_indent)
    if named and without_indent != line:
        return f"remove the blank before {named[1]}"
    if named and not named[0].endswith(f"{named[1]}:"):
        return f"remove the blank after {named[1]}"
    return f"expected name: value, got {_shown(line)}"


def _shown(text: str) -> str:
    """Foreign text for a message: quoted, in ASCII, and cut after 60 characters."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")
