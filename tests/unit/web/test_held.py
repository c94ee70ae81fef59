"""What of the sending side is listed, and in which order."""

from dataclasses import replace

import pytest

from postfix_mtasts.cache.row import print_failed, print_row
from postfix_mtasts.query.output import JSON, Status
from postfix_mtasts.query.running.render import Known
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import parse
from postfix_mtasts.web.held import Exempt, Held, Line, Shadowed, arranged, exempt, shadowed

NOW = 1_800_000_000.0
DAY = 86_400
FAILED = "10 minutes ago: HTTP response: status 404"


def known(domain: str, mode: str = "enforce", *, failed: bool = False, age: float = 3600) -> Known:
    text = f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: {30 * DAY}\n"
    failure = FailedFetch("2", 3, NOW - 600, Failure(Stage.RESPONSE, "status 404", None))
    cached = CachedPolicy(parse(text.encode())[0], text, "1", NOW - age)
    return Known(domain, Entry(cached, failed=(failure,) if failed else (), checked_at=NOW - 60, last_used=NOW))


def told(one: Known) -> JSON:
    cached = one.entry.cached
    nothing = {"row": None, "checked_at": 0.0, "failed": [print_failed(failed) for failed in one.entry.failed]}
    return {"domain": one.domain, "deferred": one.deferred} | ({"row": print_row(one.entry)} if cached else nothing)


def test_those_with_trouble_are_apart() -> None:
    unknown = Known("c.example", Entry(failed=known("x.example", failed=True).entry.failed))
    deferred = replace(known("e.example"), deferred="TLSA lookup: SERVFAIL")
    listed = [unknown, deferred, known("b.example", failed=True, age=3 * DAY), known("a.example", "testing")]
    foreign = {"domain": "d.example", "row": '{"version": 99}'}
    counts = {"domains": 9, "in_trouble": 5, "modes": {"expired": 1, "testing": 5, "enforce": 2}}
    found = arranged(counts, [*map(told, listed), foreign], NOW)
    assert found == Held(
        (("enforce", 2), ("testing", 5), ("expired", 1)),
        (
            Line(
                "c.example", Status.ERROR, "nothing is cached", "never", 0.0,
                ("mail is sent without a policy", f"failed 3 times, last {FAILED}"),
            ),
            Line(
                "e.example", Status.ERROR, "mode enforce, expires in 30 days", "60 minutes ago", NOW - 3600,
                ("mail is deferred: TLSA lookup: SERVFAIL",),
            ),
            Line(
                "b.example", Status.WARNING, "mode enforce, expires in 27 days", "3 days ago", NOW - 3 * DAY,
                (f"failed 3 times, last {FAILED}",),
            ),
        ),
        (Line("a.example", Status.OK, "mode testing, expires in 30 days", "60 minutes ago", NOW - 3600, ()),),
        5,
        4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("over", "overruled", "holds"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_an_exception(over: bool, overruled: bool, holds: bool) -> None:
    told = {
        "domain": "*.example.com", "until": "2027-01-31", "ends_at": NOW, "reason": "known", "level": "may",
        "dane": False, "added": True, "over": over, "overruled": overruled, "used": 3, "last_used": NOW - 7200,
        "since": NOW - DAY, "domains": [],
    }  # fmt: skip
    assert exempt(told, NOW) == Exempt("*.example.com", "2027-01-31", "known", "may", True, holds, 3, "2 hours ago")


def test_an_exception_that_holds_is_in_place_of_a_policy() -> None:
    def made(domain: str, *, holds: bool = True) -> Exempt:
        return Exempt(domain, "2027-01-31", "known", "none", True, holds, 0, "never")

    exceptions = (made("a.example"), made("*.b.example"), made("c.example", holds=False))
    found = replace(arranged({"domains": 0, "in_trouble": 0, "modes": {}}, [], NOW), exceptions=exceptions)
    names = ("a.example", "x.a.example", "b.example", "x.b.example", "xb.example", "c.example")
    assert [name for name in names if found.is_exempt(name)] == ["a.example", "x.b.example"]


def test_shadow_lists_what_would_not_just_be_delivered() -> None:
    told = [
        {"domain": f"{state}.example", "state": state, "queries": queries, "probed_at": NOW - 7200, "reason": "why"}
        for queries, state in enumerate(("delivered", "deferred", "unprobed", "returned", "dane", "unclear"))
    ]
    assert shadowed(told, NOW) == (
        Shadowed("unclear.example", "could not be judged", 5, "2 hours ago", "why"),
        Shadowed("returned.example", "are returned now", 3, "2 hours ago", "why"),
        Shadowed("deferred.example", "would be deferred", 1, "2 hours ago", "why"),
    )
