"""The subcommands that show what is stored: what they print, and their exit statuses.

But for `html`, they need no library but those of the daemon, and start in a fraction of the time of the others.
"""

import argparse
import datetime
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.counting import counted
from postfix_mtasts.query.output import Output, Status, printable, to_json
from postfix_mtasts.reports.facts import facts, stored
from postfix_mtasts.reports.hiding import hidden
from postfix_mtasts.reports.report import Reading
from postfix_mtasts.reports.show import document, show
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.table import print_results, print_sources
from postfix_mtasts.reports.viewing import LONG, SHORT, by_result, by_source
from postfix_mtasts.reports.views import window
from postfix_mtasts.reports.voice import complain

Subcommand = Callable[[argparse.Namespace, Config, Output], Coroutine[None, None, Status]]


async def _sources(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    limits, span = LONG if arguments.all else SHORT, window(now().date(), arguments.days)
    with _store(settings) as store, store.snapshot():
        out = () if arguments.all else hidden(store)
        found = facts(store, span, arguments.domain, limits, unverified=arguments.all, hidden=out)
    view = by_source(span, arguments.domain, found, limits)
    if output.json:
        output.document(to_json(view))
    else:
        print_sources(view, output, everything=arguments.all)
    return Status.OK


async def _results(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    limits, span = LONG if arguments.all else SHORT, window(now().date(), arguments.days)
    with _store(settings) as store, store.snapshot():
        found = facts(store, span, arguments.domain, limits, unverified=arguments.all)
    view = by_result(span, arguments.domain, found, limits)
    if output.json:
        output.document(to_json(view))
    else:
        print_results(view, output, everything=arguments.all)
    return Status.OK


async def _show_stored(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    with _store(settings) as store, store.snapshot():
        found = stored(store, arguments.report)
    for number, one in enumerate(found):
        show_one(Reading(one.key, one.report, one.dkim), output, first=not number)
    if not found:
        complain(f"there is no report with this key or id: {printable(arguments.report)}")
    return Status.OK if found else Status.ERROR


async def _html(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    # It needs a library of the extra `reports`.
    from postfix_mtasts.reports.folder import FolderError
    from postfix_mtasts.reports.pages import INDEX
    from postfix_mtasts.reports.site import write

    folder = Path(arguments.directory)
    try:
        with _store(settings) as store, store.snapshot():
            count = write(store, folder, now())
    except FolderError as error:
        complain(printable(str(error)))
        return Status.UNAVAILABLE
    output.text(f"{counted(count, 'report')}: {folder / INDEX}")
    return Status.OK


def show_one(reading: Reading, output: Output, *, first: bool) -> None:
    """Print a report."""
    if output.json:
        output.document(document(reading))
        return
    if not first:
        output.text()
    show(reading, output)


def _store(settings: Config) -> Store:
    store = Store(Path(settings.reports.path))
    store.open_to_read()
    return store


def now() -> datetime.datetime:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


VIEWS: Mapping[str, Subcommand] = {"sources": _sources, "results": _results, "show": _show_stored, "html": _html}
