"""The database of published domains: two commands at once, a kill at any moment, a full disk, ten thousand domains."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts.publish import store as module
from postfix_mtasts.publish.events import Added, Change, RemovalAsked
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.store import Entry, Line, Store, StoreError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.conftest import filled, small_disk
from tests.world.postfix import unfit

NOW = 1_800_000_000.0
DOMAIN = PolicyDomain("example.com")
POLICY = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))
ADDED = Change("added", "", "mode testing, mx mx1.example.com")
in_namespace = pytest.mark.skipif(
    not os.environ.get("POSTFIX_MTASTS_NAMESPACE"), reason="needs a namespace to mount in: tests/namespace"
)
# Adds domains until it is killed, and says which ones are stored.
WRITER = """
import sys
from tests.integration.publish.test_store import NOW, POLICY
from postfix_mtasts.publish.events import Added
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
store = Store(sys.argv[1])
for number in range(int(sys.argv[3])):
    domain = PolicyDomain(f"{sys.argv[2]}{number}.example.com")
    with store.changing():
        assert store.get(domain) is None
        store.save(decide(None, Added(domain, POLICY), NOW), "root", NOW)
    print(domain, flush=True)
"""

# Two groups, and what somebody of one prints of a database.
NOGROUP, GROUP = 65_534, 1
READER = """
import os, sys
from postfix_mtasts.publish.store import Store, StoreError
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(65_534)
try:
    print(*(line.domain for line in Store(sys.argv[1], read_only=sys.argv[3] == "looks").lines()))
except StoreError as error:
    print(error)
"""


def test_what_is_stored_is_found_with_its_history(tmp_path: Path) -> None:
    path = str(tmp_path / "publish.sqlite")
    store = Store(path)
    assert store.get(DOMAIN) is None
    first = decide(None, Added(DOMAIN, POLICY), NOW)
    store.save(first, "root", NOW)
    second = decide(first.state, RemovalAsked(), NOW + 60)
    store.save(second, "anna", NOW + 60)
    store.close()
    again = Store(path)
    assert again.get(DOMAIN) == second.state
    assert again.history(DOMAIN) == [
        Entry(NOW, "root", ADDED),
        Entry(NOW + 60, "anna", Change("stage", "published", "cleared")),
    ]
    assert list(again.lines()) == [Line("example.com", "testing", "cleared", None, ("no-file",), None)]
    again.close()


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "publish.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name, "40"], stdout=subprocess.DEVNULL)
        for name in ("a", "b", "c")
    ]
    assert [writer.wait(100) for writer in writers] == [0, 0, 0]
    store = Store(str(path))
    assert len(list(store.lines())) == 120
    store.close()


def test_what_was_said_to_be_stored_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "publish.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, "a", "100000"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    said = [writer.stdout.readline().strip() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    said += writer.stdout.read().split()
    writer.stdout.close()
    store = Store(str(path))
    stored = {line.domain for line in store.lines()}
    assert set(said) <= stored
    for name in said[:3]:
        assert [entry.change for entry in store.history(PolicyDomain(name))] == [ADDED]
    store.close()


def test_a_command_that_does_not_end_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "publish.sqlite")
    holder, other = Store(path), Store(path)
    monkeypatch.setattr(module, "WAIT", 0.1)
    with holder.changing(), pytest.raises(StoreError) as caught, other.changing():
        pass
    assert str(caught.value) == f"{path}: another command has been changing it for 0.1 s"
    holder.close()
    other.close()


@in_namespace
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        store = Store(str(folder / "publish.sqlite"))
        first = decide(None, Added(DOMAIN, POLICY), NOW)
        store.save(first, "root", NOW)
        second = decide(first.state, RemovalAsked(), NOW)

        def add_many() -> None:
            for number in range(200):  # The write-ahead log has some room left.
                store.save(decide(None, Added(PolicyDomain(f"{number}.example"), POLICY), NOW), "root", NOW)

        with filled(folder), pytest.raises(StoreError) as caught:
            add_many()
        assert str(caught.value) == f"{folder}/publish.sqlite: database or disk is full"
        assert store.get(DOMAIN) == first.state
        store.save(second, "root", NOW)
        assert store.get(DOMAIN) == second.state
        store.close()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing/publish.sqlite", None, "no such file or directory (its folder does not exist)"),
        ("publish.sqlite", b"no database at all, but a text of some length" * 30, "file is not a database"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        Store(str(path))
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.skipif(bool(unfit()), reason=unfit() or "")
def test_the_group_may_look_and_nothing_is_made(folder: Path) -> None:
    path = folder / "publish.sqlite"
    with pytest.raises(StoreError) as caught:
        Store(str(path), read_only=True)
    assert (str(caught.value), list(folder.iterdir())) == (f"{path}: no such file or directory", [])
    Store(str(path)).close()
    os.chown(path, -1, GROUP)
    store = Store(str(path))
    store.save(decide(None, Added(DOMAIN, POLICY), NOW), "root", NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    # In its write-ahead log; and then in the file, without one.
    assert looked(path, GROUP) == "example.com\n"
    store.close()
    files = {path, folder / f"{path.name}.lock"}
    assert set(folder.iterdir()) == files
    assert looked(path, GROUP) == "example.com\n"
    assert looked(path, NOGROUP) == f"{path}: permission denied\n"
    assert looked(path, NOGROUP, "changes") == f"{path}: user nobody may not read {path}\n"
    assert set(folder.iterdir()) == files
    with pytest.raises(StoreError) as caught:
        Store(str(path), read_only=True).save(decide(None, Added(DOMAIN, POLICY), NOW), "root", NOW)
    assert str(caught.value) == f"{path}: attempt to write a readonly database"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def looked(path: Path, group: int, how: str = "looks") -> str:
    """What somebody of a group reads of a database."""
    command = [sys.executable, "-c", READER, str(path), str(group), how]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_a_row_of_another_version_is_told_of_and_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "publish.sqlite")
    store = Store(path)
    store.save(decide(None, Added(DOMAIN, POLICY), NOW), "root", NOW)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE domains SET state = '{}'")
    connection.close()
    store = Store(path)
    with pytest.raises(StoreError, match=r"the row of example.com cannot be read: KeyError"):
        store.get(DOMAIN)
    assert [line.domain for line in store.lines()] == ["example.com"]
    store.close()


def test_ten_thousand_domains_are_listed_in_little_time(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "publish.sqlite"))
    with store._transaction():  # One by one, each would be synced.
        for number in range(10_000):
            decision = decide(None, Added(PolicyDomain(f"d{number}.example"), POLICY), NOW)
            store._write(decision, "root", NOW)
    began = time.process_time()
    assert len(list(store.lines())) == 10_000
    assert time.process_time() - began < 1
    store.close()
