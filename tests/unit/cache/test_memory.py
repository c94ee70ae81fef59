"""What is at hand is bounded, and no flood of one kind pushes out the other; replies go with their entries."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from postfix_mtasts.cache.memory import Memory, octets
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

P1 = Policy(Mode.ENFORCE, 604800, (MxPattern("mail.example.com"),))
WITH = Entry(CachedPolicy(P1, str(P1), "A", 0.0))
WITHOUT = Entry(note=Note(NoPolicy("no record"), 60.0))


def domains(*names: str) -> list[PolicyDomain]:
    return [PolicyDomain(f"{name}.test") for name in names]


def test_the_least_recently_used_goes_first() -> None:
    memory = Memory(policies=2, notes=2)
    a, b, c = domains("a", "b", "c")
    for entry in (WITH, WITHOUT):
        memory.put(a, entry)
        memory.put(b, entry)
        assert memory.get(a) == entry
        memory.put(c, entry)
        assert [memory.get(domain) for domain in (a, b, c)] == [entry, None, entry]


def test_a_flood_of_domains_without_a_policy_costs_no_policy() -> None:
    memory = Memory(policies=2, notes=2)
    memory.put(PolicyDomain("a.test"), WITH)
    for number in range(1000):
        memory.put(PolicyDomain(f"{number}.test"), WITHOUT)
    assert memory.policies() == [(PolicyDomain("a.test"), WITH)]
    assert [number for number in range(1000) if memory.get(PolicyDomain(f"{number}.test"))] == [998, 999]


def test_an_entry_moves_when_it_gets_a_policy_and_is_in_one_place() -> None:
    memory = Memory(policies=2, notes=2)
    (a,) = domains("a")
    memory.put(a, WITHOUT)
    memory.put(a, WITH)
    assert (memory.get(a), memory.policies()) == (WITH, [(a, WITH)])
    memory.forget(a)
    assert (memory.get(a), memory.policies()) == (None, [])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda memory, a, b: memory.put(a, WITH), id="another entry"),
        pytest.param(lambda memory, a, b: memory.forget(a), id="forgotten"),
        pytest.param(lambda memory, a, b: memory.put(b, WITH), id="pushed out"),
    ],
)
def test_replies_go_with_their_entry(change: Callable[[Memory, PolicyDomain, PolicyDomain], None]) -> None:
    memory = Memory(policies=1, notes=1, clock=lambda: 0.0)
    a, b, other = domains("a", "b", "other")
    for domain, entry in ((a, WITH), (other, WITHOUT)):
        memory.put(domain, entry)
        memory.ready.put(domain, domain.name.encode(), b"reply", 100.0)
    change(memory, a, b)
    assert [memory.ready.get(request) for request in (b"a.test", b"other.test")] == [None, b"reply"]


def with_mx(number: int, count: int) -> Entry:
    policy = Policy(
        Mode.ENFORCE, 604800 + number, tuple(MxPattern(f"mx{each}.d{number}.test") for each in range(count))
    )
    return Entry(CachedPolicy(policy, str(policy), f"id{number}", 1e9 + number), checked_at=1e9 + number)


def with_failures(number: int, count: int) -> Entry:
    def failure(each: int) -> Failure:
        return Failure(Stage.CERTIFICATE, f"{number} {each} {'x' * 290}", ResultType.WEBPKI_INVALID)

    failed = tuple(FailedFetch(f"{number}id{each}", 1, 1e9 + number, failure(each)) for each in range(count))
    return Entry(note=Note(Unavailable(failed[0].failure), 60.0), failed=failed, checked_at=1e9 + number)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda number: with_mx(number, 1), id="small policy"),
        pytest.param(lambda number: with_mx(number, 10), id="policy"),
        pytest.param(lambda number: with_mx(number, 1000), id="large policy"),
        pytest.param(lambda number: with_failures(number, 1), id="failure"),
        pytest.param(lambda number: with_failures(number, 8), id="failures"),
        pytest.param(lambda number: Entry(note=Note(NoPolicy(f"no record {number}"), 60.0)), id="no policy"),
    ],
)
def test_octets_are_about_those_that_python_takes(make: Callable[[int], Entry]) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        memory, count = Memory(policies=10_000, notes=10_000), 200
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            memory.put(PolicyDomain(f"{number}.test"), make(number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.8 < octets(make(1)) / ((after - before) / count) < 1.6


def test_memory_is_bounded_in_octets() -> None:
    large = octets(with_mx(1, 1000))
    memory = Memory(policies=10_000, notes=10_000, limit=4 * 10 * large)  # Policies have a quarter of it.
    (first,) = domains("first")
    memory.put(first, with_mx(1, 1000))
    for number in range(100):
        memory.get(first)
        memory.put(PolicyDomain(f"{number}.test"), with_mx(1, 1000))
        memory.put(PolicyDomain(f"{number}.test"), with_mx(1, 1000))  # In place of itself, it takes nothing more.
    kept = [domain for domain, _ in memory.policies()]
    assert kept == [*(PolicyDomain(f"{number}.test") for number in range(91, 99)), first, PolicyDomain("99.test")]
    for number in range(100):
        memory.put(PolicyDomain(f"{number}.test"), with_failures(number, 8))
    assert len(memory.policies()) == 1
    assert memory.count_notes() == 100
    memory.forget(first)
    for number in range(1000):
        memory.put(PolicyDomain(f"{number}.test"), with_failures(number, 8))
    assert 1000 > memory.count_notes() > 9 * large / octets(with_failures(999, 8)) - 1
