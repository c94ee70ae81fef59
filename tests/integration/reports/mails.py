"""Mails with reports, as senders send them today, and the command that takes them in."""

import copy
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.reports.conftest import Signer
from tests.unit.reports.reports import RIGHT
from tests.world.daemon import COMMAND, toml
from tests.world.dns import DnsServer

REPORTS = COMMAND.with_name("postfix-mtasts-reports")
ORG = "sender.example"
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def yesterday() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)


def report(number: int = 1, domain: str = "company-y.example", **members: Any) -> dict[str, Any]:
    """The report of RFC 8460, appendix B, about yesterday, or with other members."""
    made = copy.deepcopy(RIGHT)
    day = yesterday()
    made["date-range"] = {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"}
    made["report-id"] = f"report-{number}"
    made["policies"][0]["policy"]["policy-domain"] = domain
    return made | members


def mail(content: dict[str, Any] | bytes, sender: str = ORG) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = f"From: tlsrpt@{sender}\r\nTo: tlsrpt@company-y.example\r\nContent-Type: application/tlsrpt+json\r\n\r\n"
    return headers.encode() + text + b"\r\n"


def signed(signer: Signer, content: dict[str, Any] | bytes, sender: str = ORG) -> bytes:
    """A mail of a sender, who has published a key."""
    signer.publish(sender)
    return signer.sign(mail(content, sender), sender)


class Desk:
    """The command with a configuration of its own."""

    def __init__(self, folder: Path, dns: DnsServer, **settings: object) -> None:
        self.database = folder / "reports/reports.sqlite"
        self.spool = folder / "reports/mails"
        self.config = folder / "postfix-mtasts.toml"
        nameserver = f"{dns.address}:{dns.port}"
        self.config.write_text(
            toml(
                {
                    "dns": {"nameservers": [nameserver], "timeout": 2},
                    "reports": {"path": str(self.database), **settings},
                }
            )
        )

    def run(self, *words: str | Path, mail: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run the command, with a mail on its standard input."""
        first, *others = words
        line = [REPORTS, first, *(others[:1] if first == "quarantine" else []), "--config", self.config]
        done = subprocess.run(
            [*line, *(others[1:] if first == "quarantine" else others)], input=mail, capture_output=True, check=False
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self) -> "subprocess.Popen[bytes]":
        """Start to receive."""
        return subprocess.Popen(
            [REPORTS, "receive", "--config", self.config], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def peak(self, first: str, *words: str | Path, mail: Path) -> int:
        """The memory at the peak of a run, in KiB, for which the standard input is a file.

        It is run by a small program: what is executed counts as as large as who has executed it.
        """
        line = [sys.executable, "-c", _PEAK, str(REPORTS), first, "--config", str(self.config), *map(str, words)]
        with mail.open("rb") as source:
            done = subprocess.run(line, stdin=source, capture_output=True, check=True)
        return int(done.stdout.split()[-1])

    def receive(self, mail: bytes) -> str:
        """Receive a mail, which must succeed. Return what became of it, without its name."""
        done = self.run("receive", mail=mail)
        assert (done.returncode, done.stdout) == (0, "")
        (line,) = done.stderr.splitlines()
        return line.split(": ", 2)[2]

    def json(self, *words: str) -> Any:
        """The only document that a subcommand prints."""
        done = self.run(*words, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def sessions(self, *words: str) -> dict[tuple[str | None, bool], tuple[int, int]]:
        """The sessions of each sender in the view by source: how many succeeded and failed."""
        return {
            (source["sender"]["domain"], source["sender"]["verified"]): (source["successful"], source["failed"])
            for source in self.json("sources", *words)["sources"]
        }

    def quarantine(self) -> list[tuple[int, str]]:
        """The numbers and reasons of what is in quarantine."""
        done = self.run("quarantine", "list", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return [(message["id"], message["reason"]) for message in map(json.loads, done.stdout.splitlines())]

    def mails(self, folder: str) -> list[Path]:
        """What is in a folder of the spool."""
        return sorted((self.spool / folder).iterdir()) if (self.spool / folder).exists() else []
