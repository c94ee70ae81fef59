"""Sources that are hidden until they change: in the database, and by the command."""

import dataclasses
import datetime
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts.reports.hiding import MAX_HIDDEN, SPAN, hidden, hide, is_known, unhide
from postfix_mtasts.reports.records import Message, write
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.verdict import State
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import ORG, Desk, signed
from tests.integration.reports.test_stored import DOMAIN, about, failure, policy
from tests.world.dns import DnsServer

NOW = datetime.datetime(2026, 3, 11, 12, tzinfo=datetime.UTC)
SOURCE = Dkim(DkimState.VERIFIED, "one.example")
DAY = datetime.timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "reports.sqlite") as opened:
        opened.open()
        yield opened


def report(day: int, failed: int = 0, result: str = "certificate-expired", mode: str = "enforce") -> Report:
    """A report about so many days ago."""
    start = (NOW - day * DAY).replace(hour=0)
    failures = (Failure(result, failed, "mx", None, None, None, None),) if failed else ()
    policies = (Policy("a.example", "sts", mode, 100, failed, failures),)
    return Report("Org", f"{day}-{failed}-{result}-{mode}", start, start + DAY, policies)


def put(store: Store, made: Report, dkim: Dkim = SOURCE) -> None:
    name = f"{dkim.state.value}-{made.report_id}"
    with store.transaction():
        write(store, Message(name, name, 1, 0, State.STORED, "", dkim, False), made, int(NOW.timestamp()))


def test_a_source_is_hidden_until_it_changes(store: Store) -> None:
    for day in range(3, 8):
        put(store, report(day, 20))
    assert hide(store, "one.example", NOW)
    put(store, report(2, 20))
    put(store, report(1, 0))
    put(store, report(1, 39))
    assert hidden(store) == {"one.example"}
    # Somebody else says that he is the source.
    put(store, report(1, 999), Dkim(DkimState.INVALID, "one.example", "why"))
    assert hidden(store) == {"one.example"}


@pytest.mark.parametrize(
    "news",
    [
        report(1, 1, result="validation-failure"),
        report(1, 0, mode="testing"),
        report(1, 41),
        dataclasses.replace(report(1), policies=(Policy("b.example", "sts", "enforce", 1, 0, ()),)),
        dataclasses.replace(report(1), policies=(Policy("a.example", "sts", "enforce", 1, 1, ()),)),
    ],
)
def test_what_changes_it(store: Store, news: Report) -> None:
    for day in range(2, 8):
        put(store, report(day, 20))
    put(store, report(2, 0, mode="testing"), Dkim(DkimState.VERIFIED, "two.example"))
    assert hide(store, "one.example", NOW)
    assert hide(store, "two.example", NOW)
    put(store, news)
    assert hidden(store) == {"two.example"}


def test_several_reports_on_a_day_are_counted_together(store: Store) -> None:
    put(store, report(3, 20))
    assert hide(store, "one.example", NOW)
    put(store, report(1, 25))
    assert hidden(store) == {"one.example"}
    put(store, report(1, 16))
    assert hidden(store) == frozenset()


def test_what_is_older_than_the_pages_show_is_not_known(store: Store) -> None:
    put(store, report(SPAN + 1, 20))
    put(store, report(SPAN, 0))
    assert hide(store, "one.example", NOW)
    put(store, report(1, 1))
    assert hidden(store) == frozenset()


def test_to_hide_it_again_takes_it_as_it_is_then(store: Store) -> None:
    put(store, report(3, 20))
    assert hide(store, "one.example", NOW)
    put(store, report(2, 1, result="validation-failure"))
    assert hide(store, "one.example", NOW)
    put(store, report(1, 1, result="validation-failure"))
    assert hidden(store) == {"one.example"}
    unhide(store, "one.example")
    assert hidden(store) == frozenset()


def test_what_is_hidden_has_a_bound(store: Store) -> None:
    names = [f"{number}.example" for number in range(MAX_HIDDEN)]
    assert [hide(store, name, NOW) for name in names] == [True] * MAX_HIDDEN
    assert not hide(store, "more.example", NOW)
    assert hide(store, names[0], NOW)
    assert hidden(store) == frozenset(names)


def test_a_source_that_makes_up_types_without_end_is_seen_again(store: Store) -> None:
    """What is remembered of it has a bound."""
    failures = tuple(Failure(f"type-{number:04}", 1, None, None, None, None, None) for number in range(150))
    for day in range(1, 11):
        names = tuple(dataclasses.replace(one, result=f"{one.result}-{day}") for one in failures)
        put(store, dataclasses.replace(report(day), policies=(Policy("a.example", "sts", None, 0, 150, names),)))
    assert hide(store, "one.example", NOW)
    (octets,) = store.one("SELECT LENGTH(look) FROM hidden") or (0,)
    assert octets < 100_000
    again = Policy("a.example", "sts", None, 0, 1, (dataclasses.replace(failures[-1], result="type-0149-9"),))
    put(store, dataclasses.replace(report(0), policies=(again,)))
    assert hidden(store) == frozenset()


def test_a_database_from_before_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    with Store(path) as store:
        store.open()
        store.execute("DROP TABLE hidden")
    with Store(path) as store:
        store.open_to_read()
        assert hidden(store) == frozenset()
        assert not is_known(store, "one.example")


def test_the_command(tmp_path: Path, dns: DnsServer, signer: Signer) -> None:
    desk = Desk(tmp_path, dns, domains=[DOMAIN])
    expired = failure("certificate-expired", 30)
    desk.receive(signed(signer, about(1, 1, policy(900, 30, expired))))
    desk.receive(signed(signer, about(1, 1, policy(10, 0)), "other.example"))
    done = desk.run("hide", ORG.upper())
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ORG}: hidden until it changes\n", "")
    assert desk.sessions() == {("other.example", True): (10, 0)}
    assert set(desk.sessions("--all")) == {(ORG, True), ("other.example", True)}
    assert desk.json("sources")["hidden"] == [ORG]
    assert f"Hidden until they change, but with --all: {ORG}\n" in desk.run("sources").stdout
    # It counts all the same, also in a mail about the week.
    assert desk.json("results")["failed"] == 30
    assert [one["sender"]["domain"] for one in desk.json("summary")["sources"]["sources"]] == [ORG, "other.example"]
    # What has been taken in is no news.
    desk.json("replay")
    desk.receive(signed(signer, about(0, 2, policy(900, 30, expired))))
    assert desk.json("sources")["hidden"] == [ORG]
    desk.receive(signed(signer, about(0, 3, policy(900, 1, failure("validation-failure", 1)))))
    assert desk.json("sources")["hidden"] == []
    assert (desk.json("hide", ORG), desk.json("unhide", ORG)) == (
        {"source": ORG, "hidden": True},
        {"source": ORG, "hidden": False},
    )
    again = desk.run("unhide", ORG)
    assert (again.returncode, again.stderr) == (2, f"postfix-mtasts-reports: error: {ORG} is not hidden\n")
    stranger = desk.run("hide", "stranger.example")
    why = "postfix-mtasts-reports: error: no verified report of stranger.example is stored\n"
    assert (stranger.returncode, stranger.stdout, stranger.stderr) == (2, "", why)
    assert sqlite3.connect(desk.database).execute("SELECT COUNT(*) FROM hidden").fetchone() == (0,)
