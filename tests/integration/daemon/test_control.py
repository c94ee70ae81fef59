"""What the running daemon is asked over its control socket, while it answers Postfix."""

import json
import os
import re
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts import __version__
from postfix_mtasts.cache.row import parse_row, print_row
from postfix_mtasts.config import DEFAULT_CONTROL
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import parse
from tests.integration.conftest import (
    NAMESERVER,
    World,
    fetched,
    mounted,
    store_entries,
    stored_entries,
    wait_until_stored,
)
from tests.world.daemon import Daemon, ask
from tests.world.dns import Behaviour
from tests.world.https import Hold, answer

pytestmark = pytest.mark.usefixtures("namespace")

DONE = {"done": True}
NOT_ANEW = {"begun_anew": None, "begun_anew_at": None}
NOTHING: dict[str, Any] = {
    "row": None,
    "checked_at": 0.0,
    "failed": [],
    "note": None,
    "unread": False,
    "withheld": False,
    "dane": [],
    "exception": None,
    "deferred": None,
}
NO_RECORD = "no _mta-sts TXT record"
NOT_FOUND = "HTTP response: status 404"


def policy(domain: str, mode: str = "enforce", max_age: int = 86400) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: {max_age}\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


def endpoint(daemon: Daemon) -> str:
    return f"unix:{daemon.config.parent / 'socket'}"


def connected(daemon: Daemon) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(daemon.config.parent / "control"))
    return connection


def sent(daemon: Daemon, octets: bytes) -> list[Any]:
    """The documents that come for these octets."""
    with connected(daemon) as connection, connection.makefile("rb") as lines:
        connection.sendall(octets)
        return [json.loads(line) for line in lines]


def told(daemon: Daemon, request: str, domain: str | None = None) -> list[Any]:
    """The documents of a whole reply."""
    fields = {"request": request} | ({} if domain is None else {"domain": domain})
    *documents, end = sent(daemon, json.dumps(fields).encode() + b"\n")
    assert end == DONE
    return documents


def listed(daemon: Daemon) -> dict[str, Entry]:
    documents = told(daemon, "list")
    assert all(document.keys() == {"domain", "row"} for document in documents)
    rows = {document["domain"]: parse_row(document["row"]) for document in documents}
    assert len(rows) == len(documents), "a domain twice"
    return rows


@pytest.fixture
def daemon(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, world.configuration(tmp_path)) as running:
        yield running


def serve(world: World, domain: str, *steps: bytes | Hold) -> None:
    """From now on the policy host answers so."""
    host = f"mta-sts.{domain}"
    world.https.site(host, world.ca.issue(host).server_context(), *steps)


# list and show


def test_rows_come_as_they_are_stored(world: World, tmp_path: Path) -> None:
    failed = FailedFetch("2", 3, 1_700_000_000.25, Failure(Stage.RESPONSE, "status 404"))
    entries = {
        "old.test": fetched(policy("old.test"), age=1000, checked=500),
        "failing.test": Entry(fetched(policy("failing.test")).cached, failed=(failed,), last_used=time.time()),
    }
    store_entries(tmp_path / "policies.sqlite", entries)
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        rows = {document["domain"]: document["row"] for document in told(daemon, "list")}
        assert rows == {domain: print_row(entry) for domain, entry in entries.items()}
        entry = entries["failing.test"]
        assert told(daemon, "show", "failing.test") == [
            {
                "domain": "failing.test",
                "row": print_row(entry),
                "checked_at": 0.0,
                "failed": [
                    {
                        "record_id": "2",
                        "count": 3,
                        "at": 1_700_000_000.25,
                        "stage": "HTTP response",
                        "reason": "status 404",
                        "result_type": "sts-policy-fetch-error",
                    }
                ],
                "note": None,
                "unread": False,
                "withheld": False,
                "dane": [],
                "exception": None,
                "deferred": None,
            }
        ]


def test_a_list_has_what_is_at_hand_as_it_is_now(world: World, daemon: Daemon) -> None:
    domain = "hand.test"
    world.publish(domain, policy(domain))
    assert ask(endpoint(daemon), domain) == secure(domain)
    path = daemon.config.parent / "policies.sqlite"
    wait_until_stored(path, domain)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE policies SET value = json_set(value, '$.checked_at', 0)")
    assert listed(daemon)[domain].checked_at > time.time() - 100


