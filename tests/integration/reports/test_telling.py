"""Alerts and summaries of a real database, handed to a sendmail(1) that writes down what it gets."""

import dataclasses
import datetime
import email
import email.policy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from postfix_mtasts.config import Config, Reports
from postfix_mtasts.query.output import Output, Status
from postfix_mtasts.reports import sendmail
from postfix_mtasts.reports.alerts import Facts, Failures, decide
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.telling import alert, summary
from postfix_mtasts.reports.told import keep, known, told
from tests.integration.reports.mails import REPORTS
from tests.integration.reports.test_facts import put
from tests.world.daemon import toml

NOW = datetime.datetime(2026, 3, 20, 9, 30, tzinfo=datetime.UTC)
TODAY = NOW.date()
DAY = datetime.timedelta(days=1)
GOOGLE, MICROSOFT = (Dkim(DkimState.VERIFIED, domain) for domain in ("google.com", "microsoft.com"))
FORGED = Dkim(DkimState.NONE)
ADDRESS = "postmaster@example.com"
WORKS = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/words"
cat >"$(dirname "$0")/mail.$(ls "$(dirname "$0")" | wc -l)"
"""


def report(days_ago: int, failed: int = 0, domain: str = "a.example", result: str = "certificate-expired") -> Report:
    start = datetime.datetime.combine(TODAY - days_ago * DAY, datetime.time(), datetime.UTC)
    failures = (Failure(result, failed, "mx.a.example", *[None] * 4),) if failed else ()
    return Report(
        "Org", f"{start}", start, start + DAY, (Policy(domain, "sts", "enforce", 10 - failed, failed, failures),)
    )


class Desk:
    """A database, and a machine with a sendmail(1)."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "reports.sqlite"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.settings = Config(reports=Reports(path=str(self.database)))
        self._number = 0
        self.sendmail(WORKS)

    def sendmail(self, script: str) -> None:
        file = self.bin / "sendmail"
        file.write_text(script)
        file.chmod(0o755)

    def put(self, dkim: Dkim, *reports: Report) -> None:
        with Store(self.database) as store:
            store.open()
            for one in reports:
                self._number += 1
                put(store, str(self._number), dkim, one)

    def alert(self, days: int = 0, to: tuple[str, ...] = (ADDRESS,), *, as_json: bool = False) -> Status:
        """What alert does on a later day."""
        return alert(self.settings, to, Output(json=as_json), NOW + days * DAY, str(self.bin))

    def summary(self, to: tuple[str, ...] = (ADDRESS,)) -> Status:
        return summary(self.settings, to, Output(), NOW, str(self.bin))

    def mails(self) -> list[EmailMessage]:
        """What sendmail got since the last call."""
        found = []
        for path in sorted(self.bin.glob("mail.*")):
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            found.append(message)
            path.unlink()
        return found

    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


NEW = "TLS reports: new: certificate-expired (a.example)"


