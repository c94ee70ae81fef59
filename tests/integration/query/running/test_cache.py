"""`postfix-mtasts-query cache`, with the daemon and without."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.sts.entry import Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from tests.integration.conftest import World, fetched, store_entries, stored_entries
from tests.world.daemon import COMMAND, Daemon, ask, query, toml
from tests.world.dns import Behaviour
from tests.world.https import answer

pytestmark = pytest.mark.usefixtures("namespace")

DAY = 86400
USAGE, UNAVAILABLE, CONFIG = os.EX_USAGE, os.EX_UNAVAILABLE, os.EX_CONFIG


def policy(domain: str, mode: str = "enforce", max_age: int = 604800) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: {max_age}\n"


def endpoint(daemon: Daemon) -> str:
    return f"unix:{daemon.config.parent / 'socket'}"


def normal(text: str) -> str:
    """With all times alike, but for their units."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r"\b\d+ (second|minute)s?\b", "N seconds", text)


def row_by_row(table: str) -> str:
    """With two blanks between columns, however wide they are."""
    return re.sub("(?<=\\S) {2,}", "  ", normal(table))


@pytest.fixture
def daemon(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, world.configuration(tmp_path)) as running:
        yield running


@pytest.fixture
def config(world: World, tmp_path: Path) -> Path:
    """Of a daemon that does not run."""
    path = tmp_path / "postfix-mtasts.toml"
    path.write_text(toml(world.configuration(tmp_path)))
    return path


def entries() -> dict[str, Entry]:
    failed = FailedFetch("2", 3, time.time() - 4 * 3600, Failure(Stage.RESPONSE, "status 404"))
    return {
        "well.test": fetched(policy("well.test"), age=3 * 3600, checked=60),
        "failing.test": replace(fetched(policy("failing.test"), age=4.9 * DAY), failed=(failed,)),
        "over.test": fetched(policy("over.test", max_age=DAY), age=4 * DAY),
    }


TABLE = """\
domain  mode  mx  fetched  expires
failing.test  enforce  1  5 days ago  in 2 days
    failed 3 times, last 4 hours ago: HTTP response: status 404
over.test  enforce  1  4 days ago  3 days ago
well.test  enforce  1  3 hours ago  in 7 days
"""
SHOWN = """\
failing.test: mode enforce, expires in 2 days
    max_age     604800 (7 days)
    mx          mx.failing.test
    fetched     5 days ago (TIME), for record id 1
    expires     in 2 days (TIME)
    refresh     4 days ago (TIME)
    last used   N seconds ago (TIME), accurate to a day
    checked     N seconds ago (TIME)
    failed      3 times, last 4 hours ago (TIME), for record id 2: HTTP response: status 404 (sts-policy-fetch-error)
    policy file
        1  version: STSv1
        2  mode: enforce
        3  mx: mx.failing.test
        4  max_age: 604800
"""
OVER: dict[str, Any] = {
    "domain": "over.test",
    "policy": {
        "mode": "enforce",
        "max_age": 86400,
        "mx": ["mx.over.test"],
        "record_id": "1",
        "fetched_at": "TIME",
        "expires_at": "TIME",
        "live": False,
        "file": policy("over.test", max_age=DAY),
    },
    "checked_at": "TIME",
    "last_used": "TIME",
    "refresh_at": None,
    "failed": [],
}
ALONE: dict[str, Any] = {
    "note": None,
    "unread": False,
    "withheld": False,
    "dane": [],
    "exception": None,
    "deferred": None,
}
NOTHING: dict[str, Any] = {
    "domain": "nothing.test",
    "policy": None,
    "checked_at": None,
    "last_used": None,
    "refresh_at": None,
    "failed": [],
} | ALONE


def looked_at(config: Path) -> dict[str, tuple[int, str, str]]:
    """What the commands say that only look."""
    commands = {
        "list": ("list",),
        "show": ("show", "Failing.Test."),
        "some": ("show", "well.test", "nothing.test", "[failing.test]:587"),
        "json": ("list", "--json"),
        "json of two": ("show", "over.test", "--json", "nothing.test"),
    }
    return {name: query("cache", *words, "--config", config) for name, words in commands.items()}


