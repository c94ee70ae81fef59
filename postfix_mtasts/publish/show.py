"""Prints domains, as text or as JSON."""

import dataclasses
from collections.abc import Sequence

from postfix_mtasts.config import Publish
from postfix_mtasts.counting import counted
from postfix_mtasts.publish import words
from postfix_mtasts.publish.events import Decision
from postfix_mtasts.publish.files import path_of
from postfix_mtasts.publish.ready import Readiness
from postfix_mtasts.publish.state import State
from postfix_mtasts.publish.store import Entry, Line
from postfix_mtasts.query.domain.remark import Remark
from postfix_mtasts.query.output import JSON, SEVERITIES, Output, Status, worst

_INDENT = 12


def status_of(decision: Decision, remarks: Sequence[Remark] = ()) -> Status:
    """How serious what was remarked on a domain is. An MX host that senders refuse is an error."""
    return worst([Status.ERROR for _ in decision.warnings] + [remark.status for remark in remarks])


def document(decision: Decision, settings: Publish, remarks: Sequence[Remark] = ()) -> JSON:
    """A domain as JSON. The manual lists the members."""
    state = decision.state
    file = decision.publication.file
    checked = state.checked
    return {
        "domain": state.domain.name,
        "mode": state.wanted.mode.value,
        "stage": state.stage.value,
        "max_age": state.wanted.max_age,
        "mx": [str(one) for one in state.wanted.mx],
        "file": None if file is None else str(path_of(settings.policies, state.domain)),
        "policy": None if file is None else str(file),
        "id": decision.publication.record,
        "id_in_dns": state.known,
        "certificate": decision.publication.certificate,
        "checked": None
        if checked is None
        else {
            "at": words.date(state.clock.date(checked.at)),
            "problems": list(checked.problems),
            "certificates": [{"host": host, "until": words.date(end)} for host, end in checked.certificates],
        },
        "waits": [
            {**dataclasses.asdict(one), "until": words.date(one.until), "text": words.waiting(one, state, settings)}
            for one in decision.waits
        ],
        "warnings": [
            {"host": one.host, "until": words.date(one.until), "text": words.forbidden(one)}
            for one in decision.warnings
        ],
        "remarks": [
            {"status": one.status.name.lower(), "check": one.check, "text": one.text}
            for one in remarks
            if one.status is not Status.OK
        ],
    }


def show_result(decision: Decision, remarks: Sequence[Remark], settings: Publish, output: Output) -> None:
    """Print how a domain is now, after a change or a check."""
    if output.json:
        output.document(document(decision, settings, remarks))
        return
    state = decision.state
    serious = status_of(decision, remarks)
    output.text(f"{state.domain}: {_summary(state)}", serious if serious is not Status.OK else None)
    for remark in remarks:
        if remark.status is not Status.OK:
            _line(SEVERITIES[remark.status], remark.text, output, remark.status)
    remarked = {one.host for one in decision.warnings if one.current and any(one.host in r.text for r in remarks)}
    warnings = tuple(one for one in decision.warnings if one.host not in remarked)
    _follows(dataclasses.replace(decision, warnings=warnings), settings, output)


def tell(remark: Remark, output: Output) -> None:
    """Print a remark on all domains."""
    if output.json:
        output.document({"status": remark.status.name.lower(), "check": remark.check, "text": remark.text})
    else:
        output.text(f"{SEVERITIES[remark.status]}: {remark.text}", remark.status)


def show_domain(decision: Decision, history: Sequence[Entry], settings: Publish, output: Output) -> None:
    """Print all that is known of a domain."""
    state = decision.state
    if output.json:
        entries = [
            {"at": words.date(entry.at), "who": entry.who, **dataclasses.asdict(entry.change)} for entry in history
        ]
        output.document({**document(decision, settings), "history": entries})
        return
    output.text(f"{state.domain}: {_summary(state)}")
    if decision.publication.file:
        _line("file", str(path_of(settings.policies, state.domain)), output)
        for number, text in enumerate(str(decision.publication.file).splitlines()):
            _line("policy" if number == 0 else "", text, output)
    if state.record:
        shown = "seen in DNS" if state.known else "not seen in DNS yet"
        _line("id", f"{state.record}, {shown}", output)
    if state.checked:
        found = _found(len(state.checked.problems))
        _line("checked", f"{words.day(state.clock.date(state.checked.at))}: {found}", output)
        for problem in state.checked.problems:
            _line("", problem, output, Status.WARNING)
        for host, end in state.checked.certificates:
            _line("", f"{host}: certificate until {words.day(end)}", output)
    else:
        _line("checked", "never", output)
    _follows(decision, settings, output)
    for number, entry in enumerate(history):
        text = f"{words.day(entry.at)} {entry.who}: {words.change(entry.change)}"
        _line("history" if number == 0 else "", text, output)


def _found(problems: int) -> str:
    return counted(problems, "problem") if problems else "clean"


def show_line(line: Line, output: Output) -> None:
    """Print a domain in a list."""
    if output.json:
        output.document(dataclasses.asdict(line))
        return
    problems = "never checked" if line.problems is None else _found(line.problems)
    stage = line.mode if line.stage == "published" else line.stage
    waits = f", waits for {', '.join(line.waits)}" if line.waits else ""
    output.text(f"{line.domain}: {stage}, {problems}{waits}")


def show_readiness(state: State, found: Readiness, alarm: str | None, output: Output) -> None:
    """Print each condition for mode enforce, and whether it is met."""
    if output.json:
        conditions = [{**dataclasses.asdict(one), "on": words.date(one.on)} for one in found.conditions]
        made = {"domain": state.domain.name, "mode": state.wanted.mode.value, "ready": found.ready}
        on = words.date(found.on)
        output.document(
            {
                **made,
                "on": on,
                "too_little_mail": found.too_little,
                "stops_mail": alarm,
                "hint": found.hint or None,
                "conditions": conditions,
            }
        )
        return
    verdict = "ready for mode enforce" if found.ready else "not ready for mode enforce"
    if not found.ready and found.on is not None:
        verdict += f" before {words.day(found.on)}"
    output.text(f"{state.domain}: {verdict}", Status.OK if found.ready else Status.WARNING)
    for one in found.conditions:
        when = f"; met on {words.day(one.on)}, if nothing changes" if one.on is not None and not one.met else ""
        _line("met" if one.met else "not met", f"{one.text}{when}", output, Status.OK if one.met else Status.WARNING)
    if found.hint:
        _line("next", found.hint, output)
    if found.too_little:
        force = (
            f"`postfix-mtasts-publish mode {state.domain} enforce --force REASON` needs a clean check or a reason only"
        )
        _line("note", f"the domain gets too little mail to meet all conditions; {force}", output)
    if alarm:
        _line("error", alarm, output, Status.ERROR)


def _summary(state: State) -> str:
    if state.stage.value == "published":
        return f"mode {state.wanted.mode.value}"
    return f"being removed: {state.stage.value}" if state.stage.value != "removed" else "removed"


def _follows(decision: Decision, settings: Publish, output: Output) -> None:
    for warning in decision.warnings:
        _line("error", words.forbidden(warning), output, Status.ERROR)
    for number, wait in enumerate(decision.waits):
        _line("waits" if number == 0 else "", words.waiting(wait, decision.state, settings), output)


def _line(name: str, text: str, output: Output, status: Status | None = None) -> None:
    output.text(f"  {name:{_INDENT - 2}}{text}", status)
