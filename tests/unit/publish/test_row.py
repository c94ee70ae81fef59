"""A state is the same after it was stored, and a row that is no state says so."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.publish.row import RowError, parse_row, print_row
from postfix_mtasts.publish.state import GOODBYE, Checked, Clock, Left, Parting, Served, Stage, State, record_id
from postfix_mtasts.sts.domain import PolicyDomain
from tests.unit.strategies import domains, json_values, patterns, policies

dates = st.floats(0, 1e12)
states = st.builds(
    State,
    domain=domains,
    wanted=policies,
    clock=st.builds(Clock, dates, dates),
    stage=st.sampled_from(Stage),
    served=st.lists(st.builds(Served, policies, st.none() | dates), max_size=3).map(tuple),
    parting=st.lists(st.builds(Parting, patterns, st.none() | dates), max_size=2).map(tuple),
    record=st.none() | st.text(),
    announced_at=dates,
    known=st.booleans(),
    findable=st.booleans(),
    hosts=st.lists(st.text(), max_size=3).map(tuple),
    left=st.lists(st.builds(Left, st.text(), dates), max_size=2).map(tuple),
    points_here=st.booleans(),
    record_gone_since=st.none() | dates,
    checked=st.none()
    | st.builds(
        Checked,
        dates,
        st.lists(st.text(), max_size=2).map(tuple),
        st.lists(st.tuples(st.text(), dates), max_size=2).map(tuple),
    ),
    version=st.integers(0),
    salt=st.integers(0),
)


@given(states)
def test_a_state_is_the_same_after_it_was_stored(state: State) -> None:
    assert parse_row(state.domain, print_row(state)) == state


@given(states, st.data())
def test_what_is_no_state_is_an_error_and_nothing_else(state: State, data: st.DataObject) -> None:
    row = json.loads(print_row(state))
    key = data.draw(st.sampled_from(sorted(row)))
    row[key] = data.draw(json_values)
    with contextlib.suppress(RowError):
        parse_row(state.domain, json.dumps(row))


@given(states)
def test_no_part_may_be_missing(state: State) -> None:
    row = json.loads(print_row(state))
    for key in row.keys() - {"left", "salt"}:
        with pytest.raises(RowError):
            parse_row(state.domain, json.dumps({name: value for name, value in row.items() if name != key}))


@given(states)
def test_a_row_from_before_has_the_policy_that_the_record_announces(state: State) -> None:
    row = json.loads(print_row(state))
    for key in ("left", "salt", "record"):
        del row[key]
    for announced, record in ((None, None), (["none", 86_400, []], record_id(GOODBYE))):
        old = parse_row(state.domain, json.dumps(row | {"announced": announced}))
        assert old == replace(state, left=(), salt=0, record=record)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "\ud800"])
def test_no_json_or_another(text: str) -> None:
    with pytest.raises(RowError):
        parse_row(PolicyDomain("example.com"), text)
