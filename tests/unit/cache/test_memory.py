"""What is at hand is bounded, and no flood of one kind pushes out the other; replies go with their entries."""

from collections.abc import Callable

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry, NoPolicy, Note
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
