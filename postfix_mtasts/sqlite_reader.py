"""Opens a database of SQLite to look at it, while other processes may write to it.

SQLite takes locks if there is a write-ahead log, or if it may begin one, which stays behind. Where it has no right or
no room for that, or shall leave nothing behind, it reads without locks. What was read then counts only if nobody has
written to the file meanwhile. And it says why SQLite fails.
"""

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

_STEP = 20_000_000  # Nanoseconds, in which a file's time may stay the same: the kernel's clock goes on by ten at most.
_TRIES = 5


class WrittenToError(Exception):
    """What was read without locks may be wrong: somebody has written to the file meanwhile."""


class Reader:
    """A database that is only read, by its `connection`, within `reading`. Close that connection.

    It waits for others for `timeout` seconds. With `leaves_nothing`, it does not begin a log. Raises OSError,
    sqlite3.Error and WrittenToError.
    """

    def __init__(self, path: Path, timeout: float, *, leaves_nothing: bool = False) -> None:
        self._path = path.absolute()
        self._log = Path(f"{self._path}-wal")
        self._before: tuple[int, ...] | None = None  # If it is read without locks: the state of the file at first.
        self._path.stat()  # SQLite does not say why it cannot.
        # To open the file and close it would give up the locks of other connections of this process.
        if not os.access(self._path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not leaves_nothing or self._log.exists():
            try:
                self.connection = self._open("mode=ro", timeout)
            except sqlite3.OperationalError:
                if self._has_log():
                    raise
            else:
                return
        self._before = self._settled()
        if self._has_log():
            raise WrittenToError
        self.connection = self._open("mode=ro&immutable=1", timeout)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """The block in which something is read. Raises WrittenToError at its end, also in place of sqlite3.Error."""
        try:
            yield
        except sqlite3.Error:
            self._check()
            raise
        self._check()

    def _check(self) -> None:
        if self._before not in (None, self._state()):
            raise WrittenToError

    def _open(self, how: str, timeout: float) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self._path.as_uri()}?{how}", timeout=timeout, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA schema_version")  # SQLite opens the file with the first statement.
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _has_log(self) -> bool:
        """Whether the log has something that the file has not."""
        try:
            return self._log.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _settled(self) -> tuple[int, ...]:
        """The state of the file once it has been left alone for so long that the next write to it changes that."""
        for _ in range(_TRIES):
            state = self._state()
            if abs(time.time_ns() - state[-1]) > _STEP:
                return state
            time.sleep(_STEP / 1e9)
        raise WrittenToError

    def _state(self) -> tuple[int, ...]:
        """What changes when the file is written to."""
        about = self._path.stat()
        return about.st_ino, about.st_size, about.st_mtime_ns


def reason(error: sqlite3.Error) -> str:
    """Why SQLite fails, on one line."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:  # SQLite says "disk I/O error".
        return os.strerror(errno.ENOSPC).lower()
    return str(error)
