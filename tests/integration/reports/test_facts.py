"""What the database sums, compared with a naive sum over the reports that were written to it."""

import datetime
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postfix_mtasts.reports.decompress import MAX_REPORT
from postfix_mtasts.reports.facts import facts, stored
from postfix_mtasts.reports.parse import parse
from postfix_mtasts.reports.records import Message, remove, write
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store, StoreError
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.viewing import LONG, by_result, by_source
from postfix_mtasts.reports.views import Sender, Window, day_of
from tests.unit.reports.reports import RIGHT

FIRST = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
DOMAINS = ("a.example", "b.example", None)
TEXTS = st.sampled_from(("x", "y", None))

failures = st.builds(
    Failure,
    result=TEXTS,
    sessions=st.integers(0, 2**40),
    mx=TEXTS,
    receiving_ip=TEXTS,
    sending_ip=TEXTS,
    code=TEXTS,
    information=TEXTS,
)
policies = st.builds(
    Policy,
    domain=st.sampled_from(DOMAINS),
    type=st.sampled_from(("sts", "tlsa", None)),
    mode=st.sampled_from(("enforce", None)),
    successful=st.integers(0, 2**40),
    failed=st.integers(0, 2**40),
    failures=st.lists(failures, max_size=3).map(tuple),
)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    start = FIRST + datetime.timedelta(hours=draw(st.integers(0, 24 * 6)))
    return Report(
        organization=draw(TEXTS),
        report_id=draw(st.sampled_from(("1", "2", "3", None))),
        start=start,
        end=start + datetime.timedelta(hours=draw(st.integers(0, 48))),
        policies=draw(st.lists(policies, max_size=3).map(tuple)),
        problems=draw(st.lists(st.sampled_from(("a", "b c")), max_size=2).map(tuple)),
    )


senders = st.sampled_from(
    [
        Dkim(DkimState.VERIFIED, "one.example"),
        Dkim(DkimState.VERIFIED, "two.example"),
        Dkim(DkimState.INVALID, "one.example", "why"),
        Dkim(DkimState.NONE, None, "why"),
    ]
)
messages = st.lists(st.tuples(senders, reports()), max_size=8)
spans = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(
    lambda days: Window(*(FIRST.date() + datetime.timedelta(days=day) for day in sorted(days)))
)


def opened(folder: Path) -> Store:
    store = Store(folder / "reports.sqlite")
    store.open()
    return store


def put(store: Store, name: str, dkim: Dkim, report: Report | None, state: State = State.STORED) -> State:
    with store.transaction():
        return write(store, Message(name, name, 1, 0, state, "", dkim, False), report, 0)[0]


Count = tuple[int, int]


class Oracle:
    """The reports that count, each once, by their key."""

    def __init__(self) -> None:
        self.known: set[tuple[object, ...]] = set()
        self.policies: list[tuple[Sender, datetime.date, Policy]] = []

    def put(self, dkim: Dkim, report: Report) -> None:
        sender = Sender(dkim.domain, dkim.state is DkimState.VERIFIED)
        identity = report.report_id or (report.start, report.end)
        before = set(self.known)
        for policy in report.policies:
            key = (sender, identity, policy.domain)
            if key not in before:
                self.known.add(key)
                self.policies.append((sender, day_of(report.start, report.end), policy))

    def of(self, span: Window, domain: str | None, *, unverified: bool) -> list[tuple[Sender, datetime.date, Policy]]:
        return [
            (sender, day, policy)
            for sender, day, policy in self.policies
            if span.first <= day <= span.last
            and (sender.verified or unverified)
            and (domain is None or policy.domain == domain)
        ]


