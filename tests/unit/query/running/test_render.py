"""What is known of a domain, as people and programs read it."""

from dataclasses import replace
from typing import Any

import pytest

from postfix_mtasts.cache.row import RowError, print_failed, print_row
from postfix_mtasts.config import Level
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.render import Known, ago, describe, document, iso, parse_known, table
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOW = 1_700_000_000.0
DAY = 86400.0
TEXT = "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\n\r\nmax_age: 604800"
POLICY = Policy(Mode.ENFORCE, 604800, (MxPattern("mx1.example.com"), MxPattern("*.example.net")))
CACHED = CachedPolicy(POLICY, TEXT, "20240101", NOW - 5 * 3600)
LIVE = Entry(CACHED, checked_at=NOW - 180, last_used=NOW - 7200)
EXPIRED = replace(LIVE, cached=replace(CACHED, fetched_at=NOW - 8 * DAY))
FAILED = FailedFetch("20240102", 3, NOW - 600, Failure(Stage.RESPONSE, "status 404"))
FAILING = replace(LIVE, failed=(FAILED,))
NONE = replace(LIVE, cached=replace(CACHED, policy=Policy(Mode.NONE, 86400, ())))
NO_RECORD = {"no_policy": True, "reason": "no _mta-sts TXT record", "until": NOW + 60}
SERVFAIL = {"no_policy": False, "reason": "TXT lookup: SERVFAIL", "until": NOW + 60}


@pytest.mark.parametrize(
    ("one", "status"),
    [
        pytest.param(Known("a.test", LIVE), Status.OK, id="live"),
        pytest.param(Known("a.test", FAILING), Status.WARNING, id="not renewed"),
        pytest.param(Known("a.test", LIVE, note=NO_RECORD), Status.WARNING, id="live without a record"),
        pytest.param(Known("a.test", replace(NONE, failed=(FAILED,))), Status.OK, id="mode none that is not renewed"),
        pytest.param(Known("a.test", EXPIRED), Status.NOTHING, id="expired"),
        pytest.param(Known("a.test", replace(EXPIRED, failed=(FAILED,))), Status.ERROR, id="expired, not renewed"),
        pytest.param(Known("a.test", Entry()), Status.NOTHING, id="not known"),
        pytest.param(Known("a.test", Entry(), note=NO_RECORD), Status.NOTHING, id="no record"),
        pytest.param(Known("a.test", Entry(), note=SERVFAIL), Status.ERROR, id="record unknown"),
        pytest.param(Known("a.test", Entry(), unread=True), Status.ERROR, id="database not read"),
    ],
)
def test_status(one: Known, status: Status) -> None:
    assert one.status(NOW) == status


LONG = f"{'long' * 12}.test"


def test_table() -> None:
    all_known = [
        Known("a.test", LIVE),
        Known(LONG, replace(EXPIRED, failed=(replace(FAILED, failure=Failure(Stage.RESPONSE, "no " * 30)),))),
        Known("n.test", NONE),
        Known("unknown.test", Entry(checked_at=NOW), note=SERVFAIL),
    ]
    lines = list(table(all_known, NOW))
    assert lines == [
        ("domain                                mode     mx  fetched      expires", None),
        ("a.test                                enforce  2   5 hours ago  in 7 days", Status.OK),
        (LONG, Status.ERROR),
        ("                                      enforce  2   8 days ago   24 hours ago", Status.ERROR),
        ("    failed 3 times, last 10 minutes ago: HTTP response: no no no no no no no no", Status.ERROR),
        ("      no no no no no no no no no no no no no no no no no no no no no no", Status.ERROR),
        ("n.test                                none     0   5 hours ago  in 19 hours", Status.OK),
        ("unknown.test                          -        -   -            -", Status.ERROR),
        ("    policy unavailable: TXT lookup: SERVFAIL", Status.ERROR),
    ]
    assert max(len(line) for line, _ in lines) <= 80


