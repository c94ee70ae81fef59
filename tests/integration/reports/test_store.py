"""The database beside other programs and other processes, whatever becomes of them."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from postfix_mtasts.reports.store import Store, StoreError
from tests.integration.conftest import filled, small_disk
from tests.world.postfix import unfit

NAMES = "SELECT COUNT(*), COUNT(DISTINCT length(name)), MAX(name) FROM messages"

# Two groups, and what somebody of one reads of a database.
NOGROUP, GROUP = 65_534, 1
READER = """
import os, sys
from pathlib import Path
from postfix_mtasts.reports.store import Store, StoreError
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65_534)
try:
    with Store(Path(sys.argv[1])) as store:
        store.open_to_read()
        print(*store.one("SELECT COUNT(*) FROM messages"))
except StoreError as error:
    print(error, error.hint, sep="; ")
"""


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


@pytest.mark.skipif(bool(unfit()), reason=unfit() or "")
def test_the_group_may_look_and_makes_nothing() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o750)
        os.chown(name, -1, GROUP)
        path = Path(name, "reports.sqlite")
        put(path, 0, 1)
        assert read_by(path, GROUP) == "1\n"
        assert [one.name for one in Path(name).iterdir()] == [path.name]
        reason = f"{path}: permission denied; run it as root; to look, a member of its group may run it too\n"
        assert read_by(path, NOGROUP) == reason
        with opened(path) as store:
            store.execute("DELETE FROM messages")
            assert read_by(path, GROUP) == "0\n"
        with looked_at(path):
            pass
        assert Path(f"{path}-shm").exists()
        assert read_by(path, GROUP) == "0\n"


def read_by(path: Path, group: int) -> str:
    """What somebody of a group reads of a database."""
    command = [sys.executable, "-c", READER, str(path), str(group)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
