"""The load generator `load.c`, and what came of it: speed, processor time of the server, and whether it was right."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.bench.contestants import Bench, Contestant
from tests.bench.process import cpu_seconds

_MAP = "postfix"
_AT_MOST = 150.0  # Seconds for one load; then something hangs.
_UNTIL_ALL_ASK = 0.2  # Seconds.


@dataclass(frozen=True)
class Result:
    """What one load came to; all times are in microseconds."""

    per_second: float  # Requests, or domains when each is asked for once.
    cpu: float  # Of the server's whole process, for one request.
    p50: float
    p99: float
    p99_9: float
    max: float


class Load:
    """Asks servers as Postfix does."""

    def __init__(self, bench: Bench) -> None:
        self._program = bench.programs / "load"
        self._keys = bench.folder / "keys"
        self._keys.mkdir()

    def ask(
        self,
        server: Contestant,
        kind: str,
        domains: Sequence[str],
        connections: int,
        seconds: float = 0,
        expect: Literal["ok", "notfound"] = "ok",
    ) -> Result:
        """Ask for the domains in turn for so long, or for each once; every answer is to be as expected."""
        before = cpu_seconds(server.process)
        command = self._command(server, kind, domains, connections, seconds)
        found: dict[str, float] = json.loads(subprocess.check_output(command, timeout=_AT_MOST))
        cpu = cpu_seconds(server.process) - before
        total = found["requests"]
        if not total or found[expect] != total:
            raise AssertionError(f"not all is {expect}: {found}")
        return Result(
            total / found["seconds"], cpu / total * 1e6, *(found[unit] for unit in ("p50", "p99", "p99_9", "max"))
        )

    @contextmanager
    def beside(self, server: Contestant, domains: Sequence[str], connections: int) -> Iterator[None]:
        """While the block lasts, ask for each domain once, on so many connections. They are to last that long."""
        with subprocess.Popen(self._command(server, "tcp", domains, connections, 0), stdout=subprocess.PIPE) as other:
            try:
                time.sleep(_UNTIL_ALL_ASK)
                yield
                if other.poll() is not None:
                    raise AssertionError("what was to be under way came to its end before")
            finally:
                other.kill()

    def _command(
        self, server: Contestant, kind: str, domains: Sequence[str], connections: int, seconds: float
    ) -> list[str | Path]:
        keys = self._keys / f"{domains[0]}-{len(domains)}"
        keys.write_text("".join(f"{domain}\n" for domain in domains))
        return [self._program, server.addresses[kind], _MAP, keys, str(connections), str(seconds)]
