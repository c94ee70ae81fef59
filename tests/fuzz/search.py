"""Search with atheris for inputs that break a parser: `python -m tests.fuzz.search TARGET FOLDER OPTION…`.

The options are libFuzzer's. What breaks the parser is left in the folder as `crash-…`, with a traceback on standard
error. What is slow here is left in `slow`, to be measured without what atheris adds.
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris

from tests.fuzz.replay import LONGEST

_KEPT = 5
# What is watched for new paths.
_WATCHED = ["postfix_mtasts", "h11", "idna", "tomllib"]


def watched(run: Callable[[bytes], None], check: Callable[[bytes], None], folder: Path) -> Callable[[bytes], None]:
    """Both in one function, which keeps inputs that are slower than most before them."""
    slowest = [LONGEST] * _KEPT

    def once(data: bytes) -> None:
        begun = time.process_time()
        run(data)
        took = time.process_time() - begun
        if took > slowest[0]:
            (folder / f"{took * 1000:.0f}ms").write_bytes(data)
            slowest[0] = took
            slowest.sort()
        check(data)

    return once


def main() -> None:
    """Search until libFuzzer ends."""
    target, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=_WATCHED):
        module = importlib.import_module(f"tests.fuzz.targets.{target}")
    corpus, seeds, slow = (Path(folder, name) for name in ("corpus", "seeds", "slow"))
    for one in (corpus, seeds, slow):
        one.mkdir(parents=True)
    for number, data in enumerate(module.seeds()):
        (seeds / str(number)).write_bytes(data)
    once = watched(module.run, getattr(module, "check", lambda data: None), slow)
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus), str(seeds)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
