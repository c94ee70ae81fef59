"""Run inputs again, without what atheris adds: `python -m tests.fuzz.replay TARGET FILE…`.

The first one that breaks the parser ends it with a traceback. One that takes longer than it may is printed.
"""

import gc
import importlib
import sys
import time
from pathlib import Path
from typing import Any

LONGEST = 0.05  # Seconds of the processor for one input of 64 KiB, unless the target has a number of its own.
_TIMES = 5  # The fastest time counts: others have something of the machine's noise in them.


def seconds(module: Any, data: bytes) -> float:
    """How long an input takes of the processor."""
    run = module.run
    run(data)
    getattr(module, "check", run)(data)
    gc.disable()
    times = []
    for _ in range(_TIMES):
        begun = time.process_time()
        run(data)
        times.append(time.process_time() - begun)
        gc.collect()
    gc.enable()
    return min(times)


def main() -> None:
    """Exit status 1 if an input takes too long."""
    target, *files = sys.argv[1:]
    module = importlib.import_module(f"tests.fuzz.targets.{target}")
    longest = getattr(module, "LONGEST", LONGEST)
    slow = False
    for file in files:
        took = seconds(module, Path(file).read_bytes())
        if took > longest:
            slow = True
            print(f"{took * 1000:.0f} ms: {file}")
    sys.exit(slow)


if __name__ == "__main__":
    main()
