"""Runs the commands for buttons, by their own parsers and functions, and keeps what they print.

A button is a line that somebody could type. So the dashboard can nothing that the commands cannot.
"""

import asyncio
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import Config
from postfix_mtasts.publish import command as publish
from postfix_mtasts.publish.events import RefusedError
from postfix_mtasts.publish.files import FileError
from postfix_mtasts.publish.store import StoreError
from postfix_mtasts.query import command as query
from postfix_mtasts.query.domain import domains
from postfix_mtasts.query.output import JSON, Output, QueryError, Status, printable
from postfix_mtasts.reports import command as reports
from postfix_mtasts.reports.store import StoreError as ReportsError
from postfix_mtasts.reports.subcommands import SUBCOMMANDS
from postfix_mtasts.reports.wording import visible

WITHIN = 150.0  # Seconds for a command.
MAX_LINES = 500  # That are kept of what it prints.

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments."""

    program: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """The line for a shell."""
        return shlex.join((self.program, *self.words))


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, each line with how serious it is, and its exit status."""

    status: Status
    lines: tuple[tuple[str, Status | None], ...]


class Kept(Output):
    """Keeps what is printed."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, Status | None]] = []

    def text(self, line: str = "", status: Status | None = None) -> None:
        """Keep a line."""
        if len(self.lines) < MAX_LINES:
            self.lines.append((visible(line).rstrip(), status))

    def warn(self, line: str) -> None:
        """Keep a warning."""
        self.text(f"warning: {line}", Status.WARNING)

    def progress(self, line: str) -> None:
        """Show nothing: the page comes when all is done."""

    def document(self, value: JSON) -> None:
        """Nothing is asked for JSON."""
        raise NotImplementedError


async def run(command: Command, user: str, settings: Config, config: str | None) -> Done:
    """Run a command for a user, and tell it in the log. What fails is what the command would have told."""
    output = Kept()
    failure: tuple[str, ...] = ()
    try:
        async with asyncio.timeout(WITHIN):
            status = await _PROGRAMS[command.program](command.words, user, settings, config, output)
    except (QueryError, ReportsError) as error:
        status = Status.ERROR
        failure = (f"error: {error}", f"hint: {error.hint}" if error.hint else "")
    except (StoreError, OSError) as error:
        status, failure = Status.UNAVAILABLE, (f"error: {error}",)
    except TimeoutError:
        status, failure = Status.UNAVAILABLE, (f"error: it took longer than {WITHIN:g} s",)
    for line in filter(None, failure):
        output.lines.append((visible(line), Status.ERROR))
    tell(user, command, status)
    return Done(status, tuple(output.lines))


def tell(user: str, command: Command, status: Status) -> None:
    """Tell in the log what a button has run."""
    log.info("user=%s, command=%s: %s", printable(user), printable(str(command)), status.name.lower())


async def _query(words: Sequence[str], user: str, settings: Config, config: str | None, output: Output) -> Status:
    name = words[0] if words[0] in query.SUBCOMMANDS else None
    rest = [*(words[1:] if name else words), *(["--config", config] if config else [])]
    arguments = query.parser(name).parse_intermixed_args(rest)
    module = query.SUBCOMMANDS[name] if name else domains
    status: Status = await asyncio.to_thread(module.run, arguments, output)
    return status


async def _publish(words: Sequence[str], user: str, settings: Config, config: str | None, output: Output) -> Status:
    arguments = publish.parser().parse_args(list(words))
    arguments.user = user
    action: publish.Action = arguments.action
    try:
        return await action(arguments, settings, output)
    except RefusedError as error:
        raise QueryError(f"{arguments.domain}: {error}", error.hint) from error
    except FileError as error:
        raise QueryError(str(error), publish.PUBLISHES_LATER) from error


async def _reports(words: Sequence[str], user: str, settings: Config, config: str | None, output: Output) -> Status:
    arguments = reports.parser().parse_args(list(words))
    return await SUBCOMMANDS[arguments.subcommand](arguments, settings, output)


QUERY, PUBLISH, REPORTS = "postfix-mtasts-query", "postfix-mtasts-publish", "postfix-mtasts-reports"
_PROGRAMS = {QUERY: _query, PUBLISH: _publish, REPORTS: _reports}
