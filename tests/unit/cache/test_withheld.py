"""What shadow mode gathers: its bounds, and its file."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.cache import withheld
from postfix_mtasts.cache.withheld import (
    MAX_ASKED,
    MAX_FILE,
    MAX_HOPS,
    MAX_REASON,
    Gathered,
    Result,
    Withheld,
    WithheldError,
    fields_of,
    read,
    result,
    write,
)
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.sts.domain import NextHop, PolicyDomain

NOW = 1_800_000_000.0
DAY = 86400.0
A = NextHop(PolicyDomain("a.test"))
RELAY = NextHop(PolicyDomain("relay.test"), mx=False, port="587")


def hop(number: int) -> NextHop:
    return NextHop(PolicyDomain(f"{number}.test"))


def filled() -> Gathered:
    gathered = Gathered(NOW)
    for one in (A, RELAY, A):
        gathered.note_asked(one.domain, has_policy=True)
        gathered.note_withheld(one, Style.PLAIN, NOW + 1)
    gathered.note_asked(PolicyDomain("without.test"), has_policy=False)
    gathered.hops[A].style = Style.TLSRPT
    gathered.hops[A].result = result("deferred", "its MX mx.a.test: hostname mismatch", NOW + 2)
    return gathered


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "policies.sqlite.shadow"
    assert read(path) is None
    write(path, filled().copy())
    found = read(path)
    assert found is not None
    assert vars(found) == vars(filled())
    assert found.hops == {
        A: Withheld(Style.TLSRPT, 2, NOW + 1, Result("deferred", "its MX mx.a.test: hostname mismatch", NOW + 2)),
        RELAY: Withheld(Style.PLAIN, 1, NOW + 1),
    }
    assert (len(found.asked), len(found.with_policy)) == (3, 2)
    assert found.counts() == {"delivered": 0, "deferred": 1, "returned": 0, "unclear": 0, "dane": 0, "unprobed": 1}
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [path])


def test_a_domain_whose_policy_is_gone_is_not_counted_as_one_with_a_policy() -> None:
    gathered = filled()
    gathered.note_asked(A.domain, has_policy=False)
    gathered.forget(A)
    assert (len(gathered.asked), len(gathered.with_policy), list(gathered.hops)) == (3, 1, [RELAY])


@pytest.mark.parametrize(
    ("at", "due"), [(None, True), (NOW - DAY + 1, False), (NOW - DAY, True), (NOW, False), (NOW + 1, True)]
)
def test_each_is_due_once_a_day(at: float | None, due: bool) -> None:
    known = Withheld(Style.PLAIN, 1, NOW, None if at is None else Result("delivered", "", at))
    assert known.is_due(NOW) is due


def test_those_with_the_fewest_queries_make_room() -> None:
    gathered = Gathered(NOW)
    gathered.note_withheld(A, Style.PLAIN, NOW)
    gathered.note_withheld(A, Style.PLAIN, NOW)
    for number in range(3 * MAX_HOPS):
        gathered.note_withheld(hop(number), Style.PLAIN, NOW + number)
        assert len(gathered.hops) <= MAX_HOPS
    assert A in gathered.hops
    assert hop(3 * MAX_HOPS - 1) in gathered.hops


def test_what_nobody_asks_for_is_forgotten() -> None:
    gathered = filled()
    gathered.note_withheld(A, Style.PLAIN, NOW + 20 * DAY)
    gathered.forget_unused(NOW + 31 * DAY)
    assert list(gathered.hops) == [A]


def test_domains_are_counted_up_to_a_bound() -> None:
    gathered = Gathered(NOW)
    for number in range(MAX_ASKED + 10):
        gathered.note_asked(hop(number).domain, has_policy=True)
    assert (len(gathered.asked), len(gathered.with_policy), gathered.is_full) == (MAX_ASKED, MAX_ASKED, True)


def test_the_largest_file_is_within_its_bound() -> None:
    gathered = Gathered(NOW)
    for number in range(MAX_HOPS):
        name = f"{number:05}.{'.'.join(['x' * 60] * 4)}"[:240]
        one = gathered.hops[NextHop(PolicyDomain(name), mx=False, port="65535")] = Withheld(Style.TLSRPT, 10**9, NOW)
        one.result = result("unclear", '"' * 10_000, NOW)
    gathered.asked = {number.to_bytes(8) for number in range(MAX_ASKED)}
    gathered.with_policy = gathered.asked
    assert len(json.dumps(fields_of(gathered))) < MAX_FILE


def test_a_reason_is_short_and_printable() -> None:
    assert result("unclear", "\x1b[2J\nbücher" + "x" * 1000, NOW).reason == ("?[2J?b?cher" + "x" * 1000)[:MAX_REASON]


WRONG = {
    "not JSON": b"\0",
    "too large": b" " * (MAX_FILE + 1),
    "too deep": b"[" * 100_000,
    "a list": b"[]",
    "another version": b'{"version": 2}',
    "without a date": b'{"version": 1}',
    "an unknown state": json.dumps(
        fields_of(filled()) | {"hops": [["a.test", "plain", 1, NOW, "lost", "why", NOW]]},
    ).encode(),
    "an unknown style": json.dumps(fields_of(filled()) | {"hops": [["a.test", "bold", 1, NOW]]}).encode(),
    "no domain": json.dumps(fields_of(filled()) | {"hops": [["a", "plain", 1, NOW]]}).encode(),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    path.write_bytes(WRONG[name])
    with pytest.raises(WithheldError):
        read(path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WithheldError, match=r"^no such file or directory$"):
        write(tmp_path / "missing" / "shadow", filled())
    with pytest.raises(WithheldError, match=r"^is a directory$"):
        read(tmp_path)
    withheld.remove(tmp_path / "missing")
    with pytest.raises(WithheldError):
        withheld.remove(tmp_path)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists))
def test_any_value_in_the_file_is_read_or_an_error(value: object) -> None:
    for name in ("version", "since", "asked", "with_policy", "hops"):
        with contextlib.suppress(*withheld.WRONG):
            withheld._parse(json.loads(json.dumps(fields_of(filled()) | {name: value})))
