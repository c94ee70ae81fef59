"""`make soak`: ask the daemon without a pause while the world changes, judge every answer, and watch what it takes.

    python -m tests.soak MINUTES [SEED]

in the namespace of tests/namespace. The exit status is 1 if an answer was wrong, or if the daemon grows.
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.internet import NAMESERVER, Internet, Nameserver, PolicyHost
from tests.soak.oracle import ANSWER_WITHIN, GRACE, judge
from tests.world.daemon import Config, Daemon

_CONNECTIONS = 200
_INTERVAL = 0.5  # Seconds from one query of a connection to its next, if the reply has come by then.
_CHANGES = 50  # A second: a domain changes every 100 seconds.
_SAMPLE_EVERY = 5.0  # Seconds.
_LINES = 12  # Of the samples, that are printed.
_SHOWN = 10  # Of the wrong answers, that are printed.
# What the daemon may have more in the last quarter than in the third, in the median.
_GROWTH = {"MB": 4.0, "descriptors": 20.0, "threads": 2.0}
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Soak:
    """What the run has seen."""

    internet: Internet
    until: float
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    shown: list[str] = field(default_factory=list)  # What is wrong, of the first ones.
    samples: list[dict[str, float]] = field(default_factory=list)
    slowest: float = 0.0

    async def ask(self, address: Path) -> None:
        """One connection of Postfix. The first domains are asked for all the time, the last ones every minute or so."""
        reader, writer = await asyncio.open_unix_connection(address)
        names = self.internet.domains
        due = time.time() + random.random() * _INTERVAL
        while due < self.until:
            await asyncio.sleep(due - time.time())
            due = max(due, time.time()) + _INTERVAL
            domain = names[int(len(names) * random.random() ** 3)]
            query = f"postfix {domain}".encode()
            asked = time.time()
            async with asyncio.timeout(ANSWER_WITHIN + GRACE):
                writer.write(b"%d:%s," % (len(query), query))
                length = int((await reader.readuntil(b":"))[:-1])
                reply = (await reader.readexactly(length + 1))[:-1].decode()
            self._judge(domain, asked, time.time(), reply)
        writer.close()

    def _judge(self, domain: str, asked: float, answered: float, reply: str) -> None:
        past = self.internet.pasts[domain]
        kind, wrong = judge(past, asked, answered, reply)
        self.kinds[kind] += 1
        self.slowest = max(self.slowest, answered - asked)
        self.wrong += bool(wrong)
        if wrong and len(self.shown) < _SHOWN:
            self.shown.append(f"asked {asked:.3f}, answered {answered:.3f}, {reply!r}: {wrong}\n    {past}")

    async def change(self) -> None:
        """The world goes on."""
        while time.time() < self.until:
            await asyncio.sleep(0.1)
            for _ in range(_CHANGES // 10):
                self.internet.change()

    async def sample(self, pid: int) -> None:
        """What the daemon has now, every few seconds."""
        process, begin = Path(f"/proc/{pid}"), time.time()
        while time.time() + _SAMPLE_EVERY < self.until:
            await asyncio.sleep(_SAMPLE_EVERY)
            taken: dict[str, float] = {
                "seconds": round(time.time() - begin),
                "MB": int((process / "statm").read_text().split()[1]) * _PAGE / 1e6,
                "descriptors": len(list((process / "fd").iterdir())),
                "threads": len(list((process / "task").iterdir())),
            }
            self.samples.append(taken)

    def growth(self) -> dict[str, float]:
        """What the daemon has more in the last quarter than in the third, in the median."""
        quarter = len(self.samples) // 4
        third, last = self.samples[-2 * quarter : -quarter], self.samples[-quarter:]
        return {
            name: statistics.median(one[name] for one in last) - statistics.median(one[name] for one in third)
            for name in _GROWTH
        }


def _configuration(folder: Path, internet: Internet) -> Config:
    return {
        "server": {"listen": [f"unix:{folder / 'socket'}"], "control": "", "answer_within": ANSWER_WITHIN},
        "cache": {"path": str(folder / "policies.sqlite")},
        "dns": {"nameservers": [NAMESERVER]},
        "fetch": {"ca_file": str(internet.ca.file), "allow_addresses": ["127.0.0.0/8"]},
        "reply": {"style": "plain", "dane": "off"},
    }


async def _run(soak: _Soak, address: Path, pid: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONNECTIONS):
            tasks.create_task(soak.ask(address))
        tasks.create_task(soak.change())
        tasks.create_task(soak.sample(pid))


def main() -> int:
    """Soak for some minutes."""
    minutes, seed = int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else random.randrange(10**6)
    if minutes < 1:
        sys.exit("make soak: MINUTES must be at least 1")
    if "POSTFIX_MTASTS_NAMESPACE" not in os.environ:
        sys.exit("make soak: takes a network and mounts of its own")
    _say(f"{minutes} minutes, seed {seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        internet = Internet(folder, seed)
        with (
            Nameserver(internet),
            PolicyHost(internet),
            Daemon(folder, _configuration(folder, internet)) as daemon,
        ):
            soak = _Soak(internet, time.time() + 60 * minutes)
            asyncio.run(_run(soak, folder / "socket", daemon.pid))
    return _report(soak)


def _report(soak: _Soak) -> int:
    pasts = soak.internet.pasts.values()
    policies, failures = sum(len(past.served) for past in pasts), sum(len(past.failed) for past in pasts)
    _say(f"answers: {', '.join(f'{count} {kind}' for kind, count in soak.kinds.most_common())}")
    _say(f"the slowest took {soak.slowest:.3f} s")
    _say(
        f"the world: {soak.internet.changes} changes, {sum(len(past.looked_up) for past in pasts)} queries for records,"
    )
    _say(f"    {policies} policies served, {failures} fetches that failed")
    for taken in soak.samples[:: -(-len(soak.samples) // _LINES)]:
        _say("    ".join(f"{value:.0f} {name}" for name, value in taken.items()))
    growth = soak.growth()
    _say(f"growth in the last quarter: {', '.join(f'{value:+.1f} {name}' for name, value in growth.items())}")
    for wrong in soak.shown:
        _say(wrong)
    _say(f"{soak.wrong} wrong answers")
    return int(soak.wrong > 0 or any(growth[name] > most for name, most in _GROWTH.items()))


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    sys.exit(main())
