"""Time lines of cached policies: tests/data/cache_scenarios.txt, which explains itself, as values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from postfix_mtasts.sts.decide import HadExpired, Notice, NotRenewed, PolicyChanged
from postfix_mtasts.sts.entry import Answer, Apply, CachedPolicy, Entry, FailedFetch, NoPolicy
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

FILE = Path(__file__).parents[1] / "data" / "cache_scenarios.txt"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TERM = re.compile(r"([-+]?)(\d+)([smhd])")
_SPAN = re.compile(r"(?<![\w-])(?:0(?!\w)|-?\d+[smhd](?:[-+]?\d+[smhd])*)")


@dataclass(frozen=True)
class Step:
    """One line: what happens, and for `ask` and `refresh` what comes of it."""

    line: int
    time: float
    verb: str
    words: tuple[str, ...] = ()
    expected: str = ""


@dataclass
class Scenario:
    """One time line; its steps end with what is known, if the file says it."""

    title: str
    steps: list[Step] = field(default_factory=list)


def seconds(text: str) -> float:
    """`7d-1s` in seconds."""
    return sum((-1 if sign == "-" else 1) * int(number) * _UNITS[unit] for sign, number, unit in _TERM.findall(text))


def read() -> tuple[dict[str, Policy], list[Scenario]]:
    """The policies by their names, and the time lines."""
    policies: dict[str, Policy] = {}
    scenarios: list[Scenario] = []
    titles: list[str] = []
    for number, line in _lines():
        if line.startswith("policy "):
            name, value = line.removeprefix("policy ").split(": ")
            mode, mx, max_age = value.split(", ")
            policies[name] = Policy(Mode(mode), int(seconds(max_age)), () if mx == "-" else (MxPattern(mx),))
        elif line.startswith("== "):
            titles.append(line.removeprefix("== "))
        else:
            if titles:
                scenarios.append(Scenario(" / ".join(titles)))
                titles = []
            scenarios[-1].steps.append(_step(number, line))
    return policies, scenarios


def _lines() -> Iterator[tuple[int, str]]:
    for number, line in enumerate(FILE.read_text().splitlines(), start=1):
        if line and not line.startswith("#"):
            yield number, line


def _step(number: int, line: str) -> Step:
    if line.startswith("known: "):
        return Step(number, 0, "known", expected=_exact(line.removeprefix("known: ")))
    happens, _, expected = line.partition(" => ")
    time, verb, *words = happens.split()
    return Step(number, seconds(time), verb, tuple(words), _exact(expected))


def _exact(text: str) -> str:
    """The same text with all spans of time in seconds."""
    return _SPAN.sub(lambda match: f"{seconds(match[0]):g}s", text)


class Words:
    """Says values in the words of the file; times are since `start`."""

    def __init__(self, policies: dict[str, Policy], start: float) -> None:
        self._names = {policy: name for name, policy in policies.items()}
        self._start = start

    def answer(self, answer: Answer) -> str:
        """What Postfix is told."""
        if isinstance(answer, Apply):
            return self._names[answer.policy]
        return "no policy" if isinstance(answer, NoPolicy) else "unknown"

    def policy(self, policy: Policy) -> str:
        """A policy by its name."""
        return self._names[policy]

    def notice(self, notice: Notice) -> str:
        """What the log is told."""
        match notice:
            case PolicyChanged(old, new):
                return f"changed from {self._names[old]} to {self._names[new]}"
            case NotRenewed(reason, expires_in, urgent):
                return f"{'NOT RENEWED' if urgent else 'not renewed'} ({reason}), ends in {expires_in:g}s"
            case HadExpired(policy, since):
                return f"{self._names[policy]} ended {since:g}s ago"

    def entry(self, entry: Entry) -> str:
        """All that is known of a domain."""
        parts = []
        if entry.cached:
            parts.append(self._cached(entry.cached))
        parts += [self._failed(failed) for failed in entry.failed]
        if entry.note:
            answer = entry.note.answer
            reason = answer.reason if isinstance(answer, NoPolicy) else answer.failure
            parts.append(f'note "{reason}" for {entry.note.ttl:g}s')
        parts += [f"checked {self._time(entry.checked_at)}", f"used {self._time(entry.last_used)}"]
        if entry.unused_at is not None:
            parts.append(f"unused {self._time(entry.unused_at)}")
        return "; ".join(parts)

    def _cached(self, cached: CachedPolicy) -> str:
        return f"{self._names[cached.policy]} of {cached.record_id} fetched {self._time(cached.fetched_at)}"

    def _failed(self, failed: FailedFetch) -> str:
        count = {1: "once", 2: "twice"}.get(failed.count, f"{failed.count} times")
        return f"failed {failed.record_id} {count} {self._time(failed.at)}"

    def _time(self, time: float) -> str:
        return f"{time - self._start:g}s"
