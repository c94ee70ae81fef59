"""What a monitoring system is told."""

from typing import Any

import pytest

from postfix_mtasts.config import UnixEndpoint
from postfix_mtasts.query.running.health import Health, Level, Seen, judge

NOW = 1_700_000_000.0
STATUS: dict[str, Any] = {
    "shadow_since": None,
    "database": {
        "writable": True,
        "trouble": None,
        "trouble_since": None,
        "begun_anew": None,
        "begun_anew_at": None,
        "pending_writes": 0,
    },
    "policies": {"stored": 12, "in_memory": 3, "not_renewed": 0, "ending": 0, "first_ends_at": None},
    "discoveries": {"minutes": 10, "ended": 9, "failed": 4, "last_failure": "TXT lookup: 192.0.2.1: SERVFAIL"},
    "exceptions": {"holding": 0, "first_to_end": [], "trouble": None},
    "fleet": None,
}
MORE = " discoveries=9 failed_discoveries=4 exceptions=0"
FIRST = {"domain": "partner.example", "until": "2023-11-21", "ends_at": NOW + 7 * 86400, "reason": "ticket | 4711"}
LATER = FIRST | {"domain": "*.example", "ends_at": NOW + 7 * 86400 + 1}
SILENT = ["inet:127.0.0.1:8461 does not answer: connection refused", "unix:/run/sts does not speak socketmap"]


CLOSED = "unix:/var/spool/postfix/mtasts/socket"


def seen(*reasons: str) -> list[Seen]:
    """Sockets that did not answer, or one that did."""
    return [Seen(UnixEndpoint(f"/{number}"), reason) for number, reason in enumerate(reasons or [""])]


def closed() -> Seen:
    return Seen(UnixEndpoint(CLOSED.removeprefix("unix:")), f"{CLOSED} does not answer: permission denied", closed=True)


def status(table: str, **changes: object) -> dict[str, Any]:
    return STATUS | {table: STATUS[table] | changes}


@pytest.mark.parametrize(
    ("silent", "told", "line"),
    [
        pytest.param(
            [],
            STATUS,
            f"MTA-STS OK - answers Postfix; 12 policies"
            f"|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE}",
            id="well",
        ),
        pytest.param({}, None, "MTA-STS OK - answers Postfix|time=0.002s", id="no control socket is wanted"),
        pytest.param(
            [],
            status("policies", stored=1, not_renewed=1, first_ends_at=NOW + 9e5),
            "MTA-STS OK - answers Postfix; 1 policy, 1 not renewed"
            f"|time=0.002s policies=1 not_renewed=1 ending=0 pending_writes=0{MORE}",
            id="a policy is not renewed, and there is time",
        ),
        pytest.param(
            [],
            status("policies", not_renewed=2, ending=1, first_ends_at=NOW + 7200),
            "MTA-STS WARNING - 1 policy that could not be renewed expires in 2 hours; answers Postfix; "
            f"12 policies, 2 not renewed|time=0.002s policies=12 not_renewed=2 ending=1 pending_writes=0{MORE}",
            id="a policy is about to expire",
        ),
        pytest.param(
            [],
            status("policies", not_renewed=2, ending=2, first_ends_at=NOW - 1),
            "MTA-STS WARNING - 2 policies that could not be renewed expire soon, the first now; "
            "answers Postfix; 12 policies, 2 not renewed"
            f"|time=0.002s policies=12 not_renewed=2 ending=2 pending_writes=0{MORE}",
            id="two",
        ),
        pytest.param(
            [],
            status("database", writable=False, trouble="disk | full", trouble_since=NOW - 600, pending_writes=7),
            "MTA-STS WARNING - the database has not worked for 10 minutes: disk / full; pending writes: 7; "
            f"answers Postfix; 12 policies|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=7{MORE}",
            id="the database cannot be written",
        ),
        pytest.param(
            [],
            status("database", begun_anew="it was deleted", begun_anew_at=NOW - 7200),
            "MTA-STS WARNING - the database was begun anew 2 hours ago, and has what was in memory: it was deleted; "
            f"answers Postfix; 12 policies|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE}",
            id="the database was begun anew",
        ),
        pytest.param(
            [],
            status("database", begun_anew="it was deleted", begun_anew_at=NOW - 86400),
            "MTA-STS OK - answers Postfix; 12 policies"
            f"|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE}",
            id="a day ago",
        ),
        pytest.param(
            [],
            status("policies", stored=None, not_renewed=None, ending=None),
            f"MTA-STS OK - answers Postfix|time=0.002s pending_writes=0{MORE}",
            id="no counts",
        ),
        pytest.param(
            [],
            status("exceptions", holding=1, first_to_end=[LATER]),
            "MTA-STS OK - answers Postfix; 12 policies, 1 exception"
            f"|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE[:-1]}1",
            id="an exception holds",
        ),
        pytest.param(
            [],
            status("exceptions", holding=2, first_to_end=[FIRST, LATER], trouble="/x: permission denied"),
            "MTA-STS WARNING - the exception for partner.example ends in 7 days: ticket / 4711; exceptions that were "
            "added by command: /x: permission denied; answers Postfix; 12 policies, 2 exceptions"
            f"|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE[:-1]}2",
            id="an exception ends within a week, and the file is broken",
        ),
        pytest.param(
            [],
            STATUS | {"shadow_since": NOW - 4 * 86400},
            "MTA-STS WARNING - no policy is enforced since 2023-11-10 (reply.enforce = false): "
            "`postfix-mtasts-query shadow` says what would stop; answers Postfix; 12 policies"
            f"|time=0.002s policies=12 not_renewed=0 ending=0 pending_writes=0{MORE}",
            id="shadow mode",
        ),
        pytest.param(
            [],
            "no daemon",
            "MTA-STS WARNING - no daemon; answers Postfix|time=0.002s",
            id="no control",
        ),
        pytest.param(
            SILENT,
            STATUS,
            f"MTA-STS CRITICAL - {'; '.join(SILENT)}; 12 policies"
            f"|policies=12 not_renewed=0 ending=0 pending_writes=0{MORE}",
            id="no answer",
        ),
        pytest.param(
            ["unix:/run/sts does not answer: no such file"],
            "no control",
            "MTA-STS CRITICAL - unix:/run/sts does not answer: no such file; no control",
            id="nothing at all",
        ),
    ],
)
def test_line(silent: list[str], told: Any, line: str) -> None:
    health = judge(seen(*silent), "", 0.0021, told, NOW)
    assert str(health) == line
    assert line.startswith(f"MTA-STS {health.level.name} ")


