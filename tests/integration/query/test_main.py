"""`postfix-mtasts-query` when it is interrupted, and when this machine lets it have few file descriptors."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import World
from tests.world.daemon import COMMAND, Daemon, query
from tests.world.dns import Behaviour

pytestmark = pytest.mark.usefixtures("namespace")

QUERY = COMMAND.with_name("postfix-mtasts-query")
SLOW = "_mta-sts.slow.test"


@pytest.fixture
def daemon(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, world.configuration(tmp_path, dns={"nameservers": ["127.0.0.1"], "timeout": 60})) as running:
        yield running


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sockets_below(folder: Path) -> int:
    """How many Unix sockets there are with names in a folder: one that listens, and one for each connection to it."""
    return Path("/proc/net/unix").read_text().count(f" {folder}/")


def interrupted(words: tuple[str, ...], config: Path, when: Callable[[], bool]) -> tuple[int, str, str]:
    """Status, output and errors of a command that gets a SIGINT as soon as something is so."""
    process = subprocess.Popen(
        [QUERY, *words, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(when)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output, errors


@pytest.mark.parametrize(
    "words", [("slow.test",), ("--as-postfix", "slow.test"), ("cache", "refresh", "slow.test"), ("warm", "/dev/stdin")]
)
def test_ctrl_c(world: World, daemon: Daemon, words: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "domains"
    file.write_text("slow.test\n")
    world.dns.set_behaviour(SLOW, Behaviour(silent=True))
    world.dns.queries.clear()
    words = tuple(str(file) if word == "/dev/stdin" else word for word in words)

    def is_asked() -> bool:
        return any(one.name == SLOW for one in world.dns.queries)

    assert interrupted(words, daemon.config, is_asked) == (130, "", "")
    daemon.kill()  # It would wait for the lookup.
    daemon.start()


@pytest.mark.parametrize("words", [("health",), ("doctor",), ("cache", "list")])
def test_ctrl_c_while_the_daemon_hangs(daemon: Daemon, words: tuple[str, ...], tmp_path: Path) -> None:
    with daemon.stopped():
        open_before = sockets_below(tmp_path)
        # It is in the queue of one of the daemon's sockets now.
        assert interrupted(words, daemon.config, lambda: sockets_below(tmp_path) > open_before) == (130, "", "")


def test_ctrl_c_while_modules_are_loaded(daemon: Daemon, tmp_path: Path) -> None:
    """The interpreter is held in the module `argparse`, which the command imports."""
    (tmp_path / "argparse.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([QUERY, "health"], stderr=subprocess.PIPE, text=True, env=environment)
    wait_until((tmp_path / "loading").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (-signal.SIGINT, "")  # A shell says 130.


@pytest.mark.parametrize("words", [("health",), ("doctor",), ("cache", "list"), ("warm", "-"), ("none.test",)])
@pytest.mark.parametrize("limit", [6, 7, 9, 12])
def test_few_descriptors(daemon: Daemon, words: tuple[str, ...], limit: int) -> None:
    status, _, errors = query(*words, "--config", daemon.config, prefix=("prlimit", f"--nofile={limit}"))
    assert (status in (0, 1, 2, 3, 69, 78), errors.count("\n") <= 1) == (True, True), errors
    if status == 69:
        line = "postfix-mtasts-query: error: too many open files: raise the limit, for example with `ulimit -n 1024`\n"
        assert errors == line
