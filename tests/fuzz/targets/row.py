"""A row of the database. RowError is declared."""

import json
from collections.abc import Iterator

from postfix_mtasts.cache.row import RowError, parse_row, print_row
from postfix_mtasts.sts.decide import decide
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Asked, Due, Failure, ResultType, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

_NOW = 1.8e9


def seeds() -> Iterator[bytes]:
    failed = tuple(
        FailedFetch(str(number), 1, 3.0, Failure(Stage.POLICY, "no mode line", ResultType.POLICY_INVALID))
        for number in range(8)
    )
    for mode in Mode:
        policy = Policy(mode, 86400, (MxPattern("mx.example.com"), MxPattern("*.example.net")))
        cached = CachedPolicy(policy, str(policy), "1", _NOW)
        for entry in (Entry(cached), Entry(cached, failed, None, _NOW, _NOW, _NOW - 1)):
            row = print_row(entry)
            yield row.encode()
            yield from (json.dumps({**json.loads(row), key: None}).encode() for key in json.loads(row))
    many = Policy(Mode.ENFORCE, 86400, (MxPattern("a.b"),) * 5000)
    yield print_row(Entry(CachedPolicy(many, "", "1", _NOW))).encode()
    yield b"[" * 65000
    yield b'{"version": ' + b"9" * 4000 + b"}"


def run(data: bytes) -> None:
    try:
        entry = parse_row(data)
    except RowError as error:
        assert str(error)
        return
    assert parse_row(print_row(entry)) == entry
    # Whatever stands in a row, the rules can work with it.
    for observation in (Asked(), Due()):
        decide(entry, observation, _NOW)
