"""`make bench`: measure in rounds, print the medians and whether the targets are met, and write all of it as JSON.

Nobody is bound to a processor: the clients, the servers and the world share them all, as Postfix and its neighbours do.
"""

import argparse
import itertools
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.contestants import Bench
from tests.bench.load import Load
from tests.bench.measures import GROUPS, ROUNDS_AT_MOST
from tests.bench.notes import Notes
from tests.bench.report import print_medians, print_targets
from tests.bench.world import world

_ENOUGH = 600.0  # Seconds; no group is begun later, and none takes as long as is left of the twelve minutes.


def main() -> None:
    """Measure. The exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure speed and memory.")
    parser.add_argument("programs", type=Path, help="where load and limit are")
    parser.add_argument("peer", type=Path, help="virtual environment of postfix-mta-sts-resolver")
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, ROUNDS_AT_MOST + 1))
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=[], help="these groups of measures")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    notes, loads = Notes(), []
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as ca:
        bench = Bench(Path(folder), ca, arguments.programs.resolve(), arguments.peer.resolve())
        load = Load(bench)
        until = time.monotonic() + _ENOUGH
        for number, name in itertools.product(range(arguments.rounds), arguments.only or GROUPS):
            begin = time.monotonic()
            if begin > until:
                _say(f"no time is left for {name} in round {number + 1}: the machine is slow, or busy")
                continue
            loads.append(os.getloadavg()[0])
            GROUPS[name](bench, load, notes, number)
            seconds = time.monotonic() - begin
            _say(f"round {number + 1} of {arguments.rounds}: {name}, {seconds:.0f} s, load average {loads[-1]:.1f}")
    print_medians(notes)
    targets = print_targets(notes)
    found = {"machine": _machine(), "rounds": arguments.rounds, "load averages": loads, "targets": targets}
    arguments.output.write_text(json.dumps({**found, "medians": notes.medians(), "samples": notes.samples}, indent=1))
    _say(f"\nall figures: {arguments.output}")
    sys.exit(not all(target["holds"] for target in targets))


def _machine() -> dict[str, object]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processors": os.cpu_count(),
        "model": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    main()
