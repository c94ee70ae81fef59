"""Keeps the states of published domains, and their history, in SQLite.

A change is on disk when `save` returns. One command at a time changes anything (`changing`), also the files and records
that follow from the states; the others wait for it. Reading waits for nobody.
"""

import contextlib
import fcntl
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.publish.events import Change, Decision
from postfix_mtasts.publish.row import RowError, parse_row, print_row
from postfix_mtasts.publish.state import State
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.rights import in_the_way, make_for_group
from postfix_mtasts.sqlite_reader import Reader, WrittenToError, reason
from postfix_mtasts.sts.domain import PolicyDomain

WAIT = 30.0  # Seconds for another command that changes something. It writes a file and a row, so it is done in one.
_POLL = 0.02  # Seconds.
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE domains (
    domain TEXT PRIMARY KEY, state TEXT NOT NULL,
    mode TEXT NOT NULL, stage TEXT NOT NULL, record TEXT, waits TEXT NOT NULL, problems INTEGER
) WITHOUT ROWID;
CREATE TABLE history (
    id INTEGER PRIMARY KEY, domain TEXT NOT NULL, at REAL NOT NULL, who TEXT NOT NULL,
    what TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, why TEXT NOT NULL
);
CREATE INDEX history_of_domain ON history (domain, id);
PRAGMA user_version = {_VERSION};
"""


class StoreError(Exception):
    """The database cannot be read or written. The message says why. What was stored before is still there."""


@dataclass(frozen=True, slots=True)
class Line:
    """A domain in a list. `waits` are the kinds of what it waits for; `problems` is None if it was never checked."""

    domain: str
    mode: str
    stage: str
    record: str | None
    waits: tuple[str, ...]
    problems: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a history: when and by whom."""

    at: float
    who: str
    change: Change


class Store:
    """The database in a file. Raises StoreError, as its methods do.

    If the file does not exist, it is made, unless it is only to be read: then nothing is changed, and the right to read
    it is enough.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self._path = path
        self._reader: Reader | None = None  # If it is only read.
        with self._errors():
            if read_only:
                self._reader = Reader(pathlib.Path(path), WAIT)
                self._connection = self._reader.connection
            else:
                make_for_group(pathlib.Path(self._path))
                # Each statement is a transaction, unless one is begun.
                self._connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # A state must be on disk before its file.
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0 and not read_only:
                with self.changing():
                    self._create()
            elif version != _VERSION:
                raise StoreError(f"{path}: made by another version of this program")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """The block in which states, and what follows from them, are changed. Other commands wait for its end."""
        with self._errors():
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(lock)
            yield
        finally:
            os.close(lock)

    def get(self, domain: PolicyDomain) -> State | None:
        """The state of a domain, or None if it was never published here."""
        with self._errors():
            row = self._connection.execute("SELECT state FROM domains WHERE domain = ?", (domain.name,)).fetchone()
        return self._state(domain.name, row[0]) if row else None

    def save(self, decision: Decision, who: str, now: float) -> None:
        """Store a state with its entries for the history, both or neither."""
        with self._errors(), self._transaction():
            self._write(decision, who, now)

    def _write(self, decision: Decision, who: str, now: float) -> None:
        state = decision.state
        domain, changes = state.domain.name, decision.changes
        waits = " ".join(wait.kind for wait in decision.waits)
        problems = None if state.checked is None else len(state.checked.problems)
        of_list = (state.wanted.mode.value, state.stage.value, decision.publication.record, waits, problems)
        entries = [(domain, now, who, one.what, one.before, one.after, one.why) for one in changes]
        self._connection.execute(
            "INSERT OR REPLACE INTO domains VALUES (?, ?, ?, ?, ?, ?, ?)", (domain, print_row(state), *of_list)
        )
        self._connection.executemany(
            "INSERT INTO history (domain, at, who, what, before, after, why) VALUES (?, ?, ?, ?, ?, ?, ?)", entries
        )

    def lines(self) -> Iterator[Line]:
        """All domains in order, also those that were removed."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT domain, mode, stage, record, waits, problems FROM domains ORDER BY domain"
            )
            for domain, mode, stage, record, waits, problems in rows:
                yield Line(domain, mode, stage, record, tuple(waits.split()), problems)

    def history(self, domain: PolicyDomain) -> list[Entry]:
        """What happened to a domain, the first entry first."""
        with self._errors():
            rows = self._connection.execute(
                "SELECT at, who, what, before, after, why FROM history WHERE domain = ? ORDER BY id", (domain.name,)
            ).fetchall()
        return [Entry(at, who, Change(what, before, after, why)) for at, who, what, before, after, why in rows]

    def _state(self, name: str, text: str) -> State:
        try:
            return parse_row(PolicyDomain(name), text)
        except RowError as error:
            raise StoreError(f"{self._path}: the row of {name} cannot be read: {error}") from error

    def _create(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:  # Nobody else has made it meanwhile.
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)

    def _lock(self, lock: int) -> None:
        deadline = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"{self._path}: another command has been changing it for {WAIT:g} s") from None
                time.sleep(_POLL)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._reader.reading() if self._reader else contextlib.nullcontext():
                yield
        except WrittenToError as error:
            raise StoreError(f"{self._path}: another command changed it while it was read; try it again") from error
        except (sqlite3.Error, OSError) as error:
            hint = "" if pathlib.Path(self._path).parent.is_dir() else " (its folder does not exist)"
            why = f"{reason(error) if isinstance(error, sqlite3.Error) else in_words(error)}{hint}"
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CANTOPEN:  # SQLite does not say why.
                why = in_the_way(pathlib.Path(self._path), write=not os.access(self._path, os.F_OK)) or why
            raise StoreError(f"{self._path}: {why}") from error
