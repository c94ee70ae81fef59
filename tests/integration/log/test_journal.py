"""The daemon's log in the journal: journald's own place and protocol, and what becomes of lines without it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_mtasts.log.events import Event
from tests.integration.conftest import World, mounted
from tests.world.daemon import COMMAND, EVENT_LOOP, ask, toml
from tests.world.systemd import JOURNAL, Journal, stream_of

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.fixture
def journal() -> Iterator[Journal]:
    with mounted("-t", "tmpfs", "tmpfs", "/run"), Journal() as journal:
        yield journal


class Service:
    """The daemon, with standard error in a file that systemd says is the journal."""

    def __init__(self, folder: Path, config: dict[str, dict[str, object]] | str) -> None:
        self.endpoint = f"unix:{folder / 'socket'}"
        self.config = folder / "config"
        self.config.write_text(config if isinstance(config, str) else toml(config))
        self._stderr = folder / "stderr"

    @contextmanager
    def running(self, stream: Callable[[int], str] = stream_of) -> Iterator[subprocess.Popen[bytes]]:
        with self._stderr.open("wb") as file:
            environment = os.environ | {"JOURNAL_STREAM": stream(file.fileno())}
            with subprocess.Popen([COMMAND, "--config", self.config], stderr=file, env=environment) as process:
                try:
                    yield process
                finally:
                    process.kill()

    def stderr(self) -> list[str]:
        return self._stderr.read_text().splitlines()


@pytest.fixture
def service(world: World, tmp_path: Path) -> Service:
    return Service(tmp_path, dict(world.configuration(tmp_path)))  # type: ignore[arg-type]  # It is not changed.


def record(event: Event, priority: int, message: str, **more: str) -> dict[str, str]:
    return {
        "MESSAGE": message,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "postfix-mtasts-daemon",
        "SYSLOG_FACILITY": "2",
        "MESSAGE_ID": event.value,
    } | more


def start(endpoint: str) -> list[dict[str, str]]:
    return [
        record(Event.EVENT_LOOP, 6, f"info: event loop is {EVENT_LOOP}"),
        record(Event.REPLY_RULES, 6, "info: reply.style is plain: configured"),
        record(Event.REPLY_RULES, 6, "info: reply.dane is off: configured"),
        record(Event.READY, 6, f"info: ready; for main.cf: smtp_tls_policy_maps = socketmap:{endpoint}:postfix"),
    ]


NO_POLICY = record(
    Event.DECIDED,
    6,
    "info: domain=none.test, no policy: no _mta-sts TXT record",
    MTASTS_DOMAIN="none.test",
    MTASTS_RESULT="no-policy",
)


def test_the_journal_gets_whole_records_and_standard_error_nothing(
    world: World, service: Service, journal: Journal
) -> None:
    text = "version: STSv1\nmode: enforce\nmx: mx.good.test\nmax_age: 86400\n"
    world.publish("good.test", text)
    world.announce("down.test", host="127.0.2.2")
    with service.running() as process:
        assert [journal.next() for _ in range(4)] == start(service.endpoint)
        assert ask(service.endpoint, "GOOD.test.") == "OK secure match=mx.good.test servername=hostname"
        assert journal.next() == record(
            Event.DECIDED,
            6,
            "info: domain=good.test, fetched: mode=enforce, max_age=86400, mx=mx.good.test",
            MTASTS_DOMAIN="good.test",
            MTASTS_RESULT="enforce",
        )
        assert ask(service.endpoint, "down.test") == "NOTFOUND "
        assert journal.next() == record(
            Event.DECIDED,
            4,
            "warning: domain=down.test, policy unavailable: connection to the policy host: 127.0.2.2: "
            "connection refused (sts-policy-fetch-error)",
            MTASTS_DOMAIN="down.test",
            MTASTS_RESULT="unavailable",
        )
        service.config.write_text("listen\n")
        process.send_signal(signal.SIGHUP)
        why = f"{service.config}: not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"
        assert journal.next() == record(
            Event.NOT_RELOADED, 3, f"error: configuration not reloaded, the previous one stays in effect: {why}"
        )
        process.send_signal(signal.SIGTERM)
        assert journal.next() == record(Event.STOPPING, 6, "info: stopping")
        assert process.wait(20) == 0
    assert service.stderr() == []


def test_a_failed_start_is_in_the_journal(journal: Journal, tmp_path: Path) -> None:
    service = Service(tmp_path, "listen\n")
    with service.running() as process:
        why = f"{service.config}: not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"
        assert journal.next() == record(Event.NOT_STARTED, 3, f"error: {why}")
        assert process.wait(20) == os.EX_CONFIG
    assert service.stderr() == []


# Writes a record of many lines, too large for one datagram, and one of a library.
LARGE = """
import logging, sys
from postfix_mtasts.log import events
events.begin("large")
try:
    raise ValueError("x" * 1_000_000)
