"""A request on the control socket. RequestError is declared."""

import json
from collections.abc import Iterator

from postfix_mtasts.daemon.request import RequestError, parse_request
from postfix_mtasts.sts.domain import PolicyDomain
from tests.fuzz.targets import cases

ALONE = ("list", "brief", "status", "exceptions", "shadow", "fleet")


def seeds() -> Iterator[bytes]:
    for name in ALONE:
        yield json.dumps({"request": name}).encode() + b"\n"
    for name in ("show", "forget", "refresh", "forget everywhere", "refresh everywhere"):
        yield from (
            json.dumps({"request": name, "domain": case["socketmap_key"]}).encode() + b"\n"
            for case in cases("query_keys.json")
        )
    for name in ("except", "unexcept"):
        fields = {"domain": "*.a.test", "until": "2026-12-31", "reason": "ticket", "level": "may", "dane": True}
        yield json.dumps({"request": name, **fields}).encode() + b"\n"
    yield b'{"request": "show", "domain": "\\ud800.example"}\n'
    yield b'{"request": [{"request": "show"}], "domain": {}}\n'
    yield b"[" * 4095 + b"\n"
    yield b"9" * 4095 + b"\n"


def run(data: bytes) -> None:
    try:
        name, domain = parse_request(data)
    except RequestError as error:
        json.dumps({"error": str(error)}).encode()
        return
    assert (domain is None) == (name in ALONE)
    if isinstance(domain, PolicyDomain):
        assert parse_request(json.dumps({"request": name, "domain": domain.name}).encode()) == (name, domain)
