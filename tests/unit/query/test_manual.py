"""Every subcommand, option and exit status is in the man page, and the package has what the shells complete."""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.query.command import SUBCOMMANDS, parser
from postfix_mtasts.query.doctor.doctor import Examination
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.domain import report
from postfix_mtasts.query.domain.certificate import Certificate
from postfix_mtasts.query.domain.remark import Remark
from postfix_mtasts.query.output import Status

ROOT = Path(__file__).parents[3]
MANUAL = ROOT / "docs/man/postfix-mtasts-query.1"
PROGRAM = "postfix-mtasts-query"
NAMES = [None, *SUBCOMMANDS]


def actions(name: str | None) -> list[argparse.Action]:
    return parser(name)._actions


def options(name: str | None) -> set[str]:
    return {option for action in actions(name) for option in action.option_strings}


@pytest.fixture(scope="module")
def manual() -> str:
    return re.sub(r"\\(-)|^\.\w+ |\"", r"\1", MANUAL.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_manual_has_every_option_and_argument(name: str | None, manual: str) -> None:
    missing = {option for option in options(name) if not re.search(rf"(?<![\w-]){option}(?![\w-])", manual)}
    choices = {
        f"{name} {choice}" if action.dest == "what" else choice
        for action in actions(name)
        for choice in action.choices or ()
    }
    missing |= {choice for choice in choices if choice not in manual}
    assert missing == set()


def test_the_manual_has_every_subcommand(manual: str) -> None:
    assert [name for name in SUBCOMMANDS if f"postfix-mtasts-query {name}" not in manual] == []


def test_the_manual_has_every_exit_status() -> None:
    listed = re.findall(r"^\.TP\n\.B (\d+)$", MANUAL.read_text(), flags=re.MULTILINE)
    assert [int(number) for number in listed] == sorted(Status)


SHAPES = [
    report.Report,
    report.RecordReport,
    report.SlipReport,
    report.AddressReport,
    report.TlsrptReport,
    report.RunningReport,
    report.PolicyHostReport,
    report.PolicyReport,
    report.LineReport,
    report.ProbeReport,
    Certificate,
    report.MxReport,
    report.DaneReport,
    report.AnswerReport,
    report.ExemptReport,
    Remark,
    Finding,
    Examination,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_manual_has_every_member_of_the_json(shape: type[Any], manual: str) -> None:
    json = manual[manual.index("\nJSON\n") :]
    assert [field.name for field in dataclasses.fields(shape) if not re.search(rf"\b{field.name}\b", json)] == []


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("usr/share/zsh/vendor-completions", "contrib/completion/_postfix-mtasts-query"),
        ("usr/share/fish/vendor_completions.d", "contrib/completion/postfix-mtasts-query.fish"),
        (PROGRAM, "contrib/completion/postfix-mtasts-query.bash"),
    ],
)
def test_the_package_has_the_completions(place: str, file: str) -> None:
    lists = [path.read_text() for path in (ROOT / "debian").glob("*.install")]
    lists += [path.read_text() for path in (ROOT / "debian").glob("*.bash-completion")]
    assert f"{file} {place}" in "\n".join(lists).splitlines()
