"""The database file: SQLite through sqlitedict, with one row for each domain. It is used by one thread.

With WAL and synchronous=NORMAL, a row is the old one or the new one after a crash, never half of each. A damaged file
is renamed to a name with the time, and the rows that can still be read are copied to a new file. Two daemons may share
a file: of two rows for a domain, the one with the later fetch stays, whichever is written last.

The rows are bounded in octets, since the owner of a domain chooses how long a row is. Rows are deleted for new ones
until only enforced policies remain that live and are in use. Then a new domain gets no row.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import sqlitedict

from postfix_mtasts.cache import room, salvage, statements
from postfix_mtasts.cache.brief import Brief
from postfix_mtasts.cache.counts import Counts
from postfix_mtasts.cache.row import VERSION
from postfix_mtasts.sqlite_reader import reason
from postfix_mtasts.sts.policy import Mode

_TABLE = "policies"
BUSY_TIMEOUT = 1.0  # Seconds to wait for another process that has locked the database.
_NO_TIME = 1e300  # Later than any, in seconds.
_ROOM = 1 / 8  # Of the bound, which is freed at once when it is reached.
_FULL_FOR = 60.0  # Seconds until it is tried again to make room.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Write(NamedTuple):
    """A row to be written by its key. A stored row stays if it was fetched later than `after`, and by `until`."""

    key: str
    row: str
    after: float  # Seconds since the epoch.
    until: float


class DatabaseError(Exception):
    """The database could not be used; says why."""

    def __init__(self, reason: str, *, is_anew: bool = False, is_unusable: bool = False) -> None:
        super().__init__(reason)
        self.is_anew = is_anew  # The next call has another file, without some of the rows that were there.
        self.is_unusable = is_unusable  # Waiting will not help.


class Database:
    """The file at a path, with rows of at most so many octets. Each method opens it, and raises DatabaseError."""

    def __init__(self, path: str, octets: float = math.inf) -> None:
        self._path = pathlib.Path(path)
        self._log = pathlib.Path(f"{path}-wal")
        self._most = octets
        self._octets = 0  # Of the rows when they were counted last, and of all that were written since; or more.
        self._full_at = -math.inf
        self._rows: sqlitedict.SqliteDict | None = None
        self._saved: dict[str, str] = {}  # What could be read of a damaged file, and is not in the new one yet.
        self._inodes: tuple[int | None, ...] = ()  # Of the file that is open, and of its log. Others may move them.
        # sqlitedict logs each error with a stack, and raises it as well.
        logging.getLogger("sqlitedict").setLevel(logging.CRITICAL + 1)

    def open(self) -> None:
        """Make sure that it can be written to."""
        try:
            if not self._path.parent.is_dir():
                raise DatabaseError(f"there is no folder {self._path.parent}", is_unusable=True)
        except OSError as error:
            raise DatabaseError(os.strerror(error.errno or 0).lower(), is_unusable=True) from error
        with self._errors():
            self._open()

    def get(self, key: str) -> bytes | None:
        """The row of a key, as it stands in the file."""
        if key in self._saved:
            return self._saved[key].encode()
        with self._errors():
            row: bytes | None = self._do(statements.GET, key)
            return row

    def get_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The rows of those keys that have one. Mostly none has: that costs one statement for all."""
        with self._errors():
            known = json.loads(self._do(statements.KNOWN, json.dumps(keys)).decode())
        rows = {key: self.get(key) for key in (*known, *self._saved.keys() & set(keys))}
        return {key: row for key, row in rows.items() if row is not None}

    def make_room(self, rows: Sequence[Write], now: float) -> Iterator[None]:
        """Delete others for rows that are to be written, if they take too much, in steps of some milliseconds each."""
        with self._errors():
            self._open()
            new = sum(len(row.row) for row in rows)
            if self._octets + new <= self._most or 0 <= now - self._full_at < _FULL_FOR:
                return
            self._octets = self._do(statements.OCTETS)
            excess = self._octets + new - self._most
            if excess > 0:
                yield from room.steps(self._do, excess + self._most * _ROOM, now)
                self._octets = self._do(statements.OCTETS)
            if self._octets + new > self._most:
                self._full_at = now

    def put(self, rows: Sequence[Write]) -> int:
        """Write rows, all or none, and return for how many new domains there is no room: theirs are not written.

        What is written survives the end of this process when this returns, and a power cut after `sync`.
        """
        saved = (Write(key, row, -_NO_TIME, _NO_TIME) for key, row in self._saved.items())  # Any stored row stays.
        rows = [*saved, *rows]
        with self._errors():
            self._open()
            may = self._in_bounds(rows)
            self._do(statements.PUT, json.dumps(may), VERSION)
        self._saved.clear()
        return len(rows) - len(may)

    def sync(self) -> None:
        """Have what was written survive a power cut. This may be called in another thread."""
        try:
            log = os.open(self._log, os.O_RDONLY)
        except OSError:
            return  # All is in the database, and SQLite has had it synced.
        try:
            os.fsync(log)
        except OSError as error:
            raise DatabaseError(os.strerror(error.errno or 0).lower()) from error
        finally:
            os.close(log)

    def forget(self, key: str, last_used: float) -> None:
        """Delete the row of a key, unless it was used after that time."""
        self._saved.pop(key, None)
        with self._errors():
            self._do(statements.FORGET, key, last_used)

    def due(self, now: float, after: int, limit: int) -> tuple[int | None, dict[str, float]]:
        """Of at most `limit` rows behind one: the keys of those to be refreshed or forgotten, or fetched in the future.

        Each has the time when its policy expires. The number is that of the last row; None if there was none.
        """
        with self._errors():
            found = json.loads(self._do(statements.DUE, now, VERSION, after, limit).decode("utf-8", "replace"))
            return found[0], dict(found[1])

    def page(self, after: str, limit: int) -> list[tuple[str, str]]:
        """At most `limit` keys behind one, in their order, and their rows."""
        with self._errors():
            found = json.loads(self._do(statements.PAGE, after, limit).decode("utf-8", "replace"))
            return [(key, row or "") for key, row in found]

    def briefs(self, now: float, after: str, limit: int) -> list[Brief]:
        """At most `limit` domains behind one, in their order, in brief. Those that are not known have no mode."""
        with self._errors():
            found = json.loads(self._do(statements.BRIEF, now, VERSION, after, limit).decode("utf-8", "replace"))
            return [Brief(urgency, key, mode or "") for urgency, key, mode in found]

    def count(self, now: float, after: int, limit: int) -> tuple[int | None, Counts]:
        """Of at most `limit` rows behind one: how many can be understood. The number is that of the last row."""
        with self._errors():
            found = self._do(statements.COUNT, now, VERSION, after, limit).decode("utf-8", "replace")
            row, stored, not_renewed, ending, first_ends_at, enforce, testing, none = json.loads(found)
            live = {Mode.ENFORCE: enforce, Mode.TESTING: testing, Mode.NONE: none}
            return row, Counts(stored, not_renewed, ending, first_ends_at, live)

    def try_writing(self) -> None:
        """Make sure that a row could be written now, for all that is known before it is tried."""
        with self._errors():
            self._do(statements.FORGET, "", 0.0)
        if self._octets > self._most:
            raise DatabaseError(f"its rows take {self._most / 2**20:.0f} MiB, the most that cache.memory allows")

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _in_bounds(self, rows: Sequence[Write]) -> Sequence[Write]:
        """Those of the rows that may be written: all, or those of known domains if there is no room."""
        self._octets += sum(len(row.row) for row in rows)
        if self._octets <= self._most:
            return rows
        known = set(json.loads(self._do(statements.KNOWN, json.dumps([row.key for row in rows]))))
        return [row for row in rows if row.key in known]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                self._raise_damaged(error)
            raise DatabaseError(reason(error), is_unusable=code not in _PASSING) from error

    def _do(self, statement: str, *values: object) -> Any:
        """Execute a statement; the first column of its row, if it has one."""
        row = self._open().conn.select_one(statement, values)
        return row[0] if row else None

    def _open(self) -> Any:
        if self._is_moved():
            self._leave()
        if self._rows is None:
            self._probe()
            # With autocommit, each statement is a transaction, and one that fails raises. Without, sqlitedict's thread
            # dies when a commit fails, and its caller waits for ever.
            rows = sqlitedict.SqliteDict(
                str(self._path), tablename=_TABLE, autocommit=True, journal_mode="WAL", outer_stack=False
            )
            rows.conn.select_one("PRAGMA synchronous = NORMAL")  # sqlitedict has turned it off.
            rows.conn.select_one(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
            self._rows = rows
            self._inodes = self._found()
            self._octets = self._path.stat().st_size
        return self._rows

    def _found(self) -> tuple[int | None, ...]:
        """The numbers of the files that stand at the paths now."""
        return _inode(self._path), _inode(self._log)

    def _is_moved(self) -> bool:
        """Whether the file or its log is not at its path any more."""
        return self._rows is not None and self._inodes != self._found()  # The truth value of rows is a query.

    def _leave(self) -> NoReturn:
        """Close a file that is moved. Raises DatabaseError."""
        (file, log), (new_file, new_log) = self._inodes, self._found()
        self.close()  # If the log alone is gone, all that was in it is in the file now.
        # SQLite would take the log that stays behind for the log of the new file.
        if file != new_file and log and log == new_log:
            self._log.unlink(missing_ok=True)
        what = "the file" if file != new_file else "its write-ahead log"
        how = "replaced" if (new_file if file != new_file else new_log) else "deleted"
        raise DatabaseError(f"{what} was {how} while it was open", is_anew=True)

    def _probe(self) -> None:
        """Use the file once where errors can be seen: sqlitedict would print them from its thread."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(statements.CREATE)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("REPLACE INTO policies (key, value) VALUES ('', '')")
            connection.execute("ROLLBACK")

    def _raise_damaged(self, error: sqlite3.Error) -> NoReturn:
        """Set the file aside, begin a new one with what can be read of it, and raise what there is to say."""
        if self._is_moved():
            self._leave()
        self.close()
        aside = salvage.unused(f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        try:
            for suffix in ("", "-wal", "-shm"):
                part = pathlib.Path(f"{self._path}{suffix}")
                if part.exists():
                    part.rename(f"{aside}{suffix}")
        except OSError as why:
            words = f"{error}; cannot be set aside: {os.strerror(why.errno or 0).lower()}"
            raise DatabaseError(words, is_unusable=True) from why
        self._saved = salvage.readable(aside)
        with contextlib.suppress(DatabaseError):
            self.put([])
        raise DatabaseError(f"{error}; set aside as {aside}", is_anew=True) from error


def _inode(path: pathlib.Path) -> int | None:
    """The number of a file, or None if there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
