"""Requests of control: whatever comes is one, or gets one error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.daemon.control import RequestError, parse_request
from postfix_mtasts.sts.domain import PolicyDomain
from tests.unit.strategies import near

DOMAIN = PolicyDomain("xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        pytest.param('{"request": "list"}', ("list", None), id="list"),
        pytest.param('{"request":"status"}', ("status", None), id="status"),
        pytest.param('{"request": "show", "domain": "Bücher.Example."}', ("show", DOMAIN), id="U-label, case, dot"),
        pytest.param('{"request": "forget", "domain": "[bücher.example]:587"}', ("forget", DOMAIN), id="smart host"),
        pytest.param('{"domain": "xn--bcher-kva.example", "request": "refresh"}', ("refresh", DOMAIN), id="refresh"),
        pytest.param('{"request": "list", "since": 1}', ("list", None), id="a key of a later version"),
    ],
)
def test_request(line: str, request_: tuple[str, PolicyDomain | None]) -> None:
    assert parse_request(line.encode()) == request_


_words = st.sampled_from(["list", "show", "forget", "refresh", "status", "domain", "request", "a.test", "localhost"])
_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | _words,
    lambda inner: st.lists(inner) | st.dictionaries(_words | st.text(), inner),
).map(json.dumps)


@given(
    st.binary() | _json.map(str.encode) | near('{"request":', '"show"', '"domain":', '"a.test"', "}").map(str.encode)
)
def test_any_octets_are_a_request_or_our_error(line: bytes) -> None:
    match _parsed(line):
        case str(error):
            assert error.isprintable()
        case name, domain:
            assert (name in ("list", "status")) == (domain is None)


def _parsed(line: bytes) -> tuple[str, PolicyDomain | None] | str:
    try:
        return parse_request(line)
    except RequestError as error:
        return str(error)