def check(found: dict[str, tuple[int, str, str]], errors: str) -> None:
    assert {name: (status, said) for name, (status, _, said) in found.items()} == {
        "list": (0, errors),
        "show": (1, errors),
        "some": (1, errors),
        "json": (0, errors),
        "json of two": (3, errors),
    }
    assert row_by_row(found["list"][1]) == TABLE
    output = {name: normal(text) for name, (_, text, _) in found.items()}
    assert output["show"] == SHOWN
    first_words = [line for line in output["some"].splitlines() if not line.startswith(" ")]
    assert first_words == [
        "well.test: mode enforce, expires in 7 days",
        "nothing.test: nothing is cached",
        "failing.test: mode enforce, expires in 2 days",
    ]
    documents = {one["domain"]: one for one in map(json.loads, output["json"].splitlines())}
    assert (list(documents), documents["over.test"]) == (["failing.test", "over.test", "well.test"], OVER)
    assert list(map(json.loads, output["json of two"].splitlines())) == [OVER | ALONE, NOTHING]


def test_the_daemon_is_asked(world: World, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        check(looked_at(daemon.config), "")


def reading(folder: Path, why: str = "no such file or directory") -> str:
    """What is said where the database is read."""
    reason = f'server.control = "{folder / "control"}": {why}'
    shown = f"showing the stored copy in {folder / 'policies.sqlite'}"
    return f"postfix-mtasts-query: info: the daemon cannot be reached: {reason}; {shown}\n"


@contextmanager
def untouched(folder: Path, *but: str) -> Iterator[None]:
    """Every file is as it was, and no other has come, at the end of the block."""

    def files() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in but}

    before = files()
    yield
    assert files() == before


def test_without_a_daemon_the_database_is_read(config: Path, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    with untouched(tmp_path):
        check(looked_at(config), reading(tmp_path))


def test_the_database_is_read_where_nothing_can_be_written(config: Path, tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv: apt install util-linux")
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    store_entries(tmp_path / "policies.sqlite", entries())
    (tmp_path / "policies.sqlite").chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        status, output, errors = query("cache", "list", "--config", config, prefix=prefix)
    finally:
        tmp_path.chmod(0o755)
    assert (status, row_by_row(output), errors) == (0, TABLE, reading(tmp_path))


def test_the_database_is_read_while_another_has_it_open(config: Path, tmp_path: Path) -> None:
    """With what is in its write-ahead log alone."""
    path = tmp_path / "policies.sqlite"
    store_entries(path, entries())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE policies SET key = 'moved.test' WHERE key = 'over.test'")
        assert b"moved.test" not in path.read_bytes()
        # The index of the log has marks of who reads.
        with untouched(tmp_path, "policies.sqlite-shm"):
            status, output, errors = query("cache", "list", "--config", config)
        domains = [line.split()[0] for line in output.splitlines()[1:] if not line.startswith(" ")]
        assert (status, domains, errors) == (0, ["failing.test", "moved.test", "well.test"], reading(tmp_path))
        connection.execute("UPDATE policies SET key = 'over.test' WHERE key = 'moved.test'")
    with untouched(tmp_path):
        check(looked_at(config), reading(tmp_path))


def test_what_a_killed_daemon_has_left_is_read(world: World, tmp_path: Path) -> None:
    domain = "killed.test"
    world.publish(domain, policy(domain))
    daemon = Daemon(tmp_path, world.configuration(tmp_path))
    path = tmp_path / "policies.sqlite"
    daemon.start()
    try:
        assert query("cache", "refresh", domain, "--config", daemon.config)[0] == 0
        while domain not in stored_entries(path):
            time.sleep(0.01)
    finally:
        daemon.kill()
    assert domain.encode() not in path.read_bytes()
    with untouched(tmp_path, "policies.sqlite-shm", "control", "socket"):
        status, output, errors = query("cache", "show", domain, "--config", daemon.config)
    assert (status, output.splitlines()[0]) == (0, f"{domain}: mode enforce, expires in 7 days")
    assert errors == reading(tmp_path, "connection refused")
    daemon.start()
    assert daemon.stop() == 0
    assert list(stored_entries(path)) == [domain]


def error(reason: str, hint: str = "") -> str:
    return f"postfix-mtasts-query: error: {reason}\n" + (f"hint: {hint}\n" if hint else "")


def unreadable(folder: Path, why: str) -> str:
    control = f'server.control = "{folder / "control"}": no such file or directory'
    database = f'cache.path = "{folder / "policies.sqlite"}": {why}'
    return error(
        f"the daemon cannot be reached: {control}; the database cannot be read: {database}",
        "has the daemon ever run, and do you have permission to read its files?",
    )


def test_a_database_that_is_not_there_is_not_made(config: Path, tmp_path: Path) -> None:
    with untouched(tmp_path):
        found = [query("cache", *words, "--config", config) for words in (("list",), ("show", "a.test"))]
    assert found == [(UNAVAILABLE, "", unreadable(tmp_path, "no such file or directory"))] * 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"no database at all " * 1000, "file is not a database", id="no database"),
        pytest.param(b"", "no such table: policies", id="empty"),
    ],
)
def test_a_database_that_is_none_stays_as_it_is(config: Path, tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "policies.sqlite").write_bytes(content)
    with untouched(tmp_path):
        assert query("cache", "list", "--config", config) == (UNAVAILABLE, "", unreadable(tmp_path, why))


