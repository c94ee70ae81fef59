"""An entry as a value that relays share."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.cache.row import RowError
from postfix_mtasts.cache.shared import MAX_VALUE, parse_shared, print_shared
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import MAX_SKEW, seen_at, shared
from postfix_mtasts.sts.entry import CachedPolicy, Entry, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy
from tests.unit.strategies import domains, entries, failures, json_values

NOW = 1_700_000_000.0
DOMAIN = PolicyDomain("example.com")
NOTES = st.builds(
    Note, st.builds(NoPolicy, st.text(max_size=20)) | st.builds(Unavailable, failures), st.floats(60, 3600)
)


@given(domains, entries, st.none() | NOTES)
def test_a_value_is_read_as_it_was_shared(domain: PolicyDomain, entry: Entry, note: Note | None) -> None:
    known = Entry(entry.cached, entry.failed, note, NOW)
    value = print_shared(domain, known, NOW)
    if seen_at(known) > NOW + MAX_SKEW:
        assert not value
        return
    assert value
    assert parse_shared(domain, value.text.encode()) == shared(known, NOW)
    assert value.lasts >= 60


@given(json_values | st.dictionaries(st.sampled_from(["version", "domain", "row", "failed", "note"]), json_values))
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(RowError):
        parse_shared(DOMAIN, b"1 1\n" + json.dumps(value).encode())


@given(st.binary())
def test_any_other_octets_are_refused(value: bytes) -> None:
    with pytest.raises(RowError):
        parse_shared(DOMAIN, value)


def with_file(text: str, *patterns: MxPattern) -> Entry:
    policy = Policy(Mode.ENFORCE, MAX_AGE_LIMIT, patterns)
    return Entry(CachedPolicy(policy, text, "A" * 32, NOW), checked_at=NOW)


def test_the_longest_policy_fits() -> None:
    patterns = tuple(MxPattern(f"a{number:03}.{'b' * 50}.test") for number in range(1000))
    file = str(Policy(Mode.ENFORCE, MAX_AGE_LIMIT, patterns))
    assert 64_000 < len(file) < 65536
    for text in (file, file.replace("\n", "\r\n"), "\n" * 65536, '"' * 65536):
        value = print_shared(DOMAIN, with_file(text, *patterns), NOW)
        assert value
        assert 128_000 < len(value.text) < MAX_VALUE
    assert print_shared(DOMAIN, with_file("\x01" * 65536, *patterns), NOW) is None


def test_nothing_is_shared_of_an_entry_that_says_nothing() -> None:
    failure = Unavailable(Failure(Stage.RECORD, "no", None))
    assert print_shared(DOMAIN, Entry(checked_at=NOW), NOW) is None
    assert print_shared(DOMAIN, Entry(note=Note(failure, 60.0), checked_at=NOW - 60), NOW) is None
