"""What doctor says of exceptions."""

import time
from typing import Any

import pytest

from postfix_mtasts.config import DaneSetting
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.query.doctor.check_exceptions import check_exceptions
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.client import Running

NOW = 1_800_000_000.0
LIST = ("run", "postfix-mtasts-query except list")
SOON = {"domain": "partner.example", "until": "2027-01-21", "ends_at": NOW + 7 * 86400, "reason": "ticket", "used": 1}
LATER = SOON | {"domain": "*.example", "ends_at": NOW + 8 * 86400, "used": 12}


def running(**exceptions: object) -> Running:
    status: dict[str, Any] = {
        "exceptions": {"holding": 0, "since": NOW - 30 * 86400, "first_to_end": [], "trouble": None} | exceptions
    }
    return Running(1, NOW - 5, "/etc/x.toml", NOW - 5, (), Style.PLAIN, DaneSetting.OFF, None, status)


def shown(domain: str, status: Status, used: str, ends: str) -> Finding:
    since = time.strftime("%Y-%m-%d", time.localtime(NOW - 30 * 86400))
    why = f"it has changed {used} since {since}; it ends in {ends}, and then the policy holds again"
    return Finding("exception", status, f"an exception for {domain} holds until 2027-01-21: ticket", why, *LIST)


@pytest.mark.parametrize(
    ("daemon", "expected"),
    [
        pytest.param(running(), [], id="none"),
        pytest.param(
            running(holding=3, first_to_end=[SOON, LATER]),
            [
                shown("partner.example", Status.WARNING, "1 answer", "7 days"),
                shown("*.example", Status.OK, "12 answers", "8 days"),
                Finding("exception", Status.OK, "further exceptions that hold: 1", "they end later", *LIST),
            ],
            id="one ends within a week, one is not named",
        ),
        pytest.param(
            running(trouble="/x: permission denied"),
            [
                Finding(
                    "exception",
                    Status.ERROR,
                    "exceptions that were added by command: /x: permission denied",
                    "none can be added or removed, and they may not hold",
                )
            ],
            id="the file is broken",
        ),
    ],
)
def test_what_is_found(daemon: Running, expected: list[Finding]) -> None:
    assert list(check_exceptions(daemon, NOW)) == expected