def test_a_row_that_cannot_be_understood_is_listed_too(world: World, tmp_path: Path) -> None:
    path = tmp_path / "policies.sqlite"
    store_entries(path, {"good.test": fetched(policy("good.test"))})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for key, row in (("bad.test", b"\xff{"), ("empty.test", None), ("Not a domain", b"{}")):
            connection.execute("INSERT INTO policies VALUES (?, ?)", (key, row))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        rows = {document["domain"]: document["row"] for document in told(daemon, "list")}
    assert rows.keys() == {"good.test", "bad.test", "empty.test"}
    assert (rows["bad.test"], rows["empty.test"]) == ("\ufffd{", "")


def test_of_many_domains_those_that_matter_are_listed_in_brief(world: World, tmp_path: Path) -> None:
    """Whoever looks at thousands has two hundred to read, whether they are in memory or in the database."""
    entries = {f"well{number:04}.test": fetched(policy(f"well{number:04}.test")) for number in range(1200)}
    entries |= {f"late{number:04}.test": failing(f"late{number:04}.test", age=70_000) for number in range(150)}
    entries |= {f"over{number:04}.test": failing(f"over{number:04}.test", age=90_000) for number in range(20)}
    store_entries(tmp_path / "policies.sqlite", entries)
    with closing(sqlite3.connect(tmp_path / "policies.sqlite", isolation_level=None)) as connection:
        # Its fields say nothing of its policy, which cannot be understood.
        broken = print_row(fetched(policy("a.test"))).replace("mx.a.test", "?")
        connection.execute("INSERT INTO policies VALUES (?, ?)", ("a.test", broken))
    world.announce("unknown.test")
    serve(world, "unknown.test", answer(status=404))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(endpoint(daemon), "unknown.test") == "NOTFOUND "
        assert ask(endpoint(daemon), "well0001.test") == secure("well0001.test")
        counts, *shown = told(daemon, "brief")
        everything = told(daemon, "list")
    assert counts == {"domains": 1372, "in_trouble": 171, "modes": {"enforce": 1351, "expired": 20}}
    names = [*(f"over{number:04}.test" for number in range(20)), "unknown.test"]
    names += [f"late{number:04}.test" for number in range(79)] + [f"well{number:04}.test" for number in range(99)]
    assert [one["domain"] for one in shown] == names
    listed = {one["domain"]: one for one in everything}
    assert [one["row"] for one in shown] == [listed[one["domain"]]["row"] for one in shown]


def test_domains_to_which_mail_is_deferred_are_listed_first(world: World, tmp_path: Path) -> None:
    """For want of the policy, or because it is unknown whether DANE decides."""
    world.dns.authenticated = {"signed"}
    for domain in ("well.signed", "dane.signed"):
        world.publish(domain, policy(domain))
        world.dns.add(domain, "MX", f"10 mx.{domain}.")
        world.dns.add(f"mx.{domain}", "A", "192.0.2.1")
    world.dns.set_behaviour("_25._tcp.mx.dane.signed", Behaviour(rcode="SERVFAIL"))
    world.announce("lost.test")
    serve(world, "lost.test", answer(status=404))
    tables: dict[str, dict[str, object]] = {"reply": {"dane": "yield"}, "discovery": {"on_failure": "temp"}}
    with Daemon(tmp_path, world.configuration(tmp_path, **tables)) as daemon:
        asked = ("dane.signed", "lost.test", "well.signed", "nothing.test")
        replies = [ask(endpoint(daemon), domain).partition(" ")[0] for domain in asked]
        assert replies == ["TEMP", "TEMP", "OK", "NOTFOUND"]
        counts, *shown = told(daemon, "brief")
    assert counts == {"domains": 3, "in_trouble": 2, "modes": {"enforce": 2}}
    assert [(one["domain"], one.get("deferred")) for one in shown] == [
        ("dane.signed", "TLSA lookup: _25._tcp.mx.dane.signed: 127.0.0.1: SERVFAIL"),
        ("lost.test", NOT_FOUND),
        ("well.signed", None),
    ]


def test_what_is_known_of_a_domain_without_a_policy(world: World, daemon: Daemon) -> None:
    before = time.time()
    assert told(daemon, "show", "unseen.test") == [{"domain": "unseen.test"} | NOTHING]
    assert ask(endpoint(daemon), "unseen.test") == "NOTFOUND "
    (document,) = told(daemon, "show", "Unseen.Test.")
    checked = document["checked_at"]
    assert before < checked < time.time()
    note = {"no_policy": True, "reason": NO_RECORD, "until": checked + 60}
    assert document == {"domain": "unseen.test"} | NOTHING | {"checked_at": checked, "note": note}
    # To look at it has looked up nothing.
    assert world.asked("unseen.test") == (1, 0)
    assert listed(daemon) == {}


