"""bash, fish and zsh complete every word of postfix-mtasts-query."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from postfix_mtasts.query.command import SUBCOMMANDS, parser

COMPLETIONS = Path(__file__).parents[3] / "contrib/completion"
PROGRAM = "postfix-mtasts-query"
NAMES = [None, *SUBCOMMANDS]


def bash(*words: str) -> str:
    """What bash offers at the end of these words."""
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _postfix_mtasts_query; printf "%s\\n" "${COMPREPLY[@]}"'
    return said("bash", "-c", f"source {COMPLETIONS}/{PROGRAM}.bash; {ask}", "bash", *words)


def fish(*words: str) -> str:
    """What fish offers at the end of these words."""
    line = shlex.quote(" ".join(words))
    listed = said("fish", "--no-config", "-c", f"source {COMPLETIONS}/{PROGRAM}.fish; complete -C {line}")
    return "\n".join(one.partition("\t")[0] for one in listed.splitlines())


def zsh(*words: str) -> str:
    """What zsh offers at the end of these words."""
    seen = said("zsh", "-f", str(Path(__file__).with_name("complete.zsh")), str(COMPLETIONS), " ".join(words))
    return "\n".join(re.findall(r"<([^<>\s]+)>", seen))


def said(shell: str, *words: str) -> str:
    found = shutil.which(shell)
    if not found:
        pytest.skip(f"needs {shell}")
    # A shell that waits ends with all that it has started.
    command = ["timeout", "--signal=KILL", "30", found, *words]
    with tempfile.TemporaryDirectory() as home:  # fish writes there.
        environment = {**os.environ, "TERM": "dumb", "HOME": home, "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.parametrize("shell", [bash, fish, zsh])
@pytest.mark.parametrize("name", NAMES, ids=str)
@pytest.mark.parametrize("before", [(), ("--config", "x.toml")], ids=["alone", "behind --config"])
def test_shells_complete_every_option(shell: Callable[..., str], name: str | None, before: tuple[str, ...]) -> None:
    wanted = {one for action in parser(name)._actions for one in action.option_strings if one.startswith("--")} - set(
        before
    )
    found = shell(PROGRAM, *before, name or "example.com", "--").split()
    assert set(found) - set(before) == wanted


@pytest.mark.parametrize("shell", [bash, fish, zsh])
def test_shells_complete_words(shell: Callable[..., str]) -> None:
    modes, sorts = {"enforce", "testing", "none"}, {"domain", "fetched", "expires", "failures"}
    assert set(SUBCOMMANDS) <= set(shell(PROGRAM, "").split())
    assert {"list", "show", "forget", "refresh"} <= set(shell(PROGRAM, "cache", "").split())
    assert {"add", "list", "remove"} <= set(shell(PROGRAM, "except", "").split())
    assert set(shell(PROGRAM, "except", "add", "--level", "").split()) == {"none", "may", "encrypt"}
    assert set(shell(PROGRAM, "cache", "list", "--mode", "").split()) == modes
    assert set(shell(PROGRAM, "cache", "list", "--sort", "").split()) == sorts
    assert shell(PROGRAM, "example.com", "d").split() == []
