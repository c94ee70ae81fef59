"""What must hold on every time line, whatever happens in whatever order."""

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postfix_mtasts.sts.decide import (
    Decision,
    FetchPolicy,
    HadExpired,
    LookUpRecord,
    NotRenewed,
    RefreshRequested,
    decide,
)
from postfix_mtasts.sts.entry import Answer, Apply, CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import (
    Asked,
    DaneAbsent,
    DaneFailed,
    DaneUsable,
    DnsFailed,
    Due,
    Failure,
    FetchFailed,
    FetchObservation,
    Observation,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    Stage,
)
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from postfix_mtasts.sts.record import Record
from postfix_mtasts.sts.schedule import BACK_OFF, FORGET_GRACE, UNUSED_AFTER, dane_ttl, forget_at, refresh_at

START = 1_700_000_000.0
MX = (MxPattern("mail.example.com"),)
FAILURE = Failure(Stage.CONNECT, "connection refused")

policies = st.builds(
    Policy,
    st.sampled_from(Mode),
    st.sampled_from([0, 60, 600, 3600, 86400, 604800, 31557600]),
    st.sampled_from([MX, (MxPattern("*.example.net"),)]),
)
ids = st.sampled_from(["A", "B", "C"])
in_dns = st.one_of(
    st.builds(RecordFound, st.builds(Record, ids)),
    st.builds(RecordAbsent, st.sampled_from([0.0, 300.0, 1e9])),
    st.just(RecordInvalid("no id", 300.0)),
    st.just(DnsFailed(FAILURE)),
)
at_host = st.one_of(policies, st.sampled_from(["fails", "bad"]))
spans = st.sampled_from([0.0, 1.0, 59.0, 60.0, 299.0, 300.0, 301.0, 3600.0, 40000.0, 86400.0, 700000.0, 2600000.0])
steps = st.tuples(spans, st.sampled_from([Asked(), Due()]), in_dns, at_host)


@dataclass
class Line:
    """One domain on its time line, watched."""

    entry: Entry = field(default_factory=Entry)
    failed_at: dict[str, float] = field(default_factory=dict)

    def step(self, observation: Observation, record: RecordObservation, host: Policy | str, now: float) -> None:
        self._decide(observation, now)
        while self.decision.action:
            match self.decision.action:
                case LookUpRecord():
                    self._decide(record, now)
                case FetchPolicy(record_id):
                    since = now - self.failed_at.get(record_id, -math.inf)
                    assert since < 0 or since >= BACK_OFF[0], "fetched again within five minutes after a failure"
                    self._decide(self._fetch(record_id, host), now)

    def _fetch(self, record_id: str, host: Policy | str) -> FetchObservation:
        match host:
            case Policy():
                return PolicyFetched(host, str(host), record_id)
            case "bad":
                return PolicyInvalid(FAILURE, record_id)
            case _:
                return FetchFailed(FAILURE, record_id)

    def _decide(self, observation: Observation, now: float) -> None:
        before = self.entry
        self.decision = decide(before, observation, now)
        after = self.decision.entry
        self._watch(before, after, observation, now)
        if isinstance(observation, PolicyInvalid | FetchFailed):
            self.failed_at[observation.record_id] = now
        if isinstance(observation, PolicyFetched):
            self.failed_at.clear()
        self.entry = after or Entry()

    def _watch(self, before: Entry, after: Entry | None, observation: Observation, now: float) -> None:
        answer = self.decision.answer
        if isinstance(observation, PolicyFetched):
            assert after
            assert after.cached == CachedPolicy(observation.policy, observation.text, observation.record_id, now)
            assert answer == Apply(observation.policy, fetched=True)
            return
        unused = now - before.last_used >= UNUSED_AFTER
        is_lost = after is None and unused and not before.live(now)
        assert (after and after.cached == before.cached) or is_lost, "lost without a fetch"
        live = before.live(now)
        if isinstance(answer, Apply):
            assert live, "an answer from an expired policy"
            assert answer == Apply(live.policy)
        elif answer:
            assert not live, "a live policy is not applied"
        if not isinstance(observation, Due):
            assert answer or self.decision.action, "neither an answer nor an action"


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=30))
def test_invariants_while_time_goes_on(line: list[tuple[float, Observation, RecordObservation, Policy | str]]) -> None:
    watched, now = Line(), START
    for span, observation, record, host in line:
        now += span
        watched.step(observation, record, host, now)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(steps, st.booleans()), max_size=30))
def test_invariants_while_the_clock_jumps(
    line: list[tuple[tuple[float, Observation, RecordObservation, Policy | str], bool]],
) -> None:
    watched, now = Line(), START
    for (span, observation, record, host), back in line:
        now = max(0.0, now - span if back else now + span)
        watched.failed_at = {record_id: at for record_id, at in watched.failed_at.items() if at <= now}
        watched.step(observation, record, host, now)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, min_size=1, max_size=10), spans)
