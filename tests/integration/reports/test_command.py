"""The command, run as a process: read tests/data/reports/read.txt aloud.

With GOLDEN=write in the environment, what is said becomes what is expected.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.reports.conftest import Signer
from tests.unit.reports.reports import RIGHT
from tests.world.daemon import COMMAND, toml
from tests.world.dns import DnsServer

DATA = Path(__file__).parents[2] / "data/reports"
REPORTS = COMMAND.with_name("postfix-mtasts-reports")
HOSTILE = {"organization-name": "\x1b]0;owned\x07\r\nDKIM: verified \u202e\x7f", "report-id": "<script>"}


def run(*words: str | Path, folder: Path = DATA) -> subprocess.CompletedProcess[str]:
    return subprocess.run([REPORTS, *words], cwd=folder, capture_output=True, text=True, check=False)


def golden(name: str, output: str) -> None:
    expected = DATA / name
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(output)
    assert output == expected.read_text()


@pytest.fixture
def config(tmp_path: Path, dns: DnsServer) -> Path:
    file = tmp_path / "postfix-mtasts.toml"
    file.write_text(toml({"dns": {"nameservers": [f"{dns.address}:{dns.port}"]}}))
    return file


def senders() -> list[str]:
    return sorted(f"senders/{path.name}" for path in (DATA / "senders").iterdir())


def test_what_senders_send_as_text(config: Path) -> None:
    done = run("read", "--config", config, *senders())
    golden("read.txt", done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_senders_send_as_json(config: Path) -> None:
    done = run("read", "--json", "--config", config, *senders())
    golden("read.json", done.stdout)
    assert (done.returncode, done.stderr) == (1, "")


def test_signed_mails_in_a_maildir(config: Path, tmp_path: Path, signer: Signer) -> None:
    for name in ("cur", "new", "tmp"):
        (tmp_path / "mails" / name).mkdir(parents=True)
    for domain in ("google.com", "microsoft.com"):
        signer.publish(domain)
    (tmp_path / "mails/tmp/0").write_bytes(b"incomplete")
    (tmp_path / "mails/new/.hidden").write_bytes(b"no mail")
    os.mkfifo(tmp_path / "mails/new/0")
    google = (DATA / "senders/google.eml").read_bytes()
    (tmp_path / "mails/new/2").write_bytes(signer.sign(google, "google.com"))
    (tmp_path / "mails/cur/1:2,S").write_bytes(
        signer.sign((DATA / "senders/microsoft.eml").read_bytes(), "microsoft.com")
    )
    (tmp_path / "mails/cur/3:2,S").write_bytes(signer.sign(google, "microsoft.com"))
    done = run("read", "--json", "--config", config, "mails", folder=tmp_path)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(document["file"], document["dkim"]) for document in documents] == [
        ("mails/cur/1:2,S", {"state": "verified", "domain": "microsoft.com"}),
        ("mails/cur/3:2,S", {"state": "other-domain", "domain": "microsoft.com"}),
        ("mails/new/2", {"state": "verified", "domain": "google.com"}),
    ]
    text = run("read", "--config", config, "mails", folder=tmp_path).stdout
    assert [line for line in text.splitlines() if "dkim" in line] == [
        "  dkim     verified, signed by microsoft.com",
        "  dkim     not verified: the signature is not of google.com (signed by",
        "  dkim     verified, signed by google.com",
    ]


def test_nothing_of_a_report_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[31m.json"
    file.write_text(json.dumps(RIGHT | HOSTILE))
    (tmp_path / "b.json").write_text(json.dumps(RIGHT | {"policies": HOSTILE["organization-name"]}))
    for words in ((), ("--json",)):
        done = run("read", *words, file.name, "b.json", folder=tmp_path)
        assert done.returncode == 2
        assert all(" " <= character <= "~" for line in done.stdout.split("\n") for character in line)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert (said[0]["file"], said[0]["organization"]) == (file.name, HOSTILE["organization-name"])


@pytest.mark.parametrize(
    ("content", "status", "rejected"),
    [
        (json.dumps(RIGHT), 0, None),
        (json.dumps(RIGHT | {"contact-info": None}), 1, None),
        ("{", 2, "not JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        ("From: a@example.org\n\nhello", 2, "no report in this mail"),
        ("", 2, "no report in this mail"),
        ("{" + 10_500_000 * " " + "}", 2, "larger than 10 MiB"),
        (20_000_001 * " ", 2, "larger than 20 MB"),
        (None, 2, "no such file or directory"),
    ],
)  # fmt: skip
def test_exit_statuses(tmp_path: Path, content: str | None, status: int, rejected: str | None) -> None:
    file = tmp_path / "report"
    if content is not None:
        file.write_text(content)
    (tmp_path / "right.json").write_text(json.dumps(RIGHT))
    done = run("read", "--json", "report", "right.json", folder=tmp_path)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (status, "")
    assert documents[0].get("rejected") == rejected
    if rejected:
        assert list(documents[0]) == ["file", "rejected"]
    assert (documents[1]["file"], documents[1]["report_id"]) == ("right.json", RIGHT["report-id"])


@pytest.mark.parametrize(
    ("name", "reason"), [(".", "a folder that is no Maildir: name the files in it"), (300 * "x", "file name too long")]
)
def test_what_is_neither_a_file_nor_a_maildir(tmp_path: Path, name: str, reason: str) -> None:
    done = run("read", "--json", name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout) == {"file": name, "rejected": reason}


def test_an_empty_maildir(tmp_path: Path) -> None:
    (tmp_path / "cur").mkdir()
    done = run("read", "--json", ".", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 64, "error: the following arguments are required: SUBCOMMAND"),
        (("read",), 64, "error: the following arguments are required: FILE"),
        (("read", "--config", "missing.toml", "x"), 78, "error: missing.toml: there is no such file"),
        (("read", "--config", "wrong.toml", "x"), 78, "error: wrong.toml: unknown table dsn: did you mean dns?"),
    ],
)
def test_wrong_use(tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    (tmp_path / "wrong.toml").write_text("[dsn]\n")
    done = run(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.splitlines()[0] == f"postfix-mtasts-reports: {said}"


@pytest.mark.parametrize("missing", ["dkim", "publicsuffix2"])
def test_one_line_says_what_is_not_installed(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from postfix_mtasts.reports.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "read", "x"], capture_output=True, text=True, check=False)
    reason = "error: reports need dkimpy and publicsuffix2 (Debian: python3-dkim, python3-publicsuffix2)"
    assert (done.returncode, done.stdout, done.stderr) == (69, "", f"postfix-mtasts-reports: {reason}\n")
