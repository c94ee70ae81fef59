"""The policy file (RFC 8461, 3.2) and its match with an MX host (4.1).

Lines `name: value` end in LF or CRLF (erratum 6253). Where the RFC leaves room, this is lenient and says so in a
`Finding`: blank lines and a byte order mark are passed over, an unknown field may be empty, and a `max_age` above the
maximum counts as the maximum (erratum 7282: the grammar allows ten digits, the prose 31557600). All else that the
grammar does not allow makes the policy invalid. So does one bad `mx`: a policy enforced without that host would refuse
its mail.
"""

import difflib
import enum
import re
from dataclasses import dataclass

from postfix_mtasts.sts.domain import HostnameError, hostname

MAX_AGE_LIMIT = 31_557_600  # Seconds, about a year (RFC 8461, 3.2).

_DAY, _WEEK = 86_400, 604_800  # Seconds.
_VERSION = "STSv1"
# *WSP belongs to the line, not to the value. UTF-8 beyond ASCII is legal in extension values.
_FIELD = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*+([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?|)[ \t]*"
)
_LINE_END = re.compile(r"\r?\n")
_MAX_AGE = re.compile(r"[0-9]{1,10}")
_KNOWN = ("version", "mode", "mx", "max_age")
# A hostile file of 64 KiB must not cost more than a moment, nor fill the log.
_MAX_FINDINGS = 20
_LINES_SEARCHED_FOR_SLIPS = 100
_LIKENESS = 0.8  # Of two names, from 0 to 1: nmx is as much like mx.


class PolicyError(ValueError):
    """The file is no valid policy: the line and the rule it breaks, and what else looked wrong on the way.

    `fault` is the first of that alone, `findings` are all that is about lines.
    """

    def __init__(self, reason: str, line: int | None = None, findings: tuple["Finding", ...] = ()) -> None:
        broken = (Finding(line, reason),) if line else ()
        self.fault = str(broken[0]) if broken else reason
        self.findings = (*broken, *findings)
        super().__init__("; ".join([self.fault, *map(str, findings)]))


class Mode(enum.Enum):
    """What a sender does with a host that fails the policy (RFC 8461, 5)."""

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
    """Something in a policy file that its owner should mend, though the policy holds."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


@dataclass(frozen=True, slots=True)
class MxPattern:
    """A hostname, or `*.` and a hostname, as published; compare with `matches`."""

    text: str

    def __post_init__(self) -> None:
        """Raises ValueError unless the text is a hostname or `*.` and one, in ASCII and without a root dot."""
        host = self.text.removeprefix("*.")
        if not host.isascii():
            raise ValueError("must be written in A-labels (xn--…)")  # RFC 8461, 3.2
        if host.endswith("."):
            raise ValueError("must not end in a dot")
        try:
            hostname(host)
        except HostnameError as error:
            raise ValueError(f'must be a hostname, or "*." and a hostname: {error}') from error

    def matches(self, host: str) -> bool:
        """Whether an MX host, as DNS names it, is meant. `*` stands for exactly one label (RFC 8461, 4.1)."""
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
        """The policy file that says this, and no more."""
        mx = "".join(f"mx: {pattern}\n" for pattern in self.mx)
        return f"version: {_VERSION}\nmode: {self.mode.value}\n{mx}max_age: {self.max_age}\n"


def parse(body: bytes) -> tuple[Policy, tuple[Finding, ...]]:
    """The policy in a file's octets, and what its owner should mend. Raises PolicyError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        number = body.count(b"\n", 0, error.start) + 1
        raise PolicyError("not UTF-8", number) from error
    if not text.strip("\ufeff \t\r\n"):
        raise PolicyError("the file is empty")
    fields = _Fields()
    if text.startswith("\ufeff"):
        fields.note(1, "begins with a byte order mark")
        text = text[1:]
    for number, line in enumerate(lines(text), start=1):
        fields.read(number, line)
    return fields.policy(), tuple(fields.findings)


def lines(text: str) -> list[str]:
    """The lines of a policy file, without their ends."""
    # Only LF and CRLF end a line: splitlines() would also break at U+2028 and others.
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]


class _Fields:
    """The fields of a file that is being read. The first of each counts, but for mx (RFC 8461, 3.2, last paragraph)."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._seen: set[str] = set()
        self._mode: Mode | None = None
        self._max_age: int | None = None
        self._mx: list[MxPattern] = []

    def note(self, number: int, text: str) -> None:
        """Remember a finding."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(number, text))

    def read(self, number: int, line: str) -> None:
        """Take in one line. Raises PolicyError."""
        if not line.strip(" \t"):
            self.note(number, "blank line")
            return
        field = _FIELD.fullmatch(line)
        if not field:
            raise self._error(number, f"expected name: value, got {_shown(line)}")
        name, value = field.groups()
        if name not in _KNOWN:
            self._unknown(number, name, value)
        elif name == "mx" or name not in self._seen:
            if not value:
                raise self._error(number, f"{name} is empty")
            self._known(number, name, value)
        self._seen.add(name)

    def policy(self) -> Policy:
        """What was read. Raises PolicyError if a required field is missing."""
        if "version" not in self._seen:
            raise self._missing("version")
        if self._mode is None:
            raise self._missing("mode")
        if self._max_age is None:
            raise self._missing("max_age")
        if not self._mx and self._mode is not Mode.NONE:
            raise self._missing("mx")
        return Policy(self._mode, self._max_age, tuple(self._mx))

    def _known(self, number: int, name: str, value: str) -> None:
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
                    raise self._error(number, f"max_age takes 1 to 10 digits, not {_shown(value)}")
                self._max_age = min(int(value), MAX_AGE_LIMIT)
                if int(value) > MAX_AGE_LIMIT:
                    self.findings.append(
                        Finding(number, f"max_age {int(value)} counts as {MAX_AGE_LIMIT}, the maximum")
                    )
            case _:
                try:
                    self._mx.append(MxPattern(value))
                except ValueError as error:
                    raise self._error(number, f"mx {_shown(value)} {error}") from None

    def _unknown(self, number: int, name: str, value: str) -> None:
        """Extension fields are ignored (RFC 8461, 3.2); one that looks like a slip is worth a word."""
        near: list[str] = []
        if number <= _LINES_SEARCHED_FOR_SLIPS:
            near = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=_LIKENESS)
        if near:
            self.note(number, f"{name}: unknown field, did you mean {near[0]}?")
        elif not value:
            self.note(number, f"{name} is empty")

    def _error(self, number: int, reason: str) -> PolicyError:
        return PolicyError(reason, number, tuple(self.findings))

    def _missing(self, name: str) -> PolicyError:
        return PolicyError(f"no {name} line", findings=tuple(self.findings))


def _shown(text: str) -> str:
    """Foreign text in a message: in ASCII, quoted, and no longer than a line."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")
