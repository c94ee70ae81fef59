"""All vectors of tests/data, asked as Postfix does: a real daemon, real DNS, real HTTPS."""

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.integration.conftest import POLICY_HOST, World
from tests.world.daemon import Daemon, ask

NOTFOUND = "NOTFOUND "
ENFORCE = b"version: STSv1\nmode: enforce\nmx: mail.example.com\nmax_age: 86400\n"
_STRING = 255  # Octets in one string of a TXT record.

# Ambiguous vectors are answered as their `expect` says, but for these.
RECORDS_OF_OUR_OWN = {
    "two-identical-sts-records": True,  # An RRset has no duplicates (RFC 2181, 5): there is one record.
    "long-record-60k-ext": False,  # Of a name, 8 KiB are read. A record with all its fields has under 200 octets.
}
POLICIES_OF_OUR_OWN: dict[str, list[str] | None] = {
    # Files like these exist, nothing in them is unclear, and to refuse them would leave the domain unprotected.
    "blank-line-middle": ["mail.example.com"],
    "whitespace-only-line": ["mail.example.com"],
    "utf8-bom": ["mail.example.com"],
    "ext-empty-value": ["mail.example.com"],
    # No MX host can have such a name, so that no mail could be delivered.
    "mx-ipv4-looking": None,
    "mx-name-over-255": None,
}


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "data" / name).read_text("utf-8"))
    return found


def secure(mx: Iterable[str]) -> str:
    first: dict[str, str] = {}
    for pattern in mx:
        first.setdefault(pattern.lower(), pattern)
    match = ":".join(pattern.removeprefix("*") for pattern in first.values())
    return f"OK secure match={match} servername=hostname"


def pieces(string: bytes) -> list[bytes]:
    """The strings that a text too long for one is published as."""
    return [string[at : at + _STRING] for at in range(0, len(string), _STRING)] or [b""]


def replies(world: World, folder: Path, keys: Sequence[str]) -> list[str]:
    with Daemon(folder, world.configuration(folder)):
        return [ask(f"unix:{folder / 'socket'}", key) for key in keys]


def test_txt_records(world: World, tmp_path: Path) -> None:
    cases = {f"{index}.txt.test": case for index, case in enumerate(vectors("txt_records.json"))}
    context = world.ca.issue(*(f"mta-sts.{domain}" for domain in cases)).server_context()
    valid = {}
    for domain, case in cases.items():
        valid[domain] = RECORDS_OF_OUR_OWN.get(case["name"], case["expect"]["valid"])
        world.dns.add(f"mta-sts.{domain}", "A", POLICY_HOST)
        world.https.policy(f"mta-sts.{domain}", ENFORCE, context)
        for strings in case["txt_strings"]:
            octets = [piece for string in strings for piece in pieces(string.encode("latin-1"))]
            world.dns.add_txt(f"_mta-sts.{domain}", *octets)
    found = dict(zip(cases, replies(world, tmp_path, list(cases)), strict=True))
    names = {domain: f"{domain}: {case['name']}" for domain, case in cases.items()}
    assert {names[domain]: reply for domain, reply in found.items()} == {
        names[domain]: secure(["mail.example.com"]) if valid[domain] else NOTFOUND for domain in cases
    }
    # Without a valid record no policy host is asked (RFC 8461, 3.1).
    assert [host for host in world.https.sni if host and host.endswith(".txt.test")] == [
        f"mta-sts.{domain}" for domain in cases if valid[domain]
    ]


def expected_of_policy(case: dict[str, Any]) -> str:
    expect = case["expect"]
    mx = expect["mx"] if expect["valid"] and expect["mode"] == "enforce" else None
    mx = POLICIES_OF_OUR_OWN.get(case["name"], mx)
    return NOTFOUND if mx is None else secure(mx)


def test_policies(world: World, tmp_path: Path) -> None:
    cases = {f"{index}.policy.test": case for index, case in enumerate(vectors("policies.json"))}
    context = world.ca.issue(*(f"mta-sts.{domain}" for domain in cases)).server_context()
    for domain, case in cases.items():
        world.announce(domain)
        world.https.policy(
            f"mta-sts.{domain}",
            base64.b64decode(case["body_base64"]),
            context,
            status=case["status"],
            content_type=case["content_type"],
            headers=case.get("headers", {}).items(),
        )
    found = dict(zip(cases, replies(world, tmp_path, list(cases)), strict=True))
    names = {domain: f"{domain}: {case['name']}" for domain, case in cases.items()}
    assert {names[domain]: reply for domain, reply in found.items()} == {
        names[domain]: expected_of_policy(case) for domain, case in cases.items()
    }
    # One request each: none is repeated, no redirect followed.
    assert [
        (request.host, request.path)
        for request in world.https.requests
        if request.host and request.host.endswith(".policy.test")
    ] == [(f"mta-sts.{domain}", "/.well-known/mta-sts.txt") for domain in cases]


def test_query_keys(world: World, tmp_path: Path) -> None:
    expected: dict[str, str] = {}
    domains: set[str] = set()
    for case in vectors("query_keys.json"):
        # A single label ("NOTFOUND or lookup") cannot have a policy of its own in DNS: no lookup.
        verb, _, domain = case["expect"].partition(" ") if case["expect"] != "NOTFOUND or lookup" else ("", "", "")
        expected[case["socketmap_key"]] = secure([f"mx.{domain}"]) if verb == "lookup" else NOTFOUND
        if verb == "lookup":
            domains.add(domain)
    for domain in domains:
        world.publish(domain, f"version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 86400\n")
    before = len(world.dns.queries)
    assert dict(zip(expected, replies(world, tmp_path, list(expected)), strict=True)) == expected
    assert {query.name for query in world.dns.queries[before:]} == {
        f"{label}.{domain}" for domain in domains for label in ("_mta-sts", "mta-sts")
    }
