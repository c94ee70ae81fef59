"""Whether a file is somebody else's, which must not be written to or renamed because `cache.path` names it."""

import contextlib
import pathlib

_MOST = 1 << 26  # Octets that are searched, so that a large file does not hold up the start. Rows of ours are all over.
_BLOCK = 1 << 20  # Octets that are read at once.
_SQLITE = b"SQLite format 3\0"
_FRAME = 32 + 24 + 512  # Octets of a write-ahead log that has a page, of the smallest size.
# What SQLite writes for our table, and how our rows begin (`cache.row`). Of a file that was ours, one of them is left,
# wherever it is damaged.
_OURS = (b"CREATE TABLE policies (key TEXT PRIMARY KEY, value BLOB)", b'{"version": 1, "mode": "')
_OVERLAP = max(map(len, _OURS))


def foreign(path: pathlib.Path) -> str:
    """Return what the file at a path is if it never was a database of ours, or an empty string.

    There may be no file. One of zeros only, as a crash may leave it, has nothing that could be lost, nor has a database
    without a table. A file that cannot be read is left to whoever opens it. Others may write to it meanwhile.
    """
    log = pathlib.Path(f"{path}-wal")
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            begin = file.read(_BLOCK)
        is_database = begin.startswith(_SQLITE)
        if not begin.strip(b"\0") or (is_database and _has_no_table(begin) and _size(log) < _FRAME):
            return ""
        if _has_ours(path) or _has_ours(log):
            return ""
    except OSError:
        return ""
    return "a database of another program" if is_database else "no database of postfix-mtasts"


def _has_no_table(begin: bytes) -> bool:
    """Whether the first page of a database is a leaf without cells (SQLite's file format, 1.6)."""
    page = begin[100:108]  # Behind the header of the file.
    return page[:1] == b"\r" and page[3:5] == bytes(2)


def _size(path: pathlib.Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


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
