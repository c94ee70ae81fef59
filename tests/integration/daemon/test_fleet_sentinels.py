"""Daemons whose fleet has sentinels: Postfix does not notice that a server is killed and another takes its place."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import World
from tests.integration.daemon.test_control import endpoint, policy, secure
from tests.world.daemon import Daemon, ask, query
from tests.world.fleet import FIRST_OF_ALL
from tests.world.sentinels import Sentinels

pytestmark = pytest.mark.usefixtures("namespace")
_PAUSE = 0.02  # Seconds between two queries.


@pytest.fixture
def sentinels(world: World, tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path, world.ca) as sentinels:
        yield sentinels


class Asking:
    """Asks relays in turn for known and for new domains, in a thread of its own, until the end of the block."""

    def __init__(self, world: World, relays: list[Daemon]) -> None:
        self.wrong: list[tuple[str, str]] = []
        self.asked = 0
        self._relays = relays
        self._domains = [f"during{number}.test" for number in range(100)]
        world.publish_all(self._domains, policy)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        """Two known domains for each new one, so that these are not used up before the end."""
        for number, relay in zip(itertools.count(), itertools.cycle(self._relays)):
            if self._ends.wait(_PAUSE):
                return
            new = min(number // 3, len(self._domains) - 1)
            domain = self._domains[new if number % 3 else number % (new + 1)]
            reply = ask(endpoint(relay), domain)
            self.asked += 1
            if reply != secure(domain):
                self.wrong.append((domain, reply))


@pytest.mark.timeout(400)
def test_no_query_is_deferred_or_answered_wrongly(world: World, sentinels: Sentinels, tmp_path: Path) -> None:
    outlive = [f"outlives{number}.test" for number in range(5)]
    world.publish_all(outlive, policy)
    one, other, third = (relay_of(world, sentinels, tmp_path / name) for name in ("one", "other", "third"))
    with one, other:
        for daemon in (one, other):
            daemon.wait_for("fleet: policies are shared on rediss://policies .by sentinels.", timeout=90)
        old = sentinels.master()
        with old.admin() as admin:
            for domain in outlive:
                assert ask(endpoint(one), domain) == secure(domain)
            while not any(admin.exists(f"mtasts:d:{domain}") for domain in outlive):  # It is shared behind the answer.
                time.sleep(0.01)
        with Asking(world, [one, other]) as asking:
            sentinels.replicated(old)
            old.kill()
            one.wait_for("fleet: rediss://policies .by sentinels.: .*; policies are found without it")
            sentinels.wait_for(sentinels.other(old))
            with third:
                assert any(is_found(world, third, domain) for domain in outlive)
        assert asking.wrong == []
        assert asking.asked > 20


def relay_of(world: World, sentinels: Sentinels, folder: Path) -> Daemon:
    folder.mkdir()
    return Daemon(folder, world.configuration(folder, fleet=sentinels.config), prefix=FIRST_OF_ALL)


def is_found(world: World, relay: Daemon, domain: str) -> bool:
    """Whether a relay finds on the new server what another one has shared; a busy machine may be too late for that."""
    relay.wait_for("fleet: policies are shared", timeout=90)
    while query("fleet", "--config", relay.config)[0] != 0:
        time.sleep(0.1)
    assert ask(endpoint(relay), domain) == secure(domain)
    return world.asked(domain) == (1, 1)