def test_describe() -> None:
    dane = [
        {"next_hop": "a.test", "tlsa": "usable", "hosts": ["mx1.a.test", "mx2.a.test"], "seen_at": NOW - 130},
        {"next_hop": "[a.test]", "tlsa": "absent", "reason": "no secure TLSA record", "seen_at": NOW - 5},
        {"next_hop": "[a.test]:587", "tlsa": "failed", "reason": "TLSA lookup: SERVFAIL", "seen_at": NOW},
    ]
    once = replace(FAILED, count=1, record_id="9", failure=Failure(Stage.RECORD, "no answer", None))
    entry = replace(FAILING, failed=(FAILED, once))
    assert "\n".join(describe(Known("a.test", entry, note=NO_RECORD, dane=dane), NOW)) == (
        "a.test: mode enforce, expires in 7 days\n"
        "    max_age     604800 (7 days)\n"
        "    mx          mx1.example.com\n"
        "                *.example.net\n"
        "    fetched     5 hours ago (2023-11-14T17:13:20Z), for record id 20240101\n"
        "    expires     in 7 days (2023-11-21T17:13:20Z)\n"
        "    refresh     in 18 hours (2023-11-15T16:38:57Z)\n"
        "    last used   2 hours ago (2023-11-14T20:13:20Z), accurate to a day\n"
        "    checked     3 minutes ago (2023-11-14T22:10:20Z)\n"
        "                no policy: no _mta-sts TXT record\n"
        "    failed      3 times, last 10 minutes ago (2023-11-14T22:03:20Z), for record id 20240102: "
        "HTTP response: status 404 (sts-policy-fetch-error)\n"
        "    failed      once, last 10 minutes ago (2023-11-14T22:03:20Z), for record id 9: TXT lookup: no answer\n"
        "    DANE        a.test: TLSA records of mx1.a.test, mx2.a.test, looked up 2 minutes ago\n"
        "    DANE        [a.test]: no DANE: no secure TLSA record, looked up 5 seconds ago\n"
        "    DANE        [a.test]:587: unknown: TLSA lookup: SERVFAIL, looked up 0 seconds ago\n"
        "    policy file\n"
        "        1  version: STSv1\n"
        "        2  mode: enforce\n"
        "        3  mx: mx1.example.com\n"
        "        4  \n"
        "        5  max_age: 604800"
    )


@pytest.mark.parametrize(
    ("one", "line"),
    [
        pytest.param(Known("a.test", EXPIRED), "a.test: mode enforce, expired 24 hours ago", id="expired"),
        pytest.param(Known("a.test", Entry()), "a.test: nothing is cached", id="not known"),
        pytest.param(
            Known("a.test", Entry(), note=NO_RECORD), "a.test: no policy: no _mta-sts TXT record", id="no record"
        ),
        pytest.param(
            Known("a.test", Entry(), note=SERVFAIL), "a.test: policy unavailable: TXT lookup: SERVFAIL", id="unknown"
        ),
        pytest.param(
            Known("a.test", Entry(), unread=True), "a.test: unknown: the database cannot be read", id="not read"
        ),
    ],
)
def test_summary(one: Known, line: str) -> None:
    assert next(describe(one, NOW)) == line


def test_a_policy_that_nobody_uses() -> None:
    unused = replace(LIVE, last_used=0.0, unused_at=NOW)
    facts = [line.split()[0] for line in describe(Known("a.test", unused), NOW)]
    assert ("refresh" in facts, "    last used   never" in describe(Known("a.test", unused), NOW)) == (False, True)


def test_a_policy_that_is_withheld() -> None:
    line = '    withheld    Postfix is told "not found": no policy is enforced (reply.enforce = false)'
    one = Known("a.test", FAILING, withheld=True)
    assert FAILING.cached
    ends = FAILING.cached.expires_at()
    assert [line in describe(one, now) for now in (NOW, ends, ends + 1)] == [True, True, False]
    assert [document(one, now, alone=True)["withheld"] for now in (NOW, ends + 1)] == [True, False]


