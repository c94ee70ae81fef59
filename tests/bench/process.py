"""Processes of the benchmark: started, waited for, measured from outside, ended in any case."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_WITHIN = 20.0  # Seconds.
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # Seconds.


@contextmanager
def running(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from beginning to end of the block."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(host: str, port: int) -> None:
    """Return when something listens on a TCP port."""
    _wait_for(socket.AF_INET, (host, port))


def wait_for_address(address: str) -> None:
    """Return when something listens at an address of the load generator."""
    host, colon, port = address.partition(":")
    if colon:
        wait_for_port(host, int(port))
    else:
        _wait_for(socket.AF_UNIX, address)


def _wait_for(family: socket.AddressFamily, address: object) -> None:
    until = time.monotonic() + _START_WITHIN
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(address)  # type: ignore[arg-type]  # What it takes depends on the family.
            except OSError:
                if time.monotonic() > until:
                    raise
            else:
                return
        time.sleep(0.001)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What a process has used of the processors, in user and kernel mode."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def resident_megabytes(process: subprocess.Popen[bytes]) -> float:
    """How much memory a process has now."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
