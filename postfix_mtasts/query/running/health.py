"""Tell a monitoring system whether the daemon is well; a plugin for Nagios and its like.

    MTA-STS OK - answers Postfix; 12 policies, 1 of them not renewed|time=0.002s policies=12 not_renewed=1 …

    CRITICAL  2  on one of `server.listen`, the daemon does not answer a query as Postfix makes it within 5 seconds
    WARNING   1  a policy that cannot be renewed is about to end: less than a quarter of its max_age is left, and the
                 log has an error; or the database cannot be written; or the control socket cannot be used
    OK        0  neither; policies that cannot be renewed yet are only counted, for that is mostly up to their owners
    UNKNOWN   3  the configuration is wrong, so that nothing can be known

With `server.control = ""`, only the answers are looked at.
"""

import argparse
import asyncio
import enum
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.config import Config, ConfigError, Endpoint
from postfix_mtasts.daemon.command import read_config
from postfix_mtasts.log.events import span
from postfix_mtasts.query.output import JSON, Output, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask, ask_as_postfix
from postfix_mtasts.query.running.render import iso

# Below the ten seconds that monitoring systems give a plugin.
_ANSWER_WITHIN = 5.0  # Seconds.
_CONTROL_WITHIN = 3.0  # Seconds.
_KEY = ".health"  # Nothing that begins with a dot has a policy: it costs no lookup.
_NOT_FOUND = "NOTFOUND "


class Level(enum.IntEnum):
    """The exit status of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Health:
    """A level, why, and numbers for graphs."""

    level: Level
    reasons: tuple[str, ...]
    numbers: Mapping[str, str]

    def __str__(self) -> str:
        numbers = " ".join(f"{name}={value}" for name, value in self.numbers.items())
        # A bar would begin the numbers.
        text = "; ".join(self.reasons).replace("|", "/")
        return f"MTA-STS {self.level.name} - {text}{'|' if numbers else ''}{numbers}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none."""


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand."""
    status: JSON | str | None = None
    try:
        settings = read_config(arguments.config)
    except ConfigError as error:
        health = Health(Level.UNKNOWN, (str(error),), {})
    else:
        begin = time.monotonic()
        silent = asyncio.run(_silent(settings))
        seconds = time.monotonic() - begin
        status = _status(settings)
        health = judge(silent, seconds, status, time.time())
    if output.json:
        known = None if status is None or isinstance(status, str) else _document(status)
        output.document({"status": health.level.name, "reasons": health.reasons, "daemon": known})
    else:
        output.text(str(health))
    return Status(health.level)


def judge(silent: Sequence[str], seconds: float, status: JSON | str | None, now: float) -> Health:
    """What to say if this is wrong with listeners, and the others answered after so many seconds.

    `status` is what the control socket said (`control`), why it said nothing, or None if there is none.
    """
    numbers = {} if silent else {"time": f"{seconds:.3f}s"}
    warning: list[str] = []
    fine = [] if silent else ["answers Postfix"]
    match status:
        case str(reason):
            warning.append(reason)
        case None:
            pass
        case _:
            warning += _troubles(status, now)
            fine += _counts(status)
            numbers |= _numbers(status)
    level = Level.CRITICAL if silent else Level.WARNING if warning else Level.OK
    return Health(level, (*silent, *warning, *fine), numbers)


def _troubles(status: JSON, now: float) -> list[str]:
    database, policies = status["database"], status["policies"]
    troubles = []
    if ending := policies["ending"]:
        which = "1 policy that cannot be renewed is" if ending == 1 else f"{ending} policies that cannot be renewed are"
        troubles.append(f"{which} about to end, the first in {span(max(0.0, policies['first_ends_at'] - now))}")
    if not database["writable"]:
        since = span(max(0.0, now - database["trouble_since"]))
        waiting = database["pending_writes"]
        troubles.append(f"the database cannot be used since {since}: {database['trouble']}; {waiting} writes wait")
    return troubles


def _counts(status: JSON) -> list[str]:
    policies = status["policies"]
    stored, failing = policies["stored"], policies["not_renewed"]
    if stored is None:
        return []
    return [
        f"{stored} {'policy' if stored == 1 else 'policies'}" + (f", {failing} of them not renewed" if failing else "")
    ]


def _numbers(status: JSON) -> dict[str, str]:
    policies = status["policies"]
    numbers = {
        "policies": policies["stored"],
        "not_renewed": policies["not_renewed"],
        "ending": policies["ending"],
        "pending_writes": status["database"]["pending_writes"],
    }
    return {name: str(number) for name, number in numbers.items() if number is not None}


async def _silent(settings: Config) -> list[str]:
    """What is wrong with the listeners."""
    wrong = await asyncio.gather(*map(_wrong, settings.server.listen))
    return [reason for reason in wrong if reason]


async def _wrong(endpoint: Endpoint) -> str | None:
    try:
        reply = (await ask_as_postfix(endpoint, _KEY, _ANSWER_WITHIN)).reply
    except QueryError as error:
        return str(error)
    return None if reply == _NOT_FOUND else f"{endpoint} says {reply[:60]!a}"


def _status(settings: Config) -> JSON | str | None:
    if not settings.server.control:
        return None
    try:
        (status,) = ask(settings.server.control, {"request": "status"}, _CONTROL_WITHIN)
    except (NoDaemon, QueryError) as error:
        return str(error)
    return status


def _document(status: JSON) -> JSON:
    """The reply to status (`control`), with times in ISO 8601."""
    database, policies = status["database"], status["policies"]
    return {
        **status,
        "started_at": iso(status["started_at"]),
        "database": {**database, "trouble_since": iso(database["trouble_since"])},
        "policies": {**policies, "first_ends_at": iso(policies["first_ends_at"])},
    }
