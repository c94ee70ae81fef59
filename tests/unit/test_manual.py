"""The manuals of the daemon and of its configuration say what the code does, and the example has the defaults."""

import dataclasses
import datetime
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts import config
from postfix_mtasts.config import Config, ExceptionSetting
from postfix_mtasts.daemon import command as daemon
from postfix_mtasts.daemon import service

ROOT = Path(__file__).parents[2]
MANUALS = ROOT / "docs/man"
EXAMPLE = ROOT / "docs/postfix-mtasts.toml"
# Of tables that there may be many of, the class stands here.
TABLES: dict[str, Any] = {table.name: table.metadata.get("each", table.default) for table in dataclasses.fields(Config)}
TABLES["publish.dns"] = Config().publish.dns
TABLES["web"] = TABLES.pop("web")  # In the order of the manual.

# An exception has no defaults but for two keys: both show this one.
EXCEPTION = ExceptionSetting(
    "partner.example", datetime.date(2026, 12, 31), "their certificate is to be renewed, ticket 4711"
)


def text(name: str) -> str:
    """A manual without its markup."""
    return re.sub(r"\\(-)|\\f[BR]|^\.[A-Z]{1,2} ", r"\1", (MANUALS / name).read_text(), flags=re.MULTILINE)


def one_line(words: str) -> str:
    return " ".join(words.split())


def items(section: str) -> list[str]:
    """The terms of the list in one section of the manual of the daemon."""
    body = (MANUALS / "postfix-mtasts-daemon.8").read_text().split(f".SH {section}\n")[1].split(".SH ")[0]
    return [line.replace("\\-", "-") for line in re.findall(r"^\.TP\n\.\w+ (.*)$", body, flags=re.MULTILINE)]


def test_the_manual_has_every_option_of_the_daemon() -> None:
    usage = subprocess.run(
        [sys.executable, "-c", "from postfix_mtasts.daemon.main import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    known = set(re.findall(r"(?<!\w)--[a-z]+", usage))
    assert {option for item in items("OPTIONS") for option in re.findall(r"--[a-z]+", item)} == known


def test_the_manual_has_every_signal_and_exit_status() -> None:
    described = daemon.__doc__ or ""
    assert set(re.findall(r"SIG[A-Z]+", " ".join(items("SIGNALS")))) == set(re.findall(r"\bSIG[A-Z]+", described))
    statuses = described.split("Exit status:")[1]
    assert items("EXIT STATUS") == re.findall(r"\b(\d+) (?:after|if|\()", statuses)


def test_the_manual_has_every_name_of_a_socket() -> None:
    assert items("SYSTEMD") == [service._SOCKETMAP, service._CONTROL, service._METRICS]


def test_the_manual_has_the_paths() -> None:
    files = (MANUALS / "postfix-mtasts-daemon.8").read_text().split(".SH FILES")[1]
    paths = re.findall(r"^\.I (/.*)$", files, flags=re.MULTILINE)
    assert paths == [config.DEFAULT_PATH, Config().cache.path, Config().server.control]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The text of each table in the manual of the configuration."""
    found = re.split(
        r"^\[{1,2}([\w.]+)\]{1,2}$", text("postfix-mtasts.toml.5").split("\nEXAMPLES\n")[0], flags=re.MULTILINE
    )
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_the_manual_has_every_table_in_order(sections: dict[str, str]) -> None:
    assert list(sections) == list(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_the_manual_has_every_key_with_its_default_and_what_is_allowed(table: str, sections: dict[str, str]) -> None:
    entries = re.split(r"^\.TP\n(\w+ = .*)$", sections[table], flags=re.MULTILINE)
    lines = chr(10).join(entries[1::2])
    if table == "exception":
        assert config.parse(f"[[{table}]]\n{lines}".encode(), "manual") == Config(exception=(EXCEPTION,))
    else:
        assert config.parse(f"[{table}]\n{lines}".encode(), "manual") == Config()
    described = {line.split(" = ")[0]: one_line(body) for line, body in zip(entries[1::2], entries[2::2], strict=True)}
    keys = [key for key in dataclasses.fields(TABLES[table]) if key.metadata]
    assert list(described) == [key.name for key in keys]
    for key in keys:
        assert described[key.name].endswith(f"Must be {key.metadata['allowed']}.")


def test_the_example_of_the_manual_is_right() -> None:
    example = text("postfix-mtasts.toml.5").split(".RS\n")[1].split(".RE")[0]
    assert config.parse(example.encode(), "manual") != Config()


def test_the_example_has_every_key_with_its_default() -> None:
    example = EXAMPLE.read_text()
    assert config.parse(example.encode(), "as it is") == Config()
    without_comments = re.sub(r"^#(?=\w+ = |\[\[)", "", example, flags=re.MULTILINE)
    assert config.parse(without_comments.encode(), "uncommented") == Config(exception=(EXCEPTION,))
    keys = {name: [key.name for key in dataclasses.fields(table)] for name, table in TABLES.items() if "." not in name}
    parsed = tomllib.loads(without_comments)
    (parsed["exception"],) = parsed["exception"]
    assert {name: list(table) for name, table in parsed.items()} == keys
    assert list(parsed["publish"]["dns"]) == [key.name for key in dataclasses.fields(TABLES["publish.dns"])]


@pytest.mark.parametrize("page", sorted(MANUALS.iterdir()), ids=lambda page: str(page.name))
def test_manuals_are_well_formed(page: Path) -> None:
    man = shutil.which("man")
    if not man:
        pytest.skip("needs man: apt install man-db")
    command = [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
