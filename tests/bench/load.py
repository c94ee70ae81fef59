"""The load generator `load.c`, and what came of it: speed, processor time of the server, and whether it was right."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.bench.contestants import Bench, Contestant
from tests.bench.process import cpu_seconds

_MAP = "postfix"
_AT_MOST = 150.0  # Seconds for one load; then something hangs.
_ALONE = 0.5  # Seconds until the others come.
DISCOVERIES = 500  # Under way at once.
_STEADY = 64  # Connections of a relay whose load is steady.
Expected = Literal["ok", "notfound"]


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
        expect: Expected = "ok",
    ) -> Result:
        """Ask for the domains in turn for so long, or for each once; every answer is to be as expected."""
        before = cpu_seconds(server.process)
        output = subprocess.check_output(self._command(server, kind, domains, connections, seconds), timeout=_AT_MOST)
        return _result(output, cpu_seconds(server.process) - before, expect)

    def ask_beside(
        self, server: Contestant, domains: Sequence[str], connections: int, seconds: float, others: Sequence[str]
    ) -> Result:
        """Ask for the domains in turn for so long, on connections that are open when all the others are asked for too.

        These are asked for on 500 connections more, each once, and are to last longer than that.
        """
        asking = self._command(server, "tcp", domains, connections, _ALONE + seconds, _ALONE)
        with _output_of(asking) as main:
            time.sleep(_ALONE)
            before = cpu_seconds(server.process)
            with _output_of(self._command(server, "tcp", others, DISCOVERIES)) as beside:
                output, _ = main.communicate(timeout=_AT_MOST)
                if beside.poll() is not None:
                    raise AssertionError("what was to be under way came to its end before")
        return _result(output, cpu_seconds(server.process) - before, "ok")

    def ask_steadily(
        self, servers: Sequence[Contestant], domains: Sequence[Sequence[str]], rate: float, policies: Set[str]
    ) -> list[Result]:
        """Ask all servers at the same time, each for its domains in turn, so many in a second, over Unix sockets.

        Those in `policies` are to have a policy, and no other is.
        """
        before = [cpu_seconds(server.process) for server in servers]
        with ExitStack() as stack:
            loads = []
            for number, (server, own) in enumerate(zip(servers, domains, strict=True)):
                keys = self._written(f"steadily-{number}", own)
                unix, numbers = server.addresses["unix"], map(str, (_STEADY, 0, 0, rate))
                command: list[str | Path] = [self._program, unix, _MAP, keys, *numbers]
                loads.append(stack.enter_context(_output_of(command)))
            outputs = [load.communicate(timeout=_AT_MOST)[0] for load in loads]
        results = []
        for server, own, cpu, output in zip(servers, domains, before, outputs, strict=True):
            found = json.loads(output)
            hits = sum(domain in policies for domain in own)
            if (found["ok"], found["notfound"]) != (hits, len(own) - hits):
                raise AssertionError(f"not {hits} of {len(own)} have a policy: {found}")
            results.append(_as_result(found, cpu_seconds(server.process) - cpu))
        return results

    def _written(self, name: str, domains: Sequence[str]) -> Path:
        keys = self._keys / name
        keys.write_text("".join(f"{domain}\n" for domain in domains))
        return keys

    def _command(
        self,
        server: Contestant,
        kind: str,
        domains: Sequence[str],
        connections: int,
        seconds: float = 0,
        skip: float = 0,
    ) -> list[str | Path]:
        keys = self._written(f"{domains[0]}-{len(domains)}", domains)
        return [self._program, server.addresses[kind], _MAP, keys, *map(str, (connections, seconds, skip))]


@contextmanager
def _output_of(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _result(output: bytes, cpu: float, expect: Expected) -> Result:
    found: dict[str, float] = json.loads(output)
    total = found["requests"]
    if not total or found[expect] != total:
        raise AssertionError(f"not all is {expect}: {found}")
    return _as_result(found, cpu)


def _as_result(found: dict[str, float], cpu: float) -> Result:
    total = found["requests"]
    times = (found[unit] for unit in ("p50", "p99", "p99_9", "max"))
    return Result(total / found["seconds"], cpu / total * 1e6, *times)
