"""What the subcommands do that change what is stored."""

import datetime
import hashlib
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from postfix_mtasts.config import Config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.reports import hiding
from postfix_mtasts.reports.files import content, files, reason
from postfix_mtasts.reports.intake import Intake, Outcome
from postfix_mtasts.reports.reading import read_data
from postfix_mtasts.reports.records import remove
from postfix_mtasts.reports.report import Reading
from postfix_mtasts.reports.spool import Spool, received
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.trust import Verifier
from postfix_mtasts.reports.upkeep import tidy
from postfix_mtasts.reports.verdict import State

_BACKLOG = 100  # Mails that were saved and not taken in, that one `receive` takes along.
_BACKLOG_AGE = 60  # Seconds. A younger one is being taken in by another process.
_WAITING = 10  # Keys that one `receive` looks up again. Each may take `dns.timeout`.
_WAITING_AGE = 600  # Seconds after which a key is looked up again.
_MAX_QUARANTINE = 10_000  # Messages that are listed.
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message in quarantine."""

    id: int
    name: str
    received: datetime.datetime
    octets: int
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file. The state is None if it could not be read."""

    file: str
    state: State | None
    reason: str
    summary: str  # What became of it, in a few words.
    keys: Sequence[str] = ()
    problems: Sequence[str] = ()


class Actions:
    """The spool, the database, and what is done with them. The methods raise StoreError and OSError."""

    def __init__(self, settings: Config, spool: Spool) -> None:
        self._settings = settings.reports
        self._spool = spool
        self._store = Store(Path(settings.reports.path))
        self._verifier = Verifier(Resolver(settings.dns.nameservers, timeout=settings.dns.timeout))
        self._intake = Intake(spool, self._store, self._verifier, settings.reports)

    def __enter__(self) -> Self:
        self._spool.open()
        self._store.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    async def receive(self, name: str, now: datetime.datetime) -> AsyncIterator[Outcome]:
        """Take a mail in, and some of what was left over by others."""
        is_dns_up = True
        async for outcome in self._intake.take([name], now):
            is_dns_up = outcome.state is not State.WAITING
            yield outcome
        with self._spool.alone() as alone:
            if not alone:
                return
            seconds = int(now.timestamp())
            backlog = self._spool.new(seconds - _BACKLOG_AGE, _BACKLOG)
            async for outcome in self._intake.take(backlog, now):
                yield outcome
            if is_dns_up:
                async for outcome in self._intake.take(self._waiting(seconds), now, again=True):
                    yield outcome
            tidy(self._spool, self._store, self._settings, seconds)

    def _waiting(self, now: int) -> list[str]:
        """Messages whose key is to be looked up again, those first that were tried first. Another time, others are."""
        names = self._names(
            "SELECT name FROM messages WHERE state = ? AND tried < ? ORDER BY tried LIMIT ?",
            State.WAITING.value,
            now - _WAITING_AGE,
            _WAITING,
        )
        with self._store.transaction():
            self._store.execute_many("UPDATE messages SET tried = ? WHERE name = ?", [(now, name) for name in names])
        return names

    async def import_files(self, names: Iterable[str], now: datetime.datetime) -> AsyncIterator[Imported]:
        """Take the mails and reports in files in."""
        self._others: list[Imported] = []
        origin: dict[str, str] = {}
        async for outcome in self._intake.take(self._save(names, int(now.timestamp()), origin), now):
            file = origin.pop(outcome.name)
            yield Imported(file, outcome.state, outcome.reason, outcome.summary, outcome.keys, outcome.problems)
            while self._others:
                yield self._others.pop(0)
        for other in self._others:
            yield other
        tidy(self._spool, self._store, self._settings, int(now.timestamp()))

    def _save(self, names: Iterable[str], now: int, origin: dict[str, str]) -> Iterator[str]:
        """Save what is in files, but not what is known, and return its names in the spool."""
        for file in (file for name in names for file in files(name)):
            try:
                data = content(file)
            except OSError as error:
                why = reason(error)
                self._others.append(Imported(file, None, why, f"not read: {why}"))
                continue
            digest = hashlib.sha256(data).hexdigest()
            known = self._store.one(
                "SELECT state, reason FROM messages WHERE digest = ? ORDER BY id LIMIT 1", (digest,)
            )
            if known:
                state, why = State(known[0]), known[1]
                state = State.DUPLICATE if state is State.STORED else state
                self._others.append(Imported(file, state, why, f"{state.value}: {why}" if why else state.value))
                continue
            name = self._spool.save(io.BytesIO(data), now, Path(file).name)
            origin[name] = file
            del data  # It may be large, and is read again.
            yield name

    async def replay(self, now: datetime.datetime) -> AsyncIterator[Outcome]:
        """Take all raw mails in again, the first ones first. Those whose time is over are deleted."""
        seconds = int(now.timestamp())
        names = self._spool.all()
        for name in names:
            if received(name) < seconds - self._settings.keep_mails * _DAY:
                self._spool.remove(name)
        async for outcome in self._intake.take(names, now, again=True):
            yield outcome
        tidy(self._spool, self._store, self._settings, seconds)

    def quarantine(self) -> list[Quarantined]:
        """The messages in quarantine, the first ones first."""
        return quarantined(self._store)

    async def reading(self, message: Quarantined, now: datetime.datetime) -> tuple[Path, Reading]:
        """Where a message is, and what is in it."""
        data = self._spool.read(message.name)
        return self._spool.path(message.name), await read_data(message.name, data, self._verifier, now)

    async def accept(self, message: Quarantined, now: datetime.datetime) -> Outcome | None:
        """Take a message in whatever domain it is about. Return None if its text is gone."""
        outcomes = [one async for one in self._intake.take([message.name], now, again=True, accept=True)]
        return outcomes[0] if outcomes else None

    def drop(self, message: Quarantined) -> None:
        """Delete a message for good."""
        self._spool.remove(message.name)
        with self._store.transaction():
            remove(self._store, message.name)

    def is_source(self, source: str) -> bool:
        """Whether a source has reported."""
        return hiding.is_known(self._store, source)

    def hide(self, source: str, now: datetime.datetime) -> bool:
        """Hide a source until it changes. Return whether there was room."""
        with self._store.transaction():
            return hiding.hide(self._store, source, now)

    def unhide(self, source: str) -> bool:
        """Show a source again. Return whether it was hidden."""
        with self._store.transaction():
            was_hidden = source in hiding.hidden(self._store)
            hiding.unhide(self._store, source)
        return was_hidden

    def _names(self, statement: str, *values: object) -> list[str]:
        return [name for (name,) in self._store.select(statement, values)]


def quarantined(store: Store) -> list[Quarantined]:
    """The messages in quarantine, the first ones first."""
    rows = store.select(
        "SELECT id, name, received, octets, reason FROM messages WHERE state = ? ORDER BY id LIMIT ?",
        (State.QUARANTINED.value, _MAX_QUARANTINE),
    )
    return [
        Quarantined(number, name, datetime.datetime.fromtimestamp(seconds, datetime.UTC), octets, reason)
        for number, name, seconds, octets, reason in rows
    ]