@settings(deadline=None, max_examples=60)
@given(messages, spans, st.sampled_from(DOMAINS), st.booleans())
def test_the_sums_of_the_views(
    sent: list[tuple[Dkim, Report]], span: Window, domain: str | None, unverified: bool
) -> None:
    oracle = Oracle()
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        for number, (dkim, report) in enumerate(sent):
            put(store, str(number), dkim, report)
            oracle.put(dkim, report)
        found = facts(store, span, domain, LONG, unverified=unverified)
    counted = oracle.of(span, domain, unverified=unverified)
    sources = by_source(span, domain, found, LONG).sources
    results = by_result(span, domain, found, LONG)

    days: defaultdict[tuple[Sender, datetime.date], list[Policy]] = defaultdict(list)
    kinds: Counter[tuple[Sender, str | None, str | None, str | None, str]] = Counter()
    told: Counter[str | None] = Counter()
    by: defaultdict[str | None, set[Sender]] = defaultdict(set)
    for sender, day, policy in counted:
        days[sender, day].append(policy)
        kinds[sender, policy.domain, policy.type, policy.mode, "failed"] += policy.failed
        kinds[sender, policy.domain, policy.type, policy.mode, "successful"] += policy.successful
        for failure in policy.failures:
            told[failure.result] += failure.sessions
            by[failure.result].add(sender)
        if policy.failed and not policy.failures:
            told[None] += policy.failed
            by[None].add(sender)
    assert {
        (source.sender, day.date): (day.successful, day.failed)
        for source in sources
        for day in source.days
        if day.successful or day.failed
    } == {
        key: count
        for key, of in days.items()
        if any(count := (sum(one.successful for one in of), sum(one.failed for one in of)))
    }
    assert {
        (source.sender, policy.domain, policy.type, policy.mode, name): getattr(policy, name)
        for source in sources
        for policy in source.policies
        for name in ("failed", "successful")
    } == kinds
    assert {result.result: (result.sessions, result.sources) for result in results.results} == {
        result: (sessions, len(by[result])) for result, sessions in told.items()
    }
    assert results.failed == sum(policy.failed for _, _, policy in counted)
    assert results.successes.sessions == sum(policy.successful for _, _, policy in counted)
    for result in results.results:
        assert sum(group.sessions for group in result.failures) == result.sessions
        of = [
            (day, failure)
            for _, day, policy in counted
            for failure in policy.failures
            if failure.result == result.result
        ]
        silent = [day for _, day, policy in counted if policy.failed and not policy.failures and not result.result]
        assert (result.since, result.last) == (
            min([day for day, _ in of] + silent),
            max([day for day, _ in of] + silent),
        )
        assert {*result.mx} == {failure.mx for _, failure in of if failure.mx}


@settings(deadline=None, max_examples=30)
@given(messages, st.data())
def test_what_is_removed_is_as_if_it_had_never_been(sent: list[tuple[Dkim, Report]], data: st.DataObject) -> None:
    tables = ("messages", "reports", "policies", "failures", "kinds", "groups")
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        for number, (dkim, report) in enumerate(sent):
            put(store, str(number), dkim, report)
        for number in data.draw(st.permutations(range(len(sent)))):
            with store.transaction():
                remove(store, str(number))
        assert {table: store.select(f"SELECT * FROM {table}") for table in tables} == {table: [] for table in tables}


