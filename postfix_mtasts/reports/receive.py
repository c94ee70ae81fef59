"""Receives one mail from Postfix's pipe(8): it is saved first, and then taken in.

The exit status is 0 for whatever came. Only if it could not be saved, it is 75 (EX_TEMPFAIL), at which Postfix keeps
the mail and tries again.
"""

import asyncio
import datetime
import os
import sys
import syslog
from typing import IO

from postfix_mtasts.config import Config, ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.query.output import printable
from postfix_mtasts.reports.spool import Spool, folder
from postfix_mtasts.reports.voice import PROGRAM

_MAX_LINE = 500  # Characters of a line in the log.


def run(words: list[str]) -> int:
    """Receive the mail on standard input, and return the exit status."""
    if any(word in ("-h", "--help") for word in words):
        from postfix_mtasts.reports.command import parser

        parser().parse_args(["receive", *words])
    match words:
        case []:
            return receive(None, sys.stdin.buffer)
        case ["--config", path]:
            return receive(path, sys.stdin.buffer)
        case [word] if word.startswith("--config="):
            return receive(word.removeprefix("--config="), sys.stdin.buffer)
    tell(syslog.LOG_ERR, f"the mail could not be saved: unknown arguments: {' '.join(words)}")
    return os.EX_TEMPFAIL


def receive(config_path: str | None, source: IO[bytes]) -> int:
    """Save a mail, take it in, and return the exit status."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        settings = read_config(config_path)
        spool = Spool(folder(settings.reports.path))
        name = spool.save(source, int(now.timestamp()))
    except (ConfigError, OSError) as error:
        tell(syslog.LOG_ERR, f"the mail could not be saved: {error}")
        return os.EX_TEMPFAIL
    try:
        asyncio.run(_take_in(settings, spool, name, now))
    except Exception as error:  # noqa: BLE001 - the mail is saved, and whatever it is, Postfix must not bounce it
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else error
        tell(syslog.LOG_ERR, f"{name} is saved; a later receive or replay does the rest: {reason}")
    return os.EX_OK


def tell(level: int, line: str) -> None:
    """Write a line to the log, as facility mail, and to standard error, of which Postfix logs what it needs."""
    text = printable(line)[:_MAX_LINE]
    syslog.openlog(PROGRAM, syslog.LOG_PID, syslog.LOG_MAIL)
    syslog.syslog(level, text)
    print(f"{PROGRAM}: {text}", file=sys.stderr)  # noqa: T201 - this is the output


async def _take_in(settings: Config, spool: Spool, name: str, now: datetime.datetime) -> None:
    # It needs the libraries of the extra `reports`. A mail is saved without them too.
    from postfix_mtasts.reports.actions import Actions

    with Actions(settings, spool) as actions:
        async for outcome in actions.receive(name, now):
            tell(syslog.LOG_INFO, f"{outcome.name}: {outcome.summary}")
