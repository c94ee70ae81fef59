"""Has something done by a process of the user to whom it belongs, where the dashboard itself may only look.

systemd listens on a socket for each program, which the dashboard's user alone may use, and starts a helper for each
connection (Accept=yes), with the connection as standard input and output:

    {"button", "target", "form": {FIELD: TEXT}, "user"}  runs the command of a button
        reply: {"status", "lines": [[TEXT, STATUS or null], …]}, as `run.Done`
    {"mail": NAME}                                       reads a mail of the spool of reports
        reply: the mail as it is; nothing if there is none

A request is one line of JSON. A helper takes buttons and no words of a command, so whoever has taken over the dashboard
can do what its buttons do, and nothing else.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from postfix_mtasts.config import Config
from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.reports.files import MAX_FILE
from postfix_mtasts.reports.spool import Spool, folder
from postfix_mtasts.web import run
from postfix_mtasts.web.buttons import BUTTONS, FieldError, command_of
from postfix_mtasts.web.run import REPORTS, Command, Done

MAX_REQUEST = 2**16  # Octets. A form has 8 KiB at most, and JSON writes a character in up to 12 octets.
MAX_REPLY = 2**20  # Octets, of 500 lines.
MAX_USER = 200  # Characters: `web, ` and a name.
WITHIN = run.WITHIN + 10.0  # Seconds that the dashboard waits for a helper, which ends by itself before.
_MAIL = re.compile(r"[0-9A-Za-z][0-9A-Za-z!._@-]{0,299}")

JSON = dict[str, Any]


class RequestError(ValueError):
    """What a helper was asked for is not in its protocol, or not of its program."""


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
            done = _done(await asyncio.to_thread(self._ask, command.program, request, MAX_REPLY))
        except (OSError, ValueError) as error:
            why = in_words(error) if isinstance(error, OSError) else "it ended without an answer: see its journal"
            text = f"error: the helper for {command.program}: {why}"
            done = Done(Status.UNAVAILABLE, ((text, Status.ERROR),))
        run.tell(user, command, done.status)
        return command, done

    def mail(self, name: str) -> bytes:
        """A mail that a report came in. Raises OSError if it is gone."""
        if not self._helpers:
            return Spool(folder(self._settings.reports.path)).read(name)
        if not (text := self._ask(REPORTS, {"mail": name}, MAX_FILE + 1)):
            raise FileNotFoundError(name)
        return text

    def _ask(self, program: str, request: JSON, limit: int) -> bytes:
        """What a helper answers, but no more than `limit` octets."""
        answer = bytearray()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            connection.connect(str(Path(self._helpers, program)))
            connection.sendall(json.dumps(request).encode() + b"\n")
            while len(answer) < limit and (piece := connection.recv(2**16)):
                answer += piece
        return bytes(answer[:limit])


def _done(answer: bytes) -> Done:
    """Raises ValueError."""
    document = json.loads(answer)
    lines = tuple((str(text), None if status is None else Status(status)) for text, status in document["lines"])
    return Done(Status(document["status"]), lines)


def answer(program: str, settings: Config, config: str | None) -> None:
    """Do what comes in by standard input, once. Raises RequestError, and OSError if the dashboard has gone."""
    _answer(program, settings, config, sys.stdin.buffer, sys.stdout.buffer)


def _answer(program: str, settings: Config, config: str | None, source: BinaryIO, to: BinaryIO) -> None:
    line = source.readline(MAX_REQUEST)
    try:
        request = json.loads(line)
        if program == REPORTS and "mail" in request:
            to.write(_mail(request["mail"], settings))
        else:
            to.write(asyncio.run(_press(program, request, settings, config)))
    except (KeyError, TypeError, ValueError, FieldError, QueryError) as error:
        raise RequestError(f"asked for what no button of {program} does: {error}") from error
    to.flush()


async def _press(program: str, request: JSON, settings: Config, config: str | None) -> bytes:
    command = command_of(BUTTONS[request["button"]], request["target"], request["form"])
    user = request["user"]
    if command.program != program or not user.isprintable() or not 0 < len(user) <= MAX_USER:
        raise ValueError("another program, or no user")
    done = await run.run(command, user, settings, config)
    return json.dumps({"status": done.status, "lines": done.lines}).encode() + b"\n"


def _mail(name: str, settings: Config) -> bytes:
    if not _MAIL.fullmatch(name):
        raise ValueError("no name of a mail")
    try:
        return Spool(folder(settings.reports.path)).read(name)
    except FileNotFoundError:
        return b""
