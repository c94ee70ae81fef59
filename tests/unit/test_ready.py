"""Replies that lie ready: until when, what drops them, and how much of them there can be."""

import pytest

from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.ready import Ready

A, B = PolicyDomain("a.test"), PolicyDomain("b.test")


@pytest.mark.parametrize(
    ("now", "reply"), [(99.9, None), (100.0, b"reply"), (199.9, b"reply"), (200.0, None), (0.0, None), (1e9, None)]
)
def test_a_reply_holds_from_one_time_until_another(now: float, reply: bytes | None) -> None:
    ready = Ready()
    ready.put(A, b"request", b"reply", 100.0, 200.0)
    assert ready.get(b"request", now) == reply


def test_a_request_is_answered_to_the_octet() -> None:
    ready = Ready()
    ready.put(A, b"request", b"reply", 0.0, 9.0)
    assert [ready.get(request, 1.0) for request in (b"reques", b"request ", b"Request", b"")] == [None] * 4


def test_the_last_reply_counts() -> None:
    ready = Ready()
    ready.put(A, b"request", b"old", 0.0, 5.0)
    ready.put(A, b"request", b"new", 5.0, 9.0)
    assert [ready.get(b"request", now) for now in (4.0, 5.0)] == [None, b"new"]
    ready.drop(A)
    assert ready.get(b"request", 5.0) is None


def test_all_replies_about_a_domain_are_dropped_and_no_others() -> None:
    ready = Ready()
    for domain, request in ((A, b"plain a"), (A, b"tlsrpt a"), (B, b"plain b"), (None, b"plain .test")):
        ready.put(domain, request, request.upper(), 0.0, 9.0)
    ready.drop(A)
    ready.drop(A)
    requests = (b"plain a", b"tlsrpt a", b"plain b", b"plain .test")
    assert [ready.get(request, 1.0) for request in requests] == [None, None, b"PLAIN B", b"PLAIN .TEST"]
    ready.clear()
    assert [ready.get(request, 1.0) for request in requests] == [None] * 4


@pytest.mark.parametrize(("octets", "kept"), [(1990, True), (1991, False), (100_000, False)])
def test_a_large_reply_is_not_kept(octets: int, kept: bool) -> None:
    ready = Ready()
    ready.put(A, b"10 octets.", b"x" * octets, 0.0, 9.0)
    assert (ready.get(b"10 octets.", 1.0) is not None) == kept


def test_there_are_never_more_than_20000() -> None:
    ready = Ready()
    for number in range(20_000):
        ready.put(PolicyDomain(f"{number}.test"), b"%d" % number, b"reply", 0.0, 9.0)
    assert [ready.get(request, 1.0) for request in (b"0", b"19999")] == [b"reply"] * 2
    ready.put(A, b"one more", b"reply", 0.0, 9.0)
    assert [ready.get(request, 1.0) for request in (b"0", b"19999", b"one more")] == [None, None, b"reply"]
    ready.drop(PolicyDomain("0.test"))
    assert ready.get(b"one more", 1.0) == b"reply"