def test_document() -> None:
    dane = {"next_hop": "a.test", "tlsa": "absent", "hosts": [], "reason": "none", "seen_at": NOW}
    one = Known("a.test", FAILING, note=NO_RECORD, dane=[dane])
    listed = {
        "domain": "a.test",
        "policy": {
            "mode": "enforce",
            "max_age": 604800,
            "mx": ["mx1.example.com", "*.example.net"],
            "record_id": "20240101",
            "fetched_at": "2023-11-14T17:13:20Z",
            "expires_at": "2023-11-21T17:13:20Z",
            "live": True,
            "file": TEXT,
        },
        "checked_at": "2023-11-14T22:10:20Z",
        "last_used": "2023-11-14T20:13:20Z",
        "refresh_at": "2023-11-15T16:38:57Z",
        "failed": [
            {
                "record_id": "20240102",
                "count": 3,
                "at": "2023-11-14T22:03:20Z",
                "stage": "HTTP response",
                "reason": "status 404",
                "result_type": "sts-policy-fetch-error",
            }
        ],
    }
    assert document(one, NOW, alone=False) == listed
    assert document(one, NOW, alone=True) == listed | {
        "note": NO_RECORD | {"until": "2023-11-14T22:14:20Z"},
        "unread": False,
        "withheld": False,
        "dane": [dane | {"seen_at": "2023-11-14T22:13:20Z"}],
        "exception": None,
        "deferred": None,
    }


def test_document_of_nothing() -> None:
    assert document(Known("a.test", Entry()), NOW, alone=True) == {
        "domain": "a.test",
        "policy": None,
        "checked_at": None,
        "last_used": None,
        "refresh_at": None,
        "failed": [],
        "note": None,
        "unread": False,
        "withheld": False,
        "dane": [],
        "exception": None,
        "deferred": None,
    }


EXCEPTION = PolicyException("*.test", "2023-12-31", NOW + 3 * 86400, "ticket 4711", Level.MAY, dane=True, added=True)


def test_an_exception_is_shown() -> None:
    one = Known("a.test", Entry(), exception=EXCEPTION)
    line = "    exception   for *.test, until 2023-12-31 (ends in 3 days), level may, also for DANE: ticket 4711"
    assert line in list(describe(one, NOW))
    assert document(one, NOW, alone=True)["exception"] == {
        "domain": "*.test",
        "until": "2023-12-31",
        "ends_at": "2023-11-17T22:13:20Z",
        "reason": "ticket 4711",
        "level": "may",
        "dane": True,
        "added": True,
    }


def test_what_the_daemon_says_is_read_back() -> None:
    listed: dict[str, Any] = {"domain": "a.test", "row": print_row(FAILING)}
    assert parse_known(listed) == Known("a.test", FAILING)
    shown = {"row": None, "checked_at": NOW, "failed": [print_failed(FAILED)], "note": NO_RECORD, "unread": True}
    entry = Entry(failed=(FAILED,), checked_at=NOW)
    assert parse_known(listed | shown | {"dane": []}) == Known("a.test", entry, NO_RECORD, True, [])
    assert parse_known(listed | {"withheld": True}) == Known("a.test", FAILING, withheld=True)
    with pytest.raises(RowError):
        parse_known({"domain": "a.test", "row": "{}"})


@pytest.mark.parametrize(
    ("time", "text", "relative"),
    [
        pytest.param(0.0, None, "never", id="never"),
        pytest.param(NOW, "2023-11-14T22:13:20Z", "0 seconds ago", id="now"),
        pytest.param(NOW + 7200.9, "2023-11-15T00:13:20Z", "in 2 hours", id="to come"),
        pytest.param(-5e11, "1970-01-01T00:00:00Z", "5,806,713 days ago", id="before all clocks"),
        pytest.param(5e11, "9999-12-31T23:59:59Z", "in 5,767,361 days", id="after all clocks"),
    ],
)
def test_times(time: float, text: str | None, relative: str) -> None:
    assert (iso(time), ago(time, NOW)) == (text, relative)
