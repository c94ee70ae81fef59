"""`make bench`: measure by turns, take medians, print them and whether they are what we want.

python -m tests.bench PROGRAMS PEER JSON [ROUNDS]
"""

import json
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import measures
from tests.bench.contestants import Bench, Contestant, limit, ours, peer
from tests.bench.measures import Load, Result
from tests.bench.report import print_table, print_targets
from tests.bench.world import world

Samples = dict[str, dict[str, list[float]]]


class Notes:
    """Samples by measure, contestant and unit; their medians."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = defaultdict(list)

    def note(self, measure: str, who: str, result: Result) -> None:
        """What one load came to."""
        units = {"per_second": result.per_second, "cpu": result.cpu}
        for unit, value in {**units, "p50": result.p50, "p99": result.p99, "p99_9": result.p99_9}.items():
            self.add(f"{measure}, {who}, {unit}", value)

    def add(self, name: str, value: float) -> None:
        """One sample."""
        self.samples[name].append(value)

    def medians(self) -> dict[str, float]:
        """By the names of the samples."""
        return {name: statistics.median(values) for name, values in self.samples.items()}


def main() -> None:
    """Measure all."""
    programs, peer_environment, output = map(Path, sys.argv[1:4])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    notes = Notes()
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as ca:
        bench = Bench(Path(folder), ca, programs.resolve(), peer_environment.resolve())
        load = Load(bench)
        stored = measures.fill(bench, load)
        for number in range(rounds):
            _say(f"round {number + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}")
            _round(bench, load, notes, stored)
        _say("100,000 domains")
        notes.add("memory, 100000 known, ours, MB", measures.memory(bench, load))
    medians = notes.medians()
    machine = {"processors": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    output.write_text(json.dumps({"machine": machine, "medians": medians, "samples": notes.samples}, indent=1))
    print_table(medians)
    missed = print_targets(medians)
    _say(f"\nall figures: {output}")
    sys.exit(1 if missed else 0)


def _round(bench: Bench, load: Load, notes: Notes, stored: list[str]) -> None:
    for who, uvloop in (("ours", True), ("ours on asyncio", False)):
        with _empty(bench, uvloop) as server:
            _cold(load, notes, who, server, "tcp")
            for kind in ("tcp", "unix"):
                for keys in ("hit", "negative"):
                    load.learn(server, kind, keys)
                    notes.note(f"warm {keys}, {kind}, 64", who, measures.warm(load, server, kind, keys))
                if uvloop:
                    for connections in (1, 8, 256):
                        found = measures.warm(load, server, kind, "hit", connections)
                        notes.note(f"warm hit, {kind}, {connections}", who, found)
            if uvloop:
                result, megabytes = measures.idle_memory(load, server, 5000)
                notes.note("warm hit, unix, 64 and 5000 idle", who, result)
                notes.add("memory, 5000 idle connections, ours, MB", megabytes)
    for kind in ("tcp", "unix"):
        with limit(bench, kind) as server:
            for connections in (1, 8, 64, 256):
                notes.note(
                    f"warm hit, {kind}, {connections}", "C", measures.warm(load, server, kind, "hit", connections)
                )
        with peer(bench, kind, "internal") as server:
            _cold(load, notes, "peer", server, kind) if kind == "tcp" else load.learn(server, kind, "hit")
            for keys in ("hit", "negative"):
                notes.note(f"warm {keys}, {kind}, 64", "peer", measures.warm(load, server, kind, keys))
    with peer(bench, "tcp", "sqlite") as server:
        load.learn(server, "tcp", "hit")
        notes.note("warm hit, tcp, 64", "peer with sqlite", measures.warm(load, server, "tcp", "hit"))
    for what in ("other policies", "hanging"):
        without, beside = measures.burst(bench, load, what)
        notes.note("warm hit, tcp, before a burst", "ours", without)
        notes.note(f"warm hit, tcp, beside 500 {what}", "ours", beside)
    for cache in stored:
        seconds, megabytes = measures.start(bench, load, cache)
        notes.add(f"start, {cache.removeprefix('stored-')} stored, ours, seconds", seconds)
        notes.add(f"memory, {cache.removeprefix('stored-')} stored, ours, MB", megabytes)


def _cold(load: Load, notes: Notes, who: str, server: Contestant, kind: str) -> None:
    for keys, result in measures.cold(load, server, kind).items():
        notes.note(keys, who, result)


@contextmanager
def _empty(bench: Bench, uvloop: bool) -> Iterator[Contestant]:
    for file in bench.folder.glob("cache.sqlite*"):
        file.unlink()
    with ours(bench, uvloop=uvloop) as server:
        yield server


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


main()
