"""Writes the pages of views and reports into a folder: the reports first, and what a web server shows first last."""

import datetime
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from postfix_mtasts.reports.facts import Stored, facts, stored_of
from postfix_mtasts.reports.folder import Folder
from postfix_mtasts.reports.hiding import hidden
from postfix_mtasts.reports.pages import INDEX, LIMITS, Links, Listed, Pages, Views, listed, sender_of, views
from postfix_mtasts.reports.report import Reading
from postfix_mtasts.reports.show import document
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.views import WINDOWS, Sender, window

MAX_REPORTS = 10_000  # That have pages: 100 a day.
MAX_OCTETS = 64 * 1024 * 1024  # Of the pages of a sender's reports, with their JSON. Usual reports have 16 KiB.
MAX_ALL_OCTETS = 512 * 1024 * 1024  # Of all senders.
_PAGE = 250  # Reports of a page of the list.


def write(store: Store, path: Path, now: datetime.datetime) -> int:
    """Write pages of all that is stored, and return how many reports have one. Raises FolderError and OSError."""
    today = now.date()
    reports = stored_of(store, window(today, WINDOWS[-1]), MAX_REPORTS + 1)
    return write_pages(path, {days: _views(store, today, days) for days in WINDOWS}, reports, now)


def _views(store: Store, today: datetime.date, days: int) -> Views:
    span = window(today, days)
    return views(span, facts(store, span, None, LIMITS, unverified=False, hidden=hidden(store)))


def write_pages(path: Path, windows: Mapping[int, Views], reports: Iterable[Stored], now: datetime.datetime) -> int:
    """Write the pages of views, by the days of their windows, and of these reports, which are read one by one."""
    links = Links()
    pages = Pages(now, links)
    with Folder(path) as folder:
        lines, more = _write_reports(folder, pages, links, reports)
        lines.sort(key=lambda line: (line.end, line.key), reverse=True)
        _write_list(folder, pages, links, lines, more=more)
        _write_views(folder, pages, links, windows, {line.key for line in lines})
    return len(lines)


def _write_reports(folder: Folder, pages: Pages, links: Links, reports: Iterable[Stored]) -> tuple[list[Listed], bool]:
    """Write the pages of reports. Return what the list has of them, and whether there are reports without a page."""
    lines: list[Listed] = []
    octets: Counter[Sender] = Counter()
    more = False
    for number, stored in enumerate(reports):
        if number == MAX_REPORTS or octets.total() > MAX_ALL_OCTETS:
            return lines, True
        sender = sender_of(stored)
        if octets[sender] > MAX_OCTETS:
            more = True
            continue
        page, text = pages.report(stored).encode(), _json(stored, links)
        octets[sender] += len(page) + len(text)
        folder.put(links.report(stored.key), page)
        folder.put(links.json(stored.key), text)
        lines.append(listed(stored))
    return lines, more


def _json(stored: Stored, links: Links) -> bytes:
    found = document(Reading(links.json(stored.key), stored.report, stored.dkim))
    return json.dumps(found, allow_nan=False).encode() + b"\n"


def _write_list(folder: Folder, pages: Pages, links: Links, lines: list[Listed], *, more: bool) -> None:
    parts = [lines[first : first + _PAGE] for first in range(0, len(lines), _PAGE)] or [[]]
    for page, part in enumerate(parts, 1):
        text = pages.reports(page, part, page_count=len(parts), line_count=len(lines), more=more)
        folder.put(links.reports(page), text.encode())


def _write_views(
    folder: Folder, pages: Pages, links: Links, windows: Mapping[int, Views], keys: Collection[str]
) -> None:
    for days, found in windows.items():
        folder.put(links.results(days), pages.results(found).encode())
    for days, found in sorted(windows.items(), key=lambda window: links.sources(window[0]) == INDEX):
        folder.put(links.sources(days), pages.sources(found, keys).encode())
