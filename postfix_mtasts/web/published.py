"""What pages show of the domains that are published: from the database of `publish`, and from reports about them."""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.publish import words
from postfix_mtasts.publish.events import Decision
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.ready import Readiness, as_of, readiness, stops_mail
from postfix_mtasts.publish.records import ZoneRecord, customer_records, domain_records
from postfix_mtasts.publish.state import Stage, State
from postfix_mtasts.publish.store import Entry, Store
from postfix_mtasts.publish.told import told
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.reports.facts import by_domain
from postfix_mtasts.reports.store import Store as Reports
from postfix_mtasts.reports.store import StoreError as ReportsError
from postfix_mtasts.reports.views import DAYS, window
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode
from postfix_mtasts.web.overview import exists

PAGE = 50  # Domains of a page. Each costs some queries of the database of reports.
MAX_HISTORY = 100  # The last entries of a history that are shown.


@dataclass(frozen=True, slots=True)
class Row:
    """A domain in the list. `sessions` are those that succeeded and failed in reports of the last days, if any came.

    `ready` is None if the question does not arise, or cannot be answered.
    """

    state: State
    ready: Readiness | None
    alarm: str | None
    sessions: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of the list, and how many domains there are. `unread` is why nothing is known of reports, or empty."""

    rows: tuple[Row, ...]
    page: int
    pages: int
    count: int
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of a domain. `waits` and `warnings` are in words.

    `ready` is None if it is not in mode testing, or if reports cannot be read: then `unread` says why.
    """

    decision: Decision
    ready: Readiness | None
    alarm: str | None
    waits: tuple[str, ...]
    warnings: tuple[str, ...]
    customer: tuple[ZoneRecord, ...]
    ours: tuple[ZoneRecord, ...]
    history: tuple[tuple[Entry, str], ...]
    unread: str

    @property
    def state(self) -> State:
        """The state as it is stored."""
        return self.decision.state


def listed(settings: Config, page: int) -> Listed:
    """A page of the domains that are published here. Raises StoreError."""
    if not exists(settings.publish.path):
        return Listed((), 1, 1, 0)
    with _store(settings) as store:
        names = [line.domain for line in store.lines() if line.stage != "removed"]
        pages = max(1, -(-len(names) // PAGE))
        page = min(page, pages)
        of_page = names[(page - 1) * PAGE : page * PAGE]
        states = [state for name in of_page if (state := store.get(PolicyDomain(name)))]
    sessions, now = _sessions(settings, of_page), time.time()
    rows, unread = [], ""
    for state in states:
        weighed = _weigh(state, settings, now, unread)
        unread = weighed.unread
        rows.append(Row(state, weighed.ready, weighed.alarm, sessions.get(state.domain.name)))
    return Listed(tuple(rows), page, pages, len(names), unread)


def shown(settings: Config, domain: PolicyDomain) -> Shown | None:
    """A domain, or None if it was never published here. Raises StoreError."""
    if not exists(settings.publish.path):
        return None
    with _store(settings) as store:
        state = store.get(domain)
        history = store.history(domain)[-MAX_HISTORY:]
    if not state:
        return None
    decision, weighed = follows(state), _weigh(state, settings, time.time())
    return Shown(
        decision,
        weighed.ready,
        weighed.alarm,
        tuple(words.waiting(one, state, settings.publish) for one in decision.waits),
        tuple(map(words.forbidden, decision.warnings)),
        customer_records(domain, settings.publish),
        tuple(domain_records(domain, decision.publication.record, settings.publish)),
        tuple((entry, words.change(entry.change)) for entry in reversed(history)),
        weighed.unread,
    )


@dataclass(frozen=True, slots=True)
class _Weighed:
    """What reports say of a domain, or in `unread` why they cannot be read."""

    ready: Readiness | None
    alarm: str | None
    unread: str = ""


def _weigh(state: State, settings: Config, now: float, unread: str = "") -> _Weighed:
    """Weigh what reports say, unless they could not be read for another domain."""
    current = as_of(state, now)
    if not unread:
        try:
            facts = told(settings.reports, current, now)
        except QueryError as error:
            unread = f"{error}{f' ({error.hint})' if error.hint else ''}"
    if unread:
        return _Weighed(None, None, unread)
    asks = state.stage is Stage.PUBLISHED and state.wanted.mode is Mode.TESTING
    return _Weighed(readiness(current, facts) if asks else None, stops_mail(current, facts))


def _sessions(settings: Config, names: list[str]) -> dict[str, tuple[int, int]]:
    if not exists(settings.reports.path):
        return {}
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        with Reports(Path(settings.reports.path)) as store:
            store.open_to_read()
            with store.snapshot():
                return by_domain(store, window(today, DAYS), names)
    except ReportsError:
        return {}  # `told` says why.


@contextmanager
def _store(settings: Config) -> Iterator[Store]:
    store = Store(settings.publish.path, read_only=True)
    try:
        yield store
    finally:
        store.close()