def test_what_is_known_of_a_domain_whose_policy_cannot_be_had(world: World, daemon: Daemon) -> None:
    domain = "broken.test"
    world.announce(domain)
    serve(world, domain, answer(status=404))
    assert ask(endpoint(daemon), domain) == "NOTFOUND "
    (document,) = told(daemon, "show", f"[{domain}]:587")
    checked, (failed,) = document["checked_at"], document["failed"]
    assert document == {"domain": domain} | NOTHING | {
        "checked_at": checked,
        "failed": [
            {
                "record_id": "1",
                "count": 1,
                "at": failed["at"],
                "stage": "HTTP response",
                "reason": "status 404",
                "result_type": "sts-policy-fetch-error",
            }
        ],
        "note": {"no_policy": False, "reason": NOT_FOUND, "until": checked + 60},
    }


def test_what_is_known_of_dane(world: World, tmp_path: Path) -> None:
    world.dns.authenticated = {"signed"}
    domain, other = "control.signed", "other.signed"
    for name in (domain, other):
        world.publish(name, policy(name))
        world.dns.add(name, "MX", f"10 mx.{name}.")
        world.dns.add(name, "A", "192.0.2.1")
        world.dns.add(f"mx.{name}", "A", "192.0.2.1")
    world.dns.add(f"_25._tcp.mx.{domain}", "TLSA", "3 1 1 " + 32 * "ab")
    world.dns.set_behaviour(f"_587._tcp.{domain}", Behaviour(rcode="SERVFAIL"))
    with Daemon(tmp_path, world.configuration(tmp_path, reply={"dane": "yield"})) as daemon:
        keys = (domain, f"[{domain}]", f"[{domain}]:587", other)
        replies = [ask(endpoint(daemon), key).partition(" ")[0] for key in keys]
        assert replies == ["NOTFOUND", "OK", "TEMP", "OK"]
        (document,) = told(daemon, "show", domain)
    now = time.time()
    assert all(now - 100 < dane.pop("seen_at") < now for dane in document["dane"])
    by_hop = {dane.pop("next_hop"): dane for dane in document["dane"]}
    assert by_hop == {
        domain: {"tlsa": "usable", "hosts": [f"mx.{domain}"], "reason": None},
        f"[{domain}]": {
            "tlsa": "absent",
            "hosts": [],
            "reason": f"{domain} has no TLSA record that is signed with DNSSEC",
        },
        f"[{domain}]:587": {
            "tlsa": "failed",
            "hosts": [],
            "reason": f"TLSA lookup: _587._tcp.{domain}: 127.0.0.1: SERVFAIL",
        },
    }


def test_ten_thousand_policies(world: World, tmp_path: Path) -> None:
    """More than is kept at hand, and a few that are."""
    domains = [f"d{number}.test" for number in range(10_000)]
    entries = {domain: fetched(policy(domain)) for domain in domains}
    store_entries(tmp_path / "policies.sqlite", entries)
    cache = {"path": str(tmp_path / "policies.sqlite"), "policies_in_memory": 1000}
    with Daemon(tmp_path, world.configuration(tmp_path, cache=cache)) as daemon:
        for domain in domains[:3]:
            assert ask(endpoint(daemon), domain) == secure(domain)
        assert listed(daemon) == entries


# forget


def test_a_domain_that_is_forgotten_is_discovered_anew(world: World, daemon: Daemon) -> None:
    domain, stays = "forget.test", "stays.test"
    for name in (domain, stays):
        world.publish(name, policy(name))
        assert ask(endpoint(daemon), name) == secure(name)
    path = daemon.config.parent / "policies.sqlite"
    wait_until_stored(path, domain, stays)
    replies = [told(daemon, "forget", name) for name in (domain, "Forget.Test.", "never.test")]
    assert replies == [
        [{"domain": domain, "forgotten": True}],
        [{"domain": domain, "forgotten": False}],
        [{"domain": "never.test", "forgotten": False}],
    ]
    assert listed(daemon).keys() == {stays}
    daemon.restart()
    assert (list(stored_entries(path)), list(listed(daemon))) == ([stays], [stays])
    assert [ask(endpoint(daemon), name) for name in (domain, stays)] == [secure(domain), secure(stays)]
    assert (world.asked(domain), world.asked(stays)) == ((2, 2), (1, 1))