@pytest.mark.parametrize(
    ("others", "told", "line"),
    [
        (seen(), STATUS, f"OK - answers Postfix; not asked on {CLOSED}, which this user may not use; 12 policies"),
        ([], STATUS, f"OK - runs; not asked on {CLOSED}, which this user may not use; 12 policies"),
        (
            seen(SILENT[0]),
            STATUS,
            f"CRITICAL - {SILENT[0]}; not asked on {CLOSED}, which this user may not use; 12 policies",
        ),
        (seen(), "no control", f"CRITICAL - {CLOSED} does not answer: permission denied; no control"),
    ],
    ids=["beside another", "the only one", "beside a silent one", "nobody says that the daemon runs"],
)
def test_a_socket_that_is_for_others(others: list[Seen], told: Any, line: str) -> None:
    health = judge([*others, closed()], "", 0.0021, told, NOW)
    assert str(health).partition("|")[0] == f"MTA-STS {line}"


def test_unknown() -> None:
    assert str(Health(Level.UNKNOWN, ("x.toml: wrong",), {})) == "MTA-STS UNKNOWN - x.toml: wrong"


@pytest.mark.parametrize(
    ("ended", "failed", "level"),
    [(0, 0, "OK"), (4, 4, "OK"), (21, 5, "OK"), (20, 5, "WARNING"), (7, 5, "WARNING"), (8, 6, "CRITICAL")],
)
def test_the_share_of_discoveries_that_failed(ended: int, failed: int, level: str) -> None:
    told = status("discoveries", ended=ended, failed=failed)
    health = judge(seen(), "", 0.0021, told, NOW)
    share = (
        f"{failed} of {ended} discoveries in the last 10 minutes failed, the last with TXT lookup: 192.0.2.1: SERVFAIL"
    )
    reasons = ("answers Postfix", "12 policies")
    assert (health.level.name, health.reasons) == (level, reasons if level == "OK" else (share, *reasons))


def test_no_dns() -> None:
    health = judge(seen(), "DNS does not answer", 0.0021, None, NOW)
    assert str(health) == "MTA-STS CRITICAL - DNS does not answer; answers Postfix|time=0.002s"
