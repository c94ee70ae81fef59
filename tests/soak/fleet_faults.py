"""`make fleet-faults`: relays are asked while their server fails in each way that one can, beside one without a fleet.

    python -m tests.soak.fleet_faults

in the namespace of tests/namespace. Ten times a second, all are asked for a domain that is new to them and for one that
they know. The exit status is 1 if a relay answers otherwise than the one without a fleet, if an answer comes later than
there by more than `_LATER`, or if a relay has lost a policy in the end.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.soak.fleet import relay_of, socket_of
from tests.soak.internet import Nameserver, PolicyHost
from tests.soak.steady import Steady
from tests.world.daemon import Daemon, query
from tests.world.fleet import Shared
from tests.world.sentinels import Sentinels
from tests.world.wire import Wire

# Seconds: a quarter for the server, and what two processes may differ by that have the same to do on the same machine.
_LATER = 0.25 + 0.15
_LATE = 0.1  # Seconds by which an answer counts as late.
_AT_FIRST = 2.0  # Seconds of a fault, in which somebody may wait for the server.
_PAUSE = 0.1  # Seconds between two new domains.
_DOMAINS = 8000  # More than a run asks for.
_FAIL_OVERS = 4
_SHOWN = 10

Fault = Callable[[], AbstractContextManager[None]]
# Starts relays in a folder. They, and what happens to them: its name, for how many seconds, and the fault.
Faults = Callable[[Path, Steady, ExitStack], tuple[list[Daemon], list[tuple[str, float, Fault]]]]
_ALONE = "0"  # The relay that has no fleet.


class _Answer(NamedTuple):
    """Which domain was asked for, which relay, what it said, after how many seconds, in which phase, how late in it."""

    domain: str
    relay: str
    reply: str
    seconds: float
    phase: str
    since: float


class _Asking:
    """Asks relays for new domains, and for those that they know."""

    def __init__(self, relays: Mapping[str, Path], new: Iterator[str]) -> None:
        self.answers: list[_Answer] = []
        self._relays = relays
        self._new = new
        self._known: list[str] = []
        self._phase, self._begun = "", 0.0

    def phase(self, name: str) -> None:
        """Another one begins."""
        self._phase, self._begun = name, time.monotonic()

    async def run(self) -> None:
        """Ask, and end when all was answered that was asked for before this is cancelled."""
        asked: set[asyncio.Task[None]] = set()
        try:
            while True:
                domain = next(self._new)
                known = self._known[len(self.answers) % len(self._known)] if self._known else domain
                asked |= {
                    asyncio.create_task(self._ask(relay, one)) for one in {domain, known} for relay in self._relays
                }
                await asyncio.sleep(_PAUSE)
                asked = {task for task in asked if not task.done() or task.exception()}
                self._known.append(domain)
        finally:
            await asyncio.gather(*asked)

    async def again(self) -> list[str]:
        """What relays answer otherwise now than before."""
        told = {(one.relay, one.domain): one.reply for one in self.answers}
        self.phase("again")
        before = len(self.answers)
        for relay, domain in told:
            await self._ask(relay, domain)
        return [
            f"{one.domain}: relay {one.relay} had said {told[one.relay, one.domain]!r}, and says {one.reply!r}"
            for one in self.answers[before:]
            if one.reply != told[one.relay, one.domain]
        ]

    async def _ask(self, relay: str, domain: str) -> None:
        phase, since = self._phase, time.monotonic() - self._begun
        reader, writer = await asyncio.open_unix_connection(self._relays[relay])
        text, begun = f"postfix {domain}".encode(), time.monotonic()
        writer.write(b"%d:%s," % (len(text), text))
        length = int((await reader.readuntil(b":"))[:-1])
        reply = (await reader.readexactly(length + 1))[:-1].decode()
        self.answers.append(_Answer(domain, relay, reply, time.monotonic() - begun, phase, since))
        writer.close()


async def _run(folder: Path, internet: Steady, faults: Faults, new: Iterator[str]) -> list[str]:
    """Ask relays for new domains in all phases; print how late they were. What was wrong, or too late."""
    with ExitStack() as stack:
        alone = stack.enter_context(relay_of(folder / "alone", internet.ca, None))
        fleet, phases = faults(folder, internet, stack)
        asking = _Asking({str(at): socket_of(daemon) for at, daemon in enumerate([alone, *fleet])}, new)
        asking.phase("all is well")
        task = asyncio.create_task(asking.run())
        try:
            for name, seconds, fault in phases:
                await asyncio.to_thread(_wait, fleet)
                asking.phase(name)
                with ExitStack() as block:
                    await asyncio.to_thread(block.enter_context, fault())
                    await asyncio.sleep(seconds)
                    await asyncio.to_thread(block.close)
                asking.phase("afterwards")
            await asyncio.to_thread(_wait, fleet)
        finally:
            task.cancel()
            await asyncio.wait([task])
        internet.is_down = True
        lost = await asking.again()
        internet.is_down = False
    return [*_otherwise(asking.answers), *_later(asking.answers), *lost]


def _one_server(
    folder: Path, internet: Steady, stack: ExitStack
) -> tuple[list[Daemon], list[tuple[str, float, Fault]]]:
    server = stack.enter_context(Shared(folder / "server", internet.ca))
    wire = stack.enter_context(Wire(server.port, closes=True))
    config = server.config | {"url": f"rediss://127.0.0.1:{wire.port}"}

    @contextmanager
    def killed() -> Iterator[None]:
        server.kill()
        yield
        server.start()

    def cut(*, closes: bool) -> Fault:
        @contextmanager
        def block() -> Iterator[None]:
            wire.closes, wire.left = closes, 50
            yield
            wire.left = None

        return block

    @contextmanager
    def full() -> Iterator[None]:
        with server.admin() as admin:
            admin.config_set("maxmemory", "1")
            yield
            admin.config_set("maxmemory", "0")

    @contextmanager
    def emptied() -> Iterator[None]:
        with server.admin() as admin:
            admin.flushall()
        yield

    @contextmanager
    def saved() -> Iterator[None]:
        with server.admin() as admin:
            admin.save()
        yield
        shutil.move(server.folder / "dump.rdb", server.folder / "old.rdb")

    @contextmanager
    def restored() -> Iterator[None]:
        server.kill()
        shutil.move(server.folder / "old.rdb", server.folder / "dump.rdb")
        server.start()
        (server.folder / "dump.rdb").unlink()
        yield

    fleet = [stack.enter_context(relay_of(folder / name, internet.ca, config)) for name in ("one", "other")]
    return fleet, [
        ("emptied at first", 20.0, emptied),
        ("saved", 1.0, saved),
        ("killed", 15.0, killed),
        ("stopped for a minute", 60.0, server.stopped),
        ("cut, both ends see it", 15.0, cut(closes=True)),
        ("cut, nobody sees it", 15.0, cut(closes=False)),
        ("full", 15.0, full),
        ("emptied", 15.0, emptied),
        ("an old dump is restored", 15.0, restored),
    ]


def _sentinels(folder: Path, internet: Steady, stack: ExitStack) -> tuple[list[Daemon], list[tuple[str, float, Fault]]]:
    sentinels = stack.enter_context(Sentinels(folder, internet.ca))

    @contextmanager
    def fail_overs() -> Iterator[None]:
        for _ in range(_FAIL_OVERS):
            sentinels.fail_over()
        yield

    fleet = [stack.enter_context(relay_of(folder / name, internet.ca, sentinels.config)) for name in ("one", "other")]
    return fleet, [("one fail-over after the other", 5.0, fail_overs)]


def _wait(fleet: Sequence[Daemon]) -> None:
    """Until all share."""
    for daemon in fleet:
        while query("fleet", "--config", daemon.config)[0] != 0:
            time.sleep(1)


def _otherwise(answers: Sequence[_Answer]) -> list[str]:
    right = {one.domain: one.reply for one in answers if one.relay == _ALONE}
    return [
        f"{one.domain}, {one.phase}: relay {one.relay} said {one.reply!r}, alone {right.get(one.domain)!r}"
        for one in answers
        if one.reply != right.get(one.domain)
    ]


def _later(answers: Sequence[_Answer]) -> list[str]:
    """Print for each phase how much later the first answers of relays for a domain are. Those that are too late."""
    alone: dict[str, _Answer] = {}
    first: dict[tuple[str, str], _Answer] = {}
    for one in answers:
        if one.relay == _ALONE:
            alone.setdefault(one.domain, one)
        else:
            first.setdefault((one.relay, one.domain), one)
    phases: dict[str, list[tuple[float, _Answer]]] = {}
    for one in first.values():
        phases.setdefault(one.phase, []).append((one.seconds - alone[one.domain].seconds, one))
    for phase, late in phases.items():
        some = sorted((later, one.since) for later, one in late if later > _LATE)
        after = sum(since > _AT_FIRST for _, since in some)
        _say(
            f"{phase}: {len(late)} first answers, later by {max(later for later, _ in late):.3f} s at most; "
            f"{len(some)} by more than {_LATE:g} s, {after} of them after the first {_AT_FIRST:g} s"
        )
    return [
        f"{one.domain}, {phase}: relay {one.relay} was later by {later:.3f} s"
        for phase, late in phases.items()
        for later, one in late
        if later > _LATER
    ]


def main() -> int:
    """Ask, and say what came of it."""
    if "POSTFIX_MTASTS_NAMESPACE" not in os.environ:
        sys.exit("make fleet-faults: takes a network and mounts of its own")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        internet = Steady(folder, _DOMAINS, slow=5)
        new = iter(internet.domains)
        wrong: list[str] = []
        with Nameserver(internet), PolicyHost(internet):
            for faults in (_one_server, _sentinels):
                own = folder / faults.__name__
                own.mkdir()
                wrong += asyncio.run(_run(own, internet, faults, new))
    _say(f"{len(wrong)} wrong or late answers; load average {os.getloadavg()[0]:.1f}")
    for line in wrong[:_SHOWN]:
        _say(f"    {line}")
    return int(bool(wrong))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    sys.exit(main())
