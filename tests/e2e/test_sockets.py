"""How Postfix reaches the daemon: socket paths and the chroot, permissions, a daemon that ends or is slow, bursts."""

import os
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    NO_ANSWER,
    NOT_OFFERED,
    VERIFIED,
    Outcome,
    applied,
    blames,
    enforce,
    outcome,
    secure,
    secured,
)
from tests.world.daemon import Daemon, ask
from tests.world.dns import Behaviour
from tests.world.https import Hold, answer
from tests.world.jail import fill_jail
from tests.world.mail import Extras, SmtpClient, World, configuration
from tests.world.postfix import Delivery, Installation

TCP = 8463
OUTSIDE = "$world/outside/socket"


class Place(NamedTuple):
    """A map, and whether smtp(8) reaches the daemon by it, in a chroot and without."""

    name: str
    map: str
    jailed: bool
    free: bool

    def domain(self, chroot: bool) -> str:
        return f"{self.name}.{'jailed' if chroot else 'free'}.test"


PLACES = [
    Place("below-the-queue", "socketmap:unix:mtasts/socket:postfix", True, True),
    Place("as-the-jail-sees-it", "socketmap:unix:/mtasts/socket:postfix", True, False),
    Place("queue-by-its-full-path", "socketmap:unix:$queue_directory/mtasts/socket:postfix", False, True),
    Place("outside", f"socketmap:unix:{OUTSIDE}:postfix", False, True),
    Place("outside-by-proxymap", f"proxy:socketmap:unix:{OUTSIDE}:postfix", True, True),
    Place("address", f"socketmap:inet:127.0.0.1:{TCP}:postfix", True, True),
    Place("localhost", f"socketmap:inet:localhost:{TCP}:postfix", True, True),
]
BURSTS = {"direct": f"socketmap:unix:{OUTSIDE}:postfix", "proxied": f"proxy:socketmap:unix:{OUTSIDE}:postfix"}


@pytest.fixture(scope="module")
def extras() -> Extras:
    places = {place.domain(chroot): (place.map, chroot) for place in PLACES for chroot in (True, False)}
    bursts = {f".{name}.test": (value, False) for name, value in BURSTS.items()}
    modes = {mode.domain: (f"socketmap:unix:$world/{mode.name}/socket:postfix", False) for mode in MODES}
    clients = tuple(
        SmtpClient(domain, {"smtp_tls_policy_maps": value}, chroot)
        for domain, (value, chroot) in (places | bursts | modes).items()
    )
    # One process makes all deliveries, so that the next one finds the connection of the one before.
    single = "single unix - - n - 1 smtp -o { smtp_tls_policy_maps = socketmap:unix:$world/single.sock:postfix }"
    return Extras(
        # By itself, proxymap knows the maps of main.cf only.
        settings={"proxy_read_maps": f"proxy:socketmap:unix:{OUTSIDE}:postfix"},
        clients=clients,
        services=(single,),
        transports={".single.test": "single:"},
    )


@pytest.fixture(scope="module", autouse=True)
def jail(world: World) -> None:
    fill_jail(world.postfix)


@pytest.fixture(scope="module")
def everywhere(world: World) -> Iterator[Daemon]:
    """A daemon that listens at all places."""
    folders = world.postfix.queue / "mtasts", world.folder / "outside", world.folder / "everywhere"
    for folder in folders:
        folder.mkdir()
    config = configuration(folders[2], world.ca, "")
    config["server"]["listen"] = [*(f"unix:{folder / 'socket'}" for folder in folders[:2]), f"inet:127.0.0.1:{TCP}"]
    with Daemon(folders[2], config) as daemon:
        yield daemon


@pytest.mark.parametrize("chroot", [pytest.param(True, id="chroot"), pytest.param(False, id="no chroot")])
@pytest.mark.parametrize("place", [pytest.param(place, id=place.name) for place in PLACES])
def test_a_place(world: World, everywhere: Daemon, place: Place, chroot: bool) -> None:
    domain = place.domain(chroot)
    world.add(domain, "good", enforce(domain))
    delivery = world.postfix.deliver(f"user@{domain}")
    reached = place.jailed if chroot else place.free
    assert outcome(delivery) == (VERIFIED if reached else NO_ANSWER)
    assert blames(delivery, "No such file or directory") is not reached
    assert everywhere.about(domain, f"inet:127.0.0.1:{TCP}") == [applied(domain)] * reached