def test_a_note_is_forgotten(world: World, daemon: Daemon) -> None:
    domain = "mended.test"
    assert ask(endpoint(daemon), domain) == "NOTFOUND "
    world.publish(domain, policy(domain))
    assert told(daemon, "forget", domain) == [{"domain": domain, "forgotten": True}]
    assert ask(endpoint(daemon), domain) == secure(domain)


def test_what_another_daemon_has_seen_used_is_forgotten_too(world: World, tmp_path: Path) -> None:
    path, domain = tmp_path / "policies.sqlite", "shared.test"
    entry = fetched(policy(domain))
    store_entries(path, {domain: entry})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert listed(daemon) == {domain: entry}
        assert told(daemon, "show", domain) != [{"domain": domain} | NOTHING]
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            later = time.time() + 1000
            connection.execute("UPDATE policies SET value = json_set(value, '$.last_used', ?)", (later,))
        assert told(daemon, "forget", domain) == [{"domain": domain, "forgotten": True}]
    assert stored_entries(path) == {}


def test_work_that_is_under_way_brings_nothing_back(world: World, tmp_path: Path) -> None:
    """It began with the old policy, and would keep it."""
    domain = "busy.test"
    hold = Hold()
    world.announce(domain, b"v=STSv1; id=2;")
    serve(world, domain, hold, answer(status=404))
    store_entries(tmp_path / "policies.sqlite", {domain: fetched(policy(domain), checked=3600)})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, ThreadPoolExecutor() as threads:
        assert ask(endpoint(daemon), domain) == secure(domain)
        assert hold.reached.wait(20)
        forgotten = threads.submit(told, daemon, "forget", domain)
        assert told(daemon, "status")
        assert not forgotten.done()
        hold.release()
        assert forgotten.result() == [{"domain": domain, "forgotten": True}]
        assert told(daemon, "show", domain) == [{"domain": domain} | NOTHING]


# refresh


def test_a_policy_is_fetched_whatever_its_age_and_id(world: World, daemon: Daemon) -> None:
    domain = "fresh.test"
    world.publish(domain, policy(domain))
    assert ask(endpoint(daemon), domain) == secure(domain)
    world.publish(domain, policy(domain, "testing"))
    (document,) = told(daemon, "refresh", domain)
    entry = parse_row(document["row"])
    assert entry.cached
    expected = {"row": print_row(entry), "checked_at": entry.checked_at, "fetched": True, "reason": None}
    assert document == {"domain": domain} | NOTHING | expected
    assert entry.cached.text == policy(domain, "testing")
    assert ask(endpoint(daemon), domain) == "NOTFOUND "
    # publish() announces the id 1 again, in a second record that is the same.
    assert world.asked(domain) == (2, 2)


def test_a_policy_is_fetched_whatever_has_failed(world: World, daemon: Daemon) -> None:
    domain = "again.test"
    world.announce(domain)
    serve(world, domain, answer(status=404))
    assert ask(endpoint(daemon), domain) == "NOTFOUND "
    (document,) = told(daemon, "refresh", domain)
    assert (document["fetched"], document["reason"], document["failed"][0]["count"]) == (False, NOT_FOUND, 2)
    serve(world, domain, answer(policy(domain)))
    (document,) = told(daemon, "refresh", domain)
    assert (document["fetched"], document["reason"], document["failed"]) == (True, None, [])
    assert ask(endpoint(daemon), domain) == secure(domain)


def test_a_refresh_that_fails_ends_no_live_policy_and_says_why(world: World, daemon: Daemon) -> None:
    domain = "kept.test"
    world.publish(domain, policy(domain))
    assert ask(endpoint(daemon), domain) == secure(domain)
    reasons = []
    serve(world, domain, answer(status=404))
    reasons += told(daemon, "refresh", domain)
    world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL"))
    reasons += told(daemon, "refresh", domain)
    world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour())
    world.dns.remove(f"_mta-sts.{domain}")
    reasons += told(daemon, "refresh", domain)
    assert [(document["fetched"], document["reason"]) for document in reasons] == [
        (False, NOT_FOUND),
        (False, "TXT lookup: 127.0.0.1: SERVFAIL"),
        (False, NO_RECORD),
    ]
    assert all(document["row"] for document in reasons)
    assert ask(endpoint(daemon), domain) == secure(domain)


