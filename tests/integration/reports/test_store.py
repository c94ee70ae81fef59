"""The database beside other programs and other processes, whatever becomes of them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from postfix_mtasts.reports.store import Store, StoreError
from tests.integration.conftest import filled, small_disk

NAMES = "SELECT COUNT(*), COUNT(DISTINCT length(name)), MAX(name) FROM messages"


def opened(path: Path) -> Store:
    store = Store(path)
    store.open()
    return store


def put(path: Path, first: int, count: int) -> None:
    """Write messages as another process does, which takes the write-ahead log along when it ends."""
    with opened(path) as store, store.transaction():
        store.execute_many(
            "INSERT INTO messages VALUES (NULL, ?, '', 0, 0, 0, 'stored', '', 'none', NULL, '', 0)",
            [(f"{number}.{'x' * 500}",) for number in range(first, first + count)],
        )


def looked_at(path: Path) -> Store:
    store = Store(path)
    store.open_to_read()
    return store


def test_what_is_read_is_of_one_moment_whatever_others_write(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    put(path, 0, 300)
    assert not Path(f"{path}-wal").exists()
    with looked_at(path) as store, store.snapshot():
        before = store.one(NAMES)
        assert before == (300, 3, f"99.{'x' * 500}")
        put(path, 1000, 3000)
        assert store.one(NAMES) == before
        assert store.one("PRAGMA integrity_check") == ("ok",)
    with looked_at(path) as store:
        assert store.one("SELECT COUNT(*) FROM messages") == (3300,)


def test_without_room_for_a_log_nothing_is_taken_for_right_that_was_read_while_others_wrote(
    namespace: None, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "reports") as disk:
        path = disk / "reports.sqlite"
        put(path, 0, 100)
        with filled(disk):
            store = looked_at(path)
            assert store.one("SELECT COUNT(*) FROM messages") == (100,)
        with store:
            put(path, 1000, 100)
            with pytest.raises(StoreError) as caught:
                store.one("SELECT COUNT(*) FROM messages")
        assert (str(caught.value), caught.value.hint) == (f"{path}: a report came in while it was read", "try it again")


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY)")
    before = path.read_bytes()
    for look in (opened, looked_at):
        with pytest.raises(StoreError) as caught:
            look(path)
        assert str(caught.value) == f"{path}: a database of another program"
        assert caught.value.hint == "name a file of its own in reports.path"
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_file_that_was_made_and_not_written_to_has_no_report(tmp_path: Path) -> None:
    """A process was killed in between."""
    path = tmp_path / "reports.sqlite"
    path.touch()
    with pytest.raises(StoreError, match=rf"^no report has been taken in yet: {path} is empty$"):
        looked_at(path)
    put(path, 0, 1)
    with looked_at(path) as store:
        assert store.one("SELECT COUNT(*) FROM messages") == (1,)
