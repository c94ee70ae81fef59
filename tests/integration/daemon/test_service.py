"""The daemon as a service: sockets that are passed, states that are told, signs of life."""

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from postfix_mtasts.daemon import service
from postfix_mtasts.daemon.server import Server
from postfix_mtasts.postfix.installation import PATH
from postfix_mtasts.postfix.socketmap import Reply, Request, Status
from tests.integration.conftest import World, fetched, mounted, store_entries
from tests.world.daemon import COMMAND, EVENT_LOOP, Daemon, ask, toml
from tests.world.systemd import Manager, passing

pytestmark = pytest.mark.usefixtures("namespace")

PORT = 8461
TCP = f"inet:127.0.0.1:{PORT}"
NONE = "none.test"  # Has no record.


def policy(domain: str) -> str:
    return f"version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 86400\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


@contextmanager
def tcp(host: str = "127.0.0.1", port: int = PORT) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, dualstack_ipv6=host == "::") as listener:
        yield listener


@contextmanager
def unix(path: Path, mode: int = 0o666) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen()
        yield listener


def unset(world: World, folder: Path, **server: object) -> dict[str, dict[str, object]]:
    """A configuration that has no `server.listen`."""
    tables = dict(world.configuration(folder))
    tables["server"] = {"control": str(folder / "control")} | server
    return tables  # type: ignore[return-value]  # The tables are ours, and not changed.


def at_the_start(daemon: Daemon) -> list[str]:
    """What it says at the start of sockets."""
    return [line for line in daemon.log if "reply." not in line and "event loop" not in line]


def ready(endpoint: str) -> str:
    return f"info: ready; for main.cf: smtp_tls_policy_maps = socketmap:{endpoint}:postfix"


def open_to_all(endpoint: str) -> list[str]:
    """The last lines of the start where a socket for all addresses is served, and there is no way to other machines."""
    address = f"inet:{'[::1]' if '[' in endpoint else '127.0.0.1'}:8461"
    return [
        (
            f"warning: {endpoint} is open: whoever reaches this machine, as at {address}, can ask without "
            "authentication; if Postfix is on this machine, listen on 127.0.0.1, otherwise let a firewall admit your "
            "mail servers only"
        ),
        ready(address),
    ]


def not_configured(endpoint: str, setting: str = "server.listen") -> str:
    return (
        f"warning: {endpoint} is in the socket unit but not in {setting}, and is served anyway; "
        f"name it in {setting}, or remove it from the socket unit"
    )


def not_passed(endpoint: str) -> str:
    return (
        f"warning: {endpoint} is in server.listen but not in the socket unit, so connections to it are refused while "
        "the daemon restarts; add it to the socket unit as ListenStream=, or remove it from server.listen"
    )


# Which sockets are served


@pytest.mark.parametrize("name", ["socketmap", "postfix-mtasts.socket", "unknown", ""])
def test_passed_sockets_are_served_and_nothing_else_if_nothing_is_configured(
    name: str, world: World, tmp_path: Path
) -> None:
    path = tmp_path / "passed"
    with unix(path) as one, tcp("127.0.0.1", 8462) as two:
        with Daemon(tmp_path, unset(world, tmp_path), passed=[(one, name), (two, name)]) as daemon:
            assert ask(f"unix:{path}", NONE) == ask("inet:127.0.0.1:8462", NONE) == "NOTFOUND "
            with pytest.raises(ConnectionRefusedError):
                ask(TCP, NONE)
        no_policy = f"info: domain={NONE}, no policy: no _mta-sts TXT record"
        assert at_the_start(daemon) == [ready(f"unix:{path}"), no_policy, "info: stopping"]
        # It is still there, and still listened on.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_passed_socket_that_is_configured_too_is_not_spoken_of(world: World, tmp_path: Path) -> None:
    config = unset(world, tmp_path, listen=[TCP])
    with tcp() as listener, Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon:
        assert at_the_start(daemon) == [ready(TCP)]
        assert ask(TCP, NONE) == "NOTFOUND "


def test_what_is_configured_and_not_passed_is_served_too_and_said(world: World, tmp_path: Path) -> None:
    own = f"unix:{tmp_path / 'own'}"
    config = unset(world, tmp_path, listen=[own, TCP])
    with tcp() as listener, Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon:
        assert at_the_start(daemon) == [not_passed(own), ready(TCP)]
        assert ask(TCP, NONE) == ask(own, NONE) == "NOTFOUND "
    assert not (tmp_path / "own").exists()