def test_a_refresh_of_a_domain_that_is_not_known(world: World, daemon: Daemon) -> None:
    world.publish("new.test", policy("new.test"))
    documents = [document for name in ("new.test", "gone.test") for document in told(daemon, "refresh", name)]
    assert [(document["fetched"], document["reason"]) for document in documents] == [(True, None), (False, NO_RECORD)]
    # Nobody has used it: if nobody does, it is forgotten.
    assert listed(daemon)["new.test"].last_used == 0.0
    assert ask(endpoint(daemon), "new.test") == secure("new.test")
    assert world.asked("new.test") == (1, 1)


def test_a_refresh_waits_for_the_discovery_that_is_under_way_and_fetches_again(world: World, daemon: Daemon) -> None:
    domain = "twice.test"
    hold = Hold()
    world.announce(domain)
    serve(world, domain, hold, answer(policy(domain)))
    with ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, endpoint(daemon), domain)
        assert hold.reached.wait(20)
        first = threads.submit(told, daemon, "refresh", domain)
        assert told(daemon, "list") == []
        assert not first.done()
        hold.release()
        assert reply.result() == secure(domain)
        assert [document["fetched"] for document in first.result()] == [True]
    assert world.asked(domain) == (2, 2)


# status


def status(daemon: Daemon) -> dict[str, Any]:
    (document,) = told(daemon, "status")
    assert isinstance(document, dict)
    return document


def test_the_status_at_first(daemon: Daemon) -> None:
    found = status(daemon)
    times = found["exceptions"].pop("since"), found.pop("started_at"), found.pop("configured_at")
    assert time.time() - 100 < times[0] <= times[1] <= times[2] < time.time()
    assert found == {
        "version": __version__,
        "pid": daemon.pid,
        "config": str(daemon.config),
        "sockets": [endpoint(daemon)],
        "style": {"chosen": "plain", "why": "configured"},
        "dane": {"chosen": "off", "why": "configured"},
        "shadow_since": None,
        "database": {"writable": True, "trouble": None, "trouble_since": None, "pending_writes": 0} | NOT_ANEW,
        "policies": {"stored": 0, "in_memory": 0, "not_renewed": 0, "ending": 0, "first_ends_at": None},
        "no_policies_in_memory": 0,
        "discoveries": {"minutes": 10, "ended": 0, "failed": 0, "last_failure": None},
        "exceptions": {"holding": 0, "first_to_end": [], "trouble": None},
        "fleet": None,
    }


def test_the_status_counts_discoveries(world: World, daemon: Daemon) -> None:
    world.publish("counted.test", policy("counted.test"))
    world.dns.set_behaviour("_mta-sts.failed.test", Behaviour(rcode="SERVFAIL"))
    for domain in ("counted.test", "counted.test", "none.test", "failed.test"):
        ask(endpoint(daemon), domain)
    assert status(daemon)["discoveries"] == {
        "minutes": 10,
        "ended": 3,
        "failed": 1,
        "last_failure": f"TXT lookup: {NAMESERVER}: SERVFAIL",
    }


def test_the_status_has_the_time_of_the_last_reload(daemon: Daemon) -> None:
    before = status(daemon)
    since = len(daemon.log)
    daemon.hang_up()
    daemon.wait_for("reply.dane is", since=since)
    after = status(daemon)
    assert (after["started_at"], after["configured_at"] > before["configured_at"]) == (before["started_at"], True)


def failing(domain: str, age: float, mode: str = "enforce") -> Entry:
    parsed, _ = parse(policy(domain, mode).encode())
    now = time.time()
    failed = FailedFetch("1", 1, now, Failure(Stage.RESPONSE, "status 404"))
    return Entry(CachedPolicy(parsed, policy(domain, mode), "1", now - age), (failed,), last_used=now)


def test_the_status_counts_policies(world: World, tmp_path: Path) -> None:
    entries = {
        "well.test": fetched(policy("well.test")),
        "early.test": failing("early.test", age=60_000),
        "late.test": failing("late.test", age=70_000),
        # The owner needs no alert: RFC 8461, 10.2.
        "none.test": failing("none.test", age=80_000, mode="none"),
        "over.test": failing("over.test", age=90_000),
    }
    store_entries(tmp_path / "policies.sqlite", entries)
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(endpoint(daemon), "well.test") == secure("well.test")
        assert ask(endpoint(daemon), "nothing.test") == "NOTFOUND "
        found = status(daemon)
    late = entries["late.test"].cached
    assert late
    # SQLite prints fewer digits than Python.
    first_ends_at = pytest.approx(late.expires_at(), rel=0, abs=0.01)
    assert (found["policies"], found["no_policies_in_memory"]) == (
        {"stored": 5, "in_memory": 1, "not_renewed": 2, "ending": 1, "first_ends_at": first_ends_at},
        1,
    )


