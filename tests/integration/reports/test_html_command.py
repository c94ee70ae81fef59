"""`postfix-mtasts-reports html`, run as a process."""

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from postfix_mtasts.reports.report import Policy
from postfix_mtasts.reports.store import Store
from tests.integration.reports.test_command import run
from tests.integration.reports.test_site import fill
from tests.unit.reports.html import parse
from tests.unit.reports.made import report, stored, verified
from tests.world.daemon import toml


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration, and a database that has a report of yesterday."""
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(1)
    (tmp_path / "mtasts.toml").write_text(toml({"reports": {"path": str(tmp_path / "reports.sqlite")}}))
    with Store(tmp_path / "reports.sqlite") as store:
        store.open()
        one = report(yesterday, "A <b>", Policy("example.com", "sts", "enforce", 7, 0, ()))
        fill(store, [stored("", one, verified("a.example"))])
    return tmp_path


def html(folder: Path, *words: str) -> tuple[int, str, str]:
    done = run("html", "--config", "mtasts.toml", *words, folder=folder)
    return done.returncode, done.stdout, done.stderr


def test_it_writes_pages_and_says_where(folder: Path) -> None:
    for _ in range(2):
        assert html(folder, "site") == (0, "1 report: site/index.html\n", "")
    (row,) = parse((folder / "site/index.html").read_text()).table("Sources")[1:]
    assert row[:4] == ["a.example A <b>", "7", "✓ none", "0 %"]


def test_folders_that_are_none_of_its_own(folder: Path) -> None:
    (folder / "www").mkdir()
    (folder / "www/index.html").write_text("mine")
    error = "postfix-mtasts-reports: error:"
    assert html(folder, "www") == (69, "", f"{error} www has other files: name a new or empty folder\n")
    assert html(folder, "www/index.html") == (69, "", f"{error} www/index.html: not a directory\n")
    assert html(folder, "no/site") == (69, "", f"{error} no/site: no such file or directory\n")
    assert [file.name for file in (folder / "www").iterdir()] == ["index.html"]


def test_nothing_was_stored_yet(folder: Path) -> None:
    (folder / "reports.sqlite").unlink()
    status, output, error = html(folder, "site")
    assert (status, output) == (69, "")
    assert f"error: no report has been taken in yet: there is no {folder}/reports.sqlite\nhint: " in error
    assert not (folder / "site").exists()


def test_one_line_says_that_jinja_is_not_installed(folder: Path) -> None:
    script = "import sys; sys.modules['jinja2'] = None; from postfix_mtasts.reports.main import main; main()"
    words: list[str | Path] = [
        sys.executable,
        "-c",
        script,
        "html",
        "--config",
        folder / "mtasts.toml",
        folder / "site",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    reason = "error: pages need Jinja (Debian: python3-jinja2)"
    assert (done.returncode, done.stdout, done.stderr) == (69, "", f"postfix-mtasts-reports: {reason}\n")
