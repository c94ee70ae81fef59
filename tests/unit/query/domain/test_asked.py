"""What the command says that Postfix gets is what Postfix gets: every time line of tests/data/cache_scenarios.txt."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.config import DaneSetting, Level, OnFailure, OnTesting
from postfix_mtasts.daemon.dane import DaneEntry
from postfix_mtasts.daemon.explain import Explanation, ExplanationError, parse_explanation, print_explanation
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.query.domain.asked import Fresh, Outcome, ask, if_enforced, reply
from postfix_mtasts.query.domain.now import running_report
from postfix_mtasts.sts.decide import FetchPolicy as Fetch
from postfix_mtasts.sts.decide import LookUpRecord
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import Apply, CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable, YieldToDane
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import (
    Asked,
    DaneAbsent,
    DaneFailed,
    DaneObservation,
    DaneUsable,
    DnsFailed,
    Due,
    Failure,
    FetchFailed,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    Stage,
)
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from postfix_mtasts.sts.record import Record
from tests.unit.strategies import entries, failed_fetches, failures
from tests.unit.sts.test_cache_scenarios import SCENARIOS, PureWorld
from tests.world.scenarios import Scenario

HOP = NextHop(PolicyDomain("example.com"))
RULES = ReplyRules(Style.PLAIN)
NO_DANE = DaneAbsent("unsigned", 60.0)
POLICY = Policy(Mode.ENFORCE, 604800, (MxPattern("mx.example.com"),))
NOW = 1_800_000_000.0


def told(
    entry: Entry,
    rules: ReplyRules = RULES,
    dane: DaneObservation | None = None,
    exception: PolicyException | None = None,
) -> Explanation:
    """What the daemon says of an entry, after its way over the control socket."""
    known = [(HOP, DaneEntry(dane, 0.0))] if dane else []
    return parse_explanation(json.loads(json.dumps(print_explanation(entry, rules, 10.0, known, exception))))


def fresh_of(world: PureWorld) -> Fresh:
    """What a fresh discovery finds in a world."""
    record = world.observe(LookUpRecord())
    assert isinstance(record, RecordFound | RecordAbsent | RecordInvalid | DnsFailed)
    fetched = world.observe(Fetch(record.record.id)) if isinstance(record, RecordFound) else None
    assert fetched is None or isinstance(fetched, PolicyFetched | PolicyInvalid | FetchFailed)
    return Fresh(record, fetched, NO_DANE, 0.1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_it_says_what_postfix_gets(scenario: Scenario) -> None:
    world = PureWorld()
    said = []
    expected = []
    for step in scenario.steps:
        match step.verb:
            case "dns":
                world.dns(*step.words)
            case "https":
                world.https(*step.words)
            case "refresh":
                world.happens(Due(), step.time)
            case "ask":
                outcome = ask(told(world.entry), HOP, fresh_of(world), step.time)
                answers = [outcome.answer, *([outcome.next] if outcome.next else [])]
                said.append((step.line, ", then ".join(dict.fromkeys(map(world.words.answer, answers)))))
                expected.append((step.line, world.happens(Asked(), step.time).partition("; ")[0]))
    assert said == expected


def outcome_of(entry: Entry, *, seconds: float = 0.1, complete: bool = True, rules: ReplyRules = RULES) -> Outcome:
    """What follows for an entry, when a policy is found after so many seconds."""
    fetched = PolicyFetched(POLICY, str(POLICY), "1")
    fresh = Fresh(RecordFound(Record("1")), fetched, NO_DANE, seconds, complete)
    return ask(told(entry, rules), HOP, fresh, NOW)


def test_a_policy_that_comes_too_late() -> None:
    late = Unavailable(Failure(Stage.DISCOVERY, "no result within 10 s; it goes on", result_type=None))
    found = Apply(POLICY, fetched=True)
    assert outcome_of(Entry(), seconds=9.9) == Outcome(found, found, True, False, found)
    assert outcome_of(Entry(), seconds=39) == Outcome(late, late, True, True, found)
    assert outcome_of(Entry(), seconds=10, complete=False) == Outcome(late, late, True, True, None)
    deferred = replace(late, defer=True)
    assert outcome_of(Entry(unread=True), seconds=39) == Outcome(deferred, deferred, True, True, found)
    live = Entry(CachedPolicy(POLICY, str(POLICY), "1", NOW - 3600), checked_at=NOW - 3600)
    cached = Apply(POLICY)
    assert outcome_of(live, seconds=39) == Outcome(cached, cached, False, False, cached)


@pytest.mark.parametrize(
    ("at_hand", "fresh", "expected"),
    [
        (None, DaneUsable(("mx.example.com",), 60.0), YieldToDane(("mx.example.com",))),
        (NO_DANE, DaneUsable(("mx.example.com",), 60.0), Apply(POLICY)),
        (DaneUsable(("mx.example.com",), 60.0, covers_all=False), NO_DANE, YieldToDane(("mx.example.com",), only=True)),
    ],
)
def test_dane_as_the_daemon_knows_it(at_hand: DaneObservation | None, fresh: DaneObservation, expected: object) -> None:
    entry = Entry(CachedPolicy(POLICY, str(POLICY), "1", NOW - 60), checked_at=NOW - 60)
    known = told(entry, ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD), at_hand)
    seen = Fresh(RecordAbsent(60.0), None, fresh, 0.1)
    outcome = ask(known, HOP, seen, NOW)
    assert (outcome.answer, outcome.policy_answer) == (expected, Apply(POLICY))
    assert reply(Apply(POLICY), known, HOP) == "OK secure match=mx.example.com servername=hostname"


@pytest.mark.parametrize("live", [True, False], ids=["cached", "new"])
@pytest.mark.parametrize("exception", [None, PolicyException("x", "x", NOW + 1, "x", Level.MAY)], ids=["", "excepted"])
def test_what_dane_says_may_come_too_late(live: bool, exception: PolicyException | None) -> None:
    """Postfix waits for it, so the first mail is deferred; whoever has it at hand answers."""
    entry = Entry(CachedPolicy(POLICY, str(POLICY), "1", NOW - 60), checked_at=NOW - 60) if live else Entry()
    yields = ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD)
    fetched = PolicyFetched(POLICY, str(POLICY), "1")
    said = []
    for at_hand, seconds in ((NO_DANE, 39.0), (None, 9.9), (None, 10.0), (None, math.inf)):
        known = told(entry, yields, at_hand, exception)
        outcome = ask(known, HOP, Fresh(RecordFound(Record("1")), fetched, NO_DANE, 0.1, dane_seconds=seconds), NOW)
        replies = [reply(answer, known, HOP) if answer else None for answer in (outcome.answer, outcome.next)]
        said.append((*replies, outcome.awaits_dane))
    good = "OK may" if exception else "OK secure match=mx.example.com servername=hostname"
    late = "TEMP discovery: no result within 10 s; it goes on"
    assert said == [
        (good, good, False),
        (good, good, live),
        (late, good, live),
        (late, None, live),
    ]


def test_a_policy_that_is_withheld() -> None:
    """Postfix is told nothing of it; enforced, DANE might decide."""
    entry = Entry(CachedPolicy(POLICY, str(POLICY), "1", NOW - 60), checked_at=NOW - 60)
    known = told(entry, ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD, enforce=False))
    seen = Fresh(RecordAbsent(60.0), None, DaneUsable(("mx.example.com",), 60.0), 0.1)
    outcome = ask(known, HOP, seen, NOW)
    assert (outcome.answer, reply(outcome.answer, known, HOP)) == (Apply(POLICY), "NOTFOUND")
    assert if_enforced(outcome, known, HOP, seen) == replace(outcome, answer=YieldToDane(("mx.example.com",)))


@pytest.mark.parametrize(("on_failure", "word"), [(OnFailure.NOTFOUND, "NOTFOUND"), (OnFailure.TEMP, "TEMP")])
def test_what_is_said_of_a_policy_that_may_not_be_fetched_yet(on_failure: OnFailure, word: str) -> None:
    entry = Entry(failed=(FailedFetch("1", 1, NOW - 60, Failure(Stage.RESPONSE, "status 404")),))
    known = told(entry, ReplyRules(Style.PLAIN, on_failure))
    seen = Fresh(RecordFound(Record("1")), PolicyFetched(POLICY, str(POLICY), "1"), NO_DANE, 0.1)
    outcome = ask(known, HOP, seen, NOW)
    report = running_report(known, None, HOP, outcome, NOW, None, outcome)
    assert report.reply.split(" ")[0] == word
    assert report.because[0] == f"the daemon has no policy and answers {word} until it may fetch again in 4 minutes"


notes = st.builds(
    Note, st.builds(NoPolicy, st.text(max_size=20)) | st.builds(Unavailable, failures), st.floats(60, 3600)
)
unstored = st.builds(
    Entry, failed=failed_fetches, note=st.none() | notes, checked_at=st.floats(0, 1e11), unread=st.booleans()
)
danes = st.sampled_from(
    [NO_DANE, DaneAbsent("x", float("inf")), DaneUsable(("a.b", "c.d"), 5.0, covers_all=False)]
) | st.builds(DaneFailed, failures)
rules = st.builds(
    ReplyRules,
    *(st.sampled_from(kind) for kind in (Style, OnFailure, OnTesting, DaneSetting)),
    st.booleans(),
)


exceptions = st.builds(
    PolicyException,
    *(st.text(max_size=20), st.dates().map(str), st.floats(0, 1e12), st.text(max_size=20)),
    *(st.sampled_from(Level), st.booleans(), st.booleans()),
)


@given(entries | unstored, rules, danes, st.none() | exceptions)
def test_nothing_is_lost_on_the_way(
    entry: Entry, chosen: ReplyRules, dane: DaneObservation, exception: PolicyException | None
) -> None:
    explained = told(entry, chosen, dane, exception)
    assert explained == Explanation(entry, chosen, 10.0, {"example.com": dane}, exception)


EXCEPTION = PolicyException("example.com", "2027-01-15", NOW + 86400, "ticket 4711")


@pytest.mark.parametrize(
    ("exception", "dane", "expected"),
    [
        (EXCEPTION, NO_DANE, "NOTFOUND"),
        (replace(EXCEPTION, level=Level.MAY), NO_DANE, "OK may"),
        (replace(EXCEPTION, level=Level.ENCRYPT), NO_DANE, "OK encrypt"),
        (replace(EXCEPTION, level=Level.MAY), DaneUsable(("mx.example.com",), 60.0), "NOTFOUND"),
        (replace(EXCEPTION, level=Level.MAY, dane=True), DaneUsable(("mx.example.com",), 60.0), "OK may"),
    ],
)
@pytest.mark.parametrize("seconds", [0.1, 39.0], ids=["in time", "late"])
def test_an_exception_is_answered_as_the_daemon_does(
    exception: PolicyException, dane: DaneObservation, expected: str, seconds: float
) -> None:
    for entry in (Entry(CachedPolicy(POLICY, str(POLICY), "1", NOW - 60), checked_at=NOW - 60), Entry()):
        known = told(entry, ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD), dane, exception)
        outcome = ask(known, HOP, Fresh(RecordAbsent(60.0), None, dane, seconds), NOW)
        assert reply(outcome.answer, known, HOP) == expected


def test_words_of_another_version() -> None:
    with pytest.raises(ExplanationError, match="not understood"):
        parse_explanation({"row": None})
