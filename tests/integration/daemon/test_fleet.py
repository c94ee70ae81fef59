"""Daemons that share what they know, as processes, with a real server."""

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import World
from tests.integration.daemon.test_control import endpoint, policy, secure
from tests.world.daemon import Daemon, ask, query
from tests.world.fleet import FIRST_OF_ALL, Shared

# A relay that was late does without the fleet for half a minute, which tests then wait for.
pytestmark = [pytest.mark.usefixtures("namespace"), pytest.mark.timeout(400)]
RELAYS = 4
ATTEMPTS = 5


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[Shared]:
    with Shared(tmp_path / "server", world.ca) as server:
        yield server


@pytest.fixture
def relays(world: World, server: Shared, tmp_path: Path) -> Iterator[list[Daemon]]:
    with ExitStack() as stack:
        daemons = []
        for number in range(RELAYS):
            folder = tmp_path / str(number)
            folder.mkdir()
            config = world.configuration(folder, fleet=server.config)
            daemon = stack.enter_context(Daemon(folder, config, prefix=FIRST_OF_ALL))
            daemon.wait_for("fleet: policies are shared", timeout=90)
            daemons.append(daemon)
        yield daemons


def ask_all(relays: list[Daemon], domains: list[str]) -> dict[str, set[str]]:
    """What relays answer, each asked for all domains, and all of them for the same at the same time."""
    pairs = [(relay, domain) for domain in domains for relay in relays]
    with ThreadPoolExecutor(RELAYS) as pool:
        replies = list(pool.map(lambda pair: ask(endpoint(pair[0]), pair[1]), pairs))
    return {
        domain: {reply for _, reply in same}
        for domain, same in itertools.groupby(zip(pairs, replies, strict=True), key=lambda one: one[0][1])
    }


def share(relays: list[Daemon]) -> None:
    """Return when the server works for all of them."""
    for relay in relays:
        while query("fleet", "--config", relay.config)[0] != 0:
            time.sleep(0.5)


def found_by(relay: Daemon, domain: str, admin: Any) -> None:
    """Have a relay discover a domain, and return when it has shared it, which it does behind the answer."""
    while True:
        assert ask(endpoint(relay), domain) == secure(domain)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            if admin.exists(f"mtasts:d:{domain}"):
                return
            time.sleep(0.01)
        share([relay])
        assert query("cache", "forget", domain, "--config", relay.config)[0] == 0


def calls(admin: Any) -> dict[str, int]:
    """How often the server did what relays have it do for a domain."""
    stats = admin.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("getrange", "pttl", "eval")}


def test_each_domain_is_discovered_once_and_answered_as_by_a_daemon_alone(world: World, relays: list[Daemon]) -> None:
    for attempt in range(ATTEMPTS):
        domains = [f"shared{attempt}-{number}.test" for number in range(60)]
        without = [f"nothing{attempt}-{number}.test" for number in range(20)]
        world.publish_all(domains, policy)
        assert ask_all(relays, domains + without) == {domain: {secure(domain)} for domain in domains} | {
            domain: {"NOTFOUND "} for domain in without
        }
        asked = [world.asked(domain) for domain in domains + without]
        if asked.count((1, 1)) >= 59 and asked.count((1, 0)) >= 19:
            return
        share(relays)
    raise AssertionError(asked)


def test_what_one_relay_knows_outlives_it_and_is_forgotten_everywhere(
    world: World, server: Shared, relays: list[Daemon]
) -> None:
    domains = ["outlives.test", *(f"outlives{number}.test" for number in range(1, ATTEMPTS))]
    world.publish_all(domains, policy)
    seen = []
    with server.admin() as admin:
        for domain in domains:
            found_by(relays[0], domain, admin)
        assert relays.pop(0).kill() == -9
        for domain in domains:
            before, lookups = calls(admin), world.asked(domain)
            assert ask(endpoint(relays[0]), domain) == secure(domain)
            seen.append((before, calls(admin), world.asked(domain)))
            # What is known takes the server one command, and nobody's turn.
            if seen[-1][1:] == (before | {"getrange": before["getrange"] + 1}, lookups):
                break
            share(relays)
        else:
            raise AssertionError(seen)
    share(relays)
    config = relays[0].config
    told = f"outlives.test: forgotten; {RELAYS - 1} relays were told, this one included\n"
    assert query("cache", "forget", "--fleet", "outlives.test", "--config", config) == (0, told, "")
    assert query("cache", "forget", "outlives.test", "--config", config)[0] == 3
    lookups = world.asked("outlives.test")
    assert ask(endpoint(relays[1]), "outlives.test") == secure("outlives.test")
    assert world.asked("outlives.test") == (lookups[0] + 1, lookups[1] + 1)
    share(relays)
    status, output, _ = query("cache", "refresh", "--fleet", "outlives.test", "--config", config)
    assert (status, output.endswith(f"; {RELAYS - 1} relays were told, this one included\n")) == (0, True), output
    status, output, _ = query("fleet", "--json", "--config", config)
    document = json.loads(output)
    assert (status, document["domains"], document["works"]) == (0, len(domains), True)
    assert len(document["relays"]) in (RELAYS - 1, RELAYS)  # The killed one is gone after a minute.
    assert query("fleet", "--config", config)[1].startswith(f"{len(domains)} domains are shared on rediss://127.0.0.1:")


def test_without_its_server_everything_goes_on(world: World, server: Shared, relays: list[Daemon]) -> None:
    domains = [f"killed{number}.test" for number in range(8)]
    world.publish_all(domains, policy)
    server.kill()
    assert ask_all(relays, domains) == {domain: {secure(domain)} for domain in domains}
    relays[0].wait_for("fleet: rediss://127.0.0.1:.*; policies are found without it")
    status, output, _ = query("health", "--config", relays[0].config)
    assert (status, output.startswith("MTA-STS WARNING - the fleet's server has not worked for")) == (1, True), output
    assert query("fleet", "--config", relays[0].config)[0] != 0


def test_without_a_fleet_the_library_is_not_imported(world: World, server: Shared, tmp_path: Path) -> None:
    imported = {}
    for name, tables in {"with": {"fleet": server.config}, "without": {}}.items():
        folder = tmp_path / name
        folder.mkdir()
        config = world.configuration(folder, **tables)
        with Daemon(folder, config, environment={"PYTHONPROFILEIMPORTTIME": "1"}) as daemon:
            daemon.wait_for("ready; for main.cf")
            assert ask(endpoint(daemon), f"{name}.imported.test") == "NOTFOUND "
        modules = {line.rpartition("|")[2].strip() for line in daemon.log if line.startswith("import time:")}
        imported[name] = "postfix_mtasts.daemon.command" in modules, "redis" in modules
    assert imported == {"with": (True, True), "without": (True, False)}
