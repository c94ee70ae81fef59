"""Check the daemon for a monitoring system: a plugin for Nagios and compatible systems.

    MTA-STS OK - answers Postfix; 12 policies, 1 not renewed|time=0.002s policies=12 not_renewed=1 …

    CRITICAL  2  the daemon does not answer a query like Postfix's within 5 seconds on one of `server.listen`
    WARNING   1  a policy that could not be renewed is about to expire: less than a quarter of its max_age is left, and
                 the log has an error; or the daemon cannot write the database; or the control socket does not work
    OK        0  none of these; other policies that could not be renewed are only counted, because usually only the
                 owner of the domain can help
    UNKNOWN   3  the configuration is wrong

With `server.control = ""`, the command checks only the answers.
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

# Together less than ten seconds, after which monitoring systems stop a plugin.
_ANSWER_WITHIN = 5.0  # Seconds.
_CONTROL_WITHIN = 3.0  # Seconds.
_KEY = ".health"  # A key that begins with a dot has no policy, so the daemon answers without a lookup.
_NOT_FOUND = "NOTFOUND "


class Level(enum.IntEnum):
    """The exit status of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Health:
    """A level, the reasons for it, and numbers for graphs."""

    level: Level
    reasons: tuple[str, ...]
    numbers: Mapping[str, str]

    def __str__(self) -> str:
        numbers = " ".join(f"{name}={value}" for name, value in self.numbers.items())
        # The first bar separates the text from the numbers.
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
        unanswered = asyncio.run(_unanswered(settings))
        seconds = time.monotonic() - begin
        status = _status(settings)
        health = judge(unanswered, seconds, status, time.time())
    if output.json:
        daemon = None if status is None or isinstance(status, str) else _document(status)
        output.document({"status": health.level.name, "reasons": health.reasons, "daemon": daemon})
    else:
        output.text(str(health))
    return Status(health.level)


def judge(unanswered: Sequence[str], seconds: float, status: JSON | str | None, now: float) -> Health:
    """The health that follows from what was observed at the time `now`.

    `unanswered` has a reason for each socket that did not answer; the others answered within `seconds`. `status` is the
    daemon's status document (`daemon.control`), the reason why it could not be had, or None without a control socket.
    """
    numbers = {} if unanswered else {"time": f"{seconds:.3f}s"}
    warning: list[str] = []
    fine = [] if unanswered else ["answers Postfix"]
    match status:
        case str(reason):
            warning.append(reason)
        case None:
            pass
        case _:
            warning += _troubles(status, now)
            fine += _counts(status)
            numbers |= _numbers(status)
    level = Level.CRITICAL if unanswered else Level.WARNING if warning else Level.OK
    return Health(level, (*unanswered, *warning, *fine), numbers)


def _troubles(status: JSON, now: float) -> list[str]:
    database, policies = status["database"], status["policies"]
    troubles = []
    if ending := policies["ending"]:
        left = policies["first_ends_at"] - now
        when = f"in {span(left)}" if left > 0 else "now"
        if ending == 1:
            troubles.append(f"1 policy that could not be renewed expires {when}")
        else:
            troubles.append(f"{ending} policies that could not be renewed expire soon, the first {when}")
    if not database["writable"]:
        since = span(max(0.0, now - database["trouble_since"]))
        waiting = database["pending_writes"]
        troubles.append(f"the database has not worked for {since}: {database['trouble']}; pending writes: {waiting}")
    return troubles


def _counts(status: JSON) -> list[str]:
    policies = status["policies"]
    stored, failing = policies["stored"], policies["not_renewed"]
    if stored is None:
        return []
    return [f"{stored} {'policy' if stored == 1 else 'policies'}{f', {failing} not renewed' if failing else ''}"]


def _numbers(status: JSON) -> dict[str, str]:
    policies = status["policies"]
    numbers = {
        "policies": policies["stored"],
        "not_renewed": policies["not_renewed"],
        "ending": policies["ending"],
        "pending_writes": status["database"]["pending_writes"],
    }
    return {name: str(number) for name, number in numbers.items() if number is not None}


async def _unanswered(settings: Config) -> list[str]:
    """A reason for each socket on which the daemon does not answer."""
    reasons = await asyncio.gather(*map(_why_unanswered, settings.server.listen))
    return [reason for reason in reasons if reason]


async def _why_unanswered(endpoint: Endpoint) -> str | None:
    try:
        reply = (await ask_as_postfix(endpoint, _KEY, _ANSWER_WITHIN)).reply
    except QueryError as error:
        return str(error)
    return None if reply == _NOT_FOUND else f"{endpoint} answers {reply[:60]!a} instead of NOTFOUND"


def _status(settings: Config) -> JSON | str | None:
    if not settings.server.control:
        return None
    try:
        (status,) = ask(settings.server.control, {"request": "status"}, _CONTROL_WITHIN)
    except (NoDaemon, QueryError) as error:
        return str(error)
    return status


def _document(status: JSON) -> JSON:
    """The daemon's status document (`daemon.control`), with times in ISO 8601."""
    database, policies = status["database"], status["policies"]
    return {
        **status,
        "started_at": iso(status["started_at"]),
        "database": {**database, "trouble_since": iso(database["trouble_since"])},
        "policies": {**policies, "first_ends_at": iso(policies["first_ends_at"])},
    }
