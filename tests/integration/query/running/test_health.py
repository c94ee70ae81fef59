"""`postfix-mtasts-query health`, as a monitoring system runs it."""

import json
import os
import pwd
import re
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts import __version__
from postfix_mtasts.sts.entry import FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from tests.integration.conftest import NOBODY, World, fetched, store_entries
from tests.integration.daemon.test_control import policy
from tests.world.daemon import Daemon, ask, query, toml

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.fixture
def daemon(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, world.configuration(tmp_path)) as running:
        yield running


def health(config: Path, *words: str) -> tuple[int, str]:
    """Status and line, with all times alike."""
    status, output, errors = query("health", "--config", config, *words)
    assert errors == ""
    output = re.sub(r"\d+ (second|minute|hour)s?\b", r"N \1s", re.sub(r"\d+ s\b", "N s", output))
    return status, re.sub(r"time=\d+\.\d{3}s", "time=Ns", output)


NUMBERS = (
    "time=Ns policies={} not_renewed={} ending={} pending_writes={} discoveries=0 failed_discoveries=0 exceptions=0"
)


def test_all_is_well(world: World, daemon: Daemon) -> None:
    world.dns.queries.clear()
    line = f"MTA-STS OK - answers Postfix; 0 policies|{NUMBERS.format(0, 0, 0, 0)}\n"
    assert health(daemon.config) == (0, line)
    # It costs one lookup, whether DNS works, and no line in the log.
    assert daemon.stop() == 0
    assert ([query.name for query in world.dns.queries], daemon.log[4:]) == (["."], ["info: stopping"])


@pytest.mark.parametrize("on_failure", ["notfound", "temp"])
def test_dns_that_is_dead(world: World, tmp_path: Path, on_failure: str) -> None:
    configuration = world.configuration(tmp_path, dns={"nameservers": [NOBODY]}, discovery={"on_failure": on_failure})
    with Daemon(tmp_path, configuration) as daemon:
        follows = "is sent without a policy" if on_failure == "notfound" else "is deferred"
        reason = f"DNS does not answer: {NOBODY}: connection refused: mail to new domains {follows}"
        line = f"MTA-STS CRITICAL - {reason}; answers Postfix; 0 policies|{NUMBERS.format(0, 0, 0, 0)}\n"
        assert health(daemon.config) == (2, line)


def test_discoveries_that_fail(world: World, tmp_path: Path) -> None:
    """Here DNS answers, and nothing reaches the policy hosts."""
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        for number in range(5):
            domain = f"unreached{number}.test"
            world.dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
            world.dns.add(f"mta-sts.{domain}", "A", NOBODY)
            ask(f"unix:{tmp_path / 'socket'}", domain)
        status, output = health(daemon.config)
    share = "5 of 5 discoveries in the last N minutes failed"
    failure = "connection to the policy host: 127.0.2.2: connection refused"
    assert (status, output.partition("|")[0]) == (
        2,
        f"MTA-STS CRITICAL - {share}, the last with {failure}; answers Postfix; 0 policies",
    )


def test_json(daemon: Daemon) -> None:
    status, output = health(daemon.config, "--json")
    document = json.loads(output)
    of = document["daemon"]
    for at in (of.pop("started_at"), of.pop("configured_at"), of["exceptions"].pop("since")):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)
    assert (status, document) == (
        0,
        {
            "status": "OK",
            "reasons": ["answers Postfix", "0 policies"],
            "daemon": {
                "version": __version__,
                "pid": daemon.pid,
                "config": str(daemon.config),
                "sockets": [f"unix:{daemon.config.parent / 'socket'}"],
                "style": {"chosen": "plain", "why": "configured"},
                "dane": {"chosen": "off", "why": "configured"},
                "shadow_since": None,
                "database": {
                    "writable": True,
                    "trouble": None,
                    "trouble_since": None,
                    "begun_anew": None,
                    "begun_anew_at": None,
                    "pending_writes": 0,
                },
                "policies": {"stored": 0, "in_memory": 0, "not_renewed": 0, "ending": 0, "first_ends_at": None},
                "no_policies_in_memory": 0,
                "discoveries": {"minutes": 10, "ended": 0, "failed": 0, "last_failure": None},
                "exceptions": {"holding": 0, "first_to_end": [], "trouble": None},
                "fleet": None,
            },
        },
    )


def test_policies_that_are_not_renewed(world: World, tmp_path: Path) -> None:
    failed = FailedFetch("1", 3, time.time(), Failure(Stage.RESPONSE, "status 404"))
    path = tmp_path / "policies.sqlite"
    early = replace(fetched(policy("early.test"), age=60_000), failed=(failed,))
    store_entries(path, {"well.test": fetched(policy("well.test")), "early.test": early})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        line = f"MTA-STS OK - answers Postfix; 2 policies, 1 not renewed|{NUMBERS.format(2, 1, 0, 0)}\n"
        assert health(daemon.config) == (0, line)
    store_entries(path, {"late.test": replace(fetched(policy("late.test"), age=70_000), failed=(failed,))})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        ends = "1 policy that could not be renewed expires in N hours"
        rest = f"answers Postfix; 3 policies, 2 not renewed|{NUMBERS.format(3, 2, 1, 0)}\n"
        assert health(daemon.config) == (1, f"MTA-STS WARNING - {ends}; {rest}")


