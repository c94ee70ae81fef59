"""A database is looked at while others write to it, between the look whether anybody does and what is read."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from postfix_mtasts.cache.database import Database, Write
from postfix_mtasts.publish.events import Added
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.store import Store as Published
from postfix_mtasts.reports.store import Store as Reports
from postfix_mtasts.sqlite_reader import Reader, WrittenToError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.world.postfix import unfit

pytestmark = pytest.mark.skipif(bool(unfit()), reason=unfit() or "")

ROOT, NOBODY, GROUP = 0, 65_534, 1
POLICY = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))

# Somebody looks, and waits whenever he is about to read without locks.
LOOK = """
import os, sys
from pathlib import Path
from postfix_mtasts.cache.database import DatabaseError
from postfix_mtasts.cache.look import read
from postfix_mtasts.publish.store import Store as Published, StoreError as PublishedError
from postfix_mtasts.reports.store import Store as Reports, StoreError as ReportsError

def wait(event, values):
    if event == "sqlite3.connect" and "immutable" in str(values[0]):
        print("looks", flush=True)
        sys.stdin.readline()

def policies():
    return [key for key, _ in read(sys.argv[1]) if key]

def published():
    return list(Published(sys.argv[1], read_only=True).lines())

def reports():
    with Reports(Path(sys.argv[1])) as store:
        store.open_to_read()
        return store.select("SELECT name FROM messages")

os.setgroups([])
os.setgid(1)
os.setuid(int(sys.argv[3]))
sys.addaudithook(wait)
try:
    print(len(globals()[sys.argv[2]]()))
except ReportsError as error:
    print(error, error.hint, sep="; ")
except (DatabaseError, PublishedError) as error:
    print(error)
"""


def policies(path: Path, numbers: range) -> None:
    database = Database(str(path))
    database.put([Write(f"{number}.example", "x" * 500, -1e300, 1e300) for number in numbers])
    database.close()


def published(path: Path, numbers: range) -> None:
    store = Published(str(path))
    with store.changing():
        for number in numbers:
            store.save(decide(None, Added(PolicyDomain(f"{number}.example"), POLICY), 1.8e9), "root", 1.8e9)
    store.close()


def reports(path: Path, numbers: range) -> None:
    with Reports(path) as store:
        store.open()
        with store.transaction():
            store.execute_many(
                "INSERT INTO messages VALUES (NULL, ?, '', 0, 0, 0, 'stored', '', 'none', NULL, '', 0)",
                [(f"{number}.{'x' * 500}",) for number in numbers],
            )


@pytest.fixture
def path() -> Iterator[Path]:
    """A database in a folder in which a group may look."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o750)
        os.chown(name, -1, GROUP)
        yield Path(name, "database.sqlite")


def looked_at(path: Path, write: Callable[[Path, range], None], user: int) -> str:
    """What a user of the group finds, who began to look at a hundred rows before others wrote a hundred more."""
    write(path, range(100))
    os.chown(path, NOBODY if user == ROOT else ROOT, GROUP)
    path.chmod(0o640)
    command = [sys.executable, "-c", LOOK, str(path), write.__name__, str(user)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as looks:
        assert looks.stdin
        assert looks.stdout
        for numbers in (range(100, 200), range(200, 300)):
            if (said := looks.stdout.readline()) != "looks\n":
                return said
            write(path, numbers)
            looks.stdin.write("\n")
        return looks.stdout.readline()


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (policies, "it was written to while it was read; try it again"),
        (published, "{}: another command changed it while it was read; try it again"),
        (reports, "{}: a report came in while it was read; try it again"),
    ],
)
def test_what_was_read_without_locks_while_others_wrote_is_not_taken_for_right(
    path: Path, write: Callable[[Path, range], None], reason: str
) -> None:
    assert looked_at(path, write, NOBODY) == f"{reason.format(path)}\n"
    names = {path.name, *(["database.sqlite.lock"] if write is published else [])}
    assert {one.name for one in path.parent.iterdir()} == names


@pytest.mark.parametrize(("write", "found"), [(policies, 200), (published, 100), (reports, 100)])
def test_who_may_have_locks_reads_what_is_right(path: Path, write: Callable[[Path, range], None], found: int) -> None:
    """Whose log stays behind, and is that of the file's owner, not root's."""
    assert looked_at(path, write, ROOT) == f"{found}\n"
    logs = [Path(f"{path}{suffix}") for suffix in ("-wal", "-shm")]
    assert [(log.stat().st_uid, log.stat().st_mode & 0o777) for log in logs] == [(NOBODY, 0o640)] * 2
    assert logs[0].stat().st_size == 0


def test_who_begins_to_read_without_locks_sees_every_later_write(path: Path) -> None:
    """A file's time goes on in steps. What is written in the step of the write before would not show."""
    policies(path, range(100))
    os.utime(path)
    written = path.stat().st_mtime_ns
    reader = Reader(path, 0.0, leaves_nothing=True)
    begun = time.time_ns()
    with closing(reader.connection), pytest.raises(WrittenToError), reader.reading():
        os.utime(path)
    assert begun - written > 10_000_000  # Nanoseconds: the longest step of a kernel.
