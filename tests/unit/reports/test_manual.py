"""Every option, exit status and member of the JSON is in the man page."""

import argparse
import dataclasses
import os
import re
from pathlib import Path

import pytest

from postfix_mtasts.query.output import Status
from postfix_mtasts.reports import parse
from postfix_mtasts.reports.actions import Quarantined
from postfix_mtasts.reports.command import parser
from postfix_mtasts.reports.decompress import MAX_REPORT
from postfix_mtasts.reports.document import MAX_DEPTH
from postfix_mtasts.reports.fields import MAX_NAME, MAX_PROBLEMS, MAX_TEXT
from postfix_mtasts.reports.files import MAX_FILE
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.views import (
    Day,
    FailureGroup,
    LeftOut,
    ReportLine,
    Result,
    ResultsView,
    Source,
    SourcesView,
    Successes,
)

MANUAL = Path(__file__).parents[3] / "docs/man/postfix-mtasts-reports.1"


@pytest.fixture(scope="module")
def manual() -> str:
    return re.sub(r"\\(-)|^\.\w+ |\"", r"\1", MANUAL.read_text(), flags=re.MULTILINE)


def test_the_manual_has_every_subcommand_and_option(manual: str) -> None:
    usage = parser().format_help()
    (subcommands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, subcommand in subcommands.choices.items():
        assert f"postfix-mtasts-reports {name}" in manual
        usage += subcommand.format_help()
    options = set(re.findall(r"(?<![\w-])--[a-z]+", usage))
    assert options == set(re.findall(r"(?<![\w-])--[a-z]+", manual))


def test_the_manual_has_every_exit_status() -> None:
    listed = re.findall(r"^\.TP\n\.B (\d+)$", MANUAL.read_text(), flags=re.MULTILINE)
    assert [int(number) for number in listed] == sorted({*Status, os.EX_TEMPFAIL} - {Status.NOTHING})


def test_the_manual_has_every_member_of_the_json(manual: str) -> None:
    json = manual[manual.index("\nJSON\n") :]
    shapes = (Report, Policy, Failure, Dkim, SourcesView, Source, Day, ReportLine, ResultsView, Result, FailureGroup)
    names = [field.name for shape in (*shapes, Successes, LeftOut, Quarantined) for field in dataclasses.fields(shape)]
    assert [name for name in [*names, "file", "rejected"] if not re.search(rf"\b{name}\b", json)] == []
    assert [state.value for state in (*DkimState, *State) if state.value not in json] == []


def test_the_manual_has_the_bounds(manual: str) -> None:
    bounds = {
        f"{MAX_FILE // 10**6} MB",
        f"{MAX_REPORT // 2**20} MiB",
        f"{parse.MAX_POLICIES} policies",
        f"{parse.MAX_FAILURES:,} failures",
        f"{MAX_DEPTH} levels",
        f"{MAX_TEXT} characters",
        f"{MAX_NAME} characters",
        f"first {MAX_PROBLEMS}",
    }
    assert {bound for bound in bounds if bound not in " ".join(manual.split())} == set()