@settings(deadline=None, max_examples=30)
@given(senders, reports())
def test_a_report_that_is_written_twice_counts_once(dkim: Dkim, report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        assert put(store, "1", dkim, report) is State.STORED
        before = store.select("SELECT * FROM groups"), store.select("SELECT * FROM policies")
        assert put(store, "2", dkim, report) is State.DUPLICATE
        assert put(store, "1", dkim, report) is State.STORED  # As in a replay.
        after = store.select("SELECT * FROM groups"), store.select("SELECT * FROM policies")
        assert [len(rows) for rows in before] == [len(rows) for rows in after]


def report(*given: Policy, report_id: str | None = "1") -> Report:
    end = FIRST + datetime.timedelta(seconds=86399)
    return Report("Org", report_id, FIRST, end, given, ("contact-info is missing",))


FAILURE = Failure("x", 3, "mx.a.example", "192.0.2.1", "198.51.100.1", "code", "https://one.example")
POLICY = Policy("a.example", "sts", "enforce", 5, 3, (FAILURE,))
VERIFIED = Dkim(DkimState.VERIFIED, "one.example")
DAY = Window(FIRST.date(), FIRST.date())


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    other = Policy(None, None, None, 1, 0, ())
    with opened(tmp_path) as store:
        put(store, "1", VERIFIED, report(POLICY, other, POLICY))
        about_a, about_none = stored(store, "1")
        assert stored(store, about_a.key) == [about_a]
        assert stored(store, "2") == []
    assert (about_a.report, about_a.dkim) == (report(POLICY, POLICY), VERIFIED)
    assert about_none.report == report(other)
    assert about_a.key != about_none.key


def test_nobody_can_take_the_place_of_another_report(tmp_path: Path) -> None:
    """Whoever is not verified, or another domain, may send what has the same report-id."""
    with opened(tmp_path) as store:
        for number, dkim in enumerate(
            (
                Dkim(DkimState.INVALID, "one.example", "why"),
                Dkim(DkimState.VERIFIED, "two.example"),
                VERIFIED,
            )
        ):
            assert put(store, str(number), dkim, report(POLICY)) is State.STORED


def test_the_largest_numbers_are_summed(tmp_path: Path) -> None:
    """Each is the largest that is read, and a thousand of them have more than 63 bits."""
    most = 2**53 - 1
    huge = Policy("a.example", "sts", None, most, most, (Failure("x", most, *[None] * 5),) * 2000)
    with opened(tmp_path) as store:
        put(store, "1", VERIFIED, report(*[huge] * 5))
        put(store, "2", VERIFIED, report(*[huge] * 100, report_id="2"))
        found = facts(store, DAY, None, LONG, unverified=False)
    (result,) = by_result(DAY, None, found, LONG).results
    assert result.sessions > most
    assert by_source(DAY, None, found, LONG).sources[0].failed > most


def test_kinds_of_failures_are_bounded(tmp_path: Path) -> None:
    """A sender may make up as many hosts and result types as there are failures: the sums stay, and the details."""
    many = tuple(Failure(f"type-{number}", 1, f"mx{number}.example", *[None] * 4) for number in range(5000))
    with opened(tmp_path) as store:
        put(store, "1", VERIFIED, report(Policy("a.example", "sts", None, 0, 5000, many)))
        assert store.one("SELECT COUNT(*), SUM(sessions) FROM groups") == (401, 5000)
        assert store.one("SELECT COUNT(*) FROM failures") == (5000,)


def test_of_senders_that_are_not_verified_few_failures_are_stored(tmp_path: Path) -> None:
    many = Policy("a.example", "sts", None, 0, 9000, (FAILURE,) * 3000)
    with opened(tmp_path) as store:
        put(store, "1", Dkim(DkimState.NONE), report(many, many))
        assert store.one("SELECT COUNT(*) FROM failures") == (100,)
        assert store.one("SELECT SUM(sessions) FROM groups") == (18000,)


@pytest.mark.parametrize(("dkim", "most"), [(Dkim(DkimState.NONE), 3_000_000), (VERIFIED, MAX_REPORT)])
@pytest.mark.parametrize("domains", [1, 100])
def test_the_room_that_a_report_takes_is_bounded(tmp_path: Path, dkim: Dkim, most: int, domains: int) -> None:
    """A mail of 60 KB has a report of 10 MB, in which all texts are long, and each differs from the others."""
    details = [
        {"result-type": f"{number} {'r' * 300}", "failed-session-count": 1}
        | dict.fromkeys(("receiving-mx-hostname", "receiving-ip", "sending-mta-ip"), "x" * 100)
        | dict.fromkeys(("failure-reason-code", "additional-information"), "x" * 100)
        for number in range(10_000)
    ]
    each = len(details) // domains
    parts = [(f"{number}.example", details[number * each :][:each]) for number in range(domains)]
    made = RIGHT | {
        "policies": [
            {"policy": {"policy-domain": f"{'d' * 60}.{domain}"}, "summary": {}, "failure-details": some}
            for domain, some in parts
        ]
    }
    text = json.dumps(made).encode()
    assert 9_000_000 < len(text) < 10_000_000
    with opened(tmp_path) as store:
        put(store, "1", dkim, parse(text))
        store.execute("PRAGMA wal_checkpoint")
    assert (tmp_path / "reports.sqlite").stat().st_size < most


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"reports.sqlite: written by a later version of this program \(99\)$"):
        opened(tmp_path)