def test_the_times_that_the_database_searches_are_those_at_which_something_is_to_be_done(
    line: list[tuple[float, Observation, RecordObservation, Policy | str]], later: float
) -> None:
    watched, now = Line(), START
    for span, observation, record, host in line:
        now += span
        watched.step(observation, record, host, now)
    entry = watched.entry
    now += later
    if entry.cached:
        refresh = refresh_at(entry, entry.cached) <= now <= entry.cached.expires_at()
        refresh &= now < entry.last_used + UNUSED_AFTER
        assert (decide(entry, Due(), now) != Decision(entry)) == (refresh or forget_at(entry) <= now)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, min_size=1, max_size=10), spans, st.floats(0, 1, exclude_max=True))
def test_until_its_time_an_answer_stays_and_nothing_is_to_be_done(
    line: list[tuple[float, Observation, RecordObservation, Policy | str]], later: float, share: float
) -> None:
    watched, now = Line(), START
    for span, observation, record, host in line:
        now += span
        watched.step(observation, record, host, now)
    now += later
    first = decide(watched.entry, Asked(), now)
    assert bool(first.until) == bool(first.answer and not first.action)
    if first.until:
        assert first.entry
        then = min(now + share * (first.until - now), math.nextafter(first.until, 0))
        again = decide(first.entry, Asked(), then)
        assert (again.answer, again.action, again.until) == (first.answer, None, first.until)


P1 = Policy(Mode.ENFORCE, 604800, MX)
FETCHED = PolicyFetched(P1, str(P1), "A")
LIVE = Entry(CachedPolicy(P1, str(P1), "A", START), checked_at=START, last_used=START)
EXPIRED = CachedPolicy(P1, str(P1), "A", START - 604810)

LOCAL = Failure(Stage.CONNECT, "too many open files", is_local=True)
LOCAL_ANSWERS: list[tuple[str, Entry, Answer]] = [
    ("nothing is noted", Entry(), Unavailable(LOCAL, defer=True)),
    ("no failure is counted", LIVE, Apply(P1)),
    ("nor for an expired policy", replace(LIVE, cached=EXPIRED), Unavailable(LOCAL, defer=True)),
]


def aged(max_age: int) -> Entry:
    policy = replace(P1, max_age=max_age)
    return replace(LIVE, cached=CachedPolicy(policy, str(policy), "A", START))


def failed(entry: Entry, times: int, now: float) -> Entry:
    for _ in range(times):
        entry = decide(entry, FetchFailed(FAILURE, "A"), now).entry or entry
    return entry


