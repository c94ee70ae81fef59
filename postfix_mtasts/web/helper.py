"""Has something done by a process of the user to whom it belongs, where the dashboard itself may only look.

systemd listens on a socket for each program, which the dashboard's user alone may use, and starts a helper for each
connection (Accept=yes), with the connection as standard input and output:

    {"button", "target", "form": {FIELD: TEXT}, "user"}  runs the command of a button
        reply: {"status", "lines": [[TEXT, STATUS or null], …]}, as `run.Done`
    {"mail": NAME}                                       reads a mail of the spool of reports
        reply: a line `mail`, and the mail as it is; a line `gone` if there is none

A request is one line of JSON. A helper takes buttons and no words of a command, so whoever has taken over the dashboard
can do what its buttons do, and nothing else.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postfix_mtasts.config import Config
from postfix_mtasts.query.output import QueryError, Status, printable
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.reports.files import MAX_FILE
from postfix_mtasts.reports.spool import Spool, folder
from postfix_mtasts.web import run
from postfix_mtasts.web.buttons import BUTTONS, FieldError, command_of
from postfix_mtasts.web.reported import MailError
from postfix_mtasts.web.run import REPORTS, Command, Done

MAX_REQUEST = 2**16  # Octets. A form has 8 KiB at most, and JSON writes a character in up to 12 octets.
MAX_REPLY = 2**20  # Octets, of 500 lines.
MAX_USER = 200  # Characters: `web, ` and a name.
WITHIN = run.WITHIN + 10.0  # Seconds that the dashboard waits for a helper, which ends by itself before.
MAIL_WITHIN = 20.0  # Seconds for a mail, which is read from a disk. Other pages wait for this one.
_MAIL = re.compile(r"[0-9A-Za-z][0-9A-Za-z!._@-]{0,299}")

_THERE, _GONE = b"mail\n", b"gone\n"

JSON = dict[str, Any]


class RequestError(ValueError):
    """What a helper was asked for is not in its protocol, or not of its program."""


@dataclass(frozen=True, slots=True)
class Press:
    """The command of a button, and who presses it."""

    command: Command
    user: str


class Hands:
    """Does what buttons want: here, or by helpers whose sockets are in a folder, by the names of the programs."""

    def __init__(self, settings: Config, config: str | None, helpers: str) -> None:
        self._settings = settings
        self._config = config
        self._helpers = helpers

    async def press(self, button: str, target: str, form: Mapping[str, str], user: str) -> tuple[Command, Done]:
        """Run the command of a button. Raises FieldError, and QueryError for what is no domain."""
        made = BUTTONS[button]
        command = command_of(made, target, form)
        if not self._helpers or not made.is_change:
            return command, await run.run(command, user, self._settings, self._config)
        fields = {field.name: form[field.name] for field in made.fields if field.name in form}
        request = {"button": button, "target": target, "form": fields, "user": user}
        try:
            done = _done(await asyncio.to_thread(self._ask, command.program, request, MAX_REPLY, WITHIN))
        except (OSError, ValueError) as error:
            why = in_words(error) if isinstance(error, OSError) else "it ended without an answer: see its journal"
            text = f"error: the helper for {command.program}: {why}"
            done = Done(Status.UNAVAILABLE, ((text, Status.ERROR),))
        run.tell(user, command, done.status)
        return command, done

    def mail(self, name: str) -> bytes:
        """A mail that a report came in. Raises FileNotFoundError if it is gone, and MailError."""
        try:
            request = {"mail": name}
            answer = (
                self._ask(REPORTS, request, MAX_FILE + len(_THERE), MAIL_WITHIN)
                if self._helpers
                else _mail(name, self._settings)
            )
        except OSError as error:
            raise MailError(f"{f'the helper for {REPORTS}: ' if self._helpers else ''}{in_words(error)}") from error
        if answer == _GONE:
            raise FileNotFoundError(name)
        if not answer.startswith(_THERE):
            raise MailError(f"the helper for {REPORTS} ended without an answer: see its journal")
        return answer.removeprefix(_THERE)

    def _ask(self, program: str, request: JSON, limit: int, within: float) -> bytes:
        """What a helper answers, but no more than `limit` octets; `within` is in seconds, for each piece of it."""
        answer = bytearray()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within)
            connection.connect(str(Path(self._helpers, program)))
            connection.sendall(json.dumps(request).encode() + b"\n")
            while len(answer) < limit and (piece := connection.recv(2**16)):
                answer += piece
        return bytes(answer[:limit])


def _done(answer: bytes) -> Done:
    """Raises ValueError."""
    document = json.loads(answer)
    try:
        lines = tuple((str(text), None if status is None else Status(status)) for text, status in document["lines"])
        return Done(Status(document["status"]), lines)
    except (LookupError, TypeError) as error:
        raise ValueError from error


def answer(program: str, settings: Config, config: str | None) -> None:
    """Do what comes in by standard input, once. Raises RequestError, and OSError if the dashboard has gone."""
    asked = parse(program, sys.stdin.buffer.readline(MAX_REQUEST))
    if isinstance(asked, Press):
        done = asyncio.run(run.run(asked.command, asked.user, settings, config))
        reply = json.dumps({"status": done.status, "lines": done.lines}).encode() + b"\n"
    else:
        reply = _mail(asked, settings)
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()


def parse(program: str, line: bytes) -> Press | str:
    """What a helper for a program is asked for: a command for a user, or the name of a mail. Raises RequestError."""
    try:
        request = json.loads(line)
        if program == REPORTS and "mail" in request:
            if not _MAIL.fullmatch(request["mail"]):
                raise ValueError("no name of a mail")
            return str(request["mail"])
        command = command_of(BUTTONS[request["button"]], request["target"], request["form"])
        user = request["user"]
        if command.program != program or not user.isprintable() or not 0 < len(user) <= MAX_USER:
            raise ValueError("another program, or no user")
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError, FieldError, QueryError) as error:
        raise RequestError(f"asked for what no button of {program} does: {printable(str(error))}") from error
    return Press(command, user)


def _mail(name: str, settings: Config) -> bytes:
    try:
        return _THERE + Spool(folder(settings.reports.path)).read(name)
    except FileNotFoundError:
        return _GONE
