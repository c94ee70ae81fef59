"""Which domains come first in a list, and how many there are."""

from dataclasses import replace

import pytest

from postfix_mtasts.cache.brief import Brief, Summary, Urgency, brief
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOW = 1_800_000_000.0
FAILURE = Failure(Stage.RESPONSE, "status 404")
FAILED = (FailedFetch("1", 1, NOW - 600, FAILURE),)


def entry(mode: Mode = Mode.ENFORCE, age: float = 100, failed: tuple[FailedFetch, ...] = ()) -> Entry:
    policy = Policy(mode, 86400, (MxPattern("mx.a.example"),))
    return Entry(CachedPolicy(policy, str(policy), "1", NOW - age), failed=failed)


@pytest.mark.parametrize(
    ("known", "urgency", "mode"),
    [
        pytest.param(entry(), Urgency.NONE, "enforce", id="well"),
        pytest.param(entry(age=86400), Urgency.NONE, "enforce", id="its last second"),
        pytest.param(entry(Mode.TESTING, failed=FAILED), Urgency.NOT_RENEWED, "testing", id="not renewed"),
        # It has ended for senders: RFC 8461, 10.2.
        pytest.param(entry(Mode.NONE, failed=FAILED), Urgency.NONE, "none", id="mode none"),
        pytest.param(entry(age=86401), Urgency.NONE, "expired", id="expired, and not asked for"),
        pytest.param(entry(age=86401, failed=FAILED), Urgency.UNKNOWN, "expired", id="expired, and not renewed"),
        pytest.param(Entry(failed=FAILED), Urgency.UNKNOWN, "", id="never fetched"),
        pytest.param(Entry(note=Note(Unavailable(FAILURE), 60)), Urgency.UNKNOWN, "", id="no lookup"),
    ],
)
def test_how_much_a_domain_matters(known: Entry, urgency: Urgency, mode: str) -> None:
    assert brief("a.example", known, NOW) == Brief(urgency, "a.example", mode)
    if known.cached:  # A list has no notes of policies.
        noted = replace(known, note=Note(NoPolicy("no TXT record"), 60))
        assert brief("a.example", noted, NOW) == Brief(urgency, "a.example", mode)


def test_all_count_and_the_first_are_kept() -> None:
    summary = Summary(2)
    summary.add(Brief(Urgency.NONE, f"{name}.example", "enforce") for name in "dca")
    summary.add([Brief(Urgency.NOT_RENEWED, "f.example", "testing"), Brief(Urgency.NONE, "b.example", "expired")])
    summary.add([Brief(Urgency.UNKNOWN, "z.example", ""), Brief(Urgency.NOT_RENEWED, "e.example", "enforce")])
    assert (summary.domains, summary.in_trouble, dict(summary.modes)) == (
        7,
        3,
        {"enforce": 4, "testing": 1, "expired": 1},
    )
    assert [one.domain for one in summary.troubled] == ["z.example", "e.example"]
    assert [one.domain for one in summary.others] == ["a.example", "b.example"]
