"""TLS reports by mail, as the example in contrib/postfix has it: a real Postfix hands them to the command."""

import json
import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import mounted
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import ORG, REPORTS, mail, report, signed
from tests.world.daemon import toml
from tests.world.dns import DnsServer
from tests.world.postfix import HERE, TMP, Postfix, nameserver

CONTRIB = Path(__file__).parents[2] / "contrib/postfix"
USER = "nobody"
ADDRESS = "tlsrpt@example.com"
SMTP = "127.0.0.1:25 inet n - n - - smtpd"


class Receiver:
    """A Postfix that takes mail by SMTP, and the command with what it has stored."""

    def __init__(self, postfix: Postfix, signer: Signer, config: Path, reports: Path) -> None:
        self.postfix = postfix
        self.signer = signer
        self.reports = reports
        self._config = config

    def send(self, content: bytes) -> tuple[str, str]:
        """Send a mail over SMTP. Return its queue id, and how its delivery ends."""
        with smtplib.SMTP("127.0.0.1") as client:
            client.ehlo()
            client.mail("tlsrpt@sender.example")
            client.rcpt(ADDRESS)
            code, answer = client.data(content)
        assert code == 250, answer
        queue_id = answer.decode().split()[-1]
        delivery = self.postfix.wait_for(queue_id)
        assert delivery.relay == "tlsrpt"
        return queue_id, delivery.status

    def json(self, *words: str) -> dict[str, object]:
        """The only document that a subcommand prints."""
        line: list[str | Path] = [REPORTS, *words, "--json", "--config", self._config]
        made: dict[str, object] = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)
        return made


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Let every user reach a path below a folder that only its owner may enter, by mounts that only we see."""
    closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 1]
    with ExitStack() as stack:
        for folder in closed[:1]:
            aside = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=TMP)))
            stack.enter_context(mounted("--rbind", folder, aside))
            stack.enter_context(mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", folder))
            for part in (part for part in aside.iterdir() if path.is_relative_to(folder / part.name)):
                (folder / part.name).mkdir()
                stack.enter_context(mounted("--rbind", part, folder / part.name))
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Receiver]:
    if why := HERE.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        reports = folder / "reports"
        reports.mkdir()
        shutil.chown(reports, USER)
        (folder / "postfix").mkdir()
        config = folder / "postfix-mtasts.toml"
        config.write_text(toml({"reports": {"path": str(reports / "reports.sqlite"), "domains": ["example.com"]}}))
        stack.enter_context(nameserver("127.0.0.1", folder))
        dns = stack.enter_context(DnsServer("127.0.0.1", 53))
        stack.enter_context(reachable(Path(sys.base_prefix).resolve()))
        stack.enter_context(reachable(REPORTS))
        service = (CONTRIB / "master.cf.tls-reports").read_text().replace("_postfix-mtasts-reports", USER)
        service = service.replace("/usr/bin/postfix-mtasts-reports receive", f"{REPORTS} receive --config {config}")
        postfix = Postfix(HERE, folder / "postfix", {"mydestination": "example.com"}, [SMTP, service])
        main_cf = postfix.config / "main.cf"
        main_cf.write_text(main_cf.read_text() + (CONTRIB / "main.cf.tls-reports").read_text())
        os.utime(main_cf, (0, 0))
        with postfix:
            yield Receiver(postfix, Signer(dns), config, reports)


@pytest.fixture
def receiver(running: Receiver) -> Receiver:
    """Nothing is stored yet."""
    for path in running.reports.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return running


def test_reports_as_they_come(receiver: Receiver) -> None:
    """One of a real sender, and whatever else is mailed to the address."""
    genuine = signed(receiver.signer, report(1, "example.com"))
    forged = genuine.replace(b'"total-failure-session-count": 303', b'"total-failure-session-count": 999')
    foreign = signed(receiver.signer, report(2, "example.net"))
    unsigned = mail(report(3, "example.com"))
    hostile = b"From: a@b\r\n\r\n\x1b]0;owned\x07"
    sent = (forged, genuine, genuine, foreign, unsigned, hostile)
    assert [receiver.send(content)[1] for content in sent] == ["sent"] * 6
    sources = receiver.json("sources")
    assert sources["left_out"] == {"unverified": 2, "quarantined": 2}
    assert isinstance(sources["sources"], list)
    (source,) = sources["sources"]
    assert source["sender"] == {"domain": ORG, "verified": True}
    assert (source["successful"], source["failed"], source["worst"]) == (5326, 303, "starttls-not-supported")
    results = receiver.json("results")
    assert isinstance(results["results"], list)
    (result,) = results["results"]
    assert (result["result"], result["sessions"], result["mx"]) == (
        "starttls-not-supported",
        200,
        ["mx2.company-y.example"],
    )
    assert result["command"] == "postfix-mtasts-query --probe example.com"
    assert receiver.json("replay") == {"stored": 3, "duplicate": 1, "waiting": 0, "quarantined": 2}
    assert receiver.json("sources") == sources


def test_the_address_is_the_only_one(receiver: Receiver) -> None:
    with smtplib.SMTP("127.0.0.1") as client:
        client.ehlo()
        client.mail("tlsrpt@sender.example")
        code, answer = client.rcpt("other@example.com")
    assert (code, b"User unknown" in answer) == (550, True)


def test_postfix_keeps_what_could_not_be_saved(receiver: Receiver) -> None:
    """Its folder is gone. Postfix defers the mail and does not bounce it, and delivers it when the folder is back."""
    away = receiver.reports.with_name("away")
    receiver.reports.rename(away)
    try:
        receiver.reports.write_text("a file")
        queue_id, status = receiver.send(signed(receiver.signer, report(1, "example.com")))
        assert status == "deferred"
        receiver.reports.unlink()
    finally:
        away.rename(receiver.reports)
    receiver.postfix.flush()
    assert receiver.postfix.wait_for(queue_id, attempt=2).status == "sent"
    assert receiver.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 0}