def test_the_status_tells_what_a_reload_has_chosen(daemon: Daemon) -> None:
    daemon.config.write_text(daemon.config.read_text().replace('"off"', '"yield"').replace('"plain"', '"tlsrpt"'))
    since = len(daemon.log)
    daemon.hang_up()
    daemon.wait_for("reply.dane is", since=since)
    found = status(daemon)
    assert (found["style"]["chosen"], found["dane"]["chosen"]) == ("tlsrpt", "yield")


def test_the_status_while_the_database_is_locked(world: World, tmp_path: Path) -> None:
    domain, path = "locked.test", tmp_path / "policies.sqlite"
    world.publish(domain, policy(domain))
    daemon = Daemon(tmp_path, world.configuration(tmp_path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        before = time.time()
        daemon.start()
        assert ask(endpoint(daemon), domain) == secure(domain)
        daemon.wait_for("cache.path")
        first, second = status(daemon)["database"], status(daemon)["database"]
        *documents, end = sent(daemon, b'{"request": "list"}\n')
    assert first == second
    assert before < first.pop("trouble_since") < time.time()
    assert first == {"writable": False, "trouble": "database is locked", "pending_writes": 1} | NOT_ANEW
    # What is at hand is listed all the same.
    assert ([document["domain"] for document in documents], end) == (
        [domain],
        {"error": "cache.path: database is locked"},
    )
    assert daemon.stop() == 0
    assert list(stored_entries(path)) == [domain]


def test_the_status_tells_of_a_lock_that_nothing_waits_for(daemon: Daemon) -> None:
    path = daemon.config.parent / "policies.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = status(daemon)
        # Others may write only now; to read is allowed.
        database, stored = found["database"], found["policies"]["stored"]
        assert (database["writable"], database["trouble"], stored) == (False, "database is locked", 0)
    assert (
        status(daemon)["database"]
        == {
            "writable": True,
            "trouble": None,
            "trouble_since": None,
            "pending_writes": 0,
        }
        | NOT_ANEW
    )


# Clients that misbehave, and many at once

NO_OBJECT = {"error": "expected a JSON object on one line of at most 4096 bytes"}
NO_REQUEST = {
    "error": 'expected "request" to be "list", "brief", "status", "exceptions", "shadow" or "fleet", or "show", '
    '"explain", "forget", "refresh", "except" or "unexcept" with a "domain"'
}


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        pytest.param(b"\n", NO_OBJECT, id="an empty line"),
        pytest.param(b"list\n", NO_OBJECT, id="no JSON"),
        pytest.param(b"\xff\n", NO_OBJECT, id="not UTF-8"),
        pytest.param(b"[" * 4000 + b"\n", NO_OBJECT, id="deep"),
        pytest.param(b'{"request": "list", "x": "' + b"x" * 4096 + b'"}\n', NO_OBJECT, id="long"),
        pytest.param(b"x" * 20_000, NO_OBJECT, id="endless"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", NO_OBJECT, id="HTTP"),
        pytest.param(b"20:postfix example.test,\n", NO_OBJECT, id="socketmap"),
        pytest.param(b'"list"\n', NO_REQUEST, id="no object"),
        pytest.param(b"{}\n", NO_REQUEST, id="no request"),
        pytest.param(b'{"request": "stop"}\n', NO_REQUEST, id="an unknown request"),
        pytest.param(b'{"request": "show"}\n', NO_REQUEST, id="no domain"),
        pytest.param(b'{"request": "show", "domain": ["a.test"]}\n', NO_REQUEST, id="a list of domains"),
        pytest.param(
            b'{"request": "forget", "domain": "localhost"}\n',
            {"error": "'localhost' cannot have a policy: needs a dot, like example.com"},
            id="a single label",
        ),
        pytest.param(
            b'{"request": "refresh", "domain": "\\ud800.test"}\n',
            {"error": "'\\ud800.test' cannot have a policy: not UTF-8"},
            id="half a character",
        ),
    ],
)
def test_bad_input_gets_one_error(daemon: Daemon, octets: bytes, reply: object) -> None:
    try:
        assert sent(daemon, octets) == [reply]
    except ConnectionResetError:
        assert len(octets) > 4096  # It is not read to the end.
    assert ask(endpoint(daemon), "none.test") == "NOTFOUND "
    assert told(daemon, "list") == []


def test_a_request_in_pieces(daemon: Daemon) -> None:
    with connected(daemon) as connection, connection.makefile("rb") as lines:
        for octet in b'{"request": "list"}\n':
            connection.sendall(bytes([octet]))
        assert [json.loads(line) for line in lines] == [DONE]


def test_one_request_a_connection(daemon: Daemon) -> None:
    assert sent(daemon, b'{"request": "list"}\n{"request": "list"}\n') == [DONE]


def test_a_request_without_an_end_of_line(daemon: Daemon) -> None:
    with connected(daemon) as connection, connection.makefile("rb") as lines:
        connection.sendall(b'{"request": "list"}')
        connection.shutdown(socket.SHUT_WR)
        assert [json.loads(line) for line in lines] == [DONE]


def test_clients_that_say_nothing_or_go_away_disturb_nobody(daemon: Daemon) -> None:
    with connected(daemon), connected(daemon) as half:
        half.sendall(b'{"request": "li')
        for octets in (b"", b'{"request"', b'{"request": "list"}\n', b'{"request": "refresh", "domain": "x.test"}\n'):
            with connected(daemon) as gone:
                gone.sendall(octets)
        assert told(daemon, "list") == []
        assert ask(endpoint(daemon), "none.test") == "NOTFOUND "
        assert daemon.stop() == 0  # Which waits for less long than the daemon would for a client.
    assert [line for line in daemon.log if not line.startswith("info: ")] == []
    assert [file.name for file in daemon.config.parent.iterdir() if file.is_socket()] == []


def test_who_never_reads_costs_little_and_disturbs_nobody(world: World, tmp_path: Path) -> None:
    """All that it is owed would be 80 MB."""
    text = policy("d.test") + "x: " + "x" * 8000 + "\n"
    entries = {f"d{number}.test": fetched(text) for number in range(10_000)}
    store_entries(tmp_path / "policies.sqlite", entries)
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, connected(daemon) as greedy:
        credentials = greedy.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        before = memory(pid)
        greedy.sendall(b'{"request": "list"}\n')
        assert greedy.recv(1)
        assert ask(endpoint(daemon), "d1.test") == secure("d.test")
        assert listed(daemon).keys() == entries.keys()
        assert ask(endpoint(daemon), "d2.test") == secure("d.test")
        assert memory(pid) - before < 20_000_000
        assert daemon.stop() == 0


def memory(pid: int) -> int:
    """How much a process has used at most until now, in octets."""
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


def test_two_clients_at_once(world: World, daemon: Daemon) -> None:
    domain = "slow.test"
    hold = Hold()
    world.announce(domain)
    serve(world, domain, hold, answer(policy(domain)))
    with ThreadPoolExecutor() as threads:
        first = threads.submit(told, daemon, "refresh", domain)
        assert hold.reached.wait(20)
        begun = threading.Barrier(20)

        def together(number: int) -> list[Any]:
            begun.wait(20)
            return told(daemon, "show", f"d{number}.test")

        documents = [document for (document,) in ThreadPoolExecutor(20).map(together, range(20))]
        assert documents == [{"domain": f"d{number}.test"} | NOTHING for number in range(20)]
        assert not first.done()
        hold.release()
        assert [document["fetched"] for document in first.result()] == [True]


# The socket


def test_only_its_owner_and_root_may_use_it(daemon: Daemon) -> None:
    path = daemon.config.parent / "control"
    found = path.stat()
    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode), found.st_uid) == (True, 0o600, os.getuid())


