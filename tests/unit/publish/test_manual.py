"""Every subcommand, option, exit status and member of the JSON is in the man page."""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest

from postfix_mtasts.config import Config, Publish
from postfix_mtasts.publish import show, view
from postfix_mtasts.publish.command import parser
from postfix_mtasts.publish.events import Added, Change, Wait
from postfix_mtasts.publish.ready import Condition
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.state import MAX_GAP, PARTING_AFTER, Stage
from postfix_mtasts.publish.store import Line
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, Policy

MANUAL = Path(__file__).parents[3] / "docs/man/postfix-mtasts-publish.1"


@pytest.fixture(scope="module")
def manual() -> str:
    return re.sub(r"\\(-)|\\f[RPB]|^\.\w+ |\"", r"\1", MANUAL.read_text(), flags=re.MULTILINE)


def test_the_manual_has_every_subcommand_and_option(manual: str) -> None:
    usage = parser().format_help()
    (subcommands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    described = re.findall(r"^\.TP\n\.BI? \"?([a-z-]+)", MANUAL.read_text().split(".SH OPTIONS")[0], re.MULTILINE)
    assert described == list(subcommands.choices)
    for subcommand in subcommands.choices.values():
        usage += subcommand.format_help()
    options = set(re.findall(r"(?<![\w-])--[a-z-]+", usage))
    assert options == set(re.findall(r"(?<![\w-])--[a-z-]+", manual)) - {"--policy"}


def test_the_manual_has_every_exit_status() -> None:
    listed = re.findall(r"^\.TP\n\.B (\d+)$", MANUAL.read_text(), flags=re.MULTILINE)
    assert [int(number) for number in listed] == sorted(set(Status) - {Status.NOTHING})


def test_the_manual_has_every_member_of_the_json(manual: str) -> None:
    json = manual[manual.index("\nJSON\n") :]
    decision = decide(None, Added(PolicyDomain("example.com"), Policy(Mode.NONE, 1, ())), 0.0)
    names = [*show.document(decision, Publish()), *[field.name for field in dataclasses.fields(Line)]]
    names += [field.name for shape in (Wait, Change, Condition) for field in dataclasses.fields(shape)]
    names += [stage.value for stage in Stage]
    names += get_args(Wait.__annotations__["kind"])
    assert [name for name in names if not re.search(rf"(?<!\w){name}\b", json)] == []


def test_the_manual_has_the_bounds_and_paths(manual: str) -> None:
    words = " ".join(manual.split())
    numbers = {1: "one", 2: "two", 3: "three", 5: "five", 10: "ten"}
    assert f"more than {numbers[int(MAX_GAP // 86_400)]} days apart" in words
    assert f"{numbers[int(PARTING_AFTER // 86_400)]} days after it is gone from DNS" in words
    assert f"At most {numbers[view.EACH_SECOND]} domains are begun in a second, and {numbers[view.AT_ONCE]}" in words
    assert Config().publish.path in manual
    assert Config().publish.policies in manual