def test_the_default_is_served_beside_a_passed_socket_if_it_is_configured(world: World, tmp_path: Path) -> None:
    path = tmp_path / "passed"
    config = unset(world, tmp_path, listen=[TCP])
    with unix(path) as listener, Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon:
        assert at_the_start(daemon) == [not_configured(f"unix:{path}"), not_passed(TCP), ready(f"unix:{path}")]
        assert ask(TCP, NONE) == ask(f"unix:{path}", NONE) == "NOTFOUND "


@pytest.mark.parametrize(
    ("passed", "configured"),
    [("0.0.0.0", "inet:127.0.0.1:8461"), ("::", "inet:[::1]:8461"), ("::", "inet:127.0.0.1:8461")],
)
def test_a_passed_socket_for_all_addresses_takes_in_the_configured_one(
    passed: str, configured: str, world: World, tmp_path: Path
) -> None:
    config = unset(world, tmp_path, listen=[configured])
    endpoint = f"inet:[{passed}]:8461" if ":" in passed else f"inet:{passed}:8461"
    with tcp(passed) as listener, Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon:
        assert at_the_start(daemon) == [not_configured(endpoint), *open_to_all(endpoint)]
        assert ask(configured, NONE) == "NOTFOUND "


def test_all_addresses_cannot_be_listened_on_beside_a_passed_one(world: World, tmp_path: Path) -> None:
    config = unset(world, tmp_path, listen=["inet:0.0.0.0:8461"])
    reason = f"address already in use; the socket unit has {TCP}: change the address there"
    assert refusal(tmp_path, config, [(TCP, "socketmap")]) == [
        not_configured(TCP),
        f'postfix-mtasts-daemon: error: server.listen = "inet:0.0.0.0:8461": {reason}',
    ]


def test_the_style_follows_what_is_served(world: World, tmp_path: Path) -> None:
    config = unset(world, tmp_path) | {"reply": {"style": "auto", "dane": "auto"}}
    with tcp("0.0.0.0") as listener, Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon:
        unknown = "other machines can connect to inet:0.0.0.0:8461, and their Postfix is unknown"
        chosen = [f"info: reply.style is plain: {unknown}", f"info: reply.dane is off: {unknown}"]
        assert daemon.log == [f"info: event loop is {EVENT_LOOP}", *chosen, *open_to_all("inet:0.0.0.0:8461")]
        daemon.hang_up()
        daemon.wait_for("configuration reloaded")
        daemon.wait_for("reply.dane", since=5)
        assert daemon.log[5:] == ["info: configuration reloaded", *chosen]


def test_a_control_socket_may_be_passed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "control"
    with tcp() as listener, unix(path, 0o600) as control:
        passed = [(control, "control"), (listener, "socketmap")]
        with Daemon(tmp_path, unset(world, tmp_path), passed=passed) as daemon:
            assert at_the_start(daemon) == [ready(TCP)]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b'{"request": "list"}\n')
                assert client.makefile("rb").read() == b'{"done": true}\n'
        assert path.is_socket()


def test_a_control_socket_elsewhere_is_said(world: World, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    with tcp() as listener, unix(path, 0o600) as control:
        passed = [(control, "control"), (listener, "socketmap")]
        with Daemon(tmp_path, unset(world, tmp_path), passed=passed) as daemon:
            assert at_the_start(daemon) == [not_configured(f"unix:{path}", "server.control"), ready(TCP)]
            assert not (tmp_path / "control").exists()


def test_with_a_control_socket_alone_the_default_is_listened_on(world: World, tmp_path: Path) -> None:
    with (
        unix(tmp_path / "control", 0o600) as control,
        Daemon(tmp_path, unset(world, tmp_path), passed=[(control, "control")]) as daemon,
    ):
        assert at_the_start(daemon) == [ready(TCP)]
        assert ask(TCP, NONE) == "NOTFOUND "


def test_sockets_that_are_passed_to_another_process_are_left_alone(world: World, tmp_path: Path) -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "socketmap"}
    with Daemon(tmp_path, unset(world, tmp_path), environment=environment) as daemon:
        assert at_the_start(daemon) == [ready(TCP)]


# Stands for postconf, and tells what it got.
POSTCONF = """#!/bin/sh
env > {folder}/environment
ls -l /proc/self/fd > {folder}/files
echo 3.7.11
"""