@pytest.mark.parametrize(
    ("entry", "observation", "decision"),
    [
        pytest.param(
            Entry(),
            FETCHED,
            Decision(Entry(CachedPolicy(P1, str(P1), "A", START)), Apply(P1, fetched=True)),
            id="fetched",
        ),
        pytest.param(
            Entry(),
            PolicyInvalid(FAILURE, "A"),
            Decision(
                Entry(failed=(FailedFetch("A", 1, START, FAILURE),), note=Note(Unavailable(FAILURE), 60.0)),
                Unavailable(FAILURE),
            ),
            id="a failure is kept with its reason",
        ),
        pytest.param(
            Entry(failed=(FailedFetch("A", 1, START, FAILURE),)),
            RecordFound(Record("A")),
            Decision(
                Entry(
                    failed=(FailedFetch("A", 1, START, FAILURE),),
                    note=Note(Unavailable(FAILURE), 60.0),
                    checked_at=START,
                ),
                Unavailable(FAILURE),
            ),
            id="while a fetch is held off, its last failure is the answer",
        ),
        pytest.param(
            replace(LIVE, failed=(FailedFetch("A", 1, START, FAILURE),), cached=EXPIRED),
            RecordFound(Record("A")),
            Decision(
                replace(
                    LIVE,
                    failed=(FailedFetch("A", 1, START, FAILURE),),
                    cached=EXPIRED,
                    note=Note(Unavailable(FAILURE), 60.0),
                    expiry_told_at=START,
                ),
                Unavailable(FAILURE),
                notices=(HadExpired(P1, 10.0),),
            ),
            id="and an expired policy is spoken of",
        ),
        pytest.param(
            replace(LIVE, cached=EXPIRED, expiry_told_at=START - 86399),
            RecordAbsent(60.0),
            Decision(
                replace(
                    LIVE,
                    cached=EXPIRED,
                    expiry_told_at=START - 86399,
                    note=Note(NoPolicy("no _mta-sts TXT record"), 60.0),
                ),
                NoPolicy("no _mta-sts TXT record"),
            ),
            id="but once a day",
        ),
        *(
            pytest.param(entry, observation, Decision(entry, answer), id=f"{what} of this machine: {name}")
            for what, observation in {
                "a failed lookup": DnsFailed(LOCAL),
                "a failed fetch": FetchFailed(LOCAL, "A"),
            }.items()
            for name, entry, answer in LOCAL_ANSWERS
        ),
        pytest.param(
            Entry(note=Note(Unavailable(FAILURE), 60.0), failed=(FailedFetch("B", 1, START, FAILURE),)),
            FETCHED,
            Decision(Entry(CachedPolicy(P1, str(P1), "A", START)), Apply(P1, fetched=True)),
            id="a fetch ends what was noted",
        ),
        pytest.param(
            Entry(unread=True),
            FETCHED,
            Decision(Entry(CachedPolicy(P1, str(P1), "A", START)), Apply(P1, fetched=True)),
            id="after a fetch it does not matter what could not be read",
        ),
        pytest.param(
            Entry(unread=True),
            RecordAbsent(300.0),
            Decision(Entry(unread=True, checked_at=START), NoPolicy("no _mta-sts TXT record")),
            id="no record is an answer though the store cannot be read, and is not noted",
        ),
        pytest.param(
            Entry(unread=True),
            DnsFailed(FAILURE),
            Decision(Entry(unread=True, checked_at=START), Unavailable(FAILURE, defer=True)),
            id="nothing known of anything",
        ),
        pytest.param(
            Entry(unread=True),
            Due(),
            Decision(Entry(unread=True)),
            id="what could not be read is not taken for unused",
        ),
        pytest.param(LIVE, Asked(), Decision(LIVE, Apply(P1), until=START + 300.0), id="until the record is looked up"),
        pytest.param(
            aged(200),
            Asked(),
            Decision(aged(200), Apply(replace(P1, max_age=200)), until=START + 200.0),
            id="until it ends",
        ),
        pytest.param(
            Entry(note=Note(NoPolicy("none"), 90.0), checked_at=START, last_used=START),
            Asked(),
            Decision(
                Entry(note=Note(NoPolicy("none"), 90.0), checked_at=START, last_used=START),
                NoPolicy("none"),
                until=START + 90.0,
            ),
            id="until the note is too old",
        ),
        pytest.param(
            replace(aged(31 * 86400), last_used=START - UNUSED_AFTER, checked_at=0.0),
            Due(),
            Decision(replace(aged(31 * 86400), last_used=START - UNUSED_AFTER, checked_at=0.0)),
            id="a policy of a domain that is not used any more lives on",
        ),
        pytest.param(
            replace(LIVE, last_used=START - UNUSED_AFTER, unused_at=START - FORGET_GRACE),
            Due(),
            Decision(replace(LIVE, last_used=START - UNUSED_AFTER, unused_at=START - FORGET_GRACE)),
            id="and is not forgotten, however long ago that was noted",
        ),
        pytest.param(
            replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER),
            Due(),
            Decision(replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START)),
            id="when it has expired, it is noted as unused",
        ),
        pytest.param(
            replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START - FORGET_GRACE + 1),
            Due(),
            Decision(replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START - FORGET_GRACE + 1)),
            id="not forgotten within the grace",
        ),
        pytest.param(
            replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START - FORGET_GRACE),
            Due(),
            Decision(None),
            id="forgotten after it",
        ),
        pytest.param(
            replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START + 1),
            Due(),
            Decision(replace(LIVE, cached=EXPIRED, last_used=START - UNUSED_AFTER, unused_at=START)),
            id="the grace begins anew after a clock was set back",
        ),
        pytest.param(
            replace(LIVE, checked_at=0.0, note=Note(NoPolicy("none"), 60.0)),
            RefreshRequested(RecordFound(Record("A"))),
            Decision(LIVE, action=FetchPolicy("A")),
            id="an administrator has a policy of no age fetched",
        ),
        pytest.param(
            replace(LIVE, failed=(FailedFetch("A", 9, START, FAILURE),)),
            RefreshRequested(RecordFound(Record("A"))),
            Decision(replace(LIVE, failed=(FailedFetch("A", 9, START, FAILURE),)), action=FetchPolicy("A")),
            id="and one whose fetch has just failed",
        ),
        pytest.param(
            LIVE,
            RefreshRequested(DnsFailed(FAILURE)),
            Decision(
                replace(LIVE, note=Note(Unavailable(FAILURE), 60.0)),
                Apply(P1),
                notices=(NotRenewed(str(FAILURE), 604800.0, urgent=False),),
            ),
            id="but what DNS fails to say ends no policy then either",
        ),
        pytest.param(
            Entry(),
            RefreshRequested(RecordAbsent(300.0)),
            Decision(
                Entry(note=Note(NoPolicy("no _mta-sts TXT record"), 300.0), checked_at=START),
                NoPolicy("no _mta-sts TXT record"),
            ),
            id="and without a record there is nothing to fetch",
        ),
    ],
)
def test_decision(entry: Entry, observation: Observation | RefreshRequested, decision: Decision) -> None:
    assert decide(entry, observation, START) == decision


