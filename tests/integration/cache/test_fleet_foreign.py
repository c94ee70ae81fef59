"""Keys of the fleet to which somebody else has written: none of them keeps relays from sharing for long."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postfix_mtasts.cache.fleet_bounds import MAX_OCTETS
from postfix_mtasts.cache.fleet_jobs import FleetError, Here, Look, Seen
from postfix_mtasts.cache.fleet_server import FleetServer
from tests.world.ca import Ca
from tests.world.fleet import HERE, Shared, valkey

LONG = b"x" * (MAX_OCTETS + 1)
DELETED = "somebody else has written to mtasts:relays or mtasts:forgotten or mtasts:since, which were deleted"


@pytest.fixture(scope="module", params=[lambda: HERE, valkey], ids=["of this machine", "Valkey of Debian 13"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("fleet")
    with Shared(folder, Ca(folder), program=request.param()) as server:
        yield server


@pytest.fixture
def admin(started: Shared) -> Iterator[Any]:
    with started.admin() as admin:
        admin.flushall()
        yield admin


@pytest.fixture
def relay(started: Shared) -> Iterator[FleetServer]:
    relay = FleetServer(started.place, timeout=20)
    yield relay
    relay.close()


def beaten(relay: FleetServer, times: int) -> tuple[Here, list[str]]:
    """What the last of some beats finds, and what was trouble before."""
    troubles = []
    for _ in range(times - 1):
        try:
            relay.beat("us")
        except FleetError as error:
            troubles.append(str(error))
    return relay.beat("us"), troubles


@pytest.mark.parametrize(
    ("write", "trouble"),
    [
        pytest.param(lambda admin: admin.set("mtasts:relays", "x"), DELETED, id="relays are a text"),
        pytest.param(lambda admin: admin.zadd("mtasts:relays", {LONG: time.time()}), DELETED, id="a long relay"),
        pytest.param(lambda admin: admin.zadd("mtasts:relays", {"x": math.inf}), None, id="a relay that never goes"),
        pytest.param(lambda admin: admin.lpush("mtasts:forgotten", "x"), DELETED, id="forgotten is a list"),
        pytest.param(lambda admin: admin.zadd("mtasts:forgotten", {LONG: time.time()}), DELETED, id="a long domain"),
        pytest.param(lambda admin: admin.zadd("mtasts:forgotten", {"x": math.inf}), None, id="forgotten for ever"),
        pytest.param(lambda admin: admin.sadd("mtasts:since", "x"), DELETED, id="since is a set"),
        pytest.param(lambda admin: admin.set("mtasts:since", LONG), DELETED, id="a long since"),
        pytest.param(lambda admin: admin.set("mtasts:since", "nan"), None, id="since is no time"),
    ],
)
def test_what_no_relay_writes_is_deleted(
    write: Callable[[Any], object], trouble: str | None, admin: Any, relay: FleetServer
) -> None:
    write(admin)
    here, troubles = beaten(relay, 2)
    assert troubles == ([trouble] if trouble else [])
    assert list(here.forgotten) == []
    relays, since = relay.relays()
    assert [name for name, _ in relays] == [b"us"]
    assert since
    assert abs(since - time.time()) < 600
    assert here.begun == admin.get("mtasts:since")
    relay.forget("example.com", here.clock)
    assert [name for name, _ in relay.beat("us").forgotten] == ["example.com"]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda admin: admin.set("mtasts:l:example.com", "x"), id="it never ends"),
        pytest.param(lambda admin: admin.set("mtasts:l:example.com", "x", px=3_600_000), id="it lasts too long"),
        pytest.param(lambda admin: admin.lpush("mtasts:l:example.com", "x"), id="it is a list"),
    ],
)
def test_a_turn_that_no_relay_has_taken_is_ended(
    write: Callable[[Any], object], admin: Any, relay: FleetServer
) -> None:
    write(admin)
    ours = Look("example.com", "ours")
    assert relay.do([ours]) == [Seen(None, is_ours=False, is_theirs=False)]
    assert relay.do([ours, Look("example.com", "others")]) == [
        Seen(None, is_ours=True, is_theirs=False),
        Seen(None, is_ours=False, is_theirs=True),
    ]
