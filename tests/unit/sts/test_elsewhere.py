"""What of other relays' knowledge counts: newer fetches, no clock of the future, and no copy that prolongs anything."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.sts.decide import FetchPolicy, LookUpRecord, PolicyChanged, decide
from postfix_mtasts.sts.elsewhere import MAX_SKEW, ForgottenElsewhere, KnownElsewhere, joined, shared
from postfix_mtasts.sts.entry import Apply, CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOW = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
P1 = Policy(Mode.ENFORCE, int(7 * DAY), (MxPattern("mx.example.com"),))
P2 = Policy(Mode.TESTING, int(7 * DAY), (MxPattern("new.example.com"),))
FAILURE = Failure(Stage.RESPONSE, "status 404")


def known(policy: Policy, ago: float, record_id: str = "A", checked: float = 0.0) -> Entry:
    return Entry(CachedPolicy(policy, str(policy), record_id, NOW - ago), checked_at=NOW - checked)


times = st.floats(NOW - 30 * DAY, NOW + 2 * HOUR)
some = st.builds(
    Entry,
    st.none() | st.builds(CachedPolicy, st.sampled_from([P1, P2]), st.just("x"), st.sampled_from("AB"), times),
    st.lists(st.builds(FailedFetch, st.sampled_from("AB"), st.integers(1, 9), times, st.just(FAILURE)), max_size=2).map(
        lambda failed: tuple(sorted({one.record_id: one for one in failed}.values(), key=lambda one: -one.at))
    ),
    st.none() | st.just(Note(NoPolicy("no record"), 600.0)),
    times,
)


@given(some)
def test_who_knows_nothing_adds_nothing(ours: Entry) -> None:
    assert joined(replace(ours, checked_at=min(ours.checked_at, NOW)), Entry(), NOW) == replace(
        ours, checked_at=min(ours.checked_at, NOW)
    )


@given(some, some)
def test_the_newer_fetch_counts_and_none_is_newer_than_it_was(ours: Entry, theirs: Entry) -> None:
    both = joined(ours, theirs, NOW)
    fetches = [one.cached.fetched_at for one in (ours, theirs) if one.cached and one.cached.fetched_at <= NOW]
    if both.cached and both.cached.fetched_at < NOW:
        assert both.cached.fetched_at in fetches
        assert not ours.cached or both.cached.fetched_at >= ours.cached.fetched_at or ours.cached.fetched_at > NOW
    if both.cached and theirs.cached and both.cached != ours.cached:
        assert both.cached.fetched_at <= theirs.cached.fetched_at <= NOW + MAX_SKEW
    assert joined(both, theirs, NOW) == both
    assert (both.last_used, both.unused_at) == (ours.last_used, ours.unused_at)


def test_an_unknown_domain_is_answered_from_what_another_relay_looked_up_just_now() -> None:
    decision = decide(Entry(last_used=NOW), KnownElsewhere(known(P1, ago=HOUR)), NOW)
    assert (decision.answer, decision.action, decision.entry) == (
        Apply(P1),
        None,
        replace(known(P1, ago=HOUR), last_used=NOW),
    )


@pytest.mark.parametrize(
    ("theirs", "action"),
    [
        (known(P1, ago=HOUR, checked=300.0), LookUpRecord()),  # Checked too long ago.
        (known(P1, ago=2 * DAY), FetchPolicy("A")),  # Nobody has renewed it, as after an old backup.
        (known(P1, ago=8 * DAY), LookUpRecord()),  # It has expired.
        (known(P1, ago=-HOUR, checked=-HOUR), LookUpRecord()),  # From a clock that is an hour ahead.
        (Entry(note=Note(NoPolicy("no record"), 600.0), checked_at=NOW - 600), LookUpRecord()),
        (Entry(), LookUpRecord()),
    ],
)
def test_what_is_not_fresh_is_looked_up_first(theirs: Entry, action: object) -> None:
    decision = decide(Entry(), KnownElsewhere(theirs), NOW)
    assert (decision.answer, decision.action) == (None, action)


def test_what_a_wrong_clock_has_seen_is_not_shared_when_it_is_right_again() -> None:
    failed = (FailedFetch("A", 1, NOW, FAILURE),)
    assert shared(known(P1, ago=10), NOW) == known(P1, ago=10)
    assert shared(replace(known(P1, ago=-HOUR), failed=failed), NOW) is None
    assert shared(replace(known(P1, ago=10, checked=-HOUR), failed=failed), NOW) is None


def test_notes_hold_for_as_long_as_at_the_relay_that_made_them() -> None:
    note = Note(Unavailable(FAILURE), 60.0)
    decision = decide(Entry(), KnownElsewhere(Entry(note=note, checked_at=NOW - 59)), NOW)
    assert (decision.answer, decision.action) == (Unavailable(FAILURE), None)


def test_a_fetch_is_not_repeated_that_another_relay_has_done_or_that_failed_there() -> None:
    ours = known(P1, ago=DAY, checked=HOUR)
    failed = replace(ours, failed=(FailedFetch("A", 1, NOW - 10, FAILURE),))
    for theirs, answer, action, notices in (
        (known(P2, ago=10, record_id="B"), Apply(P2), None, (PolicyChanged(P1, P2),)),
        (failed, Apply(P1), None, ()),
        (ours, None, FetchPolicy("A"), ()),
        (Entry(), None, FetchPolicy("A"), ()),
    ):
        decision = decide(ours, KnownElsewhere(theirs, fetch="A"), NOW)
        assert (decision.answer, decision.action, decision.notices) == (answer, action, notices)


def test_the_id_that_dns_has_just_given_decides_which_policy_is_wanted() -> None:
    ours = known(P1, ago=DAY)  # Its record was looked up just now: it has the id C.
    decision = decide(ours, KnownElsewhere(known(P2, ago=10, record_id="B"), fetch="C"), NOW)
    assert (decision.answer, decision.action) == (None, FetchPolicy("C"))


def test_only_what_was_known_before_is_forgotten() -> None:
    assert decide(known(P1, ago=10), ForgottenElsewhere(NOW - 5), NOW).entry is None
    for at in (NOW - 15, NOW + HOUR, float("inf"), float("nan")):  # Nor does a clock that is wrong forget anything.
        assert decide(known(P1, ago=10), ForgottenElsewhere(at), NOW).entry == known(P1, ago=10)
