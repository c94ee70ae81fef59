"""What this machine does to the running daemon: many connections, a stop, a database that is taken away."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import World, wait_until_stored
from tests.integration.daemon.test_command import (
    about,
    applied,
    exchange,
    policy,
    secure,
    socket_of,
    stored_policies,
    troubles,
)
from tests.world.daemon import Daemon, ask
from tests.world.dns import Behaviour

MANY = 10_000  # Connections. Each is a descriptor here, and one in the daemon.
SPARE = 500  # Descriptors.


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """This process and those that it starts may have so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"needs a hard limit of {count} open files, not {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_ten_thousand_connections(world: World, tmp_path: Path) -> None:
    world.publish_all(["many.test", "more.test"], policy)
    with descriptors(MANY + SPARE), Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(socket_of(daemon), "many.test") == secure("many.test")
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(MANY)]
            for client in clients:
                client.connect(str(tmp_path / "socket"))  # With a time-out, it would not wait for room in the queue.
                client.settimeout(60)
            assert {exchange(client, "many.test") for client in clients} == {secure("many.test")}
            assert ask(socket_of(daemon), "more.test") == secure("more.test")
            assert open_files(daemon) >= MANY
        while open_files(daemon) > SPARE:  # Those of the clients are closed again.
            time.sleep(0.01)
        assert troubles(daemon) == []


def test_a_daemon_that_was_stopped_blames_nobody(world: World, tmp_path: Path) -> None:
    """As SIGSTOP does, or a machine that is suspended: the time for all that was under way is over."""
    domain = "stopped.test"
    world.publish(domain, policy(domain))
    world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(silent=True))
    server = {"listen": [f"unix:{tmp_path / 'socket'}"], "answer_within": 3}
    replies: list[str] = []
    with Daemon(tmp_path, world.configuration(tmp_path, server=server, dns={"timeout": 2})) as daemon:
        asking = threading.Thread(target=lambda: replies.append(ask(socket_of(daemon), domain)))
        before = world.asked(domain)
        asking.start()
        while world.asked(domain) == before:
            time.sleep(0.01)
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(daemon.pid, signal.SIGCONT)
        asking.join(20)
        world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour())
        daemon.wait_for("mail is deferred: TXT lookup: this machine was stopped or overloaded")
        replies.append(ask(socket_of(daemon), domain))
        lines = about(daemon, domain)
    assert replies[0].startswith("TEMP ")
    assert replies[1:] == [secure(domain)]
    assert lines[-1] == applied(domain)
    assert [line for line in lines if "policy unavailable" in line] == []


def test_a_database_that_is_deleted_while_it_runs(world: World, tmp_path: Path) -> None:
    domains = ["deleted.test", "later.test"]
    world.publish_all(domains, policy)
    path = tmp_path / "policies.sqlite"
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(socket_of(daemon), domains[0]) == secure(domains[0])
        wait_until_stored(path, domains[0])
        for part in tmp_path.glob("policies.sqlite*"):
            part.unlink()
        assert ask(socket_of(daemon), domains[1]) == secure(domains[1])
        daemon.wait_for("while it was open")
        assert ask(socket_of(daemon), "none.test") == "NOTFOUND "  # Then it has been made anew.
        wait_until_stored(path, *domains)
        lines = troubles(daemon)
    assert stored_policies(path) == {domain: policy(domain) for domain in domains}
    what = "the file was deleted while it was open; queries are still answered, and writes are tried again"
    assert lines == [f"error: cache.path: {what}"]
