"""What is stored, as the command shows it: read tests/data/reports/stored-*.txt aloud.

In these files, days before today stand for dates. With GOLDEN=write in the environment, what is said becomes what is
expected.
"""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import ORG, Desk, mail, report, signed, yesterday
from tests.integration.reports.test_command import HOSTILE, golden
from tests.unit.reports.reports import RIGHT
from tests.world.dns import DnsServer

DOMAIN = "example.com"
FAILURE = RIGHT["policies"][0]["failure-details"][0]


def about(day: int, number: int, *policies: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A report on so many days before yesterday."""
    date = yesterday() - datetime.timedelta(days=day)
    period = {"start-datetime": f"{date}T00:00:00Z", "end-datetime": f"{date}T23:59:59Z"}
    return report(number, **{"date-range": period, "policies": list(policies), **members})


def policy(
    successful: int, failed: int, *failures: dict[str, Any], domain: str = DOMAIN, **members: Any
) -> dict[str, Any]:
    found = {"policy-type": "sts", "policy-string": ["mode: enforce"], "policy-domain": domain, **members}
    totals = {"total-successful-session-count": successful, "total-failure-session-count": failed}
    return {"policy": found, "summary": totals, "failure-details": list(failures)}


def failure(result: str, sessions: int, mx: str = "mx1.example.com", **members: Any) -> dict[str, Any]:
    found = {
        key: value for key, value in FAILURE.items() if key not in ("failure-reason-code", "additional-information")
    }
    return found | {"result-type": result, "failed-session-count": sessions, "receiving-mx-hostname": mx, **members}


def sent(signer: Signer) -> list[bytes]:
    """Mails of three senders, and some that do not count."""
    expired = failure("certificate-expired", 30, **{"receiving-ip": "192.0.2.25"})
    mismatch = failure("validation-failure", 2, **{"failure-reason-code": "MX_HOSTS_MISMATCH"})
    other = failure("certificate-expired", 3, "mx2.example.com", **{"sending-mta-ip": "198.51.100.9"})
    large = "a-sender-with-a-very-long-name.mail.example.org"
    return [
        signed(signer, about(0, 1, policy(900, 30, expired), **{"organization-name": "Sender Inc."})),
        signed(signer, about(1, 2, policy(800, 0), **{"organization-name": "Sender"})),
        signed(signer, about(13, 3, policy(10**9, 3, other), policy(5, 0, **{"policy-type": "tlsa"}))),
        signed(signer, about(0, 1, policy(10, 2, mismatch, domain="example.net")), "microsoft.example"),
        signed(signer, about(2, 2, policy(7, 9)), "microsoft.example"),
        signed(signer, about(0, 1, policy(1, 0, **{"policy-type": "no-policy-found"})), large),
        signed(signer, about(14, 9, policy(4444, 4444)), "microsoft.example"),
        mail(about(0, 5, policy(77, 7, failure("\x1b[31mnew-type", 7, "\u202emx")), **HOSTILE)),
        b"From: a@b\r\n\r\nno report",
    ]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer, signer: Signer) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    desk = Desk(folder, dns, domains=["example.com", "example.net"])
    for content in sent(signer):
        desk.receive(content)
    return desk


def undated(text: str) -> str:
    """The text with days before today for dates, in as many characters."""
    today = datetime.datetime.now(datetime.UTC).date()
    days = {f"{today - datetime.timedelta(days=number)}": f"D-{number:_<8}" for number in range(100)}
    return re.sub(r"\d{4}-\d\d-\d\d", lambda match: days.get(match[0], match[0]), text)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sources", ["sources"]),
        ("sources-all", ["sources", "--all", "--days", "90"]),
        ("results", ["results"]),
        ("results-all", ["results", "--all", "--days", "90"]),
        ("results-domain", ["results", "--domain", "Example.NET.", "--days", "2"]),
        ("nothing", ["sources", "--domain", "nothing.example"]),
        ("no-results", ["results", "--domain", "nothing.example"]),
    ],
)
def test_the_views(desk: Desk, name: str, words: list[str]) -> None:
    done = desk.run(*words)
    golden(f"stored-{name}.txt", undated(done.stdout))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["sources", "results"])
def test_the_views_as_json(desk: Desk, name: str) -> None:
    done = desk.run(name, "--json")
    golden(f"stored-{name}.json", undated(json.dumps(json.loads(done.stdout), indent=1)) + "\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_report_is_shown_by_its_key_and_by_its_id(desk: Desk) -> None:
    (source,) = [one for one in desk.json("sources")["sources"] if one["sender"]["domain"] == ORG]
    key = source["reports"][0]["key"]
    by_key = desk.run("show", key)
    golden("stored-show.txt", undated(by_key.stdout).replace(key, "KEY"))
    assert (by_key.returncode, by_key.stderr) == (0, "")
    shown = desk.json("show", key)
    assert (shown["file"], shown["report_id"], shown["dkim"]) == (key, "report-1", {"state": "verified", "domain": ORG})
    by_id = desk.run("show", "--json", "report-1")
    assert len(by_id.stdout.splitlines()) == 3  # Of as many senders.
    missing = desk.run("show", "\x1b[31m")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "postfix-mtasts-reports: error: there is no report with this key or id: \\x1b[31m\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sources", "--days", "0"), "argument --days: must be a number from 1 to 400"),
        (("sources", "--days", "401"), "argument --days: must be a number from 1 to 400"),
        (("results", "--days", "x"), "argument --days: must be a number from 1 to 400"),
        (("results", "--domain", "a b"), "argument --domain: not a hostname"),
        (("quarantine", "show"), "the following arguments are required: NUMBER"),
    ],
)
def test_wrong_use(desk: Desk, words: tuple[str, ...], said: str) -> None:
    done = desk.run(*words)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.splitlines()[0].endswith(f"error: {said}")


def test_a_view_of_a_database_that_is_not_there(tmp_path: Path, dns: DnsServer) -> None:
    desk = Desk(tmp_path, dns)
    done = desk.run("sources")
    reason = f"error: no report has been taken in yet: there is no {desk.database}"
    hint = "hint: postfix-mtasts-reports doctor says what is missing before reports arrive"
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == f"postfix-mtasts-reports: {reason}\n{hint}\n"


def test_quarantine(tmp_path: Path, dns: DnsServer, signer: Signer) -> None:
    desk = Desk(tmp_path, dns, domains=[DOMAIN])
    contents = (
        signed(signer, report(1, "example.net")),
        b"From: a@b\r\n\r\n\x1b[31mno report",
        signed(signer, report(2, "example.org")),
    )
    for content in contents:
        desk.receive(content)
    foreign, no_report, dropped = (number for number, _ in desk.quarantine())
    listed = desk.run("quarantine", "list").stdout
    assert re.findall(r"^(\d+): (.*) \(", listed, re.MULTILINE) == [(f"{n}", reason) for n, reason in desk.quarantine()]
    shown = desk.run("quarantine", "show", f"{foreign}", f"{no_report}")
    assert shown.returncode == 0
    assert "dkim     verified, signed by sender.example" in shown.stdout
    assert "rejected no report in this mail" in shown.stdout
    assert "\x1b" not in shown.stdout
    document = json.loads(desk.run("quarantine", "show", f"{foreign}", "--json").stdout)
    assert (document["id"], document["reason"]) == (foreign, "about example.net: not in reports.domains")
    assert Path(document["file"]).read_bytes() == contents[0]
    desk.run("replay")
    assert [number for number, _ in desk.quarantine()] == [foreign, no_report, dropped]
    gone = desk.run("quarantine", "drop", f"{dropped}", "99")
    assert (gone.returncode, gone.stdout) == (2, f"{dropped}: dropped\n")
    assert gone.stderr == "postfix-mtasts-reports: error: there is no message 99 in quarantine\n"
    accepted = desk.run("quarantine", "accept", f"{foreign}", f"{no_report}", "--json")
    assert accepted.returncode == 2
    assert [
        (one["id"], one["state"], len(one["reports"])) for one in map(json.loads, accepted.stdout.splitlines())
    ] == [
        (foreign, "stored", 1),
        (no_report, "quarantined", 0),
    ]
    for _ in range(2):
        assert desk.sessions() == {(ORG, True): (5326, 303)}
        assert [reason for _, reason in desk.quarantine()] == ["no report in this mail"]
        # What was accepted stays so in a replay, and what was dropped is gone.
        assert desk.json("replay") == {"stored": 1, "duplicate": 0, "waiting": 0, "quarantined": 1}
    desk.receive(b"From: a@b\r\n\r\nanother")
    assert [number for number, _ in desk.quarantine()] == [no_report, dropped + 1]  # No number comes back.


def test_import(tmp_path: Path, dns: DnsServer, signer: Signer) -> None:
    desk = Desk(tmp_path, dns, domains=[DOMAIN])
    for folder in ("cur", "new", "tmp"):
        (tmp_path / folder).mkdir()
    good, foreign, unread = tmp_path / "cur/1:2,S", tmp_path / "new/2", tmp_path / "unread\x1b"
    right = about(0, 1, policy(5, 1, failure("certificate-expired", 1)))
    good.write_bytes(signed(signer, right))
    foreign.write_bytes(signed(signer, report(2, "example.net")))
    file = tmp_path / "mail.example.org!example.com!1!2!3.json"
    nameless = about(0, 3, {"policy": {"policy-type": "no-policy-found"}, "summary": {}})
    file.write_text(json.dumps(nameless))
    done = desk.run("import", tmp_path, unread, file)
    assert (done.returncode, done.stderr) == (2, "")
    assert sorted(done.stdout.splitlines()) == [
        f"{good}: stored: {ORG} about example.com: 1 failed",
        f"{file}: stored: not verified (not a mail) about example.com: 0 failed; problems: 3",
        f"{foreign}: quarantined: {ORG} about example.net: 303 failed: about example.net: not in reports.domains",
        f"{tmp_path}/unread\\x1b: not read: no such file or directory",
    ]
    again = [json.loads(line) for line in desk.run("import", "--json", tmp_path, file).stdout.splitlines()]
    reason = "about example.net: not in reports.domains"
    assert again == [
        {"file": str(good), "state": "duplicate", "reason": "", "reports": [], "problems": []},
        {"file": str(foreign), "state": "quarantined", "reason": reason, "reports": [], "problems": []},
        {"file": str(file), "state": "duplicate", "reason": "", "reports": [], "problems": []},
    ]
    assert len(desk.mails("cur")) == 3
    assert desk.json("replay") == {"stored": 2, "duplicate": 0, "waiting": 0, "quarantined": 1}
    assert desk.run("import", good).returncode == 0
    assert desk.sessions("--all", "--domain", DOMAIN) == {(ORG, True): (5, 1), (None, False): (0, 0)}
