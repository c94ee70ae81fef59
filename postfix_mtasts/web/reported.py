"""What pages show of TLS reports: the views, the list, a report, and a mail in quarantine."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.query.output import JSON, to_json
from postfix_mtasts.reports.actions import Quarantined, quarantined
from postfix_mtasts.reports.facts import Recent, Stored, facts, recent, stored
from postfix_mtasts.reports.hiding import hidden
from postfix_mtasts.reports.pages import Views, views
from postfix_mtasts.reports.reading import report_in
from postfix_mtasts.reports.report import Dkim, DkimState, Report, ReportError
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.viewing import SHORT, Limits, by_source
from postfix_mtasts.reports.views import WINDOWS, window

# What a view lists, so that its page has at most 200 kB of usual texts.
LIMITS = Limits(rows=25, failures=8, reports=8, policies=8, mx=8)
CLOSED = Limits(rows=25, failures=0, reports=1, policies=0, mx=8)
PAGE = 100  # Reports of a page of the list.
MAX_KEPT = 20  # Mails in quarantine above them. Anybody can send more, and they would hide the reports.
MAX_READ = 256 * 1024  # Octets of a mail in quarantine that a page reads. A usual report has 16 KiB.


class MailError(Exception):
    """A mail cannot be read, though it may be there. The message says why."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A page of the list of reports, whether there is another one, and on the first what is in quarantine."""

    reports: list[Recent]
    more: bool
    kept: list[Quarantined]
    kept_more: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A mail in quarantine. Without a report, `unread` says why none can be shown, if the reason does not."""

    message: Quarantined
    dkim: Dkim
    report: Report | None
    unread: str


def sources(settings: Config, today: datetime.date, days: int) -> Views:
    """The views with the rows of sources, which are not opened. Raises StoreError."""
    return _of_window(settings, today, days, CLOSED, CLOSED)


def results(settings: Config, today: datetime.date, days: int) -> Views:
    """The views with the rows of results, and without sources. Raises StoreError."""
    return _of_window(settings, today, days, replace(LIMITS, rows=0), LIMITS)


def _of_window(settings: Config, today: datetime.date, days: int, read: Limits, shown: Limits) -> Views:
    span = window(today, days)
    with _opened(settings) as store:
        found = facts(store, span, None, read, unverified=False, hidden=hidden(store))
    return views(span, found, shown)


def source(settings: Config, today: datetime.date, days: int, name: str) -> Views | None:
    """The views with the row of one source alone, hidden or not; None if it has not reported. Raises StoreError."""
    span = window(today, days)
    with _opened(settings) as store:
        found = facts(store, span, None, LIMITS, unverified=False, hidden=hidden(store), only=name)
    return views(span, found, LIMITS) if found.lines else None


def as_printed(settings: Config, today: datetime.date, days: int) -> JSON:
    """The view by source, as the command prints it with --json. Raises StoreError."""
    span = window(today, days)
    with _opened(settings) as store:
        found = facts(store, span, None, SHORT, unverified=False, hidden=hidden(store))
    document: JSON = to_json(by_source(span, None, found, SHORT))
    return document


def listed(settings: Config, today: datetime.date, page: int) -> Lines:
    """A page of the list, from 1 on. Raises StoreError."""
    with _opened(settings) as store:
        lines = recent(store, window(today, WINDOWS[-1]), (page - 1) * PAGE, PAGE + 1)
        kept = quarantined(store) if page == 1 else []
    return Lines(lines[:PAGE], len(lines) > PAGE, kept[:MAX_KEPT], len(kept[MAX_KEPT:]))


def report(settings: Config, key: str) -> Stored | None:
    """A report. Raises StoreError."""
    with _opened(settings) as store:
        found = stored(store, key)
    return found[0] if found else None


def in_quarantine(settings: Config, number: int, mail: Callable[[str], bytes]) -> Kept | None:
    """A mail in quarantine, of which `mail` has the text; None if there is none of this number. Raises StoreError."""
    with _opened(settings) as store:
        message = next((one for one in quarantined(store) if one.id == number), None)
        if not message:
            return None
        sent = store.one("SELECT dkim, signer, dkim_reason FROM messages WHERE id = ?", (number,))
    state, signer, reason = sent or (DkimState.NONE.value, None, "")
    dkim = Dkim(DkimState(state), signer, reason)
    if message.octets > MAX_READ:
        why = f"It is larger than {MAX_READ // 1024} KiB. To read it: postfix-mtasts-reports quarantine show {number}"
        return Kept(message, dkim, None, why)
    try:
        return Kept(message, dkim, report_in(message.name, mail(message.name)), "")
    except ReportError as error:
        return Kept(message, dkim, None, "" if str(error) == message.reason else str(error))
    except FileNotFoundError:
        return Kept(message, dkim, None, "The mail is not kept any more.")
    except MailError as error:
        return Kept(message, dkim, None, f"Its mail cannot be read: {error}.")
    except Exception as error:  # noqa: BLE001 - it may be here because of a defect of ours
        return Kept(message, dkim, None, f"internal error, {type(error).__name__}")


@contextmanager
def _opened(settings: Config) -> Iterator[Store]:
    with Store(Path(settings.reports.path)) as store:
        store.open_to_read()
        with store.snapshot():
            yield store