def test_there_may_be_none(world: World, tmp_path: Path) -> None:
    server: dict[str, object] = {"listen": [f"unix:{tmp_path / 'socket'}"], "control": ""}
    with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon:
        assert ask(endpoint(daemon), "none.test") == "NOTFOUND "
        assert [file.name for file in tmp_path.iterdir() if file.is_socket()] == ["socket"]
    assert [line for line in daemon.log if "control" in line] == []


def test_what_a_killed_daemon_has_left_is_replaced(daemon: Daemon) -> None:
    daemon.kill()
    assert (daemon.config.parent / "control").is_socket()
    daemon.start()
    assert told(daemon, "list") == []


def refusal(world: World, folder: Path, control: Path) -> str:
    """Why the daemon does not start."""
    listen = [f"unix:{folder / 'other'}"]
    daemon = Daemon(folder, world.configuration(folder, server={"listen": listen, "control": str(control)}))
    with pytest.raises(AssertionError), daemon:
        pass
    (line,) = daemon.log
    assert not (folder / "other").exists()
    return line


def test_a_second_daemon_leaves_the_first_its_socket(world: World, daemon: Daemon, tmp_path: Path) -> None:
    control = daemon.config.parent / "control"
    (tmp_path / "second").mkdir()
    line = refusal(world, tmp_path / "second", control)
    assert line == f'postfix-mtasts-daemon: error: server.control = "{control}": another process is listening there'
    assert told(daemon, "list") == []


def test_a_path_that_was_asked_for_must_do(world: World, tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "none"
    file.touch()
    lines = [refusal(world, tmp_path, path) for path in (folder / "control", file)]
    assert lines == [
        f'postfix-mtasts-daemon: error: server.control = "{folder / "control"}": there is no folder {folder}',
        f'postfix-mtasts-daemon: error: server.control = "{file}": a file with this name exists, and is not a socket',
    ]
    assert file.is_file()


def test_the_default_path_is_used_if_it_can_be(world: World, tmp_path: Path) -> None:
    folder = Path(DEFAULT_CONTROL).parent
    server: dict[str, object] = {"listen": [f"unix:{tmp_path / 'socket'}"], "control": DEFAULT_CONTROL}
    (tmp_path / "second").mkdir()
    second: dict[str, object] = {"listen": [f"unix:{tmp_path / 'second' / 'socket'}"], "control": DEFAULT_CONTROL}
    with mounted("-t", "tmpfs", "tmpfs", folder.parent):
        folder.mkdir()
        with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon:
            assert stat.S_IMODE(Path(DEFAULT_CONTROL).stat().st_mode) == 0o600
            with Daemon(tmp_path / "second", world.configuration(tmp_path / "second", server=second)) as other:
                assert ask(endpoint(other), "none.test") == "NOTFOUND "
            reason = f'server.control = "{DEFAULT_CONTROL}": another process is listening there'
            assert other.log[0] == f"info: no control socket, so postfix-mtasts-query cannot reach the daemon: {reason}"
            assert Path(DEFAULT_CONTROL).is_socket()
        assert list(folder.iterdir()) == []
        assert [line for line in daemon.log if "control" in line] == []


# who may ask


def as_user(daemon: Daemon, user: str, group: str, line: str) -> list[Any]:
    """What a request of this user leads to, or that the connection was refused."""
    program = (
        "import json, socket, sys\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "try: connection.connect(sys.argv[1])\n"
        "except PermissionError: print('\"forbidden\"'); sys.exit()\n"
        "connection.sendall(sys.argv[2].encode() + b'\\n')\n"
        "sys.stdout.buffer.write(connection.makefile('rb').read())\n"
    )
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", sys.executable, "-c", program]
    socket_path = str(daemon.config.parent / "control")
    done = subprocess.run([*command, socket_path, line], capture_output=True, text=True, check=True, timeout=20)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_group_may_look_and_change_nothing(world: World) -> None:
    # Its users must be able to reach the folder.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server: dict[str, object] = {"control_group": "daemon"}
        with Daemon(folder, world.configuration(folder, server=server)) as daemon:
            assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o660
            assert as_user(daemon, "nobody", "nogroup", '{"request": "list"}') == ["forbidden"]
            for request in ("list", "exceptions"):
                assert as_user(daemon, "nobody", "daemon", json.dumps({"request": request})) == [DONE]
            for request in ("forget", "refresh", "except", "unexcept"):
                rest = {"until": "2099-12-31", "reason": "ticket"} if request == "except" else {}
                line = json.dumps({"request": request, "domain": "a.test", **rest})
                refused = {"error": f"only root and the daemon's user may {request} a domain"}
                assert as_user(daemon, "nobody", "daemon", line) == [refused]


def test_a_group_that_does_not_exist_stops_nothing(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path, server={"control_group": "nosuch"})) as daemon:
        assert told(daemon, "list") == []
        assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600
    reason = "server.control_group = nosuch: no such group"
    assert f"warning: {reason}; only root and the daemon's user can use the control socket" in daemon.log
