"""One sentence a concern, the worst first."""

import pytest

from postfix_mtasts.publish.store import Line
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.health import Health, Level
from postfix_mtasts.reports.headline import Headline
from postfix_mtasts.web.overview import Concern, domains, reported, sending, worst_first


def line(domain: str, mode: str, problems: int | None, stage: str = "published") -> Line:
    return Line(domain, mode, stage, "1", (), problems)


@pytest.mark.parametrize(
    ("lines", "status", "sentence", "more"),
    [
        (None, Status.NOTHING, "No domain is published here.", ""),
        ([line("gone.example", "none", 0, "removed")], Status.NOTHING, "No domain is published here.", ""),
        (
            [line("a.example", "enforce", 0)], Status.OK, "The last checks found no problem.",
            "1 domain is published here.",
        ),
        (
            [line("a.example", "enforce", 0), line("b.example", "testing", None)],
            Status.WARNING, "Domains that were never checked: 1.", "2 domains are published here.",
        ),
        (
            [line("a.example", "enforce", None), line("b.example", "testing", 3)],
            Status.WARNING, "The last check found problems with b.example.", "2 domains are published here.",
        ),
        (
            [line("a.example", "testing", 1), *(line(f"{name}.example", "enforce", 1) for name in "bcde")],
            Status.ERROR,
            "The last check found problems with b.example, c.example, d.example and more in mode enforce.",
            "5 domains are published here.",
        ),
    ],
)  # fmt: skip
def test_domains(lines: list[Line] | None, status: Status, sentence: str, more: str) -> None:
    assert domains(lines) == Concern("Domains", "/domains", status, sentence, more)


@pytest.mark.parametrize(
    ("level", "status"),
    [
        (Level.OK, Status.OK), (Level.WARNING, Status.WARNING), (Level.CRITICAL, Status.ERROR),
        (Level.UNKNOWN, Status.ERROR),
    ],
)  # fmt: skip
def test_sending(level: Level, status: Status) -> None:
    found = sending(Health(level, ("answers Postfix", "12 policies"), {"time": "0.002s"}))
    assert found == Concern("Sending", "/sending", status, "Answers Postfix.", "12 policies.")


def test_a_daemon_that_does_not_answer_is_said_first() -> None:
    found = sending(Health(Level.CRITICAL, ("unix:/run/socket does not answer: connection refused", "no DNS"), {}))
    said = "The daemon does not answer: Postfix defers the mail that it asks about."
    more = "unix:/run/socket does not answer: connection refused; no DNS."
    assert found == Concern("Sending", "/sending", Status.ERROR, said, more)


def test_a_path_keeps_its_letters() -> None:
    found = sending(Health(Level.WARNING, ("unix:/run/socket is slow",), {"time": "4s"}))
    assert found.sentence == "unix:/run/socket is slow."


@pytest.mark.parametrize(
    ("tone", "status"),
    [("good", Status.OK), ("soft", Status.NOTHING), ("warn", Status.WARNING), ("bad", Status.ERROR)],
)
def test_reports(tone: str, status: Status) -> None:
    for then, more in (("Two.", "Two. This is about the last 14 days."), ("", "This is about the last 14 days.")):
        assert reported(Headline(tone, "x", "One.", then)) == Concern("Reports", "/results", status, "One.", more)


def test_the_worst_is_first_and_the_order_is_kept() -> None:
    statuses = [Status.OK, Status.NOTHING, Status.WARNING, Status.ERROR, Status.ERROR]
    made = [Concern(str(number), "/", status, "") for number, status in enumerate(statuses)]
    assert [one.name for one in worst_first(made)] == ["3", "4", "2", "1", "0"]