def test_a_policy_is_urgent_under_a_quarter_of_max_age() -> None:
    now = START + 604800 * 3 / 4
    reason = str(FAILURE)
    notices = [decide(LIVE, FetchFailed(FAILURE, "A"), at).notices for at in (now, now + 1)]
    assert notices == [(NotRenewed(reason, 151200.0, urgent=False),), (NotRenewed(reason, 151199.0, urgent=True),)]


@pytest.mark.parametrize(("max_age", "is_refreshed"), [(599, False), (600, True)])
def test_policies_shorter_than_ten_minutes_are_left_to_expire(max_age: int, is_refreshed: bool) -> None:
    decisions = {decide(aged(max_age), Due(), START + age).action for age in range(max_age + 1)}
    assert decisions == ({None, FetchPolicy("A")} if is_refreshed else {None})


@pytest.mark.parametrize(
    ("times", "wait"),
    [(1, (300, 300)), (2, (900, 1080)), (3, (3600, 4320)), (4, (21600, 25920)), (9, (21600, 25920))],
)
def test_back_off_is_spread_between(times: int, wait: tuple[float, float]) -> None:
    waits = []
    for second in range(200):
        now = START + second
        cached = CachedPolicy(P1, str(P1), "A", now - 2 * 86400)
        waits.append(refresh_at(failed(Entry(cached), times, now), cached) - now)
    low, high = wait
    spread = (high - low) * 0.8
    assert (low <= min(waits), max(waits) <= high, max(waits) - min(waits) >= spread) == (True, True, True)


def test_refreshes_are_spread_over_a_tenth_of_the_day() -> None:
    ages = []
    for second in range(200):
        cached = CachedPolicy(P1, str(P1), "A", START + second)
        ages.append(refresh_at(Entry(cached), cached) - cached.fetched_at)
    assert (min(ages) >= 0.9 * 86400, max(ages) <= 86400, max(ages) - min(ages) >= 0.08 * 86400) == (True, True, True)


def test_policies_fetched_together_are_not_refreshed_together() -> None:
    policies = [replace(P1, max_age=604800 + number) for number in range(200)]
    cached = [CachedPolicy(policy, str(policy), "A", START) for policy in policies]
    due = {refresh_at(Entry(one), one) for one in cached}
    assert len(due) == 200


def test_fetches_that_failed_together_are_not_tried_together() -> None:
    waits = set()
    for number in range(200):
        cached = CachedPolicy(P1, str(P1), str(number), START - 2 * 86400)
        before = (FailedFetch(str(number), 2, START, FAILURE),)
        waits.add(refresh_at(Entry(cached, before), cached))
    assert len(waits) == 200


def test_when_an_entry_is_to_be_looked_at() -> None:
    unused = replace(LIVE, unused_at=START + 31 * 86400)
    long_lived = aged(365 * 86400)
    noted = replace(long_lived, unused_at=START + 31 * 86400)
    refresh = refresh_at(LIVE, CachedPolicy(P1, "", "A", START))
    assert refresh == pytest.approx(START + 86400, rel=0, abs=8640)
    times = [forget_at(entry) for entry in (LIVE, unused, long_lived, noted)]
    assert times == [START + 30 * 86400, START + 32 * 86400, START + 365 * 86400, START + 365 * 86400]


def test_failures_of_many_ids_are_bounded() -> None:
    entry = Entry()
    for number in range(20):
        entry = decide(entry, FetchFailed(FAILURE, str(number)), START + number).entry or entry
    assert [one.record_id for one in entry.failed] == ["19", "18", "17", "16", "15", "14", "13", "12"]


@pytest.mark.parametrize(
    ("ttl", "holds_for"),
    [(0.0, 60.0), (59.0, 60.0), (60.0, 60.0), (300.0, 300.0), (3600.0, 3600.0), (86400.0, 3600.0), (math.inf, 3600.0)],
)
def test_what_dns_says_of_dane_holds_for_its_ttl_within_a_minute_and_an_hour(ttl: float, holds_for: float) -> None:
    assert dane_ttl(DaneUsable(("mx.example.com",), ttl)) == holds_for
    assert dane_ttl(DaneAbsent("none", ttl)) == holds_for


def test_a_failed_tlsa_lookup_holds_for_a_minute() -> None:
    assert dane_ttl(DaneFailed(FAILURE)) == 60.0
