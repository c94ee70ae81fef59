"""What is counted as what: words of this program alone, whatever Postfix and the Internet say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.config import DaneSetting, Level, OnFailure, OnTesting
from postfix_mtasts.daemon.tally import ANSWERS, Histogram, Tally
from postfix_mtasts.postfix.reply import NOTFOUND, ReplyRules, Style, reply_to, temporary_failure
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, Exempt, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import (
    DiscoveryObservation,
    DnsFailed,
    Failure,
    FetchFailed,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    Stage,
)
from postfix_mtasts.sts.policy import parse
from postfix_mtasts.sts.record import Record
from tests.unit.strategies import failures, policies

REPLIES = [
    (Reply(Status.OK, "secure match=a.test servername=hostname"), "secure"),
    (Reply(Status.OK, "dane-only"), "dane-only"),
    (Reply(Status.OK, "may policy_type=sts"), "may"),
    (Reply(Status.OK, "encrypt"), "encrypt"),
    (NOTFOUND, "notfound"),
    (temporary_failure("a.test"), "temp"),
    (Reply(Status.TIMEOUT, "a.test"), "temp"),
]


@pytest.mark.parametrize(("reply", "answer"), REPLIES)
def test_answers(reply: Reply, answer: str) -> None:
    tally = Tally()
    count = tally.answered(reply)
    count[0] += 2
    assert {name: found[0] for name, found in tally.answers.items()} == {**dict.fromkeys(ANSWERS, 0), answer: 3}


ANY_ANSWER = st.one_of(
    st.builds(Apply, policies),
    st.builds(NoPolicy, st.just("no record")),
    st.builds(YieldToDane, only=st.booleans()),
    st.builds(Unavailable, failures, defer=st.booleans()),
    st.sampled_from(Level).map(lambda level: Exempt(PolicyException("a.test", "2026-12-31", 2e9, "why", level))),
)


@given(
    ANY_ANSWER, st.builds(ReplyRules, *map(st.sampled_from, (Style, OnFailure, OnTesting, DaneSetting)), st.booleans())
)
def test_each_reply_that_can_be_made_is_one_of_them(answer: Answer, rules: ReplyRules) -> None:
    tally = Tally()
    tally.answered(reply_to(PolicyDomain("a.test"), answer, rules))
    assert sum(count[0] for count in tally.answers.values()) == 1
    assert list(tally.answers) == list(ANSWERS)


def failure(stage: Stage) -> Failure:
    return Failure(stage, "a.test says so")


def policy(mode: str) -> PolicyFetched:
    text = f"version: STSv1\nmode: {mode}\nmx: a.test\nmax_age: 86400\n"
    return PolicyFetched(parse(text.encode())[0], text, "1")


ENDS: list[tuple[DiscoveryObservation, tuple[str, str]]] = [
    (policy("enforce"), ("policy", "enforce")),
    (policy("testing"), ("policy", "testing")),
    (policy("none"), ("policy", "none")),
    (PolicyInvalid(failure(Stage.POLICY), "1"), ("policy", "failed")),
    (FetchFailed(failure(Stage.PROXY), "1"), ("proxy", "failed")),
    (FetchFailed(failure(Stage.CERTIFICATE), "1"), ("certificate", "failed")),
    (DnsFailed(failure(Stage.RECORD)), ("record", "failed")),
    (RecordFound(Record("1")), ("record", "unchanged")),
    (RecordAbsent(60.0), ("record", "no-policy")),
    (RecordInvalid("a.test", 60.0), ("record", "invalid")),
]


@pytest.mark.parametrize(("last", "end"), ENDS)
def test_discoveries(last: DiscoveryObservation, end: tuple[str, str]) -> None:
    tally = Tally()
    tally.discovered(last, 0.3)
    tally.discovered(last, 0.4)
    assert dict(tally.discoveries) == {end: 2}
    assert sum(tally.discovery_seconds.counts) == 2
    assert tally.discovery_seconds.sum == pytest.approx(0.7)


def test_a_histogram_counts_each_in_the_least_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for seconds in (0.0, 0.1, 0.1001, 1.0, 5.0, 10.0, 10.1, 1e9):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2, 2]
    assert histogram.sum == pytest.approx(1e9 + 26.3001)
