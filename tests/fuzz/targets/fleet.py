"""What relays share: a value, news, and what a relay says of itself. RowError is declared."""

import contextlib
import json
from collections.abc import Iterator

from postfix_mtasts.cache.fleet_jobs import relay_of
from postfix_mtasts.cache.fleet_news import news_of, told_domain
from postfix_mtasts.cache.row import RowError
from postfix_mtasts.cache.shared import MAX_VALUE, parse_shared, print_shared
from postfix_mtasts.sts.decide import decide
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import MAX_SKEW, KnownElsewhere
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy, PolicyError, parse
from tests.fuzz.targets import cases, check_words

_NOW = 1.8e9
_DOMAIN = PolicyDomain("example.com")
_POLICY = Policy(Mode.ENFORCE, 86400, (MxPattern("mx.example.com"), MxPattern("*.example.net")))
_OURS = Entry(CachedPolicy(_POLICY, str(_POLICY), "1", _NOW - 1000), checked_at=_NOW - 1000)


def seeds() -> Iterator[bytes]:
    failure = Failure(Stage.POLICY, "no mode line", ResultType.POLICY_INVALID)
    failed = tuple(FailedFetch(str(number), 1, _NOW - 3, failure) for number in range(8))
    entries = [
        Entry(_OURS.cached, failed, None, _NOW - 1),
        Entry(None, failed, Note(NoPolicy("no record"), 600.0), _NOW - 1),
        Entry(None, (), Note(Unavailable(failure), 60.0), _NOW - 1),
    ]
    for case in cases("policies.json"):
        with contextlib.suppress(PolicyError):
            policy, _ = parse(case.get("body", "").encode())
            entries.append(Entry(CachedPolicy(policy, case["body"], "1", _NOW - 10), checked_at=_NOW - 1))
    values = [value.text for entry in entries if (value := print_shared(_DOMAIN, entry, _NOW))]
    yield from (value.encode() for value in values)
    head, _, document = values[0].partition("\n")
    for key in json.loads(document):
        yield f"{head}\n{json.dumps({**json.loads(document), key: None})}".encode()
    yield b"1 1\n" + b"[" * 65000
    yield b'1 1\n{"version": ' + b"9" * 4000 + b"}"
    yield b'1 1\n{"version": 1, "domain": "example.com", "row": null, "failed": [' + b"[]," * 20000 + b"[]]}"
    yield b'{"forget": "example.com", "at": 1800000000.5}'
    yield b'{"forget": "example.com", "at": NaN}'
    yield b'{"change": "xn--bcher-kva.example"}'
    yield b'{"relay": "mail", "id": "a", "since": 1800000000, "version": "1.0"}'


def run(data: bytes) -> None:
    if news := news_of(data):
        name, at = news
        domain = told_domain(name)
        assert domain is None or domain.name == name
        assert at is None or isinstance(at, float)
    if relay := relay_of((data, _NOW)):
        assert len(relay["relay"]) <= 255
    try:
        theirs = parse_shared(_DOMAIN, data)
    except RowError as error:
        check_words(str(error))
        return
    if value := print_shared(_DOMAIN, theirs, _NOW):
        assert len(value.text) <= MAX_VALUE
        parse_shared(_DOMAIN, value.text.encode())
    for ours in (Entry(), _OURS):
        for fetch in (None, "1"):
            _check(ours, theirs, fetch)


def _check(ours: Entry, theirs: Entry, fetch: str | None) -> None:
    """Whatever a value says, it prolongs nothing, and what is newer here stays."""
    entry = decide(ours, KnownElsewhere(theirs, fetch), _NOW).entry
    assert entry
    if entry.cached and entry.cached is not ours.cached:
        assert theirs.cached
        assert entry.cached.fetched_at == min(theirs.cached.fetched_at, _NOW)
        assert theirs.cached.fetched_at <= _NOW + MAX_SKEW
        assert not ours.cached or entry.cached.fetched_at > ours.cached.fetched_at
        assert ours.cached or entry.cached.is_live(_NOW)
    assert not ours.cached or entry.cached
    assert entry.checked_at <= _NOW
    assert all(failed.at <= _NOW for failed in entry.failed)