def test_what_is_passed_does_not_get_into_the_hands_of_postconf(world: World, tmp_path: Path) -> None:
    postconf = shutil.which("postconf", path=PATH)
    if not postconf:
        pytest.skip("needs postconf: apt install postfix")
    script = tmp_path / "postconf"
    script.write_text(POSTCONF.format(folder=tmp_path))
    script.chmod(0o755)
    with (
        mounted("--bind", script, postconf),
        tcp() as listener,
        Daemon(tmp_path, unset(world, tmp_path), passed=[(listener, "socketmap")]),
    ):
        assert ask(TCP, NONE) == "NOTFOUND "
        passed = os.fstat(listener.fileno()).st_ino
    variables = [line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()]
    assert [name for name in variables if name.startswith("LISTEN_")] == []
    assert f"socket:[{passed}]" not in (tmp_path / "files").read_text()


# What cannot be served


def refusal(folder: Path, config: dict[str, dict[str, object]], passed: list[tuple[str, str]]) -> list[str]:
    """What the daemon says that does not start with these sockets: an endpoint, `udp`, `connected` or `file`."""
    file = folder / "config"
    file.write_text(toml(config))
    with ExitStack() as stack:
        descriptors = {}
        for number, (kind, name) in enumerate(passed):
            descriptors[_descriptor(stack, kind, folder / f"passed{number}")] = name
        done = subprocess.run(
            [*passing(descriptors), COMMAND, "--config", file],
            capture_output=True,
            text=True,
            timeout=60,
            pass_fds=tuple(descriptors),
        )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()


def _descriptor(stack: ExitStack, kind: str, path: Path) -> int:
    if kind == "file":
        return stack.enter_context(path.open("w")).fileno()
    if kind == "udp":
        return stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno()
    if kind == "connected":
        one, other = socket.socketpair()
        stack.enter_context(other)
        return stack.enter_context(one).fileno()
    return stack.enter_context(unix(path) if kind == "unix" else tcp()).fileno()


_MUST_LISTEN = "must be a listening stream socket (ListenStream= and Accept=no)"
REFUSALS = {
    "an unknown name": (
        [("unix", "contrl")],
        "systemd passes file descriptor 3 with FileDescriptorName='contrl': must be socketmap, control or metrics",
    ),
    "two for control": (
        [("unix", "control"), ("unix", "control")],
        "systemd passes 2 sockets with FileDescriptorName=control: only one may be",
    ),
    "control over TCP": ([(TCP, "control")], f"systemd passes {TCP} as control: must be a Unix socket"),
    "UDP": (
        [(TCP, "socketmap"), ("udp", "socketmap")],
        f"systemd passes file descriptor 4 as socketmap: {_MUST_LISTEN}",
    ),
    "a connection": (
        [("connected", "connection.socket")],
        f"systemd passes file descriptor 3 as socketmap: {_MUST_LISTEN}",
    ),
    "a file": ([("file", "control")], f"systemd passes file descriptor 3 as control: {_MUST_LISTEN}"),
}


