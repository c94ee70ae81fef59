"""One sentence for each concern: sending, the domains that are published, and reports. The worst comes first."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.counting import counted
from postfix_mtasts.publish.store import Line, Store, StoreError
from postfix_mtasts.query.output import SEVERITIES, Status
from postfix_mtasts.query.running.health import Health, Level, look
from postfix_mtasts.reports import headline, viewing
from postfix_mtasts.reports.facts import facts
from postfix_mtasts.reports.headline import Headline
from postfix_mtasts.reports.store import Store as Reports
from postfix_mtasts.reports.store import StoreError as ReportsError
from postfix_mtasts.reports.views import DAYS, window

SIGNS = {Status.OK: "✓", Status.NOTHING: "i", Status.WARNING: "!", Status.ERROR: "✗"}
TONES = {Status.OK: "good", Status.NOTHING: "soft", Status.WARNING: "warn", Status.ERROR: "bad"}
WORDS = {**SEVERITIES, Status.OK: "well", Status.NOTHING: "note"}
_SUMS = viewing.Limits(rows=0, failures=0, reports=0, policies=0, mx=1)  # No source is listed.
_COUNTED = f"This is about the last {DAYS} days."
_ORDER = (Status.ERROR, Status.WARNING, Status.NOTHING, Status.OK)
_LEVELS = {
    Level.OK: Status.OK,
    Level.WARNING: Status.WARNING,
    Level.CRITICAL: Status.ERROR,
    Level.UNKNOWN: Status.ERROR,
}


@dataclass(frozen=True, slots=True)
class Concern:
    """How something is, in one sentence, and where there is more of it."""

    name: str
    page: str
    status: Status
    sentence: str
    more: str = ""


def worst_first(concerns: Iterable[Concern]) -> list[Concern]:
    """The concerns in the order in which somebody should read them."""
    return sorted(concerns, key=lambda one: _ORDER.index(one.status))


def concerns(settings: Config, now: datetime.datetime) -> list[Concern]:
    """All concerns, the worst first."""
    health, _ = look(settings)
    return worst_first((sending(health), _domains(settings), _reports(settings, now)))


def sending(health: Health) -> Concern:
    """What the daemon does for mail that is sent."""
    reasons = health.reasons or ("nothing is known",)
    if health.level is Level.CRITICAL and "time" not in health.numbers:  # A socket did not answer.
        reasons = ("the daemon does not answer: Postfix defers the mail that it asks about", *reasons)
    first, *rest = reasons
    return Concern("Sending", "/sending", _LEVELS[health.level], _sentence(first), _sentence("; ".join(rest)))


def domains(lines: Iterable[Line] | None) -> Concern:
    """What checks have found on the domains that are published; None: none ever was."""
    known = [line for line in lines or () if line.stage != "removed"]
    if not known:
        return Concern("Domains", "/domains", Status.NOTHING, "No domain is published here.")
    broken = [line for line in known if line.problems]
    if broken:
        # Under mode enforce, what is wrong stops mail.
        enforced = [line for line in broken if line.mode == "enforce"]
        status = Status.ERROR if enforced else Status.WARNING
        listed = enforced or broken
        named = ", ".join(line.domain for line in listed[:3]) + (" and more" if len(listed) > 3 else "")
        kind = " in mode enforce" if enforced else ""
        return Concern("Domains", "/domains", status, f"The last check found problems with {named}{kind}.", _of(known))
    unchecked = sum(line.problems is None for line in known)
    if unchecked:
        sentence = f"Domains that were never checked: {unchecked}."
        return Concern("Domains", "/domains", Status.WARNING, sentence, _of(known))
    return Concern("Domains", "/domains", Status.OK, "The last checks found no problem.", _of(known))


def reported(said: Headline) -> Concern:
    """What the reports of the last days say."""
    status = next(status for status, tone in TONES.items() if tone == said.tone)
    return Concern("Reports", "/results", status, said.first, f"{said.then} {_COUNTED}".lstrip())


def _reports(settings: Config, now: datetime.datetime) -> Concern:
    span = window(now.date(), DAYS)
    try:
        with Reports(Path(settings.reports.path)) as store:
            store.open_to_read()
            with store.snapshot():
                found = facts(store, span, None, _SUMS, unverified=False)
    except ReportsError as error:
        nothing_yet = error.hint and not exists(settings.reports.path)
        status = Status.NOTHING if nothing_yet else Status.ERROR
        return Concern("Reports", "/results", status, _sentence(str(error)), error.hint)
    return reported(headline.of_view(viewing.by_result(span, None, found)))


def _domains(settings: Config) -> Concern:
    try:
        return domains(_lines(settings.publish.path))
    except StoreError as error:
        return Concern("Domains", "/domains", Status.ERROR, _sentence(str(error)))


def _lines(path: str) -> list[Line] | None:
    if not exists(path):
        return None
    store = Store(path, read_only=True)
    try:
        return list(store.lines())
    finally:
        store.close()


def exists(path: str) -> bool:
    """Whether there is a file, as far as we may look."""
    try:
        return Path(path).exists()
    except OSError:  # It may be there, where we may not look. To open it says why.
        return True


def _of(known: list[Line]) -> str:
    return f"{counted(len(known), 'domain is', 'domains are')} published here."


def _sentence(text: str) -> str:
    """What begins with a path or a socket keeps its letters."""
    first = text.partition(" ")[0]
    begun = text if "/" in first else f"{text[:1].upper()}{text[1:]}"
    return begun.rstrip(".") + "." if text else ""
