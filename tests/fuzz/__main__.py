"""Search each target for some seconds, two at once: `python -m tests.fuzz SECONDS [TARGET…]`.

All goes into build/fuzz/TARGET, with what was said in `log`. Exit status 1 if there was a finding.
"""

import pkgutil
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import targets

_FOLDER = Path("build/fuzz")
_AT_ONCE = 2
_GRACE = 120  # Seconds for the start, the seeds and an input that hangs.
_OPTIONS = ("-seed=1", "-max_len=65536", "-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1")


def search(target: str, seconds: int) -> str:
    """What was found, or how many inputs were tried."""
    folder = _FOLDER / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "log"
    command = [sys.executable, "-m", "tests.fuzz.search", target, str(folder)]
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, f"-max_total_time={seconds}", *_OPTIONS],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=seconds + _GRACE,
        )
    said = log.read_text("utf-8", "replace")
    if done.returncode:
        return f"FOUND, exit status {done.returncode}:\n{said[-3000:]}"
    slow = sorted(folder.glob("slow/*"))
    again = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.replay", target, *map(str, slow)], capture_output=True, text=True
    )
    if again.returncode:
        return f"FOUND, slow:\n{again.stdout}{again.stderr[-3000:]}"
    executed = re.search(r"number_of_executed_units: *(\d+)", said)
    return f"{executed[1] if executed else 'no'} inputs, nothing found; {len(slow)} slow ones were measured again"


def main() -> int:
    """Search all, or those that are named."""
    seconds = int(sys.argv[1])
    names = sys.argv[2:] or [module.name for module in pkgutil.iter_modules(targets.__path__)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = dict(zip(names, pool.map(lambda name: search(name, seconds), names), strict=True))
    for name, result in results.items():
        print(f"{name}: {result}")
    return int(any(result.startswith("FOUND") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
