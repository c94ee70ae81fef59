"""What can still be read of a damaged database, which was set aside."""

import contextlib
import itertools
import pathlib
import sqlite3

from postfix_mtasts.cache import statements

_MAX_ROWID = 2**63 - 1


def unused(name: str) -> pathlib.Path:
    """A path of this name, or with a number behind it."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in map(pathlib.Path, names) if not path.exists())


def readable(path: pathlib.Path) -> dict[str, str]:
    """The rows of a damaged file before the damage, and those after it."""
    rows: dict[str, str] = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement, rowid in ((statements.NEXT, -1), (statements.BEFORE, _MAX_ROWID)):
            # Row by row, for with one damaged row a cursor loses the one before.
            with contextlib.suppress(sqlite3.Error):
                while found := connection.execute(statement, (rowid,)).fetchone():
                    rowid, key, row = found
                    with contextlib.suppress(ValueError, AttributeError):  # Not UTF-8, or NULL.
                        rows.setdefault(key.decode(), row.decode())
    return rows
