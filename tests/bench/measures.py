"""What is measured, each once; the runner repeats them by turns and takes medians.

Every measure also checks the replies: a fast wrong answer is no result.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postfix_mtasts.database import Database
from postfix_mtasts.entry import CachedPolicy, Entry
from postfix_mtasts.policy import Mode, MxPattern, Policy
from postfix_mtasts.row import print_row
from tests.bench.contestants import Bench, Contestant, ours
from tests.bench.process import cpu_seconds, resident_megabytes
from tests.bench.world import HANGING, MX, POLICIES, names, write_keys

WARM_SECONDS = 2.0
DISCOVERIES = 500  # Under way at once.
NEGATIVES = 4000
KNOWN = 100_000


@dataclass(frozen=True)
class Result:
    """Requests or domains per second, microseconds of the server's processor time for each, and of waiting."""

    per_second: float
    cpu: float
    p50: int
    p99: int
    p99_9: int


class Load:
    """Asks; `keys` are files of domains with a policy, without one, of no end, and many of both."""

    def __init__(self, bench: Bench) -> None:
        self._program = bench.programs / "load"
        folder = bench.folder
        silent = [*names("silent", HANGING), *names("hanging", HANGING)]
        known = [*names("policy", KNOWN // 100), *names("none", KNOWN - KNOWN // 100)]
        self.keys = {
            "hit": write_keys(folder / "hit", names("policy", 1000)),
            "negative": write_keys(folder / "negative", names("none", 1000)),
            "cold policy": write_keys(folder / "cold-policy", names("policy", POLICIES)),
            "cold negative": write_keys(folder / "cold-negative", names("none", NEGATIVES)),
            "other policies": write_keys(folder / "other-policies", names("policy", POLICIES)[1000:]),
            "hanging": write_keys(folder / "hanging", silent),
            "known": write_keys(folder / "known", known),
        }

    def ask(
        self, server: Contestant, kind: str, keys: str, connections: int, seconds: float = 0, idle: int = 0
    ) -> Result:
        """Ask for the keys in turn for so long, or each once; all are to have a policy, or none."""
        before = cpu_seconds(server.process)
        found = self._run(server, kind, keys, connections, seconds, idle)
        cpu = cpu_seconds(server.process) - before
        total = found["requests"]
        expected = "notfound" if "negative" in keys else "ok"
        if found[expected] != total:
            raise AssertionError(f"{keys}: {found}")
        return Result(
            total / found["seconds"], cpu / total * 1e6, int(found["p50"]), int(found["p99"]), int(found["p99_9"])
        )

    def learn(self, server: Contestant, kind: str, keys: str) -> dict[str, float]:
        """Ask for each key once, whatever the answers."""
        return self._run(server, kind, keys, 64, 0, 0)

    @contextmanager
    def beside(self, server: Contestant, keys: str) -> Iterator[subprocess.Popen[bytes]]:
        """Ask for each key once, all at once, while the block lasts."""
        with subprocess.Popen(self._command(server, "tcp", keys, DISCOVERIES, 0, 0), stdout=subprocess.PIPE) as other:
            try:
                yield other
            finally:
                other.kill()

    def _run(self, server: Contestant, kind: str, keys: str, *numbers: float) -> dict[str, float]:
        found: dict[str, float] = json.loads(
            subprocess.check_output(self._command(server, kind, keys, *numbers), timeout=120)
        )
        return found

    def _command(self, server: Contestant, kind: str, keys: str, *numbers: float) -> list[str]:
        return [str(self._program), server.addresses[kind], "postfix", str(self.keys[keys]), *map(str, numbers)]


def cold(load: Load, server: Contestant, kind: str) -> dict[str, Result]:
    """Domains nobody has asked for yet, 32 in parallel; then `warm` can be measured."""
    return {keys: load.ask(server, kind, keys, 32) for keys in ("cold policy", "cold negative")}


def warm(load: Load, server: Contestant, kind: str, keys: str, connections: int = 64, idle: int = 0) -> Result:
    """Domains that are known. The limit says OK to all."""
    return load.ask(server, kind, keys, connections, WARM_SECONDS, idle)


def burst(bench: Bench, load: Load, what: str) -> tuple[Result, Result]:
    """Warm hits without, and with 500 discoveries under way, of domains that are new, or that hang."""
    with _fresh(bench) as server:
        load.learn(server, "tcp", "hit")
        load.learn(server, "tcp", "hit")
        without = warm(load, server, "tcp", "hit")
        with load.beside(server, what) as other:
            time.sleep(0.3)  # All have been asked for then.
            beside = load.ask(server, "tcp", "hit", 64, 1.0)
            if other.poll() is not None:
                raise AssertionError("the discoveries ended before the measure")
    return without, beside


def memory(bench: Bench, load: Load) -> float:
    """Megabytes with 100,000 domains known, one in a hundred with a policy."""
    with _fresh(bench) as server:
        load.learn(server, "tcp", "known")
        load.learn(server, "tcp", "hit")
        return resident_megabytes(server.process)


def idle_memory(load: Load, server: Contestant, idle: int) -> tuple[Result, float]:
    """Warm hits beside idle connections; and the megabytes of the server after that."""
    return warm(load, server, "unix", "hit", 64, idle), resident_megabytes(server.process)


def start(bench: Bench, load: Load, stored: str) -> tuple[float, float]:
    """Seconds from the start to the first answer, with such a cache; and megabytes then."""
    begin = time.monotonic()
    with ours(bench, cache=stored) as server:
        keys = "negative" if stored.endswith("-0") else "hit"
        load.ask(server, "unix", f"first {keys}", 1)
        return time.monotonic() - begin, resident_megabytes(server.process)


def fill(bench: Bench, load: Load) -> list[str]:
    """Caches with 0, 10,000 and 100,000 policies: their names."""
    policy = Policy(Mode.ENFORCE, 604_800, tuple(map(MxPattern, MX)))
    now = time.time()
    entry = Entry(CachedPolicy(policy, str(policy), "1", now), checked_at=now, last_used=now)
    row = print_row(entry)
    load.keys["first negative"] = write_keys(bench.folder / "first-negative", names("none", 1))
    load.keys["first hit"] = write_keys(bench.folder / "first-hit", names("policy", 1))
    stored = []
    for count in (0, 10_000, 100_000):
        stored.append(f"stored-{count}")
        database = Database(str(bench.folder / stored[-1]))
        database.open()
        database.put([(domain, row) for domain in names("policy", count)], now)
        database.close()
    return stored


@contextmanager
def _fresh(bench: Bench) -> Iterator[Contestant]:
    for file in Path(bench.folder).glob("cache.sqlite*"):
        file.unlink()
    with ours(bench) as server:
        yield server
