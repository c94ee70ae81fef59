"""`postfix-mtasts-query` when it is interrupted, and when this machine lets it have few file descriptors."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
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


def interrupted(words: tuple[str, ...], config: Path, when: threading.Event) -> tuple[int, str, str]:
    """Status, output and errors of a command that gets a SIGINT at some time."""
    process = subprocess.Popen(
        [QUERY, *words, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert when.wait(20)
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
    asked = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not any(one.name == SLOW for one in world.dns.queries):
            time.sleep(0.01)
        asked.set()

    threading.Thread(target=watch).start()
    words = tuple(str(file) if word == "/dev/stdin" else word for word in words)
    assert interrupted(words, daemon.config, asked) == (130, "", "")
    daemon.kill()  # It would wait for the lookup.
    daemon.start()


@pytest.mark.parametrize("words", [("health",), ("doctor",), ("cache", "list")])
def test_ctrl_c_while_the_daemon_hangs(daemon: Daemon, words: tuple[str, ...]) -> None:
    begun = threading.Event()
    with daemon.stopped():
        threading.Timer(1.0, begun.set).start()
        status, *printed = interrupted(words, daemon.config, begun)
        # On a busy machine, the modules may still be loading. A shell says 130 then, too.
        assert (status in (130, -signal.SIGINT), printed) == (True, ["", ""])


def test_ctrl_c_while_modules_are_loaded(daemon: Daemon, tmp_path: Path) -> None:
    """The interpreter is held in the module `argparse`, which the command imports."""
    (tmp_path / "argparse.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([QUERY, "health"], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 20
    while not (tmp_path / "loading").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
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
