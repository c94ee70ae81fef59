"""Mails as Postfix hands them over, one process for each, and what happens on the way."""

import io
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from postfix_mtasts.reports.spool import Spool
from tests.integration.conftest import filled, small_disk
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import ORG, REPORTS, Desk, mail, report, signed
from tests.world.dns import GOOD, Behaviour, DnsServer

COUNTED = {(ORG, True): (5326, 303)}
STORED = f"stored: {ORG} about company-y.example: 303 failed"
DUPLICATE = STORED.replace("stored", "duplicate")


@pytest.fixture
def desk(tmp_path: Path, dns: DnsServer) -> Desk:
    return Desk(tmp_path, dns)


def test_a_verified_report_is_counted_once(desk: Desk, signer: Signer) -> None:
    sent = signed(signer, report())
    assert desk.receive(sent) == STORED
    assert desk.receive(b"Received: from x by y\r\n" + sent) == DUPLICATE
    assert desk.receive(signed(signer, report())) == DUPLICATE
    assert desk.sessions() == COUNTED
    assert (desk.mails("new"), len(desk.mails("cur"))) == ([], 3)
    assert desk.mails("cur")[0].stat().st_mode & 0o777 == 0o600
    assert desk.database.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_what_root_imports_is_not_roots(desk: Desk, tmp_path: Path) -> None:
    """Before the first report has come by Postfix, whose umask keeps all others out."""
    folder = desk.database.parent
    folder.mkdir(mode=0o750)
    os.chown(folder, 4242, 4243)
    (tmp_path / "report.eml").write_bytes(mail(report()))
    before = os.umask(0o077)
    try:
        assert desk.run("import", tmp_path / "report.eml").returncode == 0
    finally:
        os.umask(before)
    made = [path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))]
    assert {path.name for path in made} >= {"reports.sqlite", "mails", "new", "cur", "tmp"}
    assert [path for path in made if (path.stat().st_uid, path.stat().st_gid) != (4242, 4243)] == []
    assert desk.database.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_root_gives_nothing_away_behind_a_link(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    desk.spool.mkdir(parents=True)
    for folder in (desk.database.parent, desk.spool):
        os.chown(folder, 4242, 4243)
    (desk.spool / "lock").symlink_to(secret)
    assert desk.run("receive", mail=mail(report())).returncode == 0  # The mail is saved.
    assert len(desk.mails("new")) + len(desk.mails("cur")) == 1
    assert (secret.stat().st_uid, secret.read_bytes()) == (0, b"")


def test_what_is_not_verified_is_not_counted(desk: Desk, signer: Signer) -> None:
    sent = signed(signer, report())
    forged = sent.replace(b'"total-failure-session-count": 303', b'"total-failure-session-count": 999')
    about = "about company-y.example: 999 failed"
    reason = "the signature is not valid: body hash mismatch"
    assert desk.receive(forged) == f"stored: not verified ({reason}) {about}"
    assert desk.receive(mail(report(2))).startswith("stored: not verified (no DKIM signature)")
    signer.publish("other.example")
    foreign = signer.sign(mail(report(3)), "other.example")
    assert desk.receive(foreign).startswith(f"stored: not verified (the signature is not of {ORG})")
    assert desk.sessions() == {}
    assert desk.json("sources")["left_out"] == {"unverified": 3, "quarantined": 0}
    assert desk.sessions("--all") == {
        (ORG, False): (5326, 999),
        (None, False): (5326, 303),
        ("other.example", False): (5326, 303),
    }
    # A forged report does not keep the real one out.
    assert desk.receive(sent) == STORED
    assert desk.sessions() == COUNTED


def test_other_domains_and_what_is_no_report_go_to_quarantine(tmp_path: Path, dns: DnsServer, signer: Signer) -> None:
    desk = Desk(tmp_path, dns, domains=["company-y.example"])
    reason = "about other.example: not in reports.domains"
    received = desk.receive(signed(signer, report(1, "other.example")))
    assert received == f"quarantined: {ORG} about other.example: 303 failed: {reason}"
    assert desk.receive(b"hello") == "quarantined: no report in this mail"
    assert desk.receive(b"") == "quarantined: no report in this mail"
    assert desk.receive(signed(signer, b'{"date-range": 1, "date-range": 2}')).startswith("quarantined: the name")
    assert desk.receive(signed(signer, report(2))) == STORED
    assert [reason for _, reason in desk.quarantine()] == [
        reason,
        "no report in this mail",
        "no report in this mail",
        "the name 'date-range' stands twice in one object",
    ]
    assert desk.sessions() == COUNTED


def test_a_mail_that_is_too_large_is_read_to_its_end_and_kept_in_part(desk: Desk) -> None:
    assert desk.receive(mail(b"x" * 50_000_000)) == "quarantined: larger than 20 MB"
    (kept,) = desk.mails("cur")
    assert kept.stat().st_blocks * 512 < 300_000


def test_the_memory_for_a_mail_is_bounded(desk: Desk, tmp_path: Path) -> None:
    for size in (19_900_000, 250_000_000):
        sent = tmp_path / "mail"
        sent.write_bytes(mail(b"x"))
        os.truncate(sent, size)
        assert desk.peak("receive", mail=sent) < 150_000


def test_a_key_that_cannot_be_looked_up_is_looked_up_again(desk: Desk, signer: Signer, dns: DnsServer) -> None:
    sent = signed(signer, report())
    dns.set_behaviour(f"key._domainkey.{ORG}", Behaviour(rcode="SERVFAIL"))
    try:
        assert desk.receive(sent).startswith("waiting: not verified (the key was not found")
        assert (desk.sessions(), list(desk.sessions("--all"))) == ({}, [(ORG, False)])
        assert desk.json("replay") == {"stored": 0, "duplicate": 0, "waiting": 1, "quarantined": 0}
    finally:
        dns.set_behaviour(f"key._domainkey.{ORG}", GOOD)
    with closing(sqlite3.connect(desk.database)) as database, database:
        database.execute("UPDATE messages SET tried = 0")
    done = desk.run("receive", mail=signed(signer, report(2)))
    assert (done.returncode, [line.split(": ", 2)[2] for line in done.stderr.splitlines()]) == (0, [STORED, STORED])
    assert desk.sessions("--all") == {(ORG, True): (2 * 5326, 2 * 303)}


def test_without_dns_replay_verifies_later(desk: Desk, signer: Signer, dns: DnsServer) -> None:
    dns.set_behaviour(f"key._domainkey.{ORG}", Behaviour(rcode="SERVFAIL"))
    try:
        assert desk.receive(signed(signer, report())).startswith("waiting")
    finally:
        dns.set_behaviour(f"key._domainkey.{ORG}", GOOD)
    assert desk.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert desk.sessions() == COUNTED


def test_a_mail_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk is made to write, and in which order: the new folders, the mail, and at last its name."""
    synced = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        where = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(str(where.relative_to(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    name = Spool(tmp_path / "reports/mails").save(io.BytesIO(b"mail"), 0)
    assert synced == [".", "reports", *["reports/mails"] * 3, f"reports/mails/tmp/{name}", "reports/mails/new"]
    assert (tmp_path / "reports/mails/new" / name).read_bytes() == b"mail"


def test_a_locked_database(desk: Desk, signer: Signer) -> None:
    assert desk.receive(signed(signer, report())) == STORED
    with closing(sqlite3.connect(desk.database, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        line = desk.receive(signed(signer, report(2)))
        assert line.startswith("StoreError: ")
        assert line.endswith("reports.sqlite: database is locked")
    assert len(desk.mails("new")) == 1
    assert desk.json("replay") == {"stored": 2, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert (desk.mails("new"), desk.sessions()) == ([], {(ORG, True): (2 * 5326, 2 * 303)})


def test_a_mail_that_was_left_over_is_taken_along(desk: Desk, signer: Signer) -> None:
    desk.receive(signed(signer, report(1)))
    left = desk.spool / f"new/{int(time.time()) - 100}.0"
    left.write_bytes(signed(signer, report(2)))
    young = desk.spool / f"new/{int(time.time())}.0"
    young.write_bytes(signed(signer, report(3)))
    done = desk.run("receive", mail=signed(signer, report(4)))
    assert [line.split(": ", 2)[2] for line in done.stderr.splitlines()] == [STORED, STORED]
    assert desk.mails("new") == [young]


def test_a_damaged_database(desk: Desk, signer: Signer) -> None:
    assert desk.receive(signed(signer, report())) == STORED
    desk.database.write_bytes(b"not a database" * 1000)
    assert "StoreError" in desk.receive(signed(signer, report(2)))
    assert len(desk.mails("new")) == 1
    shown = desk.run("sources")
    assert shown.returncode == 69
    assert shown.stderr.splitlines() == [
        f"postfix-mtasts-reports: error: {desk.database}: file is not a database",
        "hint: move it away, with its -wal and -shm; then `replay` takes in the mails that are still there",
    ]
    desk.database.rename(desk.database.with_name("away"))
    assert desk.json("replay") == {"stored": 2, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert desk.sessions() == {(ORG, True): (2 * 5326, 2 * 303)}


def test_a_mail_whose_text_was_damaged_since_keeps_what_it_said(desk: Desk, signer: Signer) -> None:
    assert desk.receive(signed(signer, report())) == STORED
    (kept,) = desk.mails("cur")
    kept.write_bytes(b"")
    assert desk.json("replay") == {"stored": 0, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert desk.sessions() == COUNTED


def test_who_was_verified_stays_so_when_the_key_is_gone(desk: Desk, signer: Signer, dns: DnsServer) -> None:
    assert desk.receive(signed(signer, report())) == STORED
    dns.remove(f"key._domainkey.{ORG}")
    assert desk.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert desk.sessions() == COUNTED


@pytest.mark.parametrize("missing", ["dkim", "publicsuffix2", "dns", "idna", "sqlite3"])
def test_a_missing_library(desk: Desk, missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from postfix_mtasts.reports.main import main; main()"
    words: list[str | Path] = [sys.executable, "-c", script, "receive", "--config", desk.config]
    done = subprocess.run(words, input=mail(report()), capture_output=True, check=False)
    assert (done.returncode, done.stdout, len(desk.mails("new"))) == (0, b"", 1)
    assert b"is saved; a later receive or replay does the rest: ModuleNotFoundError" in done.stderr
    assert desk.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 0}


@pytest.mark.parametrize("missing", ["postfix_mtasts.reports.receive", "tomllib", "fcntl"])
def test_an_installation_that_is_not_whole(desk: Desk, missing: str) -> None:
    """As in the middle of an upgrade."""
    script = f"import sys; sys.modules[{missing!r}] = None; from postfix_mtasts.reports.main import main; main()"
    words: list[str | Path] = [sys.executable, "-c", script, "receive", "--config", desk.config]
    done = subprocess.run(words, input=mail(report()), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.startswith(b"the mail could not be saved: ModuleNotFoundError")


def test_the_configuration_in_one_word(desk: Desk) -> None:
    done = subprocess.run([REPORTS, "receive", f"--config={desk.config}"], input=mail(report()), check=False)
    assert (done.returncode, len(desk.mails("cur"))) == (0, 1)


@pytest.mark.parametrize("words", [["--conifg", "x"], ["--config"], ["x"]])
def test_wrong_arguments(desk: Desk, words: list[str]) -> None:
    done = subprocess.run([REPORTS, "receive", *words], input="", capture_output=True, text=True, check=False)
    reason = f"the mail could not be saved: unknown arguments: {' '.join(words)}"
    assert (done.returncode, done.stderr) == (75, f"postfix-mtasts-reports: {reason}\n")


def test_a_wrong_configuration(desk: Desk) -> None:
    desk.config.write_text("[reports]\npaht = 1\n")
    done = desk.run("receive", mail=mail(report()))
    assert (done.returncode, done.stdout) == (75, "")
    reason = "the mail could not be saved: "
    assert (
        done.stderr
        == f"postfix-mtasts-reports: {reason}{desk.config}: unknown key reports.paht: did you mean reports.path?\n"
    )


def test_a_folder_that_cannot_be_made(tmp_path: Path, dns: DnsServer) -> None:
    desk = Desk(tmp_path, dns)
    (tmp_path / "reports").write_text("a file")
    done = desk.run("receive", mail=mail(report()))
    assert (done.returncode, done.stdout) == (75, "")
    assert "the mail could not be saved: " in done.stderr


def test_a_full_disk(namespace: None, tmp_path: Path, dns: DnsServer, signer: Signer) -> None:
    with small_disk(tmp_path / "reports") as disk:
        desk = Desk(tmp_path, dns)
        assert desk.receive(signed(signer, report())) == STORED
        with filled(disk):
            done = desk.run("receive", mail=signed(signer, report(2)))
            assert done.returncode == 75
            assert "the mail could not be saved: [Errno 28]" in done.stderr
            assert (desk.mails("tmp"), desk.mails("new")) == ([], [])
            assert desk.sessions() == COUNTED
            said = f"postfix-mtasts-reports: error: {desk.database}: no space left on device\n"
            assert [desk.run(*words).stderr for words in (("hide", ORG), ("replay",))] == [said, said]
        assert desk.receive(signed(signer, report(2))) == STORED


def test_a_disk_that_has_room_for_the_mail_alone(
    namespace: None, tmp_path: Path, dns: DnsServer, signer: Signer
) -> None:
    with small_disk(tmp_path / "reports") as disk:
        desk = Desk(tmp_path, dns)
        assert desk.receive(signed(signer, report())) == STORED
        with filled(disk):
            ballast = disk / "ballast"
            os.truncate(ballast, ballast.stat().st_size - 8192)
            assert desk.receive(signed(signer, report(2))).startswith("StoreError: ")
            assert len(desk.mails("new")) == 1
        assert desk.json("replay") == {"stored": 2, "duplicate": 0, "waiting": 0, "quarantined": 0}
        assert desk.sessions() == {(ORG, True): (2 * 5326, 2 * 303)}


def test_what_is_no_mail_in_the_spool_holds_up_no_other(desk: Desk, signer: Signer) -> None:
    came = int(time.time()) - 100
    (desk.spool / f"new/{came}.folder").mkdir(parents=True)
    (desk.spool / f"new/{came}.left-over").write_bytes(signed(signer, report()))
    done = desk.run("receive", mail=signed(signer, report(2)))
    assert [line.split(": ", 2)[2] for line in done.stderr.splitlines()] == [STORED, STORED]
    assert desk.json("replay") == {"stored": 2, "duplicate": 0, "waiting": 0, "quarantined": 0}
    assert [path.name for path in desk.mails("new")] == [f"{came}.folder"]


def test_twenty_at_once(desk: Desk, signer: Signer) -> None:
    """Ten different reports, each twice, into a database that each of them may have to make."""
    mails = [signed(signer, report(number // 2)) for number in range(20)]
    processes = [desk.start() for _ in mails]
    for process, sent in zip(processes, mails, strict=True):
        assert process.stdin
        process.stdin.write(sent)
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 20
    assert desk.mails("new") == []
    assert desk.sessions() == {(ORG, True): (10 * 5326, 10 * 303)}
    with closing(sqlite3.connect(desk.database)) as database:
        states = database.execute("SELECT state, COUNT(*) FROM messages GROUP BY state ORDER BY state").fetchall()
        assert states == [("duplicate", 10), ("stored", 10)]
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_process_that_is_killed_before_all_of_the_mail_came(desk: Desk, signer: Signer) -> None:
    sent = signed(signer, report())
    process = desk.start()
    assert process.stdin
    process.stdin.write(sent[:100])
    process.stdin.flush()
    _until(lambda: bool(desk.mails("tmp")))
    process.kill()
    process.wait()
    process.stdin.close()
    assert (desk.mails("new"), desk.mails("cur")) == ([], [])
    assert desk.receive(sent) == STORED
    assert desk.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 0}


def test_a_process_that_is_killed_when_it_has_saved_the_mail(desk: Desk, signer: Signer, dns: DnsServer) -> None:
    """It waits for the key. Postfix does not know that the mail was saved, and sends it again."""
    sent = signed(signer, report())
    dns.set_behaviour(f"key._domainkey.{ORG}", Behaviour(silent=True))
    try:
        process = desk.start()
        assert process.stdin
        asked = len(dns.queries)
        process.stdin.write(sent)
        process.stdin.close()
        _until(lambda: len(dns.queries) > asked)
        process.kill()
        process.wait()
    finally:
        dns.set_behaviour(f"key._domainkey.{ORG}", GOOD)
    assert len(desk.mails("new")) == 1
    assert desk.receive(sent) == STORED
    assert desk.json("replay") == {"stored": 1, "duplicate": 1, "waiting": 0, "quarantined": 0}
    assert (desk.mails("new"), desk.sessions()) == ([], COUNTED)


def test_processes_that_are_killed_at_any_time(desk: Desk, signer: Signer) -> None:
    for number in range(15):
        process = desk.start()
        assert process.stdin
        process.stdin.write(signed(signer, report(number)))
        process.stdin.close()
        try:
            process.wait(0.15 + number * 0.04)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    desk.json("replay")
    saved = len(desk.mails("cur"))
    assert desk.mails("new") == []
    assert desk.sessions() == ({(ORG, True): (saved * 5326, saved * 303)} if saved else {})
    with closing(sqlite3.connect(desk.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)
