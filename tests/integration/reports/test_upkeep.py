"""What is deleted, and when: for each bound, what is beyond it and nothing else."""

import datetime
import os
from pathlib import Path

import pytest

from postfix_mtasts import config
from postfix_mtasts.reports.facts import facts
from postfix_mtasts.reports.records import Message, write
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.upkeep import Bounds, tidy
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.viewing import LONG
from postfix_mtasts.reports.views import Window

DAY = 86400
NOW = 1000 * DAY
SETTINGS = config.Reports(keep_mails=30, keep_facts=400)
VERIFIED, ANYBODY = Dkim(DkimState.VERIFIED, "one.example"), Dkim(DkimState.NONE)
TIME = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


class Shelf:
    """A spool and a database."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "mails")
        self.spool.open()
        self.store = Store(folder / "reports.sqlite")
        self.store.open()

    def add(
        self,
        name: str,
        age: int = 0,
        dkim: Dkim = VERIFIED,
        state: State = State.STORED,
        octets: int = 10,
        failures: int = 1,
        information: str | None = None,
    ) -> None:
        """Add a message that came so many days ago, with its mail."""
        (self.spool.path(name)).write_bytes(b"")
        message = Message(name, name, octets, NOW - age * DAY, state, "", dkim, False)
        found = (Failure("x", 1, None, None, None, None, information),) * failures
        report = Report("Org", name, TIME, TIME, (Policy("a.example", "sts", None, 0, failures, found),))
        with self.store.transaction():
            write(self.store, message, report, NOW)

    def tidy(self, **bounds: int) -> None:
        tidy(self.spool, self.store, SETTINGS, NOW, Bounds(**bounds))

    def mails(self) -> list[str]:
        """The messages that have a mail, in the spool and for the database."""
        here = sorted(path.name for path in self.spool.path("").iterdir())
        known = self.store.select("SELECT name FROM messages WHERE octets > 0 ORDER BY name")
        assert here == [name for (name,) in known]
        return here

    def used(self) -> int:
        """Octets of the database that are in use."""
        words = ("page_count", "freelist_count", "page_size")
        pages, free, size = (number for word in words for (number,) in self.store.select(f"PRAGMA {word}"))
        return int((pages - free) * size)

    def messages(self) -> list[str]:
        return [name for (name,) in self.store.select("SELECT name FROM messages ORDER BY name")]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_mails_and_facts_have_their_time(shelf: Shelf) -> None:
    for age in (0, 30, 31, 400, 401):
        shelf.add(f"{age}", age)
    shelf.add("31-quarantined", 31, state=State.QUARANTINED)
    shelf.add("30-quarantined", 30, state=State.QUARANTINED)
    shelf.tidy()
    assert shelf.mails() == ["0", "30", "30-quarantined"]
    assert shelf.messages() == ["0", "30", "30-quarantined", "31", "400"]
    assert shelf.store.one("SELECT COUNT(*) FROM reports") == (4,)


def test_each_call_does_a_part(shelf: Shelf) -> None:
    for number in range(5):
        shelf.add(f"{number}", 500)
    left = []
    for _ in range(3):
        shelf.tidy(at_once=2)
        left.append(len(shelf.messages()))
    assert left == [3, 1, 0]


def test_mails_have_a_size(shelf: Shelf) -> None:
    """Those of anybody go first, the older ones before, and what was reported stays."""
    shelf.add("a", 3)
    shelf.add("b", 2, ANYBODY)
    shelf.add("c", 1, ANYBODY)
    for expected in (["a", "c"], ["a", "c"]):
        shelf.tidy(mails=25, at_once=1)
        assert shelf.mails() == expected
    assert shelf.messages() == ["a", "b", "c"]


def test_large_mails_take_the_room_of_no_others(shelf: Shelf) -> None:
    shelf.add("old", 20)
    for number in range(3):
        shelf.add(f"large{number}", octets=100 + number)
    for left in (["large0", "large1", "old"], ["large0", "old"], ["old"], ["old"]):
        shelf.tidy(mails=50, at_once=1)
        assert shelf.mails() == left


def test_senders_that_are_not_verified_have_a_number(shelf: Shelf) -> None:
    shelf.add("verified", 9)
    for age in range(4):
        shelf.add(f"{age}", age, ANYBODY if age % 2 else Dkim(DkimState.OTHER_DOMAIN, "x.example"))
    shelf.tidy(anybody=2)
    assert shelf.messages() == shelf.mails() == ["0", "1", "verified"]


def test_mails_that_come_again_have_a_number(shelf: Shelf) -> None:
    """Whoever has a verified mail can send it as often as he likes."""
    shelf.add("verified", 9)
    for age in range(4):
        shelf.add(f"{age}", age, state=State.DUPLICATE)
    shelf.tidy(anybody=2)
    assert shelf.messages() == shelf.mails() == ["0", "1", "verified"]


def test_messages_have_a_number(shelf: Shelf) -> None:
    for number in range(4):
        shelf.add(f"{number}")
    shelf.tidy(messages=2)
    assert shelf.messages() == shelf.mails() == ["2", "3"]


def test_failures_have_a_number_and_their_sums_stay(shelf: Shelf) -> None:
    for number in range(4):
        shelf.add(f"{number}", failures=10)
    span = Window(TIME.date(), TIME.date())
    before = facts(shelf.store, span, None, LONG, unverified=False)
    for left in (30, 20, 20):
        shelf.tidy(failures=25, failures_at_once=5)
        assert shelf.store.one("SELECT COUNT(*) FROM failures") == (left,)
    assert facts(shelf.store, span, None, LONG, unverified=False) == before


def test_what_anybody_sent_and_is_gone_counts_no_more(shelf: Shelf) -> None:
    """Nobody makes room for himself: many of his mails are deleted soon, and a few of them may have many failures."""
    shelf.add("verified", failures=10)
    for number in range(30):
        shelf.add(f"{number:02}", dkim=ANYBODY, failures=1000)
        shelf.tidy(anybody=5, messages=20, failures=5000)
    assert shelf.messages() == [*(f"{number}" for number in range(25, 30)), "verified"]
    details = "SELECT COUNT(*) FROM failures f JOIN policies p ON p.id = f.policy JOIN reports r ON r.id = p.report"
    assert shelf.store.one(f"{details} WHERE r.verified") == (10,)


def test_the_database_has_a_size(shelf: Shelf) -> None:
    """What anybody may have sent goes first, the older before, and no more than has to."""
    for name, dkim in (("a", VERIFIED), ("b", ANYBODY), ("c", ANYBODY), ("d", VERIFIED)):
        shelf.add(name, dkim=dkim, failures=100, information=1000 * "x")
    size = shelf.used()
    for expected in (["a", "c", "d"], ["a", "d"], ["d"]):
        shelf.tidy(database=size, at_once=1)
        assert len(shelf.messages()) == len(expected) + 1
        shelf.tidy(database=shelf.used() - 1)
        assert shelf.messages() == shelf.mails() == expected
    shelf.tidy(database=0)
    assert shelf.messages() == []


def test_what_was_begun_and_never_completed_goes_after_a_day(shelf: Shelf, tmp_path: Path) -> None:
    for name, age in (("old", 86401), ("new", 86399)):
        (tmp_path / "mails/tmp" / name).write_bytes(b"")
        os.utime(tmp_path / "mails/tmp" / name, (NOW - age, NOW - age))
    shelf.tidy()
    assert [path.name for path in (tmp_path / "mails/tmp").iterdir()] == ["new"]