def test_a_database_that_cannot_be_written(daemon: Daemon) -> None:
    with closing(sqlite3.connect(daemon.config.parent / "policies.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        trouble = "the database has not worked for N seconds: database is locked; pending writes: 0"
        rest = f"answers Postfix; 0 policies|{NUMBERS.format(0, 0, 0, 0)}\n"
        assert health(daemon.config) == (1, f"MTA-STS WARNING - {trouble}; {rest}")


def test_no_daemon(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    listen = ["inet:127.0.0.1:8461", f"unix:{tmp_path / 'socket'}"]
    config.write_text(toml(world.configuration(tmp_path, server={"listen": listen})))
    reasons = [
        "inet:127.0.0.1:8461 does not answer: connection refused",
        f"unix:{tmp_path / 'socket'} does not answer: no such file or directory",
        f'server.control = "{tmp_path / "control"}": no such file or directory',
    ]
    assert health(config) == (2, f"MTA-STS CRITICAL - {'; '.join(reasons)}\n")


def test_a_daemon_that_hangs(daemon: Daemon) -> None:
    with daemon.stopped():
        found = query("health", "--config", daemon.config)
    endpoint = f"unix:{daemon.config.parent / 'socket'}"
    # Together less than the ten that a monitoring system waits.
    reasons = f"{endpoint} does not answer within 5 s; no answer from the daemon within 3 s"
    assert found == (2, f"MTA-STS CRITICAL - {reasons}\n", "")


def test_a_daemon_without_control_is_judged_by_its_answers(world: World, tmp_path: Path) -> None:
    server: dict[str, object] = {"listen": [f"unix:{tmp_path / 'socket'}", "inet:127.0.0.1:8461"], "control": ""}
    with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon:
        assert health(daemon.config) == (0, "MTA-STS OK - answers Postfix|time=Ns\n")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_socket_for_postfix_alone_is_not_taken_for_a_daemon_that_is_dead(world: World, tmp_path: Path) -> None:
    """As that of postfix-mtasts-chroot.socket, for the dashboard, or a monitoring system in `server.control_group`."""
    path = tmp_path / "socket"
    server: dict[str, object] = {"listen": [f"unix:{path}", "inet:127.0.0.1:8461"]}
    nobody = pwd.getpwnam("nobody")
    with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon:
        path.chmod(0o660)
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        status, output, errors = query("health", "--config", daemon.config, prefix=prefix)
    line = f"MTA-STS OK - answers Postfix; not asked on unix:{path}, which this user may not use; 0 policies"
    assert (status, output.partition("|")[0], errors) == (0, line, "")


def test_a_control_socket_that_has_gone(daemon: Daemon) -> None:
    control = daemon.config.parent / "control"
    control.unlink()
    reason = f'server.control = "{control}": no such file or directory'
    assert health(daemon.config) == (1, f"MTA-STS WARNING - {reason}; answers Postfix|time=Ns\n")


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        pytest.param(b"220 mail.test ESMTP\r\n", "does not speak socketmap", id="SMTP"),
        pytest.param(b"", "does not speak socketmap", id="nothing"),
        pytest.param(b"9:NOTFOUND", "does not speak socketmap", id="half a reply"),
        pytest.param(b"x:y,", "does not speak socketmap", id="no length"),
        pytest.param(b"1" * 100_000, "does not speak socketmap", id="a long length"),
        pytest.param(b"9:TEMP oops,", "answers 'TEMP oops' instead of NOTFOUND", id="a failure"),
    ],
)
def test_something_else_listens(world: World, tmp_path: Path, says: bytes, reason: str) -> None:
    config = tmp_path / "config"
    listen = ["inet:127.0.0.1:8461"]
    config.write_text(toml(world.configuration(tmp_path, server={"listen": listen, "control": ""})))
    with socket.create_server(("127.0.0.1", 8461)) as listener, _speaking(listener, says):
        assert health(config) == (2, f"MTA-STS CRITICAL - inet:127.0.0.1:8461 {reason}\n")


@contextmanager
def _speaking(listener: socket.socket, says: bytes) -> Iterator[None]:
    """The first client is told this, whatever it says."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join()


def test_a_wrong_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("[server]\ncontroll = 1\n")
    reason = f"{config}: unknown key server.controll: did you mean server.control?"
    assert health(config) == (3, f"MTA-STS UNKNOWN - {reason}\n")
    document = {"status": "UNKNOWN", "reasons": [reason], "daemon": None}
    status, output = health(config, "--json")
    assert (status, json.loads(output)) == (3, document)