def test_the_life_of_a_trouble(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is told once, however often alert runs."""
    desk.put(GOOGLE, *(report(ago) for ago in range(2, 15)), report(1, 6))
    assert [desk.alert() for _ in range(3)] == [Status.OK] * 3
    (mail,) = desk.mails()
    assert (mail["Subject"], mail["To"], mail["Auto-Submitted"]) == (NEW, ADDRESS, "auto-generated")
    assert mail["Date"].datetime == NOW
    words = (desk.bin / "words").read_text().split()
    assert (words[:2], words[3:]) == (["-i", "-f"], ["--", ADDRESS])
    assert str(mail["From"]) == f"postfix-mtasts-reports <{words[2]}>"
    assert mail.get_content().startswith("New: certificate-expired [error]\n  a.example\n  at mx.a.example\n")
    line = (
        "New: certificate-expired [error]: a.example: at mx.a.example; 6 of 10 sessions failed (60 %); told by"
        " google.com; on 2026-03-19; check it: postfix-mtasts-query --probe a.example\n"
    )
    assert capsys.readouterr() == (line, "")
    desk.put(GOOGLE, *(report(-ago, 6) for ago in range(7)))
    assert ([desk.alert(days) for days in range(1, 7)], desk.subjects()) == ([Status.OK] * 6, [])
    assert (desk.alert(7), desk.alert(7), desk.subjects()) == (
        Status.OK,
        Status.OK,
        ["TLS reports: still there after a week: certificate-expired (a.example)"],
    )
    desk.put(GOOGLE, *(report(-ago) for ago in range(7, 12)))
    assert ([desk.alert(days) for days in range(8, 13)], desk.subjects()) == (
        [Status.OK] * 5,
        ["TLS reports: over: certificate-expired (a.example)"],
    )
    with Store(desk.database) as store:
        store.open_to_read()
        assert told(store) == {}


def test_a_source_that_is_silent(desk: Desk) -> None:
    desk.put(GOOGLE, *(report(ago) for ago in range(1, 20)))
    desk.put(MICROSOFT, *(report(ago) for ago in range(1, 20)))
    assert desk.alert() == Status.OK
    desk.put(GOOGLE, *(report(-ago) for ago in range(6)))
    assert ([desk.alert(days) for days in range(1, 6)], desk.subjects()) == (
        [Status.OK] * 5,
        ["TLS reports: new: no more reports (microsoft.com)"],
    )
    desk.put(MICROSOFT, report(-5))
    assert (desk.alert(6), desk.subjects()) == (Status.OK, ["TLS reports: over: no more reports (microsoft.com)"])


def test_what_is_not_verified_never_counts(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(FORGED, *(report(ago, 6) for ago in range(1, 20)))
    desk.put(Dkim(DkimState.INVALID, "google.com"), *(report(ago, 6) for ago in range(5, 30)))
    assert (desk.alert(), desk.mails(), capsys.readouterr()) == (Status.OK, [], ("", ""))
    # Nor is a real trouble over because a forged report says so.
    desk.put(GOOGLE, report(3, 6))
    assert (desk.alert(), desk.subjects()) == (Status.OK, [NEW])
    desk.put(Dkim(DkimState.INVALID, "google.com"), report(-1), report(-2), report(-3))
    assert (desk.alert(5), desk.mails()) == (Status.OK, [])


def test_a_sendmail_that_fails_is_tried_again(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(GOOGLE, report(1, 6))
    path = desk.bin / "sendmail"
    hint = "hint: what is to be told is told the next time\n"
    desk.sendmail("#!/bin/sh\necho 'sendmail: fatal: \x1b[31mqueue file write error' >&2\necho >&2\nexit 75\n")
    assert desk.alert() == Status.UNAVAILABLE
    reason = f"{path} failed with status 75: sendmail: fatal: \\x1b[31mqueue file write error"
    assert capsys.readouterr().err == f"postfix-mtasts-reports: error: the mail was not sent: {reason}\n{hint}"
    desk.sendmail("no script")
    assert desk.alert(1) == Status.UNAVAILABLE
    reason = f"{path} cannot be run: exec format error"
    assert capsys.readouterr().err == f"postfix-mtasts-reports: error: the mail was not sent: {reason}\n{hint}"
    path.unlink()
    assert desk.alert(1) == Status.UNAVAILABLE
    reason = "there is no sendmail command on this machine"
    assert capsys.readouterr().err == f"postfix-mtasts-reports: error: the mail was not sent: {reason}\n{hint}"
    desk.sendmail(WORKS)
    assert (desk.alert(1), desk.alert(1), desk.subjects()) == (Status.OK, Status.OK, [NEW])


def test_a_sendmail_that_hangs_is_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It and what it has started."""
    monkeypatch.setattr(sendmail, "_DEADLINE", 5.0)
    desk.sendmail('#!/bin/sh\nsleep 600 & echo $! >"$(dirname "$0")/child"\necho waiting; wait\n')
    desk.put(GOOGLE, report(1, 6))
    assert desk.alert() == Status.UNAVAILABLE
    assert "sendmail was not done within 5 s: waiting\n" in capsys.readouterr().err
    child = int((desk.bin / "child").read_text())
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_text():  # A zombie has none.
        time.sleep(0.05)


def test_a_process_that_ends_before_it_is_written_down_tells_again(desk: Desk) -> None:
    """The mail was sent, and then the power was cut: rather twice than never."""
    desk.put(GOOGLE, report(1, 6))
    desk.sendmail(f"{WORKS}kill -KILL $PPID\n")
    config = desk.bin.parent / "postfix-mtasts.toml"
    config.write_text(toml({"reports": {"path": str(desk.database)}}))
    script = (
        "import sys; from tests.integration.reports.test_telling import *; settings = Config(reports=Reports("
        "path=sys.argv[1])); alert(settings, (ADDRESS,), Output(), NOW, sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", script, desk.database, desk.bin], check=False)
    assert (done.returncode, desk.subjects()) == (-signal.SIGKILL, [NEW])
    desk.sendmail(WORKS)
    assert (desk.alert(), desk.subjects()) == (Status.OK, [NEW])


