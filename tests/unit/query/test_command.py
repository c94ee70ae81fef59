"""The command line: its subcommands, its options, and how it tells what is wrong with them."""

import json

import pytest

from postfix_mtasts.query.command import SUBCOMMANDS, run
from postfix_mtasts.query.output import Output, Status


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["dcotor"], "unknown subcommand dcotor, did you mean doctor?", "postfix-mtasts-query --help"),
        (
            ["--config", "x", "chache", "list"],
            "unknown subcommand chache, did you mean cache?",
            "postfix-mtasts-query --help",
        ),
        (["--prob", "example.com"], "unrecognized arguments: --prob", "postfix-mtasts-query --help"),
        (["warm", "--conc=5", "-"], "unrecognized arguments: --conc=5", "postfix-mtasts-query warm --help"),
        ([], "the following arguments are required: DOMAIN", "postfix-mtasts-query --help"),
        (
            ["health.", "example"],
            "'health.': needs a dot, like example.com",
            "only domain names with at least one dot can have a policy; IP addresses cannot",
        ),
        (["--server", "mta", "example.com"], "--server 'mta': must be an IP address", None),
    ],
)
@pytest.mark.parametrize("in_json", [False, True])
def test_wrong_words(
    words: list[str], error: str, hint: str | None, in_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, *(["--json"] if in_json else [])]) is Status.USAGE
    printed, told = capsys.readouterr()
    assert told == f"postfix-mtasts-query: error: {error}\n" + (f"hint: {hint}\n" if hint else "")
    document = {"error": {"kind": "usage", "text": error, "hint": hint}}
    assert printed == (f"{json.dumps(document)}\n" if in_json else "")


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    assert f"subcommands: {', '.join(SUBCOMMANDS)}" in capsys.readouterr().out


def test_only_our_own_ellipsis_is_not_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Output().text("caf\xe9… \x1b[31m")
    assert capsys.readouterr().out == "caf\\xe9… \\x1b[31m\n"
