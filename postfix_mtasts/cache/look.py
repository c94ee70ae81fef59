"""Reads a database that is only looked at, as the command does when no daemon runs."""

import contextlib
import os
import pathlib
import sqlite3

from postfix_mtasts.cache import statements
from postfix_mtasts.cache.database import BUSY_TIMEOUT, DatabaseError
from postfix_mtasts.sqlite_reader import Reader, WrittenToError, reason


def read(path: str) -> list[tuple[str, str]]:
    """All keys and rows of a database that is only looked at, while another may have it open. Raises DatabaseError."""
    file = pathlib.Path(path)
    try:
        try:
            return _read(Reader(file, BUSY_TIMEOUT, leaves_nothing=True))
        except WrittenToError:
            return _read(Reader(file, BUSY_TIMEOUT))
    except WrittenToError as error:
        raise DatabaseError("it was written to while it was read; try it again") from error
    except OSError as error:
        raise DatabaseError(os.strerror(error.errno or 0).lower()) from error
    except sqlite3.Error as error:
        raise DatabaseError(reason(error)) from error


def _read(reader: Reader) -> list[tuple[str, str]]:
    with contextlib.closing(reader.connection) as rows, reader.reading():
        return [
            (key.decode("utf-8", "replace"), (row or b"").decode("utf-8", "replace"))
            for key, row in rows.execute(statements.ALL)
        ]
