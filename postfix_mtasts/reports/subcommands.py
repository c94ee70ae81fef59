"""The subcommands that read mails, or change what is stored: what they print, and their exit statuses."""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Mapping

from postfix_mtasts.config import Config
from postfix_mtasts.counting import counted
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.query.output import Output, QueryError, Status, to_json, worst
from postfix_mtasts.reports.actions import Actions, Imported, Quarantined
from postfix_mtasts.reports.files import files
from postfix_mtasts.reports.hiding import MAX_HIDDEN
from postfix_mtasts.reports.looking import Subcommand, now, show_one
from postfix_mtasts.reports.reading import read
from postfix_mtasts.reports.show import document, show
from postfix_mtasts.reports.spool import Spool, folder
from postfix_mtasts.reports.table import wrap
from postfix_mtasts.reports.trust import Verifier
from postfix_mtasts.reports.verdict import State


async def _read(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    verifier = Verifier(Resolver(settings.dns.nameservers, timeout=settings.dns.timeout))
    statuses: list[Status] = []
    for name in arguments.file:
        for file in files(name):
            reading = await read(file, verifier, now())
            show_one(reading, output, first=not statuses)
            problems = reading.report.problems if reading.report else ()
            statuses.append(Status.ERROR if reading.rejected else Status.WARNING if problems else Status.OK)
    return worst(statuses)


async def _import(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    status = Status.OK
    with _actions(settings) as actions:
        async for one in actions.import_files(arguments.file, now()):
            found = _imported(one)
            status = worst((status, found))
            if output.json:
                output.document(
                    {
                        "file": one.file,
                        "state": one.state.value if one.state else "not read",
                        "reason": one.reason,
                        "reports": list(one.keys),
                        "problems": list(one.problems),
                    }
                )
            else:
                problems = f"; problems: {len(one.problems)}" if one.problems else ""
                output.text(f"{one.file}: {one.summary}{problems}", found)
    return status


def _imported(one: Imported) -> Status:
    if one.state in (None, State.QUARANTINED):
        return Status.ERROR
    return Status.WARNING if one.problems or one.state is State.WAITING else Status.OK


async def _replay(_: argparse.Namespace, settings: Config, output: Output) -> Status:
    counts: Counter[State] = Counter()
    with _actions(settings) as actions:
        async for outcome in actions.replay(now()):
            counts[outcome.state] += 1
    if output.json:
        output.document({state.value: counts[state] for state in State})
    else:
        output.text(", ".join(f"{counts[state]} {state.value}" for state in State))
    return Status.OK


async def _quarantine(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    with _actions(settings) as actions:
        kept = {message.id: message for message in actions.quarantine()}
        if arguments.action == "list":
            for message in kept.values():
                _print_quarantined(message, output)
            return Status.OK
        statuses = [
            await _HANDLE[arguments.action](actions, kept[number], output)
            for number in arguments.number
            if number in kept
        ]
    if missing := ", ".join(str(number) for number in arguments.number if number not in kept):
        raise QueryError(f"there is no message {missing} in quarantine", status=Status.ERROR)
    return worst(statuses)


def _print_quarantined(message: Quarantined, output: Output) -> None:
    if output.json:
        output.document(to_json(message))
    else:
        time = f"{message.received:%Y-%m-%d %H:%M}"
        wrap(f"{message.id}: {message.reason} ({time}, {counted(message.octets, 'octet')})", output, hanging="  ")


async def _show_message(actions: Actions, message: Quarantined, output: Output) -> Status:
    path, reading = await actions.reading(message, now())
    if output.json:
        output.document({"id": message.id, "reason": message.reason, **document(reading), "file": str(path)})
    else:
        _print_quarantined(message, output)
        show(dataclasses.replace(reading, file=str(path)), output)
        output.text()
    return Status.OK


async def _accept(actions: Actions, message: Quarantined, output: Output) -> Status:
    outcome = await actions.accept(message, now())
    found = outcome.summary if outcome else "its text is gone"
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


async def _hide(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    source = arguments.source
    with _actions(settings) as actions:
        if not actions.is_source(source):
            raise QueryError(f"no verified report of {source} is stored", status=Status.ERROR)
        if not actions.hide(source, now()):
            raise QueryError(f"{MAX_HIDDEN} sources are hidden, and no more can be", status=Status.ERROR)
    _print_hidden(source, True, output)
    return Status.OK


async def _unhide(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    with _actions(settings) as actions:
        if not actions.unhide(arguments.source):
            raise QueryError(f"{arguments.source} is not hidden", status=Status.ERROR)
    _print_hidden(arguments.source, False, output)
    return Status.OK


def _print_hidden(source: str, is_hidden: bool, output: Output) -> None:
    if output.json:
        output.document({"source": source, "hidden": is_hidden})
    else:
        output.text(f"{source}: " + ("hidden until it changes" if is_hidden else "shown again"))


def _actions(settings: Config) -> Actions:
    return Actions(settings, Spool(folder(settings.reports.path)))


_HANDLE = {"show": _show_message, "accept": _accept, "drop": _drop}
SUBCOMMANDS: Mapping[str, Subcommand] = {
    "read": _read,
    "import": _import,
    "replay": _replay,
    "quarantine": _quarantine,
    "hide": _hide,
    "unhide": _unhide,
}