def test_two_at_once_tell_once(desk: Desk) -> None:
    """The second waits for the first."""
    desk.put(GOOGLE, report(1, 6))
    desk.sendmail(f'{WORKS}mkfifo "$(dirname "$0")/go"; cat "$(dirname "$0")/go" >/dev/null\n')
    threads = [threading.Thread(target=desk.alert) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not (desk.bin / "go").exists():
        time.sleep(0.01)
    desk.sendmail(WORKS)
    (desk.bin / "go").write_text("")
    for thread in threads:
        thread.join()
    assert desk.subjects() == [NEW]


def test_a_report_that_comes_meanwhile_is_not_kept_waiting(desk: Desk) -> None:
    """While sendmail runs, the database can be written."""
    desk.put(GOOGLE, report(1, 6))
    desk.sendmail(f'{WORKS}mkfifo "$(dirname "$0")/go"; cat "$(dirname "$0")/go" >/dev/null\n')
    thread = threading.Thread(target=desk.alert)
    thread.start()
    while not (desk.bin / "go").exists():
        time.sleep(0.01)
    desk.put(MICROSOFT, report(1))
    (desk.bin / "go").write_text("")
    thread.join()


def test_without_an_address_it_is_printed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(GOOGLE, report(1, 6))
    assert desk.alert(to=()) == Status.OK
    assert capsys.readouterr().out.startswith("New: certificate-expired [error]: a.example: ")
    assert (desk.alert(to=()), capsys.readouterr().out) == (Status.OK, "")
    assert desk.summary(to=()) == Status.OK
    assert capsys.readouterr().out.startswith("TLS reports: failed: 6 of 10 sessions, certificate-expired\n\nFailed: ")
    assert desk.mails() == []


def test_as_json(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(GOOGLE, report(1, 6))
    assert desk.alert(as_json=True, to=()) == Status.OK
    assert json.loads(capsys.readouterr().out) == {
        "news": "new",
        "kind": "failures",
        "name": "a.example",
        "result": "certificate-expired",
        "severity": "error",
        "since": "2026-03-19",
        "last": "2026-03-19",
        "sessions": 6,
        "of": 10,
        "sources": ["google.com"],
        "mx": "mx.a.example",
    }


def test_under_systemd_the_journal_is_told_how_bad_it_is(desk: Desk) -> None:
    """A line on standard error begins with its level."""
    desk.put(GOOGLE, *(report(ago) for ago in range(5, 19)))
    day = datetime.datetime.now(datetime.UTC).date()
    with Store(desk.database) as store:
        store.open()
        moved = (day - TODAY).days
        store.execute("UPDATE reports SET day = date(day, ?)", (f"{moved} days",))
    config = desk.bin.parent / "postfix-mtasts.toml"
    config.write_text(toml({"reports": {"path": str(desk.database)}}))
    with (desk.bin.parent / "journal").open("w+") as journal:
        about = os.fstat(journal.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}
        words: list[str | Path] = [REPORTS, "alert", "--config", config]
        done = subprocess.run(words, stderr=journal, stdout=subprocess.PIPE, env=environment, check=False)
        journal.seek(0)
        line = journal.read()
    assert (done.returncode, done.stdout) == (0, b"")
    assert line.startswith("<4>New: no more reports [warning]: google.com: reported daily, last about ")
    assert line.count("\n") == 1


def test_before_the_first_report(desk: Desk) -> None:
    """A timer may run long before one comes, and makes nothing that is not there."""
    assert (desk.alert(), desk.mails(), desk.database.exists()) == (Status.OK, [], False)
    assert (desk.summary(), desk.subjects()) == (Status.OK, ["TLS reports: no reports this week"])
    assert not desk.database.exists()
    desk.database.parent.mkdir(exist_ok=True)
    desk.database.touch()  # A process was killed before it had written to it.
    assert (desk.summary(), desk.subjects()) == (Status.OK, ["TLS reports: no reports this week"])


def test_a_summary_is_sent_also_if_all_is_well(desk: Desk) -> None:
    desk.put(GOOGLE, *(report(ago) for ago in range(1, 9)))
    desk.put(FORGED, report(1, 10))
    assert desk.summary() == Status.OK
    (mail,) = desk.mails()
    assert mail["Subject"] == "TLS reports: all is well, 70 sessions"
    assert mail.get_content() == (
        "All is well, 70 sessions.\n\nReports about 2026-03-13 to 2026-03-19 (UTC).\n70 sessions, 0 failed (0 %), told"
        " by 1 source.\n\nSources\n  google.com\n    70 sessions, 0 failed, last 2026-03-20\n\n"
        "Not counted: 1 report whose sender is not verified.\n"
    )


def test_what_a_sender_makes_up_is_bounded(desk: Desk) -> None:
    """One sender reports thousands of domains and result types; the trouble of another one is among what is told."""
    with Store(desk.database) as store:
        store.open()
        for number in range(20):
            policies = tuple(
                Policy(f"{number}-{domain}.example", "sts", None, 0, 9, (Failure(f"x{domain}", 9, *[None] * 5),))
                for domain in range(100)
            )
            put(
                store,
                str(number),
                Dkim(DkimState.VERIFIED, "evil.example"),
                dataclasses.replace(report(1), report_id=str(number), policies=policies),
            )
        put(store, "google", GOOGLE, report(1, 6))
        found = known(store, TODAY)
        assert len(found.failures) == 301
        decision = decide(found, {}, TODAY)
        assert decision.notices[0].subject.name == "a.example"
        keep(store, decision.told)
        assert told(store) == decision.told


def test_what_was_told_survives(desk: Desk) -> None:
    facts = Facts(
        (Failures("g", "", "", 1, TODAY - DAY, TODAY - DAY),),
        {},
        {"s.example": {TODAY - n * DAY for n in range(5, 19)}},
    )
    decision = decide(facts, {}, TODAY)
    with Store(desk.database) as store:
        store.open()
        keep(store, decision.told)
        assert told(store) == decision.told
    assert len(decision.told) == 2


def test_sources_that_report_daily_are_bounded(desk: Desk) -> None:
    """Whoever has a domain can be thousands of senders."""
    with Store(desk.database) as store:
        store.open()
        put(store, "1", GOOGLE, report(1))
        columns = "key, message, verified, sender, identity, domain, day, start, [end], problems"
        rows = (
            (f"{sender}.{day}", 1, 1, f"{sender}.evil.example", f"{day}", "", f"{TODAY - day * DAY}", 0, 0, "")
            for sender in range(1100)
            for day in range(1, 13)
        )
        with store.transaction():
            store.execute_many(f"INSERT INTO reports ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        assert len(known(store, TODAY).reported) == 1000
