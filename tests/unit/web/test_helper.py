"""What a helper takes: a button of its program with its form, or the name of a mail, and nothing else."""

import json
from typing import Any

import pytest

from postfix_mtasts.web.helper import MAX_USER, Press, RequestError, parse
from postfix_mtasts.web.run import PUBLISH, QUERY, REPORTS, Command

ENFORCE = {"button": "enforce", "target": "example.com", "form": {"reason": "it has to be"}, "user": "web, anna"}
DROP = {"button": "drop", "target": "1", "form": {}, "user": "anna"}
MAIL = "1764457200.0123456789abcdef.report_1.json"


def asked(program: str, request: object) -> Press | str:
    return parse(program, json.dumps(request).encode())


def test_a_button() -> None:
    command = Command(PUBLISH, ("mode", "example.com", "enforce", "--force=it has to be"))
    assert asked(PUBLISH, ENFORCE) == Press(command, "web, anna")
    assert asked(REPORTS, DROP) == Press(Command(REPORTS, ("quarantine", "drop", "1")), "anna")


def test_a_mail() -> None:
    assert asked(REPORTS, {"mail": MAIL}) == MAIL


@pytest.mark.parametrize(
    ("program", "request_"),
    [
        (QUERY, ENFORCE),
        (REPORTS, ENFORCE),
        (PUBLISH, DROP),
        (PUBLISH, {"mail": MAIL}),
        (REPORTS, {"mail": "../reports.sqlite"}),
        (REPORTS, {"mail": ".hidden"}),
        (REPORTS, {"mail": ["a"]}),
        (PUBLISH, ENFORCE | {"button": "import"}),
        (PUBLISH, ENFORCE | {"button": ["enforce"]}),
        (PUBLISH, ENFORCE | {"target": "--config=/tmp/x"}),
        (PUBLISH, ENFORCE | {"target": 1}),
        (REPORTS, DROP | {"target": "1 2"}),
        (PUBLISH, ENFORCE | {"form": {"reason": "a\nb"}}),
        (PUBLISH, ENFORCE | {"form": {"reason": 1}}),
        (PUBLISH, ENFORCE | {"form": None}),
        (PUBLISH, ENFORCE | {"user": ""}),
        (PUBLISH, ENFORCE | {"user": "a\nb"}),
        (PUBLISH, ENFORCE | {"user": "a" * (MAX_USER + 1)}),
        (PUBLISH, ENFORCE | {"user": None}),
        (PUBLISH, {}),
        (REPORTS, []),
        (REPORTS, 1),
    ],
)
def test_what_no_button_does(program: str, request_: Any) -> None:
    with pytest.raises(RequestError, match=f"asked for what no button of {program} does: "):
        asked(program, request_)


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"[" * 60_000])
def test_no_json(line: bytes) -> None:
    with pytest.raises(RequestError):
        parse(PUBLISH, line)