class Mode(NamedTuple):
    """The mode of a socket, and of its folder, which the group of Postfix owns; and what comes of mail."""

    name: str
    socket: int
    folder: int
    outcome: Outcome

    @property
    def domain(self) -> str:
        return f"{self.name}.test"


MODES = [
    Mode("open-to-all", 0o666, 0o755, VERIFIED),
    Mode("open-to-the-group-of-root", 0o660, 0o755, NO_ANSWER),
    # The bit of the group passes the folder's group on to the socket.
    Mode("open-to-the-group-of-postfix", 0o660, 0o2750, VERIFIED),
    Mode("open-to-its-owner", 0o600, 0o755, NO_ANSWER),
    Mode("in-a-closed-folder", 0o666, 0o700, NO_ANSWER),
]


@pytest.mark.parametrize("mode", [pytest.param(mode, id=mode.name) for mode in MODES])
def test_a_mode(world: World, installation: Installation, tmp_path: Path, mode: Mode) -> None:
    folder = world.folder / mode.name
    folder.mkdir()
    os.chown(folder, -1, group(installation, "postfix"))
    folder.chmod(mode.folder)
    world.add(mode.domain, "good", enforce(mode.domain))
    with Daemon(tmp_path, configuration(tmp_path, world.ca, f"unix:{folder / 'socket'}", mode.socket)):
        delivery = world.postfix.deliver(f"user@{mode.domain}")
    assert outcome(delivery) == mode.outcome
    assert blames(delivery, "Permission denied") is (mode.outcome == NO_ANSWER)


def group(installation: Installation, name: str) -> int:
    """Its number, where this Postfix is installed."""
    entries = (line.split(":") for line in (installation.root / "etc/group").read_text().splitlines())
    return next(int(entry[2]) for entry in entries if entry[0] == name)


@pytest.fixture
def single(world: World, tmp_path: Path) -> Iterator[Daemon]:
    """The daemon that the single smtp(8) process asks."""
    with Daemon(tmp_path, configuration(tmp_path, world.ca, f"unix:{world.folder / 'single.sock'}")) as daemon:
        yield daemon


def process(delivery: Delivery) -> str:
    """Which process delivered it."""
    found = re.search(r"smtp\[(\d+)\]", delivery.lines[-1])
    assert found
    return found[1]


def hold_policy(world: World, domain: str) -> Hold:
    """From now on the policy host waits before it answers."""
    hold = Hold()
    context = world.ca.issue(f"mta-sts.{domain}").server_context()
    world.https.site(f"mta-sts.{domain}", context, hold, answer(enforce(domain)))
    return hold


def test_a_restart_between_two_messages_goes_unnoticed(world: World, single: Daemon) -> None:
    world.add("restart.single.test", "good", enforce("restart.single.test"))
    before = world.postfix.deliver("before@restart.single.test")
    single.restart()
    after = world.postfix.deliver("after@restart.single.test")
    assert [outcome(before), outcome(after)] == [VERIFIED, VERIFIED]
    assert process(after) == process(before)


def test_who_is_told_to_stop_still_answers(world: World, single: Daemon) -> None:
    world.add("stop.single.test", "good", enforce("stop.single.test"))
    hold = hold_policy(world, "stop.single.test")
    queue_id = world.postfix.send("user@stop.single.test")
    assert hold.reached.wait(20)
    with ThreadPoolExecutor() as threads:
        stopped = threads.submit(single.stop)
        single.wait_for("stopping")
        hold.release()
        assert outcome(world.postfix.wait_for(queue_id)) == VERIFIED
        assert stopped.result() == 0


def test_mail_waits_when_the_daemon_is_killed_in_mid_lookup(world: World, single: Daemon) -> None:
    server = world.add("killed.single.test", "good", enforce("killed.single.test"))
    hold = hold_policy(world, "killed.single.test")
    queue_id = world.postfix.send("user@killed.single.test")
    assert hold.reached.wait(20)
    single.kill()
    assert outcome(world.postfix.wait_for(queue_id)) == NO_ANSWER
    hold.release()
    single.start()
    world.postfix.flush()
    assert outcome(world.postfix.wait_for(queue_id, 2)) == VERIFIED
    assert server.messages == secured("killed.single.test", "user@killed.single.test")


