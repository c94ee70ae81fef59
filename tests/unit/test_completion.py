"""Every word to type is in the completion for bash of the commands of reports and publish."""

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from postfix_mtasts.publish.command import parser as publish
from postfix_mtasts.reports.command import parser as reports

COMPLETIONS = Path(__file__).parents[2] / "contrib/completion"


def choices(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a parser, or none."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


PARSERS = {"postfix-mtasts-publish": publish(), "postfix-mtasts-reports": reports()}
NAMES = [(program, name) for program, parser in PARSERS.items() for name in choices(parser)]


def completed(program: str, *words: str) -> set[str]:
    """What bash offers at the end of these words."""
    bash = shutil.which("bash")
    assert bash
    function = f"_{program.replace('-', '_')}"
    ask = f'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        [bash, "-c", f"source {COMPLETIONS}/{program}.bash; {ask}", "bash", program, *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def options(of: argparse.ArgumentParser) -> set[str]:
    """The long options of a subcommand and of its actions."""
    found = {option for action in of._actions for option in action.option_strings if option.startswith("--")}
    return found.union(*map(options, choices(of).values()))


@pytest.mark.parametrize(("program", "name"), NAMES)
def test_bash_completes_every_option(program: str, name: str) -> None:
    assert completed(program, name, "--") == options(choices(PARSERS[program])[name])


@pytest.mark.parametrize("program", PARSERS)
def test_bash_completes_subcommands(program: str) -> None:
    assert completed(program, "") == {*choices(PARSERS[program]), "--version", "--help"}


def test_bash_completes_what_follows() -> None:
    actions = choices(choices(PARSERS["postfix-mtasts-reports"])["quarantine"])
    assert completed("postfix-mtasts-reports", "quarantine", "") >= set(actions)
    assert completed("postfix-mtasts-publish", "mode", "example.com", "") >= {"testing", "enforce", "none"}
