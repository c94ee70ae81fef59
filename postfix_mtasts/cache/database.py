"""The database file: SQLite through sqlitedict, with one row for each domain. It is used by one thread.

With WAL and synchronous=NORMAL, a row is the old one or the new one after a crash, never half of each. A damaged file
is renamed to a name with the time, and the rows that can still be read are copied to a new file. Two daemons may share
a file: of two rows for a domain, the one with the later fetch stays, whichever is written last.
"""

import contextlib
import itertools
import json
import logging
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import sqlitedict

from postfix_mtasts.cache.row import VERSION

_TABLE = "policies"
_BUSY_TIMEOUT = 1.0  # Seconds to wait for another process that has locked the database.
_MAX_ROWID = 2**63 - 1
_NO_TIME = 1e300  # Later than any, in seconds.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

# When sqlitedict cannot fetch a later row of a result, its thread dies, and its caller waits for ever. So each result
# is one row, of types that need no decoding.
_CREATE = "CREATE TABLE IF NOT EXISTS policies (key TEXT PRIMARY KEY, value BLOB)"
_GET = "SELECT (SELECT ifnull(CAST(value AS BLOB), x'') FROM policies WHERE key = ?)"
_KNOWN = "SELECT CAST(json_group_array(key) AS BLOB) FROM policies WHERE key IN (SELECT value FROM json_each(?1))"
# ?1 is a JSON array of `Write`, ?2 the version: one statement, so that all rows are written or none.
_PUT = """
    INSERT OR REPLACE INTO policies (key, value)
    SELECT new.key, new.row FROM (
        SELECT
            json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS row,
            json_extract(value, '$[2]') AS after, json_extract(value, '$[3]') AS until
        FROM json_each(?1)
    ) AS new LEFT JOIN policies AS old ON old.key = new.key
    WHERE NOT coalesce(CASE WHEN json_valid(old.value) THEN
        json_extract(old.value, '$.version') = ?2
        AND json_extract(old.value, '$.fetched_at') > new.after AND json_extract(old.value, '$.fetched_at') <= new.until
    END, false)
"""
# ?2 is when the domain was last used. A row stays if another daemon has seen it used later.
_FORGET = """
    DELETE FROM policies WHERE key = ?1 AND NOT (json_valid(value) AND json_extract(value, '$.last_used') > ?2)
"""
_DUE = """
    SELECT CAST(json_group_array(key) AS BLOB) FROM (
        SELECT key FROM policies
        WHERE typeof(key) = 'text' AND json_valid(value) AND json_extract(value, '$.version') = ?2 AND EXISTS (
            SELECT 1 FROM json_each(policies.value, '$.due') AS span WHERE ?1
            BETWEEN coalesce(json_extract(span.value, '$[0]'), ?1) AND coalesce(json_extract(span.value, '$[1]'), ?1)
        )
        ORDER BY json_extract(value, '$.expires_at')
    )
"""
_PAGE = """
    SELECT CAST(json_group_array(json_array(key, value)) AS BLOB) FROM (
        SELECT key, CAST(value AS TEXT) AS value FROM policies
        WHERE typeof(key) = 'text' AND key > ?1 ORDER BY key LIMIT ?2
    )
"""
# ?1 is the time, ?2 the version.
_COUNT = """
    SELECT CAST(json_array(
        count(*), count(*) FILTER (WHERE fails), count(*) FILTER (WHERE fails AND urgent_at < ?1),
        min(expires_at) FILTER (WHERE fails)
    ) AS BLOB) FROM (
        SELECT
            json_extract(value, '$.expires_at') AS expires_at, json_extract(value, '$.urgent_at') AS urgent_at,
            json_extract(value, '$.renewal_fails') AND json_extract(value, '$.expires_at') >= ?1 AS fails
        FROM policies WHERE json_valid(value) AND json_extract(value, '$.version') = ?2
    )
"""
_ALL = "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM policies ORDER BY key"
_NEXT = "SELECT rowid, CAST(key AS BLOB), CAST(value AS BLOB) FROM policies WHERE rowid > ? ORDER BY rowid LIMIT 1"
_BEFORE = (
    "SELECT rowid, CAST(key AS BLOB), CAST(value AS BLOB) FROM policies WHERE rowid < ? ORDER BY rowid DESC LIMIT 1"
)


class Write(NamedTuple):
    """A row to be written by its key. A stored row stays if it was fetched later than `after`, and by `until`."""

    key: str
    row: str
    after: float  # Seconds since the epoch.
    until: float


class DatabaseError(Exception):
    """The database could not be used; says why."""

    def __init__(self, reason: str, *, is_damaged: bool = False, is_unusable: bool = False) -> None:
        super().__init__(reason)
        self.is_damaged = is_damaged  # It was set aside; the next call has a new one.
        self.is_unusable = is_unusable  # Waiting will not help.


@dataclass(frozen=True, slots=True)
class Counts:
    """How many policies there are, how many of them live and cannot be renewed, and how many of those end soon."""

    stored: int
    not_renewed: int
    ending: int
    first_ends_at: float | None  # Of those that cannot be renewed.


def read(path: str) -> list[tuple[str, str]]:
    """All keys and rows of a database that is only looked at, while another may have it open. Raises DatabaseError."""
    file = pathlib.Path(path)
    try:
        with file.open("rb"):  # SQLite does not say why it cannot.
            pass
        # SQLite would begin a write-ahead log, and leave it there. Without one, nobody has the file open.
        how = "mode=ro" if pathlib.Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?{how}", timeout=_BUSY_TIMEOUT, uri=True)) as rows:
            return [
                (key.decode("utf-8", "replace"), (row or b"").decode("utf-8", "replace"))
                for key, row in rows.execute(_ALL)
            ]
    except OSError as error:
        raise DatabaseError(os.strerror(error.errno or 0).lower()) from error
    except sqlite3.Error as error:
        raise DatabaseError(str(error)) from error