def test_a_successor_that_listens_at_once_is_asked_again(world: World, single: Daemon, tmp_path: Path) -> None:
    world.add("successor.single.test", "good", enforce("successor.single.test"))
    hold = hold_policy(world, "successor.single.test")
    folder = tmp_path / "successor"
    folder.mkdir()
    with Daemon(folder, configuration(folder, world.ca, f"unix:{folder / 'socket'}")) as successor:
        queue_id = world.postfix.send("user@successor.single.test")
        assert hold.reached.wait(20)
        (folder / "socket").rename(world.folder / "single.sock")
        single.kill()
        hold.release()
        assert outcome(world.postfix.wait_for(queue_id)) == VERIFIED
        assert successor.wait_for("domain=") == applied("successor.single.test")


def test_an_answer_that_takes_seconds_is_waited_for(world: World, single: Daemon) -> None:
    world.add("slow.single.test", "good", enforce("slow.single.test"))
    for name in ("_mta-sts.slow.single.test", "mta-sts.slow.single.test"):
        world.dns.set_behaviour(name, Behaviour(delay=1.5))
    assert outcome(world.postfix.deliver("user@slow.single.test")) == VERIFIED


def test_what_comes_late_is_not_taken_for_the_next_answer(world: World, tmp_path: Path) -> None:
    world.add("late.single.test", None, enforce("late.single.test"))
    world.add("next.single.test", "good", enforce("next.single.test"))
    hold = hold_policy(world, "late.single.test")
    config = configuration(tmp_path, world.ca, f"unix:{world.folder / 'single.sock'}", answer_within=5)
    with Daemon(tmp_path, config) as daemon:
        late = world.postfix.deliver("user@late.single.test")
        hold.release()
        daemon.wait_for("domain=late.single.test, fetched")
        deliveries = [late, *(world.postfix.deliver(f"user@{name}.single.test") for name in ("next", "late"))]
    assert [outcome(delivery) for delivery in deliveries] == [CLEAR, VERIFIED, NOT_OFFERED]
    assert len({process(delivery) for delivery in deliveries}) == 1


@pytest.mark.parametrize("name", BURSTS)
def test_a_burst(world: World, everywhere: Daemon, name: str) -> None:
    domains = [f"{number}.{name}.test" for number in range(50)]
    servers = [world.add(domain, "good", enforce(domain)) for domain in domains]
    since = len(world.postfix.log())
    # Postfix makes a delivery of its own for each domain of a message: there are 200.
    queue_ids = [world.postfix.send(", ".join(f"user{n}@{domain}" for domain in domains)) for n in range(4)]
    deliveries = [world.postfix.wait_for(queue_id, n) for queue_id in queue_ids for n in range(1, len(domains) + 1)]
    assert {outcome(delivery) for delivery in deliveries} == {VERIFIED}
    assert [len(server.messages) for server in servers] == [4] * len(domains)
    assert [line for line in world.postfix.log()[since:] if "warning: " in line] == []


def test_many_slow_domains_do_not_delay_another(world: World, tmp_path: Path) -> None:
    world.add("known.single.test", "good", enforce("known.single.test"))
    slow = [f"{number}.slow.test" for number in range(140)]
    for domain in slow:
        world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(silent=True))
    path = str(world.folder / "single.sock")
    config = configuration(tmp_path, world.ca, f"unix:{path}", answer_within=60)
    config["dns"]["timeout"] = 60
    with Daemon(tmp_path, config) as daemon, ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in slow]
        for connection, domain in zip(waiting, slow, strict=True):
            connection.connect(path)
            query = f"postfix {domain}".encode()
            connection.sendall(b"%d:%s," % (len(query), query))
        wait_until_asked(world, *(f"_mta-sts.{domain}" for domain in slow))
        assert ask(f"unix:{path}", "known.single.test") == f"OK {secure('mx.known.single.test')}"
        assert outcome(world.postfix.deliver("user@known.single.test")) == VERIFIED
        answered, _, _ = select.select(waiting, [], [], 0)
        daemon.kill()  # It would wait for the others.
    assert answered == []


def wait_until_asked(world: World, *names: str) -> None:
    """Until DNS was asked for all of them."""
    deadline = time.monotonic() + 20
    while missing := set(names) - {query.name for query in world.dns.queries}:
        assert time.monotonic() < deadline, missing
        time.sleep(0.01)