except ValueError as error:
    events.internal_error(error)
logging.getLogger("library").critical("two\\nlines")
logging.getLogger("library").info("three")
"""


def test_records_of_any_size_and_of_libraries(journal: Journal, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as file:
        environment = os.environ | {"JOURNAL_STREAM": stream_of(file.fileno())}
        interpreter = sys.executable
        subprocess.run([interpreter, "-c", LARGE], stderr=file, env=environment, check=True, timeout=20)
    first = journal.next()
    lines = first.pop("MESSAGE").split("\n")
    assert (lines[:2], lines[-1]) == (
        ["error: internal error", "Traceback (most recent call last):"],
        f"ValueError: {'x' * 1_000_000}",
    )
    common = {"SYSLOG_IDENTIFIER": "large", "SYSLOG_FACILITY": "2"}
    assert first == common | {"PRIORITY": "3", "MESSAGE_ID": Event.INTERNAL_ERROR.value}
    assert journal.next() == common | {"PRIORITY": "3", "MESSAGE": "critical: two\nlines"}
    assert journal.next() == common | {"PRIORITY": "6", "MESSAGE": "info: three"}
    assert (tmp_path / "stderr").read_bytes() == b""


@pytest.mark.parametrize("gone", ["its place", "who listens"])
def test_lines_that_the_journal_does_not_take_go_to_standard_error(
    gone: str, service: Service, journal: Journal
) -> None:
    with service.running() as process:
        assert [journal.next() for _ in range(4)] == start(service.endpoint)
        journal.close()
        if gone == "its place":
            JOURNAL.unlink()
        assert ask(service.endpoint, "none.test") == "NOTFOUND "
        JOURNAL.unlink(missing_ok=True)
        with Journal() as again:
            assert ask(service.endpoint, "single") == "NOTFOUND "
            process.send_signal(signal.SIGTERM)
            assert again.next() == record(Event.STOPPING, 6, "info: stopping")
            assert process.wait(20) == 0
    assert service.stderr() == [NO_POLICY["MESSAGE"]]


def lines(service: Service) -> list[str]:
    return [found["MESSAGE"] for found in [*start(service.endpoint), NO_POLICY]] + ["info: stopping"]


@pytest.mark.parametrize("stream", ["", "1:2", "journal", "0"])
def test_standard_error_that_is_not_the_journal_gets_the_lines(stream: str, service: Service, journal: Journal) -> None:
    with service.running(lambda _: stream) as process:
        wait_for_ready(service)
        assert ask(service.endpoint, "none.test") == "NOTFOUND "
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert service.stderr() == lines(service)


def test_without_systemd_python_standard_error_gets_the_lines(
    service: Service, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "python" / "systemd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with service.running() as process:
        wait_for_ready(service)
        assert ask(service.endpoint, "none.test") == "NOTFOUND "
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert service.stderr() == lines(service)


def wait_for_ready(service: Service) -> None:
    """Until its log says so."""
    while not any("ready" in line for line in service.stderr()):
        time.sleep(0.01)
