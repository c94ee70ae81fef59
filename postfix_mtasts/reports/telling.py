"""The subcommands `alert` and `summary`: they look at what is stored, and tell an administrator by mail.

What has been told is written down when sendmail(1) has taken the mail. If it has not, all is told again the next time.
"""

import argparse
import contextlib
import datetime
import fcntl
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from postfix_mtasts.config import Config
from postfix_mtasts.log.journal import stderr_is_journal
from postfix_mtasts.postfix.installation import PATH
from postfix_mtasts.query.output import JSON, Output, Status, to_json
from postfix_mtasts.reports import digest, notices
from postfix_mtasts.reports.alerts import Notice, decide
from postfix_mtasts.reports.facts import facts
from postfix_mtasts.reports.letter import letter
from postfix_mtasts.reports.looking import Subcommand, now
from postfix_mtasts.reports.meaning import Severity
from postfix_mtasts.reports.sendmail import SendmailError, own_address, send
from postfix_mtasts.reports.store import NothingYetError, Store
from postfix_mtasts.reports.told import keep, known, told
from postfix_mtasts.reports.viewing import Facts, by_result, by_source
from postfix_mtasts.reports.views import LeftOut, window
from postfix_mtasts.reports.voice import complain

# The levels of syslog(3), by which the journal marks a line on standard error (sd-daemon(3)).
_LEVELS = {Severity.NOTE: 5, Severity.WARNING: 4, Severity.ERROR: 3}
_NOTHING = Facts({}, {}, (), {}, {}, LeftOut(0, 0))


async def _alert(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    return alert(settings, _recipients(arguments, settings), output, now())


async def _summary(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    return summary(settings, _recipients(arguments, settings), output, now())


def alert(
    settings: Config, recipients: Sequence[str], output: Output, time: datetime.datetime, path: str = PATH
) -> Status:
    """Tell what is new, still there, or over, once each. Raises StoreError."""
    database = Path(settings.reports.path)
    if not database.exists():
        return Status.OK  # No report has come yet.
    with _alone(database.parent), Store(database) as store:
        store.open()
        before = told(store)
        decision = decide(known(store, time.date()), before, time.date())
        found = notices.groups(decision.notices)
        if found:
            _say(found, decision.notices, output)
            if recipients and not _mail(recipients, notices.subject(found), notices.body(found), time, path):
                return Status.UNAVAILABLE
        if decision.told != before:
            keep(store, decision.told)
    return Status.OK


def summary(
    settings: Config, recipients: Sequence[str], output: Output, time: datetime.datetime, path: str = PATH
) -> Status:
    """Tell how the week was, also if all is well. Raises StoreError."""
    span, database = window(time.date(), digest.DAYS), Path(settings.reports.path)
    found = _NOTHING
    with contextlib.suppress(NothingYetError), Store(database) as store:
        store.open_to_read()
        with store.snapshot():
            found = facts(store, span, None, digest.LIMITS, unverified=False)
    sources, results = by_source(span, None, found, digest.LIMITS), by_result(span, None, found, digest.LIMITS)
    subject, lines = digest.subject(results), digest.body(sources, results)
    if output.json:
        output.document({"subject": subject, "sources": to_json(sources), "results": to_json(results)})
    elif not recipients:
        output.text(subject)
        output.text()
        for line in lines:
            output.text(line)
    return Status.OK if not recipients or _mail(recipients, subject, lines, time, path) else Status.UNAVAILABLE


def _say(found: Sequence[notices.Group], single: Sequence[Notice], output: Output) -> None:
    """Print what is told: as JSON, to the journal, or to whoever runs the command."""
    if output.json:
        for notice in single:
            output.document(_document(notice))
    elif stderr_is_journal():
        for group in found:
            print(f"<{_LEVELS[group.severity]}>{notices.line(group)}", file=sys.stderr)  # noqa: T201 - this is the output
    else:
        for group in found:
            output.text(notices.line(group), Status(int(group.severity)))


def _document(notice: Notice) -> JSON:
    subject = notice.subject
    return {
        "news": notice.news.value,
        "kind": subject.kind.value,
        "name": subject.name,
        "result": subject.result,
        "severity": notice.severity.name.lower(),
        "since": to_json(notice.since),
        "last": to_json(notice.last),
        "sessions": notice.sessions,
        "of": notice.of,
        "sources": list(notice.sources),
        "mx": notice.host or None,
    }


def _mail(recipients: Sequence[str], subject: str, lines: Sequence[str], time: datetime.datetime, path: str) -> bool:
    """Mail it. If that fails, say so."""
    sender = own_address()
    try:
        send(letter(sender, recipients, subject, lines, time, secrets.token_hex(16)), sender, recipients, path)
    except SendmailError as error:
        complain(f"the mail was not sent: {error}", "what is to be told is told the next time")
        return False
    return True


def _recipients(arguments: argparse.Namespace, settings: Config) -> Sequence[str]:
    return (arguments.to,) if arguments.to else settings.reports.alert_to


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process tells: nothing is to be told twice."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


SUBCOMMANDS: Mapping[str, Subcommand] = {"alert": _alert, "summary": _summary}
