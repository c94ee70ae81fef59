"""A real Postfix carries what alert and summary send, and brings the mail of doctor back to the command."""

import asyncio
import contextlib
import email
import email.policy
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.reports.doctor.check_arrival import check_arrival
from postfix_mtasts.reports.spool import Spool
from tests.e2e.test_reports import ADDRESS, CONTRIB, SMTP, USER, Receiver, reachable
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import REPORTS, report, signed
from tests.world.daemon import toml
from tests.world.dns import DnsServer
from tests.world.postfix import HERE, TMP, Postfix, nameserver

RECORD = "_smtp._tls.example.com"
ADMIN = "postmaster@admin.test"


class Desk(Receiver):
    """A Postfix that takes reports, and mails to an administrator, whose mailbox is a folder."""

    def __init__(self, postfix: Postfix, dns: DnsServer, config: Path, reports: Path, mailbox: Path) -> None:
        super().__init__(postfix, Signer(dns), config, reports)
        self.dns = dns
        self.config = config
        self.mailbox = mailbox
        self.environment = {**os.environ, "MAIL_CONFIG": str(postfix.config)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command with this Postfix."""
        line: list[str | Path] = [REPORTS, *words, "--config", self.config]
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False)

    def mail(self) -> EmailMessage:
        """The next mail that came to the administrator."""
        with (self.mailbox / "fifo").open("rb") as fifo:
            found = email.message_from_bytes(fifo.read(), policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        return found

    def findings(self, *words: str) -> dict[str, list[tuple[str, str]]]:
        """What doctor finds: the status and the text, by the name of the check."""
        done = self.run("doctor", "--json", *words)
        assert done.stderr == ""
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["status"] == {0: "ok", 1: "warning", 2: "error"}[done.returncode]
        found: dict[str, list[tuple[str, str]]] = {}
        for finding in document["findings"]:
            found.setdefault(finding["check"], []).append((finding["status"], finding["what"]))
        return found

    def publish(self, rua: str | None) -> None:
        """Let the domain's record ask for reports there, or not exist."""
        self.dns.remove(RECORD)
        if rua:
            self.dns.add_txt(RECORD, f"v=TLSRPTv1; rua={rua}".encode())


@pytest.fixture(scope="module")
def running() -> Iterator[Desk]:
    if why := HERE.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("reports", "mailbox"):
            (folder / part).mkdir(mode=0o750)
            shutil.chown(folder / part, USER)
        (folder / "postfix").mkdir()
        os.mkfifo(folder / "mailbox/fifo")
        shutil.chown(folder / "mailbox/fifo", USER)
        config = folder / "postfix-mtasts.toml"
        settings = {"path": str(folder / "reports/reports.sqlite"), "domains": ["example.com"], "alert_to": [ADMIN]}
        config.write_text(toml({"reports": settings}))
        stack.enter_context(nameserver("127.0.0.1", folder))
        dns = stack.enter_context(DnsServer("127.0.0.1", 53))
        stack.enter_context(reachable(Path(sys.base_prefix).resolve()))
        stack.enter_context(reachable(REPORTS))
        service = (CONTRIB / "master.cf.tls-reports").read_text().replace("_postfix-mtasts-reports", USER)
        service = service.replace("/usr/bin/postfix-mtasts-reports receive", f"{REPORTS} receive --config {config}")
        keep = f"keep unix - n n - 1 pipe user={USER} argv=/usr/bin/tee {folder}/mailbox/fifo"
        postfix = Postfix(HERE, folder / "postfix", {"mydestination": "example.com"}, [SMTP, service, keep])
        main_cf = postfix.config / "main.cf"
        example = (CONTRIB / "main.cf.tls-reports").read_text()
        with_admin = example.replace("transport_maps = inline:{ ", "transport_maps = inline:{ { admin.test = keep: } ")
        assert with_admin != example
        main_cf.write_text(main_cf.read_text() + with_admin)
        os.utime(main_cf, (0, 0))
        with postfix:
            yield Desk(postfix, dns, config, folder / "reports", folder / "mailbox")


@pytest.fixture
def desk(running: Desk) -> Desk:
    """Nothing is stored yet, and the record asks for reports to the address of the example."""
    for path in running.reports.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    running.reports.chmod(0o750)
    running.publish(f"mailto:{ADDRESS}")
    return running


def test_alert_and_summary_arrive(desk: Desk) -> None:
    assert desk.send(signed(desk.signer, report(1, "example.com")))[1] == "sent"
    done = desk.run("alert")
    assert (done.returncode, done.stderr) == (0, "")
    mail = desk.mail()
    assert mail["Subject"] == "TLS reports: new: starttls-not-supported (example.com)"
    mailname = Path("/etc/mailname")
    domain = mailname.read_text().strip() if mailname.exists() else socket.gethostname()
    assert (mail["From"], mail["To"]) == (f"postfix-mtasts-reports <root@{domain}>", ADMIN)
    assert (mail["Auto-Submitted"], mail.get_content_type(), mail.defects) == ("auto-generated", "text/plain", [])
    assert (mail["Message-ID"].count("@"), mail["Date"] is not None) == (1, True)
    assert mail.get_content().startswith(
        "New: starttls-not-supported [note]\n  example.com\n  at mx2.company-y.example\n"
        "  200 of 5,629 sessions failed (3.55 %)\n  told by sender.example\n"
    )
    done = desk.run("alert")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert desk.run("summary").returncode == 0
    mail = desk.mail()  # The next one: nothing was told twice.
    assert mail["Subject"] == ("TLS reports: failed: 303 of 5,629 sessions, starttls-not-supported")
    assert max(map(len, mail.get_content().splitlines())) <= 60


def test_a_postfix_that_takes_no_mail(desk: Desk) -> None:
    """What is told then is told again."""
    assert desk.send(signed(desk.signer, report(1, "example.com")))[1] == "sent"
    main_cf = desk.postfix.config / "main.cf"
    works = main_cf.read_text()
    main_cf.write_text(works + "authorized_submit_users =\n")
    done = desk.run("alert")
    main_cf.write_text(works)
    os.utime(main_cf, (0, 0))
    first, hint = done.stderr.splitlines()
    said = "postfix-mtasts-reports: error: the mail was not sent: /usr/sbin/sendmail failed with status "
    assert (done.returncode, first.startswith(said), "is not allowed to submit mail" in first) == (69, True, True), (
        first
    )
    assert hint == "hint: what is to be told is told the next time"
    assert desk.run("alert").returncode == 0
    assert desk.mail()["Subject"] == "TLS reports: new: starttls-not-supported (example.com)"


def test_doctor_finds_its_own_mail(desk: Desk) -> None:
    found = desk.findings()
    assert found["arrival"] == [("ok", f"a mail to {ADDRESS} arrives here")]
    assert found["record"] == [("ok", f"{RECORD} asks for reports to {ADDRESS}")]
    assert found["transport"] == [("ok", f"services of master.cf that receive reports: tlsrpt as {USER}")]
    assert found["last-report"] == [("warning", "no report of a verified sender has come yet")]
    # Nothing is left of it.
    assert desk.json("sources")["left_out"] == {"unverified": 0, "quarantined": 0}
    assert [*(desk.reports / "mails/new").iterdir(), *(desk.reports / "mails/cur").iterdir()] == []
    assert desk.send(signed(desk.signer, report(1, "example.com")))[1] == "sent"
    found = desk.findings()
    ((status, what),) = found["last-report"]
    assert (status, what.partition(" on ")[0], what.rpartition(", ")[2]) == (
        "ok",
        "the last report came",
        "from sender.example",
    )
    assert found["rights"] == [
        ("ok", f"{desk.reports}/reports.sqlite may be read by {USER} and the group nogroup (no members)"),
        ("ok", f"{desk.reports}/mails may be read by {USER}"),
    ]
    assert "left-over" not in found


@pytest.mark.parametrize(
    ("rua", "status", "what"),
    [
        (None, "error", f"there is no TXT record {RECORD}"),
        ("https://example.com/tls", "error", f"{RECORD} has no mail address in rua"),
        (
            "example.com",
            "error",
            f"the TXT record {RECORD}: 'example.com' is not a URI, such as mailto:tls@example.com",
        ),
        (
            f"mailto:tls@service.test,mailto:{ADDRESS}",
            "warning",
            f"{RECORD} asks for reports to mailto:tls@service.test first",
        ),
        (
            "mailto:tls@service.test",
            "warning",
            f"{RECORD} asks for reports to tls@service.test, and that address is not known to lead to this command",
        ),
    ],
)
def test_doctor_on_a_record(desk: Desk, rua: str | None, status: str, what: str) -> None:
    desk.publish(rua)
    found = desk.findings()
    assert found["record"] == [(status, what)]
    assert "arrival" not in found  # No mail goes to strangers.


def test_doctor_on_a_record_says_what_to_publish(desk: Desk) -> None:
    desk.publish(f"https://a.example/,mailto:{ADDRESS}?subject=x,mailto:c@d.example")
    done = desk.run("doctor", "--no-mail")
    line = f'    {RECORD}. TXT "v=TLSRPTv1; rua=mailto:{ADDRESS},https://a.example/,mailto:c@d.example"'
    assert line in done.stdout.splitlines()


def test_doctor_on_who_may_read(desk: Desk) -> None:
    assert desk.send(signed(desk.signer, report(1, "example.com")))[1] == "sent"
    (desk.reports / "reports.sqlite").chmod(0o644)
    shutil.chown(desk.reports / "mails", "root")
    found = desk.findings("--no-mail")
    assert found["rights"] == [
        ("error", f"{desk.reports}/mails belongs to root, and Postfix receives reports as {USER}"),
        ("warning", f"{desk.reports}/reports.sqlite may be read by everybody on this machine: mode 0644"),
        ("ok", f"{desk.reports}/mails may be read by root"),
    ]


def test_doctor_without_the_right_to_look(desk: Desk) -> None:
    line: list[str | Path] = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", REPORTS, "doctor"]
    words = ["--no-mail", "--json", "--config", str(desk.config)]
    assert desk.send(signed(desk.signer, report(1, "example.com")))[1] == "sent"
    done = subprocess.run([*line, *words], env=desk.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    findings = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "rights"]
    assert [(one["status"], one["what"], one["line"]) for one in findings] == [
        ("error", f"{desk.reports}/reports.sqlite: permission denied", "sudo postfix-mtasts-reports doctor")
    ]


def test_a_mail_that_does_not_arrive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_CONFIG", str(desk.postfix.config))
    database = desk.reports / "reports.sqlite"
    spool = Spool(desk.reports / "mails")
    finding = asyncio.run(check_arrival("other@example.com", spool, database, wait=1))
    assert (finding.check, finding.status.name, finding.what) == (
        "arrival",
        "ERROR",
        "a mail to other@example.com did not arrive here within 1 s",
    )


def test_a_mail_that_arrives_and_is_not_taken_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is a folder: what comes is saved, and waits."""
    monkeypatch.setenv("MAIL_CONFIG", str(desk.postfix.config))
    database = desk.reports / "reports.sqlite"
    database.mkdir()
    finding = asyncio.run(check_arrival(ADDRESS, Spool(desk.reports / "mails"), database, wait=10))
    with contextlib.suppress(FileNotFoundError):
        database.rmdir()
    assert (finding.status.name, finding.what) == (
        "ERROR",
        f"a mail to {ADDRESS} arrives here, and is not taken in: it stays in new",
    )
