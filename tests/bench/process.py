"""Processes of the benchmark: started, waited for, measured from outside, ended in any case."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_START_WITHIN = 20.0  # Seconds.
_STOP_WITHIN = 1.0  # Seconds; what is still under way then is not missed.
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # Seconds.
# In a process of its own: what is executed counts as as large as who has executed it.
_MEASURE = """
import resource, subprocess, sys, time
with open(sys.argv[1], "wb") as output:
    begun = time.monotonic()
    status = subprocess.run(sys.argv[2:], stdout=output).returncode
    seconds = time.monotonic() - begun
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, status)
"""


class Cost(NamedTuple):
    """What a run of a command took."""

    seconds: float
    processor: float  # Seconds of it, which another load of the machine hardly changes.
    octets: int  # Of memory, at its peak.
    status: int


def cost_of(output: str | Path, *command: str | Path) -> Cost:
    """Run a command, whose output goes into a file."""
    line = [sys.executable, "-c", _MEASURE, output, *command]
    seconds, processor, octets, status = subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout.split()
    return Cost(float(seconds), float(processor), int(octets), int(status))


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process from beginning to end of the block; what it says goes to a file, as it would to a journal."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    try:
        yield process
    except BaseException as error:
        error.add_note(f"{command[0]} has said: {log.read_text()[-2000:]}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def connect(address: str) -> socket.socket:
    """A connection to `host:port` or the path of a Unix socket."""
    host, colon, port = address.partition(":")
    if colon:
        return socket.create_connection((host, int(port)))
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def wait_for_address(address: str) -> None:
    """Return when something listens there."""
    until = time.monotonic() + _START_WITHIN
    while True:
        try:
            connect(address).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.001)
        else:
            return


def wait_for_line(log: Path, text: str) -> None:
    """Return when it stands in the log."""
    until = time.monotonic() + _START_WITHIN
    while text not in log.read_text():
        if time.monotonic() > until:
            raise AssertionError(f"no {text!r} in {log.read_text()}")
        time.sleep(0.001)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What a process has used of the processors, in user and kernel mode."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def resident_megabytes(process: subprocess.Popen[bytes]) -> float:
    """How much memory a process has now."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