def test_rows_that_cannot_be_understood_are_said(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "policies.sqlite"
    store_entries(path, {"well.test": fetched(policy("well.test"))})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for key, row in (("bad.test", b"\xff{"), ("null.test", None), ("\x1b[2J", b"{}")):
            connection.execute("INSERT INTO policies VALUES (?, ?)", (key, row))
    status, output, errors = query("cache", "list", "--config", config)
    assert (status, [line.split()[0] for line in output.splitlines()]) == (0, ["domain", "well.test"])
    lines = errors.splitlines()
    assert lines[0] == reading(tmp_path).rstrip()
    domains = [line.partition(", database row ignored: ")[0] for line in lines[1:]]
    assert domains == [
        f"postfix-mtasts-query: warning: domain={name}" for name in ("'\\x1b[2J'", "'bad.test'", "'null.test'")
    ]


def test_nothing_is_cached(daemon: Daemon) -> None:
    found = [query("cache", "list", *words, "--config", daemon.config) for words in ((), ("--json",))]
    assert found == [(0, "nothing is cached\n", ""), (0, "", "")]


def test_what_a_policy_file_has_is_escaped(world: World, daemon: Daemon) -> None:
    domain = "escape.test"
    world.publish(domain, policy(domain) + "x: é\u202e\u2028\r\n")
    assert query("cache", "refresh", domain, "--config", daemon.config)[0] == 0
    status, output, errors = query("cache", "show", domain, "--config", daemon.config)
    assert (status, output.splitlines()[-1], errors) == (0, r"        5  x: \xe9\u202e\u2028", "")


def test_what_is_only_in_memory_is_shown(world: World, daemon: Daemon) -> None:
    assert ask(endpoint(daemon), "absent.test") == "NOTFOUND "
    status, output, errors = query("cache", "show", "absent.test", "--config", daemon.config)
    text = "absent.test: no policy: no _mta-sts TXT record\n    checked     N seconds ago (TIME)\n"
    assert (status, normal(output), errors) == (3, text, "")
    _, output, _ = query("cache", "show", "absent.test", "--json", "--config", daemon.config)
    note = {"no_policy": True, "reason": "no _mta-sts TXT record", "until": "TIME"}
    expected = NOTHING | {"domain": "absent.test", "checked_at": "TIME", "note": note}
    assert json.loads(normal(output)) == expected


def test_what_a_list_chooses(world: World, daemon: Daemon) -> None:
    world.publish("enforced.test", policy("enforced.test", max_age=86400))
    world.publish("testing.test", policy("testing.test", "testing"))
    world.dns.set_behaviour("_mta-sts.failed.test", Behaviour(rcode="SERVFAIL"))
    for domain in ("enforced.test", "testing.test", "failed.test", "absent.test"):
        ask(endpoint(daemon), domain)

    def listed(*options: str) -> list[str]:
        status, output, errors = query("cache", "list", "--json", *options, "--config", daemon.config)
        assert (status, errors) == (0, "")
        return [json.loads(line)["domain"] for line in output.splitlines()]

    assert listed() == ["enforced.test", "failed.test", "testing.test"]
    assert listed("--failing") == ["failed.test"]
    assert listed("--mode", "testing") == ["testing.test"]
    assert listed("--ending") == []
    assert listed("--sort", "expires") == ["failed.test", "enforced.test", "testing.test"]
    _, output, _ = query("cache", "list", "--failing", "--config", daemon.config)
    assert row_by_row(output) == (
        "domain  mode  mx  fetched  expires\n"
        "failed.test  -  -  -  -\n"
        "    policy unavailable: TXT lookup: 127.0.0.1: SERVFAIL\n"
    )


def test_a_list_of_what_is_about_to_expire(config: Path, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    status, output, _ = query("cache", "list", "--ending", "--json", "--config", config)
    assert (status, output) == (0, "")
    late = {"late.test": replace(entries()["failing.test"], cached=fetched(policy("late.test"), age=6 * DAY).cached)}
    store_entries(tmp_path / "policies.sqlite", late)
    status, output, _ = query("cache", "list", "--ending", "--json", "--config", config)
    assert (status, [json.loads(line)["domain"] for line in output.splitlines()]) == (0, ["late.test"])


def test_forget(world: World, daemon: Daemon) -> None:
    domain = "xn--vergessen-j4a.test"
    world.publish(domain, policy(domain))
    assert ask(endpoint(daemon), domain) == f"OK secure match=mx.{domain} servername=hostname"
    words = ("cache", "forget", "Vergessené.test.", "never.test", "--config", daemon.config)
    assert query(*words) == (3, f"{domain}: forgotten\nnever.test: nothing was cached\n", "")
    assert query("cache", "forget", "--json", domain, "--config", daemon.config) == (
        3,
        f'{{"domain": "{domain}", "forgotten": false}}\n',
        "",
    )
    assert query("cache", "list", "--config", daemon.config) == (0, "nothing is cached\n", "")
    world.publish("one.test", policy("one.test"))
    assert query("cache", "refresh", "one.test", "--config", daemon.config)[0] == 0
    assert query("cache", "forget", "one.test", "--config", daemon.config) == (0, "one.test: forgotten\n", "")


def test_refresh(world: World, daemon: Daemon) -> None:
    kept, broken, fresh, none = (f"{name}.refresh.test" for name in ("kept", "broken", "fresh", "none"))
    world.publish(kept, policy(kept))
    assert ask(endpoint(daemon), kept) == f"OK secure match=mx.{kept} servername=hostname"
    for domain in (kept, broken):
        world.announce(domain)
        host = f"mta-sts.{domain}"
        world.https.site(host, world.ca.issue(host).server_context(), answer(status=404))
    world.publish(fresh, policy(fresh, "testing"))
    not_found = "not fetched: HTTP response: status 404"
    lines = {
        fresh: (0, "fetched: mode testing, expires in 7 days"),
        kept: (1, f"{not_found}; cached: mode enforce, expires in 7 days"),
        broken: (2, not_found),
        none: (3, "not fetched: no _mta-sts TXT record"),
    }
    found = {domain: query("cache", "refresh", domain, "--config", daemon.config) for domain in lines}
    assert found == {domain: (status, f"{domain}: {line}\n", "") for domain, (status, line) in lines.items()}
    # Of several, what is worst.
    status, output, _ = query("cache", "refresh", "--json", none, broken, fresh, kept, "--config", daemon.config)
    documents = [json.loads(line) for line in output.splitlines()]
    assert (status, [(one["domain"], one["fetched"], one["reason"]) for one in documents]) == (
        2,
        [
            (none, False, "no _mta-sts TXT record"),
            (broken, False, "HTTP response: status 404"),
            (fresh, True, None),
            (kept, False, "HTTP response: status 404"),
        ],
    )
    assert documents[2]["policy"]["file"] == policy(fresh, "testing")


def test_what_needs_the_daemon_says_so(config: Path, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    reason = f'the daemon cannot be reached: server.control = "{tmp_path / "control"}": no such file or directory'
    with untouched(tmp_path):
        found = [query("cache", what, "well.test", "--config", config) for what in ("forget", "refresh")]
    assert (
        found == [(UNAVAILABLE, "", error(reason, "is it running, and do you have permission to use its socket?"))] * 2
    )


def test_without_a_control_socket_the_database_is_read(world: World, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    config = tmp_path / "postfix-mtasts.toml"
    config.write_text(toml(world.configuration(tmp_path, server={"control": ""})))
    status, output, errors = query("cache", "list", "--config", config)
    why = 'the daemon cannot be reached: server.control = "": the control socket is switched off'
    shown = f"showing the stored copy in {tmp_path / 'policies.sqlite'}"
    expected = (0, TABLE, f"postfix-mtasts-query: info: {why}; {shown}\n")
    assert (status, row_by_row(output), errors) == expected


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(
            b"",
            error("the daemon's reply is incomplete", "the daemon may have been stopped: look in its log"),
            id="nothing",
        ),
        pytest.param(b'{"error": "cache.path: locked"}\n', error("the daemon says: cache.path: locked"), id="an error"),
        pytest.param(
            b"HTTP/1.1 400\r\n",
            error("the daemon's reply cannot be read: Expecting value: line 1 column 1 (char 0)"),
            id="something else",
        ),
    ],
)
def test_a_reply_that_is_none(config: Path, tmp_path: Path, reply: bytes, reason: str) -> None:
    store_entries(tmp_path / "policies.sqlite", entries())
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        found = query("cache", "list", "--config", config)
        thread.join()
    assert found == (UNAVAILABLE, "", reason)


@pytest.mark.parametrize(
    ("words", "reason", "hint"),
    [
        pytest.param(("list", "a.test"), "cache list takes no DOMAIN", True, id="list of one"),
        pytest.param(("show",), "cache show needs a DOMAIN", True, id="show of none"),
        pytest.param(
            ("forget", "a.test", "localhost"),
            "'localhost': needs a dot, like example.com",
            False,
            id="a single label",
        ),
        pytest.param(
            ("show", "192.0.2.1"), "'192.0.2.1': ends in a number, like an IP address", False, id="an address"
        ),
        pytest.param(("show", ""), "'': not a hostname", False, id="empty"),
    ],
)
def test_wrong_words(config: Path, words: tuple[str, ...], reason: str, hint: bool) -> None:
    no_domain = "only domain names with at least one dot can have a policy; IP addresses cannot"
    expected = error(reason, "postfix-mtasts-query cache --help" if hint else no_domain)
    assert query("cache", *words, "--config", config) == (USAGE, "", expected)


def test_a_wrong_configuration(tmp_path: Path) -> None:
    config = tmp_path / "none"
    found = query("cache", "list", "--config", config)
    assert found == (CONFIG, "", error(f"{config}: there is no such file"))


def test_a_reader_that_has_seen_enough(world: World, tmp_path: Path) -> None:
    store_entries(tmp_path / "policies.sqlite", {f"d{n}.test": fetched(policy("d.test")) for n in range(5000)})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        command = Path(daemon.config.parent, "head")
        command.write_text(
            f"{COMMAND.with_name('postfix-mtasts-query')} cache list --config {daemon.config} | head -n 1\n"
        )
        done = subprocess.run(["sh", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split()[0], done.stderr) == ("domain", "")