class Database:
    """The file at a path. Each method opens it if it is not open, and raises DatabaseError."""

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)
        self._rows: sqlitedict.SqliteDict | None = None
        self._saved: dict[str, str] = {}  # What could be read of a damaged file, and is not in the new one yet.
        self._inode: int | None = None  # Of the file that is open: another daemon may set it aside.
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
            row: bytes | None = self._do(_GET, key)
            return row

    def get_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The rows of those keys that have one. Mostly none has: that costs one statement for all."""
        with self._errors():
            known = json.loads(self._do(_KNOWN, json.dumps(keys)).decode())
        rows = {key: self.get(key) for key in (*known, *self._saved.keys() & set(keys))}
        return {key: row for key, row in rows.items() if row is not None}

    def put(self, rows: Sequence[Write]) -> None:
        """Write rows, all or none; they are on disk when this returns."""
        saved = (Write(key, row, -_NO_TIME, _NO_TIME) for key, row in self._saved.items())  # Any stored row stays.
        with self._errors():
            self._do(_PUT, json.dumps([*saved, *rows]), VERSION)
        self._saved.clear()

    def forget(self, key: str, last_used: float) -> None:
        """Delete the row of a key, unless it was used after that time."""
        self._saved.pop(key, None)
        with self._errors():
            self._do(_FORGET, key, last_used)

    def due(self, now: float) -> list[str]:
        """The keys of rows to be refreshed or forgotten, or fetched in the future; those that expire first."""
        with self._errors():
            keys: list[str] = json.loads(self._do(_DUE, now, VERSION).decode("utf-8", "replace"))
            return keys

    def page(self, after: str, limit: int) -> list[tuple[str, str]]:
        """At most `limit` keys behind one, in their order, and their rows."""
        with self._errors():
            found = json.loads(self._do(_PAGE, after, limit).decode("utf-8", "replace"))
            return [(key, row or "") for key, row in found]

    def count(self, now: float) -> Counts:
        """How many rows there are that can be understood."""
        with self._errors():
            return Counts(*json.loads(self._do(_COUNT, now, VERSION)))

    def try_writing(self) -> None:
        """Make sure that a row could be written now, for all that is known before it is tried."""
        with self._errors():
            self._do(_FORGET, "", 0.0)

    def close(self) -> None:
        """Close the file."""
        if self._rows is not None:
            self._rows.close()
            self._rows = self._inode = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                self._raise_damaged(error)
            raise DatabaseError(str(error), is_unusable=code not in _PASSING) from error

    def _do(self, statement: str, *values: object) -> Any:
        """Execute a statement; the first column of its row, if it has one."""
        row = self._open().conn.select_one(statement, values)
        return row[0] if row else None

    def _open(self) -> Any:
        if self._rows is None:  # Its truth value would be a query.
            self._probe()
            # With autocommit, each statement is a transaction, and one that fails raises. Without, sqlitedict's thread
            # dies when a commit fails, and its caller waits for ever.
            rows = sqlitedict.SqliteDict(
                str(self._path), tablename=_TABLE, autocommit=True, journal_mode="WAL", outer_stack=False
            )
            rows.conn.select_one("PRAGMA synchronous = NORMAL")  # sqlitedict has turned it off.
            rows.conn.select_one(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT * 1000:.0f}")
            self._rows = rows
            self._inode = self._path.stat().st_ino
        return self._rows

    def _probe(self) -> None:
        """Use the file once where errors can be seen: sqlitedict would print them from its thread."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_CREATE)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("REPLACE INTO policies (key, value) VALUES ('', '')")
            connection.execute("ROLLBACK")

    def _raise_damaged(self, error: sqlite3.Error) -> NoReturn:
        """Set the file aside, begin a new one with what can be read of it, and raise what there is to say."""
        opened = self._inode
        self.close()
        if opened is not None and not (self._path.exists() and self._path.stat().st_ino == opened):
            raise DatabaseError(f"{error}; it was replaced", is_damaged=True) from error
        aside = _unused(f"{self._path}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        try:
            for suffix in ("", "-wal", "-shm"):
                part = pathlib.Path(f"{self._path}{suffix}")
                if part.exists():
                    part.rename(f"{aside}{suffix}")
        except OSError as why:
            words = f"{error}; cannot be set aside: {os.strerror(why.errno or 0).lower()}"
            raise DatabaseError(words, is_unusable=True) from why
        self._saved = _readable(aside)
        with contextlib.suppress(DatabaseError):
            self.put([])
        raise DatabaseError(f"{error}; set aside as {aside}", is_damaged=True) from error


def _unused(name: str) -> pathlib.Path:
    """A path of this name, or with a number behind it."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in map(pathlib.Path, names) if not path.exists())


def _readable(path: pathlib.Path) -> dict[str, str]:
    """The rows of a damaged file before the damage, and those after it."""
    rows: dict[str, str] = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement, rowid in ((_NEXT, -1), (_BEFORE, _MAX_ROWID)):
            # Row by row, for with one damaged row a cursor loses the one before.
            with contextlib.suppress(sqlite3.Error):
                while found := connection.execute(statement, (rowid,)).fetchone():
                    rowid, key, row = found
                    with contextlib.suppress(ValueError, AttributeError):  # Not UTF-8, or NULL.
                        rows.setdefault(key.decode(), row.decode())
    return rows
