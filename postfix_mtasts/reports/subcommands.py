"""What each subcommand prints, and its exit status."""

import argparse
import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.query.output import Output, Status, printable, to_json, worst
from postfix_mtasts.reports.actions import Actions, Imported, Quarantined
from postfix_mtasts.reports.facts import facts, stored
from postfix_mtasts.reports.files import files
from postfix_mtasts.reports.reading import Reading, read
from postfix_mtasts.reports.receive import folder
from postfix_mtasts.reports.show import document, line, show
from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.table import print_results, print_sources, wrap
from postfix_mtasts.reports.trust import Verifier
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.views import LONG, SHORT, by_result, by_source, window
from postfix_mtasts.reports.voice import complain

Subcommand = Callable[[argparse.Namespace, Config, Output], Coroutine[None, None, Status]]


async def _read(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    verifier = Verifier(Resolver(settings.dns.nameservers, timeout=settings.dns.timeout))
    statuses: list[Status] = []
    for name in arguments.file:
        for file in files(name):
            reading = await read(file, verifier, _now())
            _show(reading, output, first=not statuses)
            problems = reading.report.problems if reading.report else ()
            statuses.append(Status.ERROR if reading.rejected else Status.WARNING if problems else Status.OK)
    return worst(statuses)


async def _import(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    status = Status.OK
    with _actions(settings) as actions:
        async for one in actions.import_files(arguments.file, _now()):
            state = one.state.value if one.state else "not read"
            found = _imported(one)
            status = worst((status, found))
            if output.json:
                output.document(
                    {
                        "file": one.file,
                        "state": state,
                        "reason": one.reason,
                        "reports": list(one.keys),
                        "problems": list(one.problems),
                    }
                )
            else:
                details = "; ".join(
                    filter(None, (one.reason, f"problems: {len(one.problems)}" if one.problems else ""))
                )
                output.text(f"{one.file}: {state}" + (f": {details}" if details else ""), found)
    return status


def _imported(one: Imported) -> Status:
    if one.state in (None, State.QUARANTINED):
        return Status.ERROR
    return Status.WARNING if one.problems or one.state is State.WAITING else Status.OK


async def _replay(_: argparse.Namespace, settings: Config, output: Output) -> Status:
    counts: Counter[State] = Counter()
    with _actions(settings) as actions:
        async for outcome in actions.replay(_now()):
            counts[outcome.state] += 1
    if output.json:
        output.document({state.value: counts[state] for state in State})
    else:
        output.text(", ".join(f"{counts[state]} {state.value}" for state in State))
    return Status.OK


async def _sources(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    limits, span = LONG if arguments.all else SHORT, window(_now().date(), arguments.days)
    with _store(settings) as store:
        found = facts(store, span, arguments.domain, limits, unverified=arguments.all)
    view = by_source(span, arguments.domain, found, limits)
    if output.json:
        output.document(to_json(view))
    else:
        print_sources(view, output, everything=arguments.all)
    return Status.OK


async def _results(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    limits, span = LONG if arguments.all else SHORT, window(_now().date(), arguments.days)
    with _store(settings) as store:
        found = facts(store, span, arguments.domain, limits, unverified=arguments.all)
    view = by_result(span, arguments.domain, found, limits)
    if output.json:
        output.document(to_json(view))
    else:
        print_results(view, output, everything=arguments.all)
    return Status.OK


async def _show_stored(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    with _store(settings) as store:
        found = stored(store, arguments.report)
    for number, one in enumerate(found):
        _show(Reading(one.key, one.report, one.dkim), output, first=not number)
    if not found:
        complain(f"there is no report with this key or id: {printable(arguments.report)}")
    return Status.OK if found else Status.ERROR


async def _quarantine(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    with _actions(settings) as actions:
        kept = {message.id: message for message in actions.quarantine()}
        if arguments.action == "list":
            for message in kept.values():
                _print_quarantined(message, output)
            return Status.OK
        statuses = [Status.OK]
        for number in arguments.number:
            if number in kept:
                statuses.append(await _HANDLE[arguments.action](actions, kept[number], output))
            else:
                complain(f"there is no message {number} in quarantine")
                statuses.append(Status.ERROR)
    return worst(statuses)


def _print_quarantined(message: Quarantined, output: Output) -> None:
    if output.json:
        output.document(to_json(message))
    else:
        wrap(f"{message.id:<5} {message.received:%Y-%m-%d %H:%M} {message.octets:>9} octets: {message.reason}", output)


async def _show_message(actions: Actions, message: Quarantined, output: Output) -> Status:
    path, reading = await actions.reading(message, _now())
    if output.json:
        output.document({"id": message.id, "reason": message.reason, **document(reading), "file": str(path)})
    else:
        _print_quarantined(message, output)
        show(dataclasses.replace(reading, file=str(path)), output)
        output.text()
    return Status.OK


async def _accept(actions: Actions, message: Quarantined, output: Output) -> Status:
    outcome = await actions.accept(message, _now())
    found = line(outcome) if outcome else "its text is gone"
    status = Status.OK if outcome and outcome.state is not State.QUARANTINED else Status.ERROR
    if output.json:
        state = outcome.state.value if outcome else None
        reports = list(outcome.keys) if outcome else []
        output.document({"id": message.id, "state": state, "result": found, "reports": reports})
    else:
        wrap(f"{message.id}: {found}", output)
    return status


async def _drop(actions: Actions, message: Quarantined, output: Output) -> Status:
    actions.drop(message)
    if output.json:
        output.document({"id": message.id, "state": "dropped"})
    else:
        output.text(f"{message.id}: dropped")
    return Status.OK


def _show(reading: Reading, output: Output, *, first: bool) -> None:
    if output.json:
        output.document(document(reading))
        return
    if not first:
        output.text()
    show(reading, output)


def _actions(settings: Config) -> Actions:
    return Actions(settings, Spool(folder(settings)))


def _store(settings: Config) -> Store:
    store = Store(Path(settings.reports.path))
    store.open_to_read()
    return store


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


_HANDLE = {"show": _show_message, "accept": _accept, "drop": _drop}
SUBCOMMANDS: Mapping[str, Subcommand] = {
    "read": _read,
    "import": _import,
    "replay": _replay,
    "sources": _sources,
    "results": _results,
    "show": _show_stored,
    "quarantine": _quarantine,
}
