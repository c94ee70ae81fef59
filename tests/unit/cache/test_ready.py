"""Replies that lie ready: until when, what drops them, and how much of them there can be."""

import pytest

from postfix_mtasts.cache.ready import Ready
from postfix_mtasts.sts.domain import PolicyDomain

A, B = PolicyDomain("a.test"), PolicyDomain("b.test")
START = 1_700_000_000.0


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ready(clock: Clock) -> Ready:
    return Ready(clock)


@pytest.mark.parametrize(
    ("later", "reply"), [(0.0, b"reply"), (99.9, b"reply"), (100.0, None), (-0.1, None), (-START, None), (1e9, None)]
)
def test_a_reply_holds_from_now_until_its_time(ready: Ready, clock: Clock, later: float, reply: bytes | None) -> None:
    ready.put(A, b"request", b"reply", START + 100.0)
    clock.now += later
    assert ready.get(b"request") == reply


def test_a_request_is_answered_to_the_octet(ready: Ready) -> None:
    ready.put(A, b"request", b"reply", START + 9)
    assert [ready.get(request) for request in (b"reques", b"request ", b"Request", b"")] == [None] * 4


def test_the_last_reply_counts(ready: Ready, clock: Clock) -> None:
    ready.put(A, b"request", b"old", START + 5)
    clock.now += 6
    ready.put(A, b"request", b"new", START + 9)
    assert ready.get(b"request") == b"new"
    ready.drop(A)
    assert ready.get(b"request") is None


def test_all_replies_about_a_domain_are_dropped_and_no_others(ready: Ready) -> None:
    for domain, request in ((A, b"plain a"), (A, b"tlsrpt a"), (B, b"plain b"), (None, b"plain .test")):
        ready.put(domain, request, request.upper(), START + 9)
    ready.drop(A)
    ready.drop(A)
    requests = (b"plain a", b"tlsrpt a", b"plain b", b"plain .test")
    assert [ready.get(request) for request in requests] == [None, None, b"PLAIN B", b"PLAIN .TEST"]
    ready.clear()
    assert [ready.get(request) for request in requests] == [None] * 4


@pytest.mark.parametrize(("octets", "kept"), [(1190, True), (1191, False), (100_000, False)])
def test_a_large_reply_is_not_kept(ready: Ready, octets: int, kept: bool) -> None:
    ready.put(A, b"10 octets.", b"x" * octets, START + 9)
    assert (ready.get(b"10 octets.") is not None) == kept


def test_there_are_never_more_than_20000(ready: Ready) -> None:
    for number in range(20_000):
        ready.put(PolicyDomain(f"{number}.test"), b"%d" % number, b"reply", START + 9)
    assert [ready.get(request) for request in (b"0", b"19999")] == [b"reply"] * 2
    ready.put(A, b"one more", b"reply", START + 9)
    assert [ready.get(request) for request in (b"0", b"19999", b"one more")] == [None, None, b"reply"]
    ready.drop(PolicyDomain("0.test"))
    assert ready.get(b"one more") == b"reply"


def test_each_use_is_counted(ready: Ready, clock: Clock) -> None:
    count = [5]
    ready.put(A, b"request", b"reply", START + 100.0, count)
    for _ in range(3):
        ready.get(b"request")
    ready.get(b"another")
    clock.now += 100.0
    ready.get(b"request")
    assert count == [8]
