"""Requests of control: whatever comes is one, or gets one error. And what a long reply costs others."""

import asyncio
import datetime
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import ExceptionSetting, Level, parse
from postfix_mtasts.daemon.control import JSON, Control
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.request import About, RequestError, parse_request
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Mode, Policy
from tests.unit.strategies import near

DOMAIN = PolicyDomain("xn--bcher-kva.example")
FAILURE = Failure(Stage.RESPONSE, "status 404")


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        pytest.param('{"request": "list"}', ("list", None), id="list"),
        pytest.param('{"request":"status"}', ("status", None), id="status"),
        pytest.param('{"request": "show", "domain": "Bücher.Example."}', ("show", DOMAIN), id="U-label, case, dot"),
        pytest.param('{"request": "forget", "domain": "[bücher.example]:587"}', ("forget", DOMAIN), id="smart host"),
        pytest.param('{"domain": "xn--bcher-kva.example", "request": "refresh"}', ("refresh", DOMAIN), id="refresh"),
        pytest.param('{"request": "list", "since": 1}', ("list", None), id="a key of a later version"),
        pytest.param('{"request": "exceptions"}', ("exceptions", None), id="exceptions"),
        pytest.param('{"request": "unexcept", "domain": "*.A.test"}', ("unexcept", "*.a.test"), id="unexcept"),
        pytest.param(
            '{"request": "except", "domain": "*.A.test", "until": "2026-12-31", "reason": " ticket "}',
            ("except", ExceptionSetting("*.a.test", datetime.date(2026, 12, 31), "ticket")),
            id="except",
        ),
        pytest.param(
            '{"request": "except", "domain": "a.test", "until": "0001-01-01", "reason": "x", "level": "may", '
            '"dane": true}',
            ("except", ExceptionSetting("a.test", datetime.date(1, 1, 1), "x", Level.MAY, dane=True)),
            id="except with all members",
        ),
    ],
)
def test_request(line: str, request_: tuple[str, About]) -> None:
    assert parse_request(line.encode()) == request_


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"domain": "a"}, 'exception.domain = "a": must be "DOMAIN" or "*.DOMAIN", in punycode'),
        ({"until": "2026-W01-1"}, 'exception.until = "2026-W01-1": must be a date without quotes, such as 2026-12-31'),
        ({"until": "20261231"}, 'exception.until = "20261231": must be a date without quotes, such as 2026-12-31'),
        ({"until": "2026-02-30"}, 'exception.until = "2026-02-30": must be a date without quotes, such as 2026-12-31'),
        ({"until": None}, "exception.until = None: must be a date without quotes, such as 2026-12-31"),
        ({"reason": "a\nb"}, 'exception.reason = "a\\nb": must be a text of 1 to 200 characters on one line'),
        ({"level": ["may"]}, 'exception.level = ["may"]: must be "none", "may" or "encrypt"'),
        ({"dane": 1}, "exception.dane = 1: must be true or false"),
        ({"since": 1}, ("unknown key exception.since: allowed are exception.domain, exception.until, exception.reason, "
         "exception.level, exception.dane")),
    ],
)  # fmt: skip
def test_a_wrong_exception(members: dict[str, object], error: str) -> None:
    request = {"request": "except", "domain": "a.test", "until": "2026-12-31", "reason": "x"} | members
    with pytest.raises(RequestError, match=f"^{re.escape(f'except: {error}')}$"):
        parse_request(json.dumps(request).encode())


_of_exceptions = ["except", "unexcept", "exceptions", "until", "reason", "level", "2026-12-31", "may"]
_words = st.sampled_from(
    ["list", "brief", "show", "forget", "refresh", "status", "domain", "request", "a.test", *_of_exceptions]
)
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
            assert (name in ("list", "brief", "status", "exceptions")) == (domain is None)


def _parsed(line: bytes) -> tuple[str, About] | str:
    try:
        return parse_request(line)
    except RequestError as error:
        return str(error)


@pytest.mark.parametrize(("request_", "sent"), [("list", 150), ("brief", 101)])
async def test_others_are_answered_between_the_rows_of_a_list(tmp_path: Path, request_: str, sent: int) -> None:
    """The owner of a domain chooses how long its row is: the longest takes two milliseconds."""
    resolver, memory = Resolver(timeout=1), Memory(policies=100, notes=100)
    store, dane = Store(str(tmp_path / "policies.sqlite")), Dane(resolver, 1)
    fetcher, exceptions = Fetcher(resolver, tls_context(None), timeout=1), Exceptions(tmp_path / "exceptions.json")
    rules = ReplyRules(Style.PLAIN)
    lookup = Lookup(store, memory, resolver, fetcher, dane, rules, exceptions, answer_within=1)
    control = Control(lookup, store, memory, dane, Shadow(parse(b"", ""), lookup, resolver, dane))
    policy = Policy(Mode.NONE, 86400, ())
    entry = Entry(CachedPolicy(policy, str(policy), "1", 1.0), failed=(FailedFetch("1", 1, 1.0, FAILURE),))
    for number in range(50):
        memory.put(PolicyDomain(f"memory{number}.test"), entry)
        memory.put(PolicyDomain(f"note{number}.test"), replace(entry, cached=None))
        store.put(PolicyDomain(f"stored{number}.test"), entry)
    assert await store.flush()
    rows: Counter[int] = Counter()
    rounds = 0

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def send(document: JSON) -> None:
        rows[rounds] += 1

    counting = asyncio.create_task(count_rounds())
    await control._fulfil(request_, None, send)
    counting.cancel()
    await store.aclose()
    assert (rows.total(), max(rows.values())) == (sent, 10)
