"""Whether a file is somebody else's, which must not be written to or renamed because `cache.path` names it."""

import contextlib
import pathlib
import sqlite3

_MOST = 1 << 26  # Octets that are searched, so that a large file does not hold up the start. Rows of ours are all over.
_BLOCK = 1 << 20  # Octets that are read at once.
_SQLITE = b"SQLite format 3\0"
# What SQLite writes for our table, and how our rows begin (`cache.row`). Of a file that was ours, one of them is left,
# wherever it is damaged.
_OURS = (b"CREATE TABLE policies (key TEXT PRIMARY KEY, value BLOB)", b'{"version": 1, "mode": "')
_OVERLAP = max(map(len, _OURS))


def foreign(path: pathlib.Path) -> str:
    """Return what the file at a path is if it never was a database of ours, or an empty string.

    There may be no file. One of zeros only, as a crash may leave it, has nothing that could be lost. A file that cannot
    be read is left to whoever opens it.
    """
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            begin = file.read(_BLOCK)
        if not begin.strip(b"\0") or (begin.startswith(_SQLITE) and _is_like_ours(path)):
            return ""
        if _has_ours(path) or _has_ours(pathlib.Path(f"{path}-wal")):
            return ""
    except OSError:
        return ""
    return "a database of another program" if begin.startswith(_SQLITE) else "no database of postfix-mtasts"


def _is_like_ours(path: pathlib.Path) -> bool:
    """Whether an SQLite database has our table, or none at all, or cannot tell because it is in use."""
    # SQLite would begin a write-ahead log. Without one, nobody has the file open.
    how = "mode=ro" if pathlib.Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", timeout=0, uri=True)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return not tables or ("policies",) in tables


def _has_ours(path: pathlib.Path) -> bool:
    """Whether a file, which may be missing, has what only this program writes."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        tail = b""
        for _ in range(_MOST // _BLOCK):
            block = tail + file.read(_BLOCK)
            if any(ours in block for ours in _OURS):
                return True
            if len(block) == len(tail):
                break
            tail = block[-_OVERLAP:]
    return False
