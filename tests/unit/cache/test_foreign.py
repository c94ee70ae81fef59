"""How much of a file is searched for what only we write. What becomes of it is tested with the daemon."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from postfix_mtasts.cache import foreign as module
from postfix_mtasts.cache.foreign import foreign
from postfix_mtasts.cache.statements import CREATE

NOT_OURS = "no database of postfix-mtasts"
ROW = b'{"version": 1, "mode": "enforce"'


def large(path: Path, at: int) -> Path:
    """A file that begins with a letter, and has a row of ours somewhere."""
    with path.open("wb") as file:
        file.write(b"x")
        file.seek(at)
        file.write(ROW)
    return path


@pytest.mark.parametrize("at", [1, module._BLOCK - 5, 2 * module._BLOCK - 1, module._MOST - 100])
def test_a_row_of_ours_is_found(tmp_path: Path, at: int) -> None:
    assert foreign(large(tmp_path / "file", at)) == ""


def test_a_file_is_searched_up_to_a_bound(tmp_path: Path) -> None:
    assert foreign(large(tmp_path / "file", module._MOST + 100)) == NOT_OURS


def test_a_row_of_ours_in_the_log_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    assert foreign(tmp_path / "file") == NOT_OURS
    (tmp_path / "file-wal").write_bytes(ROW)
    assert foreign(tmp_path / "file") == ""


@pytest.mark.parametrize("content", [b"", bytes(4096)], ids=["empty", "zeros"])
def test_nothing_that_could_be_lost(tmp_path: Path, content: bytes) -> None:
    assert foreign(tmp_path / "none") == ""
    (tmp_path / "file").write_bytes(content)
    assert foreign(tmp_path / "file") == ""


def test_what_is_no_file_is_left_to_others(tmp_path: Path) -> None:
    assert foreign(tmp_path) == foreign(Path("/dev/zero")) == ""


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        ((), ""),
        (("CREATE TABLE theirs (id)",), "a database of another program"),
        (("CREATE TABLE theirs (id)", CREATE), ""),
    ],
    ids=["begun", "theirs", "ours beside it"],
)
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_another_has_open(tmp_path: Path, mode: str, statements: tuple[str, ...], what: str) -> None:
    """It is not touched; in mode WAL, what was written is in its log alone, and in the file at the end."""
    path = tmp_path / "file"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        for statement in statements:
            connection.execute(statement)
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        assert foreign(path) == what
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert foreign(path) == what


def test_a_database_that_another_locks(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "file", isolation_level=None)) as connection:
        connection.execute(CREATE)
        connection.execute("BEGIN EXCLUSIVE")
        assert foreign(tmp_path / "file") == ""
