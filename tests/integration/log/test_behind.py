"""A log that nobody reads stops no answer, and standard files that are missing are /dev/null."""

import fcntl
import logging
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from postfix_mtasts.log.behind import Behind
from tests.integration.log.test_journal import NO_POLICY, Service, journal, service, start
from tests.world.daemon import COMMAND, ask
from tests.world.systemd import Journal

__all__ = ["journal", "service"]  # Fixtures.
pytestmark = pytest.mark.usefixtures("namespace")

PAGE = 4096  # Octets, the smallest pipe.
DOMAINS = [f"domain-{number}.test" for number in range(300)]


def answering(service: Service) -> None:
    """Wait until the daemon answers: its log does not tell."""
    path = service.endpoint.removeprefix("unix:")
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            if not connection.connect_ex(path):
                break
        time.sleep(0.01)


def told(service: Service) -> list[str]:
    of_domains = [NO_POLICY["MESSAGE"].replace("none.test", domain) for domain in DOMAINS]
    return [*(record["MESSAGE"] for record in start(service.endpoint)), *of_domains, "info: stopping"]


def test_a_pipe_that_nobody_reads(service: Service) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    with subprocess.Popen([COMMAND, "--config", service.config], stderr=writing) as process, open(reading) as lines:  # noqa: PTH123 - a pipe
        os.close(writing)
        answering(service)
        assert {ask(service.endpoint, domain) for domain in DOMAINS} == {"NOTFOUND "}
        process.send_signal(signal.SIGTERM)
        assert lines.read().splitlines() == told(service)
        assert process.wait(20) == 0


def test_a_pipe_that_nobody_ever_reads_does_not_stop_the_end(service: Service) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    with subprocess.Popen([COMMAND, "--config", service.config], stderr=writing) as process:
        os.close(writing)
        answering(service)
        assert {ask(service.endpoint, domain) for domain in DOMAINS} == {"NOTFOUND "}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(reading)


def test_a_journal_that_nobody_reads(service: Service, journal: Journal) -> None:
    with service.running() as process:
        answering(service)
        assert {ask(service.endpoint, domain) for domain in DOMAINS} == {"NOTFOUND "}
        process.send_signal(signal.SIGTERM)
        expected = told(service)
        assert [journal.next()["MESSAGE"] for _ in expected] == expected
        assert process.wait(20) == 0
    assert service.stderr() == []


def test_lines_that_are_too_many_are_lost_and_counted() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    with open(reading) as lines, open(writing, "w") as stream:  # noqa: PTH123 - a pipe
        behind = Behind(logging.StreamHandler(stream), stream.fileno())
        for number in range(10_000):
            behind.handle(logging.makeLogRecord({"msg": f"{number:05} {93 * 'x'}"}))
        numbers: list[int] = []
        lost = 0
        while len(numbers) + lost < 10_000:
            first, _, rest = lines.readline().partition(" ")
            if rest.startswith(("line of the log is lost", "lines of the log are lost")):
                lost += int(first.replace(",", ""))
            else:
                numbers.append(int(first))
    assert numbers == list(range(len(numbers)))
    assert 5000 < len(numbers) < 5100  # Those that wait, and the first ones, which fit into the pipe.


def test_a_traceback_is_larger_than_the_room_in_a_pipe() -> None:
    """What says that there is room promises 4 KiB."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    with open(reading) as lines, open(writing, "w") as stream:  # noqa: PTH123 - a pipe
        behind = Behind(logging.StreamHandler(stream), stream.fileno())
        error = ValueError("x" * 10 * PAGE)
        behind.handle(logging.makeLogRecord({"msg": "an error", "exc_info": (ValueError, error, None)}))
        behind.handle(logging.makeLogRecord({"msg": "the next"}))
        assert [lines.readline() for _ in range(3)] == ["an error\n", f"ValueError: {error}\n", "the next\n"]


@pytest.mark.parametrize("missing", ["2>&-", "<&- >&- 2>&-"])
def test_standard_files_that_are_missing(service: Service, missing: str) -> None:
    command = ["sh", "-c", f'exec "$0" "$@" {missing}', str(COMMAND), "--config", str(service.config)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        answering(service)
        assert ask(service.endpoint, "none.test") == "NOTFOUND "
        files = {Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert files == {Path("/dev/null")}
