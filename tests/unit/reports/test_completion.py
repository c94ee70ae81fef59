"""Every word to type is in the completion for bash."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from postfix_mtasts.reports.command import parser

COMPLETION = Path(__file__).parents[3] / "contrib/completion/postfix-mtasts-reports.bash"


def choices(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a parser, or none."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def completed(*words: str) -> set[str]:
    """What bash offers at the end of these words."""
    bash = shutil.which("bash")
    assert bash
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _postfix_mtasts_reports; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        [bash, "-c", f"source {COMPLETION}; {ask}", "bash", "postfix-mtasts-reports", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def options(of: argparse.ArgumentParser) -> set[str]:
    """The long options of a subcommand and of its actions."""
    found = {option for action in of._actions for option in action.option_strings if option.startswith("--")}
    return found.union(*map(options, choices(of).values()))


@pytest.mark.parametrize("name", choices(parser()))
def test_bash_completes_every_option(name: str) -> None:
    assert completed(name, "--") == options(choices(parser())[name])


def test_bash_completes_subcommands() -> None:
    assert completed("") == {*choices(parser()), "--version", "--help"}
    assert completed("quarantine", "") >= set(choices(choices(parser())["quarantine"]))