@pytest.mark.parametrize(("passed", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_what_cannot_be_served_is_refused(
    passed: list[tuple[str, str]], reason: str, world: World, tmp_path: Path
) -> None:
    assert refusal(tmp_path, unset(world, tmp_path), passed) == [f"postfix-mtasts-daemon: error: {reason}"]


def test_without_systemd_python_it_says_what_to_install(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_module(tmp_path, monkeypatch)
    reason = "started by systemd, but Python has no module systemd: install python3-systemd"
    found = refusal(tmp_path, unset(world, tmp_path), [(TCP, "socketmap")])
    assert found == [f"postfix-mtasts-daemon: error: {reason}"]


def no_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon finds no systemd-python."""
    package = folder / "python" / "systemd"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


# Restarts, under a stream of queries


class Stream:
    """Asks without a pause, as Postfix does: on a kept connection; when that breaks, once more on a new one."""

    def __init__(self, endpoint: str, domains: list[str]) -> None:
        self.answered = 0
        self.again = 0
        self.faults: list[str] = []
        self._endpoint = endpoint
        self._domains = domains
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection: Connection | None = None
        while not self._stop.is_set() and not self.faults:
            domain = self._domains[self.answered % len(self._domains)]
            # Postfix closes it at times.
            if connection and self.answered % 50 == 49:
                connection.close()
                connection = None
            try:
                connection = connection or Connection(self._endpoint)
                reply = connection.ask(domain)
            except (EOFError, ConnectionResetError, BrokenPipeError):
                self.again += 1
                try:
                    connection = Connection(self._endpoint)
                    reply = connection.ask(domain)
                except (EOFError, OSError) as error:
                    self.faults.append(f"lost: {error!r}")
                    break
            except OSError as error:
                self.faults.append(f"refused: {error!r}")
                break
            if reply != secure(domain):
                self.faults.append(f"wrong: {domain}: {reply}")
            self.answered += 1
        if connection:
            connection.close()


class Connection:
    """A connection that is kept."""

    def __init__(self, endpoint: str, patience: float = 60) -> None:
        if endpoint.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(patience)
            self._socket.connect(endpoint.removeprefix("unix:"))
        else:
            host, _, port = endpoint.removeprefix("inet:").rpartition(":")
            self._socket = socket.create_connection((host, int(port)), patience)

    def ask(self, domain: str) -> str:
        """The reply. Raises EOFError and OSError if the connection breaks; then it is closed."""
        query = f"postfix {domain}".encode()
        try:
            self._socket.sendall(b"%d:%b," % (len(query), query))
            reply = b""
            while not reply.endswith(b","):
                data = self._socket.recv(4096)
                if not data:
                    raise EOFError
                reply += data
        except BaseException:
            self._socket.close()
            raise
        length, _, rest = reply.partition(b":")
        assert int(length) + 1 == len(rest)
        return rest[:-1].decode()

    def close(self) -> None:
        self._socket.close()


def restarts(daemon: Daemon, streams: list[Stream], how: signal.Signals, count: int) -> None:
    """Restart as often, each time when every stream was answered by the daemon that is to end."""
    for _ in range(count):
        before = [stream.answered for stream in streams]
        deadline = time.monotonic() + 60
        while any(stream.answered < then + 60 for stream, then in zip(streams, before, strict=True)):
            assert time.monotonic() < deadline
            assert [stream.faults for stream in streams] == [[]] * len(streams)
            time.sleep(0.01)
        status = daemon.stop() if how is signal.SIGTERM else daemon.kill()
        assert status == (0 if how is signal.SIGTERM else -how)
        daemon.start()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_no_query_is_refused_nor_lost_nor_wrong_over_restarts(
    how: signal.Signals, world: World, tmp_path: Path
) -> None:
    domains = [f"stream{number}.test" for number in range(20)]
    store_entries(tmp_path / "policies.sqlite", {domain: fetched(policy(domain)) for domain in domains})
    path = tmp_path / "passed"
    with tcp() as one, unix(path) as two:
        passed = [(one, "socketmap"), (two, "socketmap")]
        with Daemon(tmp_path, unset(world, tmp_path), passed=passed) as daemon:
            streams = [Stream(endpoint, domains) for endpoint in (TCP, f"unix:{path}") for _ in range(4)]
            try:
                restarts(daemon, streams, how, 12)
            finally:
                for stream in streams:
                    stream.stop()
    assert [stream.faults for stream in streams] == [[]] * 8
    # Every stream was broken by nearly every end, and by nothing else.
    assert {stream.again <= 12 for stream in streams} == {True}
    assert sum(stream.again for stream in streams) > 12
    assert Counter(line.split(":")[0] for line in daemon.log if "stream" not in line)["error"] == 0


def test_what_waits_for_a_daemon_that_is_down_is_answered_by_the_next(world: World, tmp_path: Path) -> None:
    path = tmp_path / "passed"
    with (
        unix(path) as listener,
        Daemon(tmp_path, unset(world, tmp_path), passed=[(listener, "socketmap")]) as daemon,
        closing(socket.socket(socket.AF_UNIX)) as waiting,
    ):
        daemon.stop()
        waiting.connect(str(path))
        waiting.sendall(b"17:postfix none.test,")
        daemon.start()
        assert waiting.recv(100) == b"9:NOTFOUND ,"


@pytest.mark.parametrize("names", [[], ["--fdname=socketmap:socketmap"]], ids=["no names", "names"])
def test_under_systemd_socket_activate(names: list[str], world: World, tmp_path: Path) -> None:
    if not (activate := shutil.which("systemd-socket-activate")):
        pytest.skip("needs systemd-socket-activate: apt install systemd")
    path, config = tmp_path / "passed", tmp_path / "config"
    config.write_text(toml(unset(world, tmp_path)))
    command = [activate, "-l", f"127.0.0.1:{PORT}", "-l", str(path), *names, str(COMMAND), "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith(f"Listening on {path} "):
                    break
            # The connection that starts the daemon is answered.
            assert ask(TCP, NONE) == ask(f"unix:{path}", NONE) == "NOTFOUND "
            process.send_signal(signal.SIGTERM)
            lines = process.stderr.read().splitlines()
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert [line for line in lines if "ready" in line] == [ready(TCP)]
    assert path.is_socket()


# What systemd is told


STATUS = "answers on {}; style plain, dane off"


def test_systemd_is_told_of_start_reloads_and_end(world: World, tmp_path: Path) -> None:
    endpoint = f"unix:{tmp_path / 'socket'}"
    running = {"READY": "1", "STATUS": STATUS.format(endpoint)}
    with Manager(tmp_path) as manager:
        environment = {"NOTIFY_SOCKET": str(manager.path)}
        with Daemon(tmp_path, world.configuration(tmp_path), environment=environment) as daemon:
            assert manager.next() == running
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            daemon.hang_up()
            reloading = manager.next()
            assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert (reloading, manager.next()) == ({"RELOADING": "1"}, running)
            daemon.config.write_text("listen\n")
            daemon.hang_up()
            assert set(manager.next()) == {"RELOADING", "MONOTONIC_USEC"}
            why = f"{daemon.config}: not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"
            told = {"READY": "1", "STATUS": f"{running['STATUS']}; configuration not reloaded: {why}"}
            assert manager.next() == told
            daemon.wait_for(f"error: configuration not reloaded, the previous one stays in effect: {re.escape(why)}$")
            assert ask(endpoint, NONE) == "NOTFOUND "
        assert manager.next() == {"STOPPING": "1", "STATUS": "answering the last queries before it stops"}
        assert manager.heard() == []


PERIOD = 0.4  # Seconds.
PATIENT = 60.0  # Seconds; a quarter of that is more than a busy machine takes for an answer.


def watched(manager: Manager, period: float = PERIOD, /, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": str(int(period * 1e6))} | more


def alive(manager: Manager, count: int = 3) -> None:
    """So many signs of life, and nothing else."""
    assert [manager.next() for _ in range(count)] == [{"WATCHDOG": "1"}] * count


@pytest.mark.parametrize(
    "listen", ["inet:127.0.0.1:8461", "inet:0.0.0.0:8461", "inet:[::1]:8461", "inet:[::]:8461", "unix"]
)
def test_the_watchdog_is_fed(listen: str, world: World, tmp_path: Path) -> None:
    endpoint = f"unix:{tmp_path / 'socket'}" if listen == "unix" else listen
    with Manager(tmp_path) as manager:
        config = world.configuration(tmp_path, server={"listen": [endpoint]})
        with Daemon(tmp_path, config, environment=watched(manager, PATIENT)) as daemon:
            assert set(manager.next()) == {"READY", "STATUS"}
            alive(manager, 1)
        assert [line.partition(":")[2].partition(";")[0] for line in daemon.log[-2:]] == [" ready", " stopping"]


def test_the_watchdog_of_passed_sockets_is_fed_again_and_again(world: World, tmp_path: Path) -> None:
    with Manager(tmp_path) as manager, tcp("::") as one, unix(tmp_path / "passed") as two:
        passed = [(one, "socketmap"), (two, "socketmap")]
        with Daemon(tmp_path, unset(world, tmp_path), passed=passed, environment=watched(manager)):
            assert set(manager.next()) == {"READY", "STATUS"}
            alive(manager)


@pytest.mark.parametrize("more", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_that_is_not_for_us_is_not_fed(more: dict[str, str], world: World, tmp_path: Path) -> None:
    with Manager(tmp_path) as manager:
        with Daemon(tmp_path, world.configuration(tmp_path), environment=watched(manager, **more)):
            assert set(manager.next()) == {"READY", "STATUS"}
            # Later than it would have asked itself.
            assert {ask(f"unix:{tmp_path / 'socket'}", NONE) for _ in range(20)} == {"NOTFOUND "}
        assert [list(states) for states in manager.heard()] == [["STOPPING", "STATUS"]]


def filled(stack: ExitStack, endpoint: str) -> list[Connection]:
    """Connect until the daemon has no file left: asyncio leaves us waiting then, uvloop sends us away."""
    connections: list[Connection] = []
    refused = 0
    while refused < 3:  # Once may be because it was just asking itself.
        connection = Connection(endpoint, patience=5)
        try:
            assert connection.ask(NONE) == "NOTFOUND "
        except (OSError, EOFError):
            refused += 1
            time.sleep(PERIOD / 4)
        else:
            refused = 0
            connections.append(connection)
            stack.callback(connection.close)
    return connections


def silent(daemon: Daemon, manager: Manager, endpoint: str, reason: str) -> None:
    """It says so again and again, and gives no sign of life between."""
    line = (
        f"^error: test query on {re.escape(endpoint)} failed: {reason}; if this goes on, systemd restarts the daemon$"
    )
    daemon.wait_for(line, since=len(daemon.log))
    manager.heard()
    for _ in range(3):
        daemon.wait_for(line, since=len(daemon.log))
    assert manager.heard() == []


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_the_watchdog_is_not_fed_while_nobody_can_be_accepted(kind: str, world: World, tmp_path: Path) -> None:
    endpoint = TCP if kind == "inet" else f"unix:{tmp_path / 'socket'}"
    config = world.configuration(tmp_path, server={"listen": [endpoint]})
    with (
        ExitStack() as stack,
        Manager(tmp_path) as manager,
        Daemon(tmp_path, config, environment=watched(manager)) as daemon,
    ):
        assert set(manager.next()) == {"READY", "STATUS"}
        alive(manager, 1)
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (40, limits[1]))
        connections = filled(stack, endpoint)
        silent(daemon, manager, endpoint, "too many open files")
        # One file more, and it can connect to itself, but not accept that.
        connections[0].close()
        silent(daemon, manager, endpoint, "(no answer within 0.1 s|connection reset by peer|unexpected reply b'')")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        alive(manager, 1)


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """So that root too meets a "permission denied"."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv: apt install util-linux")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


def test_a_socket_that_is_for_others_is_no_reason_to_starve_the_watchdog(
    world: World, tmp_path: Path, unprivileged: tuple[str, ...]
) -> None:
    """Such as one for Postfix's user."""
    path = tmp_path / "passed"
    with Manager(tmp_path) as manager, unix(path, 0o000) as listener:
        passed = [(listener, "socketmap")]
        with Daemon(
            tmp_path, unset(world, tmp_path), passed=passed, environment=watched(manager), prefix=unprivileged
        ) as daemon:
            assert set(manager.next()) == {"READY", "STATUS"}
            alive(manager)
            assert ask(f"unix:{path}", NONE) == "NOTFOUND "
        assert [line for line in daemon.log if "test query" in line] == []


# Serves nobody, and would feed the watchdog.
STUCK = """
import asyncio, socket, sys
from postfix_mtasts.log import events
from postfix_mtasts.daemon import service
events.begin("stuck")
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
asyncio.run(service.feed_watchdog(0.4, [listener]))
"""


def test_a_socket_for_others_where_connections_wait_starves_the_watchdog(
    tmp_path: Path, unprivileged: tuple[str, ...]
) -> None:
    path = tmp_path / "socket"
    command = ["sh", "-c", 'umask 0777; exec "$@"', "sh", *unprivileged, sys.executable, "-c", STUCK, str(path)]
    with (
        Manager(tmp_path) as manager,
        closing(socket.socket(socket.AF_UNIX)) as waiting,
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | {"NOTIFY_SOCKET": str(manager.path)}
        ) as process,
    ):
        try:
            alive(manager)
            waiting.connect(str(path))
            assert process.stderr is not None
            assert process.stderr.readline() == (
                f"error: test query on unix:{path} failed: connections are not accepted; "
                "if this goes on, systemd restarts the daemon\n"
            )
            manager.heard()
            for _ in range(3):
                process.stderr.readline()
            assert manager.heard() == []
        finally:
            process.kill()


async def test_a_wrong_answer_starves_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_: Request) -> Reply:
        return Reply(Status.TEMP, "down")

    server = Server(lambda _: None, answer)
    with Manager(tmp_path) as manager, unix(tmp_path / "socket") as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
        server.start([listener])
        feeding = asyncio.create_task(service.feed_watchdog(PATIENT, [listener]))
        while not caplog.messages:
            await asyncio.sleep(0.01)
        feeding.cancel()
        await server.aclose(1)
        wrong = "unexpected reply b'9:TEMP down,'; if this goes on, systemd restarts the daemon"
        assert caplog.messages == [f"test query on unix:{tmp_path / 'socket'} failed: {wrong}"]
        assert manager.heard() == []
