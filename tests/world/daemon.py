"""The product as its users run it: `postfix-mtasts-daemon` as a process, and a socketmap client to ask it."""

import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.world.systemd import passing

COMMAND = Path(sys.executable).with_name("postfix-mtasts-daemon")
EVENT_LOOP = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"  # What it runs on.
Config = Mapping[str, Mapping[str, object]]


class Daemon:
    """`with Daemon(folder, config) as daemon: …`; the configuration is TOML text, or its tables as a mapping.

    `passed` are sockets that it gets from us as from systemd, each with its name; `environment` is added to ours, and
    `prefix` is a command that becomes the daemon.
    """

    def __init__(
        self,
        folder: Path,
        config: str | Config,
        *,
        passed: Sequence[tuple[socket.socket, str]] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.config = folder / "postfix-mtasts.toml"
        self.config.write_text(config if isinstance(config, str) else toml(config))
        self.log: list[str] = []
        self._passed = {listener.fileno(): name for listener, name in passed}
        self._environment = environment or {}
        self._prefix = prefix
        self._grown = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            status = self.stop()
            assert error or status == 0, self.log

    def start(self) -> None:
        """Start, and return when the log says that it listens."""
        assert self._process is None, "it runs already"
        since = len(self.log)
        environment = {name: value for name, value in os.environ.items() if name not in _SERVICE_MANAGER}
        self._process = subprocess.Popen(
            [*(passing(self._passed) if self._passed else ()), *self._prefix, COMMAND, "--config", self.config],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **self._environment},
            pass_fds=tuple(self._passed),
        )
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self.wait_for(r"\bready\b", since=since)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        return self._end(signal.SIGKILL)

    def hang_up(self) -> None:
        """SIGHUP: to read its configuration again."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGHUP)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP: it does nothing until the end of the block."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop cleanly and start again, with the same configuration and cache."""
        status = self.stop()
        assert status == 0, self.log
        self.start()

    def wait_for(self, pattern: str, *, since: int = 0, timeout: float = 20) -> str:
        """The first log line from index `since` on that matches, now or soon."""
        with self._grown:
            self._grown.wait_for(lambda: self._search(pattern, since) or self._ended, timeout)
            found = self._search(pattern, since)
        assert found is not None, f"no line matches {pattern!r} in {self.log[since:]}"
        return found

    def about(self, domain: str, endpoint: str, since: int = 0) -> list[str]:
        """All that it has logged of a domain until now, from index `since` on; it is asked at the endpoint."""
        sentinel = f"{next(_sentinels)}.sentinel.test"
        assert ask(endpoint, sentinel) == "NOTFOUND "
        self.wait_for(f"domain={re.escape(sentinel)},", since=since)
        return [line for line in self.log[since:] if f"domain={domain}, " in line]

    def _search(self, pattern: str, since: int) -> str | None:
        return next((line for line in self.log[since:] if re.search(pattern, line)), None)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._grown:
                self.log.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "it does not run"
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            return process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
            self._reader.join()
            assert process.stderr is not None
            process.stderr.close()


_sentinels = itertools.count()
# Set by systemd for its services; a daemon started by a test is none.
_SERVICE_MANAGER = (
    *("JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
)


def toml(tables: Config) -> str:
    """Tables of strings, numbers, booleans and lists of these, as TOML."""
    return "".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
        for table, entries in tables.items()
    )


def ask(endpoint: str, key: str, name: str = "postfix", timeout: float = 20) -> str:
    """One socketmap lookup over `inet:host:port` or `unix:path`: the reply without its netstring frame."""
    query = f"{name} {key}".encode()
    with _connect(endpoint, timeout) as connection:
        connection.sendall(b"%d:%s," % (len(query), query))
        with connection.makefile("rb") as stream:
            digits = b""
            while (byte := stream.read(1)) not in (b":", b""):
                digits += byte
            length = int(digits)
            reply = stream.read(length + 1)
    assert reply[length:] == b",", reply
    return reply[:length].decode()


def _connect(endpoint: str, timeout: float) -> socket.socket:
    kind, _, place = endpoint.partition(":")
    if kind == "inet":
        host, _, port = place.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout)
    assert kind == "unix", endpoint
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def query(*words: str | Path, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Status, output and errors of `postfix-mtasts-query` with these words."""
    command = COMMAND.with_name("postfix-mtasts-query")
    done = subprocess.run([*prefix, command, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr
