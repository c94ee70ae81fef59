"""The database of reports: reports.sqlite, through SQLite. It knows no rule, and no table but its version.

With WAL and synchronous=FULL, a transaction survives a power cut when it has ended. Several processes may use the file
at once: each waits for the others for as long as a mail may wait.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from postfix_mtasts.reports import schema
from postfix_mtasts.rights import make_for_group
from postfix_mtasts.sqlite_reader import Reader, WrittenToError, reason

_BUSY_TIMEOUT = 10.0  # Seconds to wait for other processes. Postfix allows pipe(8) a thousand.
_CACHE = 2 * 2**10  # KiB of pages that are kept in memory.
_OURS = {"messages", "reports", "policies", "failures"}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_RIGHT = "run it as root; to look, a member of its group may run it too"
_NOTHING_YET = "postfix-mtasts-reports doctor says what is missing before reports arrive"


class StoreError(Exception):
    """The database cannot be used. The message says why, and `hint` what helps, or nothing."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class NothingYetError(StoreError):
    """No report has been taken in yet."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no report has been taken in yet: {why}", _NOTHING_YET)


class Store:
    """The database at a path. The methods raise StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._reader: Reader | None = None  # If it is only read.

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the file, or make it, for its owner and group alone."""
        with self._errors():
            make_for_group(self._path)
            connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)
            self._connection = connection
            self._check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            with self.transaction():
                for statement in schema.CREATE.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    def open_to_read(self) -> None:
        """Open the file to look at it. Raises NothingYetError if there is none."""
        with self._errors():
            try:
                self._reader = Reader(self._path, _BUSY_TIMEOUT)
            except FileNotFoundError as error:
                raise NothingYetError(f"there is no {self._path}") from error
            self._connection = self._reader.connection
            self._connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            if not self._check(self._connection):
                raise NothingYetError(f"{self._path} is empty")

    def close(self) -> None:
        """Close the file."""
        self._reader = None
        if self._connection:
            with self._errors():
                self._connection.close()
            self._connection = None

    def select(self, statement: str, values: Sequence[object] | dict[str, object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement that has a bound on them."""
        with self._errors():
            return self._open.execute(statement, values).fetchall()

    def one(self, statement: str, values: Sequence[object] | dict[str, object] = ()) -> tuple[Any, ...] | None:
        """The first row of a statement."""
        with self._errors():
            row: tuple[Any, ...] | None = self._open.execute(statement, values).fetchone()
            return row

    def execute(self, statement: str, values: Sequence[object] | dict[str, object] = ()) -> int:
        """Execute a statement. Return the id of the row that it inserted last."""
        with self._errors():
            return self._open.execute(statement, values).lastrowid or 0

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement for each of some rows."""
        with self._errors():
            self._open.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is written, or nothing. Nobody else writes meanwhile."""
        with self._errors():
            self._open.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has done so itself if the disk is full.
                self._open.execute("ROLLBACK")
            raise
        with self._errors():
            self._open.execute("COMMIT")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read within is of one moment, whatever others write meanwhile."""
        with self._errors():
            self._open.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._open.execute("ROLLBACK")

    @property
    def _open(self) -> sqlite3.Connection:
        if not self._connection:
            raise StoreError("not open")
        return self._connection

    def _check(self, connection: sqlite3.Connection) -> bool:
        """Refuse what is not ours. Return whether there are tables: a process may have ended before it made them."""
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables >= _OURS:
            raise StoreError(f"{self._path}: a database of another program", "name a file of its own in reports.path")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise StoreError(f"{self._path}: written by a later version of this program ({version})")
        return bool(tables)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._reader.reading() if self._reader else contextlib.nullcontext():
                yield
        except WrittenToError as error:
            raise StoreError(f"{self._path}: a report came in while it was read", "try it again") from error
        except OSError as error:
            hint = _NO_RIGHT if isinstance(error, PermissionError) else ""
            raise StoreError(f"{self._path}: {os.strerror(error.errno or 0).lower()}", hint) from error
        except sqlite3.Error as error:
            hint = ""
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                hint = "move it away, with its -wal and -shm; then `replay` takes in the mails that are still there"
            raise StoreError(f"{self._path}: {reason(error)}", hint) from error
