"""postfix-mtasts-daemon as a process, between Postfix's questions, real DNS and a real policy host."""

import itertools
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import dns.message
import pytest

from postfix_mtasts import __version__
from postfix_mtasts.config import DEFAULT_CONTROL
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import parse
from tests.integration.conftest import (
    NOBODY,
    POLICY_HOST,
    World,
    fetched,
    filled,
    mounted,
    read_only,
    small_disk,
    store_entries,
    stored_entries,
    wait_until_stored,
)
from tests.world.daemon import COMMAND, EVENT_LOOP, Daemon, ask, toml
from tests.world.dns import Behaviour, DnsServer, Query
from tests.world.https import HANG, End, Hold, HttpsServer, answer
from tests.world.postfix import nameserver

pytestmark = pytest.mark.usefixtures("namespace")

RECORD = b"v=STSv1; id=1;"
TCP = "inet:127.0.0.1:8461"
FETCH_ERROR = "(sts-policy-fetch-error)"
USER = pwd.getpwuid(os.geteuid()).pw_name
READ_ONLY = "is read-only for this process, by its mount or by ProtectSystem= in its unit"


DAY = 86400


def policy(domain: str, mode: str = "enforce", max_age: int = 86400) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: {max_age}\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


def applied(domain: str, mode: str = "enforce", max_age: int = 86400) -> str:
    return f"info: domain={domain}, fetched: mode={mode}, max_age={max_age}, mx=mx.{domain}"


def late(domain: str, seconds: float) -> str:
    return f"warning: domain={domain}, policy unavailable: discovery: no result within {seconds} s; it goes on"


def ready(listen: str) -> list[str]:
    return [
        f"info: event loop is {EVENT_LOOP}",
        "info: reply.style is plain: configured",
        "info: reply.dane is off: configured",
        f"info: ready; for main.cf: smtp_tls_policy_maps = socketmap:{listen}:postfix",
    ]


def socket_of(daemon: Daemon) -> str:
    return f"unix:{daemon.config.parent / 'socket'}"


def about(daemon: Daemon, domain: str) -> list[str]:
    """All that the daemon has logged of a domain until now."""
    return daemon.about(domain, socket_of(daemon))


def stored_policies(path: Path) -> dict[str, str]:
    """The policy files in the database."""
    return {domain: entry.cached.text for domain, entry in stored_entries(path).items() if entry.cached}


@contextmanager
def process(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=os.environ | environment
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stderr is not None
    return running.stderr.readline().removesuffix("\n")


def start_of(running: subprocess.Popen[str]) -> list[str]:
    return [line_of(running) for _ in range(4)]


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    """The status and what else was printed."""
    running.terminate()
    _, printed = running.communicate(timeout=20)
    return running.returncode, printed


def run(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Status, output and errors of a daemon that ends by itself."""
    done = subprocess.run([*prefix, COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def error(text: str) -> str:
    return f"postfix-mtasts-daemon: error: {text}\n"


# Command line and defaults


def test_version() -> None:
    assert run("--version") == (0, f"postfix-mtasts-daemon {__version__}\n", "")


@contextmanager
def global_address(address: str, *, route: bool = False) -> Iterator[str]:
    """An address of the public Internet that is this machine, in this namespace, and its own where a route begins."""
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    if route:
        subprocess.run(["ip", "route", "add", "default", "dev", "lo", "src", address], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@pytest.fixture
def _no_configuration_file() -> None:
    if Path("/etc/postfix-mtasts.toml").exists():
        pytest.skip("needs a machine without /etc/postfix-mtasts.toml")


@pytest.mark.usefixtures("_no_configuration_file")
def test_without_a_configuration_file_the_defaults_apply(world: World, tmp_path: Path) -> None:
    cache = Path("/var/lib/postfix-mtasts")
    with (
        mounted("-t", "tmpfs", "tmpfs", cache.parent),
        nameserver("127.0.0.1", tmp_path),
        global_address("11.22.33.44") as address,
        HttpsServer(address, 443) as https,
    ):
        world.announce("default.test", host=address)
        context = world.ca.issue("mta-sts.default.test").server_context()
        https.policy("mta-sts.default.test", policy("default.test"), context)
        world.publish("inside.test", policy("inside.test"))
        cache.mkdir()
        with process(SSL_CERT_FILE=str(world.ca.file)) as running:
            # What Postfix this machine has is another's test (tests/e2e/test_style.py).
            control = f'server.control = "{DEFAULT_CONTROL}": there is no folder {Path(DEFAULT_CONTROL).parent}'
            assert (
                line_of(running)
                == f"info: no control socket, so postfix-mtasts-query cannot reach the daemon: {control}"
            )
            loop, style, dane, line = start_of(running)
            assert loop == ready(TCP)[0]
            assert (style.split(" is ")[0], dane.split(" is ")[0]) == ("info: reply.style", "info: reply.dane")
            assert line == ready(TCP)[-1]
            assert ask(TCP, "default.test", name="plain") == secure("default.test")
            assert line_of(running) == applied("default.test")
            assert ask(TCP, "inside.test") == "NOTFOUND "
            assert line_of(running) == (
                "warning: domain=inside.test, policy unavailable: address of the policy host: mta-sts.inside.test "
                f"has no public address, only {POLICY_HOST} {FETCH_ERROR}"
            )
            assert ended(running) == (0, "info: stopping\n")
        assert stored_policies(cache / "policies.sqlite") == {"default.test": policy("default.test")}


@pytest.mark.usefixtures("_no_configuration_file")
def test_check_without_a_configuration_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(world.ca.file))
    assert run("--check") == (0, "no /etc/postfix-mtasts.toml; the defaults: ok\n", "")


def test_check_of_a_good_configuration_touches_nothing(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path)))
    assert run("--config", config, "--check") == (0, f"{config}: ok\n", "")
    assert list(tmp_path.iterdir()) == [config]


def test_check_while_the_daemon_runs(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert run("--config", daemon.config, "--check") == (0, f"{daemon.config}: ok\n", "")
        assert ask(socket_of(daemon), "none.test") == "NOTFOUND "


# Start errors: one line, and a status that tells a wrong configuration from the rest

TABLES = "server, cache, dns, fetch, reply, discovery, metrics, exception, fleet, reports, publish, web"
WRONG_CONFIGURATION = {
    "a key with a slip": (
        "[server]\nlisten_on = []\n",
        "unknown key server.listen_on: did you mean server.listen?",
    ),
    "an unknown table": (
        "[log]\n",
        f"unknown table log: allowed are {TABLES}",
    ),
    "a wrong type": (
        '[dns]\ntimeout = "5"\n',
        'dns.timeout = "5": must be a number of seconds from 0.1 to 90',
    ),
    "no TOML": ("listen\n", "not TOML: Expected '=' after a key in a key/value pair (at line 1, column 7)"),
    "not UTF-8": ("# caf\udce9\n", "not UTF-8: byte 6"),
}


@pytest.mark.parametrize(("text", "reason"), WRONG_CONFIGURATION.values(), ids=WRONG_CONFIGURATION.keys())
def test_a_wrong_configuration(text: str, reason: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(text, errors="surrogateescape")
    assert run("--config", config) == (os.EX_CONFIG, "", error(f"{config}: {reason}"))


def test_check_of_a_wrong_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config"
    text, reason = WRONG_CONFIGURATION["a key with a slip"]
    config.write_text(text)
    assert run("--config", config, "--check") == (os.EX_CONFIG, "", error(f"{config}: {reason}"))


def test_check_finds_a_missing_ca_file(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path, fetch={"ca_file": str(tmp_path / "none")})))
    expected = (os.EX_CONFIG, "", error(f'{config}: fetch.ca_file = "{tmp_path}/none": there is no such file'))
    assert run("--config", config, "--check") == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--chekc",), "unrecognized arguments: --chekc"),
        (("--config",), "argument --config: expected one argument"),
        (("start",), "unrecognized arguments: start"),
    ],
)
def test_a_wrong_command_line(words: tuple[str, ...], reason: str) -> None:
    assert run(*words) == (os.EX_USAGE, "", error(reason) + "hint: postfix-mtasts-daemon --help\n")


# So that root too meets a "permission denied".
_UNPRIVILEGED = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv: apt install util-linux")
    return _UNPRIVILEGED


def test_a_configuration_file_that_does_not_exist(tmp_path: Path) -> None:
    reason = f"{tmp_path / 'none'}: there is no such file"
    assert run("--config", tmp_path / "none") == (os.EX_CONFIG, "", error(reason))


def test_a_configuration_file_that_is_a_folder(tmp_path: Path) -> None:
    assert run("--config", tmp_path) == (os.EX_CONFIG, "", error(f"{tmp_path}: it is a folder"))


def test_a_configuration_file_that_may_not_be_read(tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    config = tmp_path / "config"
    config.touch(mode=0o000)
    expected = (os.EX_CONFIG, "", error(f"{config}: user {USER} may not read {config}"))
    assert run("--config", config, prefix=unprivileged) == expected


def test_a_configuration_file_behind_one_that_may_not_be_read(tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o000)
    expected = (os.EX_CONFIG, "", error(f"{folder / 'config'}: user {USER} may not enter the folder {folder}"))
    assert run("--config", folder / "config", prefix=unprivileged) == expected


def refusal(
    world: World, folder: Path, prefix: tuple[str, ...] = (), status: int = 1, **tables: dict[str, object]
) -> str:
    """The one line with which the daemon refuses to start. If the configuration is wrong, it begins with its file."""
    config = folder / "config"
    config.write_text(toml(world.configuration(folder, **tables)))
    found, output, errors = run("--config", config, prefix=prefix)
    assert (found, output, errors.count("\n")) == (status, "", 1), errors
    begin = error(f"{config}: " if status == os.EX_CONFIG else "").removesuffix("\n")
    assert errors.startswith(begin), errors
    return errors.removeprefix(begin).removesuffix("\n")


def test_a_port_in_use(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 8461)):
        found = refusal(world, tmp_path, server={"listen": [TCP]})
    assert found == f'server.listen = "{TCP}": address already in use'


def test_an_address_of_another_machine(world: World, tmp_path: Path) -> None:
    listen = "inet:[2001:db8::1]:8461"
    found = refusal(world, tmp_path, server={"listen": [listen]})
    assert found == f'server.listen = "{listen}": cannot assign requested address'


def test_one_address_in_use_leaves_nothing_of_the_others(world: World, tmp_path: Path) -> None:
    path = tmp_path / "first"
    with socket.create_server(("127.0.0.1", 8461)):
        found = refusal(world, tmp_path, server={"listen": [f"unix:{path}", TCP]})
    assert (found, path.exists()) == (f'server.listen = "{TCP}": address already in use', False)


def test_another_daemon_listens(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        listen = socket_of(daemon)
        found = refusal(world, tmp_path / "other", server={"listen": [listen]})
        assert found == f'server.listen = "{listen}": another process is listening there'
        assert ask(listen, "none.test") == "NOTFOUND "


def test_a_unix_socket_where_a_file_is(world: World, tmp_path: Path) -> None:
    (tmp_path / "socket").touch()
    listen = f"unix:{tmp_path / 'socket'}"
    assert refusal(world, tmp_path) == f'server.listen = "{listen}": a file with this name exists, and is not a socket'


def test_a_unix_socket_without_a_folder(world: World, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'none' / 'socket'}"
    found = refusal(world, tmp_path, server={"listen": [listen]})
    assert found == f'server.listen = "{listen}": there is no folder {tmp_path / "none"}'


def test_a_unix_socket_in_a_folder_that_is_mounted_read_only(world: World, tmp_path: Path) -> None:
    """As all folders are for a service with ProtectSystem=strict."""
    folder = tmp_path / "folder"
    folder.mkdir()
    listen = f"unix:{folder / 'socket'}"
    with read_only(folder):
        found = refusal(world, tmp_path, server={"listen": [listen]})
    assert found == f'server.listen = "{listen}": {folder} {READ_ONLY}'


@pytest.mark.parametrize(("mode", "right"), [(0o555, "write in"), (0o000, "enter")], ids=["read-only", "closed"])
def test_a_unix_socket_in_a_folder_that_may_not_be_written_to(
    world: World, tmp_path: Path, unprivileged: tuple[str, ...], mode: int, right: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    listen = f"unix:{folder / 'socket'}"
    found = refusal(world, tmp_path, unprivileged, server={"listen": [listen]})
    assert found == f'server.listen = "{listen}": user {USER} may not {right} the folder {folder}'


def test_a_cache_without_a_folder(world: World, tmp_path: Path) -> None:
    path = tmp_path / "none" / "policies.sqlite"
    found = refusal(world, tmp_path, cache={"path": str(path)})
    assert found == f'cache.path = "{path}": there is no folder {path.parent}'


@pytest.mark.parametrize(("mode", "right"), [(0o555, "write in"), (0o000, "enter")], ids=["read-only", "closed"])
def test_a_cache_in_a_folder_that_may_not_be_written_to(
    world: World, tmp_path: Path, unprivileged: tuple[str, ...], mode: int, right: str
) -> None:
    path = tmp_path / "folder" / "policies.sqlite"
    path.parent.mkdir()
    path.parent.chmod(mode)
    found = refusal(world, tmp_path, unprivileged, cache={"path": str(path)})
    assert found == f'cache.path = "{path}": user {USER} may not {right} the folder {path.parent}'


def test_a_cache_in_a_folder_of_a_closed_one(world: World, tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    path = tmp_path / "closed" / "folder" / "policies.sqlite"
    path.parent.mkdir(parents=True)
    path.parent.parent.chmod(0o000)
    found = refusal(world, tmp_path, unprivileged, cache={"path": str(path)})
    assert found == f'cache.path = "{path}": user {USER} may not enter the folder {path.parent.parent}'


def test_a_cache_file_that_may_not_be_written_to(world: World, tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    path = tmp_path / "policies.sqlite"
    store_entries(path, {"a.test": fetched(policy("a.test"))})
    path.chmod(0o444)
    found = refusal(world, tmp_path, unprivileged)
    assert found == f'cache.path = "{path}": user {USER} may not write to {path}'


def test_a_cache_on_a_read_only_disk(world: World, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "policies.sqlite"
    path.parent.mkdir()
    with read_only(path.parent):
        found = refusal(world, tmp_path, cache={"path": str(path)})
    assert found == f'cache.path = "{path}": {path.parent} {READ_ONLY}'


def test_a_cache_that_is_a_folder(world: World, tmp_path: Path) -> None:
    found = refusal(world, tmp_path, cache={"path": str(tmp_path)})
    assert found == f'cache.path = "{tmp_path}": it is a folder'


FOREIGN = {
    "text": (b"[server]\nlisten = []\n", "no database of postfix-mtasts"),
    "long text": (b"no database at all " * 10_000, "no database of postfix-mtasts"),
    "a picture": (random.Random(1).randbytes(5000), "no database of postfix-mtasts"),
    "the begin of a database": (b"SQLite format 3\0", "a database of another program"),
}


@pytest.mark.parametrize(("content", "what"), FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("words", [(), ("--check",)], ids=["start", "check"])
def test_a_cache_that_is_somebody_elses_file(
    world: World, tmp_path: Path, content: bytes, what: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(content)
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path, cache={"path": str(path)})))
    reason = f'{config}: cache.path = "{path}": the file is {what}; name another'
    assert run("--config", config, *words) == (os.EX_CONFIG, "", error(reason))
    assert path.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [config, path]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_cache_that_is_the_database_of_another_program(world: World, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "theirs"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE theirs (id)")
        connection.commit()
        content = path.read_bytes()
        found = refusal(world, tmp_path, status=os.EX_CONFIG, cache={"path": str(path)})
        assert found == f'cache.path = "{path}": the file is a database of another program; name another'
        assert path.read_bytes() == content
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_ca_file_that_does_not_exist(world: World, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    found = refusal(world, tmp_path, status=os.EX_CONFIG, fetch={"ca_file": str(path)})
    assert found == f'fetch.ca_file = "{path}": there is no such file'


def test_a_ca_file_without_a_folder(world: World, tmp_path: Path) -> None:
    path = tmp_path / "none/ca.pem"
    found = refusal(world, tmp_path, status=os.EX_CONFIG, fetch={"ca_file": str(path)})
    assert found == f'fetch.ca_file = "{path}": there is no folder {path.parent}'


def test_a_ca_file_that_may_not_be_read(world: World, tmp_path: Path, unprivileged: tuple[str, ...]) -> None:
    path = tmp_path / "ca.pem"
    path.touch(mode=0o000)
    found = refusal(world, tmp_path, unprivileged, status=os.EX_CONFIG, fetch={"ca_file": str(path)})
    assert found == f'fetch.ca_file = "{path}": user {USER} may not read {path}'


@pytest.mark.parametrize(
    "content",
    ["", "no certificate\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["empty", "text", "not a certificate inside"],
)
def test_a_ca_file_without_a_certificate(world: World, tmp_path: Path, content: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(content)
    found = refusal(world, tmp_path, status=os.EX_CONFIG, fetch={"ca_file": str(path)})
    assert found == f'fetch.ca_file = "{path}": the file has no certificate in PEM format'


def test_a_ca_file_that_is_a_folder(world: World, tmp_path: Path) -> None:
    found = refusal(world, tmp_path, status=os.EX_CONFIG, fetch={"ca_file": str(tmp_path)})
    assert found == f'fetch.ca_file = "{tmp_path}": it is a folder'


def test_no_ca_of_the_system(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "empty"))
    folder = ssl.get_default_verify_paths().openssl_capath
    found = refusal(world, tmp_path, fetch={"ca_file": ""})
    assert found == f'fetch.ca_file = "": no CA certificates in {folder}; install the package ca-certificates'


# Start and stop, and who is told


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_it(world: World, tmp_path: Path, hold: Hold, how: signal.Signals, status: int) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path)))
    endpoint = f"unix:{tmp_path / 'socket'}"
    with process("--config", config) as running, ThreadPoolExecutor() as threads:
        assert start_of(running) == ready(endpoint)
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(str(tmp_path / "socket"))
            assert ask(endpoint, "none.test") == "NOTFOUND "
            assert line_of(running) == "info: domain=none.test, no policy: no _mta-sts TXT record"
            reply = threads.submit(ask, endpoint, "hold.test")
            assert hold.reached.wait(20)
            running.send_signal(how)
            assert line_of(running) == "info: stopping"
            # What was asked is waited for, and nobody who asks nothing.
            assert idle.recv(1) == b""
            assert not reply.done()
            hold.release()
            assert reply.result() == secure("hold.test")
            _, printed = running.communicate(timeout=20)
            assert (running.returncode, printed) == (status, f"{applied('hold.test')}\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config", "policies.sqlite"]


def test_ctrl_c_while_modules_are_loaded(tmp_path: Path) -> None:
    """The interpreter is held in the module `argparse`, which the daemon imports."""
    (tmp_path / "argparse.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(60)\n"
    )
    with process(PYTHONPATH=str(tmp_path)) as running:
        deadline = time.monotonic() + 20
        while not (tmp_path / "loading").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert (running.returncode, errors) == (-signal.SIGINT, "")  # A shell says 130.


@pytest.mark.parametrize("limit", [6, 12, 63])
def test_few_descriptors(world: World, tmp_path: Path, limit: int) -> None:
    found = refusal(world, tmp_path, ("prlimit", f"--nofile={limit}"))
    how = "raise the limit to 64 at least (`ulimit -Hn`, LimitNOFILE=)"
    assert found == f"this process may open {limit} files only: {how}"


def test_as_few_descriptors_as_it_takes(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path), prefix=("prlimit", "--nofile=64")) as daemon:
        assert ask(socket_of(daemon), "none.test") == "NOTFOUND "


def test_a_service_manager_that_has_gone_is_no_reason_to_fail(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path)))
    with process("--config", config, NOTIFY_SOCKET=str(tmp_path / "none")) as running:
        assert start_of(running) == ready(f"unix:{tmp_path / 'socket'}")
        assert ask(f"unix:{tmp_path / 'socket'}", "none.test") == "NOTFOUND "
        assert ended(running)[0] == 0


@pytest.fixture
def hold(world: World) -> Hold:
    """The policy host of hold.test waits in its answer until the release."""
    hold = Hold()
    world.https.site(
        "mta-sts.hold.test",
        world.ca.issue("mta-sts.hold.test").server_context(),
        hold,
        answer(policy("hold.test")),
    )
    world.dns.remove("_mta-sts.hold.test")
    world.dns.remove("mta-sts.hold.test")
    world.announce("hold.test")
    return hold


def test_a_discovery_that_hangs_does_not_delay_the_end(world: World, tmp_path: Path, hold: Hold) -> None:
    server = {"listen": [f"unix:{tmp_path / 'socket'}"], "answer_within": 0.2}
    # Nobody waits for its end as long as the fetch may take.
    with Daemon(tmp_path, world.configuration(tmp_path, server=server, fetch={"timeout": 90})) as daemon:
        assert ask(socket_of(daemon), "hold.test") == "NOTFOUND "
        assert hold.reached.wait(20)
        assert daemon.stop() == 0
    assert daemon.log == [*ready(socket_of(daemon)), late("hold.test", 0.2), "info: stopping"]


def test_the_end_waits_for_an_answer_as_long_as_postfix_would(world: World, tmp_path: Path, hold: Hold) -> None:
    server = {"listen": [f"unix:{tmp_path / 'socket'}"], "answer_within": 5}
    daemon = Daemon(tmp_path, world.configuration(tmp_path, server=server))
    with daemon, ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, socket_of(daemon), "hold.test")
        assert hold.reached.wait(20)
        assert daemon.stop() == 0
        assert reply.result() == "NOTFOUND "
    assert daemon.log == [*ready(socket_of(daemon)), "info: stopping", late("hold.test", 5)]


def test_a_successor_takes_the_socket_over_while_the_last_answers_are_given(
    world: World, tmp_path: Path, hold: Hold
) -> None:
    (tmp_path / "next").mkdir()
    one = Daemon(tmp_path, world.configuration(tmp_path))
    two = Daemon(tmp_path / "next", world.configuration(tmp_path, server={"control": ""}))
    with one, ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, socket_of(one), "hold.test")
        assert hold.reached.wait(20)
        status = threads.submit(one.stop)
        one.wait_for("^info: stopping$")
        while (tmp_path / "socket").exists():
            time.sleep(0.01)
        with two:
            hold.release()
            assert (reply.result(), status.result()) == (secure("hold.test"), 0)
            assert ask(socket_of(one), "none.test") == "NOTFOUND "


def test_an_answer_that_comes_while_it_stops_is_given_and_kept(world: World, tmp_path: Path, hold: Hold) -> None:
    daemon = Daemon(tmp_path, world.configuration(tmp_path))
    with daemon, ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, socket_of(daemon), "hold.test")
        assert hold.reached.wait(20)
        status = threads.submit(daemon.stop)
        daemon.wait_for("^info: stopping$")
        hold.release()
        assert (reply.result(), status.result()) == (secure("hold.test"), 0)
    assert daemon.log == [*ready(socket_of(daemon)), "info: stopping", applied("hold.test")]
    assert stored_policies(tmp_path / "policies.sqlite") == {"hold.test": policy("hold.test")}


# Listeners and maps


def test_all_kinds_of_listeners_at_once(world: World, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as missing:
            pytest.skip(f"needs IPv6: ::1: {missing}")
    world.publish("listen.test", policy("listen.test"))
    listen = ["inet:[::1]:8461", TCP, "inet:127.0.0.9:8462", f"unix:{tmp_path / 'one'}", f"unix:{tmp_path / 'two'}"]
    with Daemon(tmp_path, world.configuration(tmp_path, server={"listen": listen, "socket_mode": 0o640})) as daemon:
        assert [ask(endpoint, "listen.test") for endpoint in listen] == [secure("listen.test")] * 5
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("one", "two")]
        assert (modes, daemon.log[:4]) == ([0o640, 0o640], ready("inet:[::1]:8461"))


PLAIN = "OK secure match=mx1.maps.test:.maps.test servername=hostname"
TLSRPT = (
    f"{PLAIN} policy_type=sts policy_domain=maps.test mx_host_pattern=mx1.maps.test mx_host_pattern=*.maps.test"
    " { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mx1.maps.test }"
    " { policy_string = mx: *.maps.test } { policy_string = mx: MX1.maps.test } { policy_string = max_age: 86400 }"
)


@pytest.mark.parametrize(("style", "default"), [("plain", PLAIN), ("tlsrpt", TLSRPT)], ids=["plain", "tlsrpt"])
def test_the_name_of_the_map_chooses_the_style(world: World, tmp_path: Path, style: str, default: str) -> None:
    world.publish(
        "maps.test",
        "version: STSv1\nmode: enforce\nmx: mx1.maps.test\nmx: *.maps.test\nmx: MX1.maps.test\nmax_age: 86400\nx: y\n",
    )
    with Daemon(tmp_path, world.configuration(tmp_path, reply={"style": style})) as daemon:
        names = ["plain", "tlsrpt", "QUERYwithTLSRPT", "postfix", "QUERY", "Plain", ""]
        found = {name: ask(socket_of(daemon), "maps.test", name) for name in names}
    assert found == {"plain": PLAIN, "tlsrpt": TLSRPT, "QUERYwithTLSRPT": TLSRPT} | dict.fromkeys(names[3:], default)


def test_all_addresses_are_warned_of_and_one_that_others_reach_is_printed(world: World, tmp_path: Path) -> None:
    server: dict[str, object] = {"listen": ["inet:0.0.0.0:8461", "inet:127.0.0.1:8462"]}
    with (
        global_address("11.22.33.44", route=True) as address,
        Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon,
    ):
        warning = (
            f"warning: inet:0.0.0.0:8461 is open: whoever reaches this machine, as at inet:{address}:8461, can ask "
            "without authentication; if Postfix is on this machine, listen on 127.0.0.1, otherwise let a firewall "
            "admit your mail servers only"
        )
        line = f"info: ready; for main.cf: smtp_tls_policy_maps = socketmap:inet:{address}:8461:postfix"
        assert daemon.log[-2:] == [warning, line]
        assert ask(f"inet:{address}:8461", "none.test") == "NOTFOUND "


def test_all_addresses_of_a_machine_without_a_way_out(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path, server={"listen": ["inet:0.0.0.0:8461"]})) as daemon:
        assert daemon.log[-1].endswith("socketmap:inet:127.0.0.1:8461:postfix")


# Discoveries: the reply and the log

Setup = Callable[[World, str], object]


def _site(*steps: bytes | Hold | End, tls: bool = True) -> Setup:
    def setup(world: World, domain: str) -> None:
        world.announce(domain)
        host = f"mta-sts.{domain}"
        world.https.site(host, world.ca.issue(host).server_context() if tls else None, *steps)

    return setup


def _published(text: str) -> Setup:
    return lambda world, domain: world.publish(domain, text)


def _two_records(world: World, domain: str) -> None:
    for record in (b"v=STSv1; id=1;", b"v=STSv1; id=2;"):
        world.announce(domain, record)


def _expired(world: World, domain: str) -> None:
    world.announce(domain)
    host = f"mta-sts.{domain}"
    world.https.policy(host, policy(domain), world.ca.issue(host, kind="expired").server_context())


def _wrong_name(world: World, domain: str) -> None:
    world.announce(domain)
    world.https.policy(f"mta-sts.{domain}", policy(domain), world.ca.issue(domain).server_context())


_NO_POLICY = "info: domain={0}, no policy: "
_INVALID = _NO_POLICY + "invalid _mta-sts TXT record: "
_UNAVAILABLE = "warning: domain={0}, policy unavailable: "
NO_POLICY: dict[str, tuple[Setup, str]] = {
    "no record": (lambda world, domain: None, _NO_POLICY + "no _mta-sts TXT record"),
    "no record at a name that exists": (
        lambda world, domain: world.dns.add(f"_mta-sts.{domain}", "A", "127.0.0.1"),
        _NO_POLICY + "no _mta-sts TXT record",
    ),
    "an invalid record": (
        lambda world, domain: world.announce(domain, b"v=STSv1; id=a-b;"),
        _INVALID + "id must be 1 to 32 letters and digits, not 'a-b'",
    ),
    "a record that would write to the terminal": (
        lambda world, domain: world.announce(domain, b"v=STSv1; \x1b[2J\nerror: \xff"),
        _INVALID + r"column 10: expected name=value, got '\x1b[2J\nerror: \xff'",
    ),
    "two records": (
        _two_records,
        _INVALID + "2 records begin with v=STSv1; remove all but one",
    ),
}
UNAVAILABLE: dict[str, tuple[Setup, str]] = {
    "the TXT lookup fails": (
        lambda world, domain: world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL")),
        "TXT lookup: 127.0.0.1: SERVFAIL",
    ),
    "the TXT lookup is not answered": (
        lambda world, domain: world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(silent=True)),
        "TXT lookup: 127.0.0.1: no answer within 4 s",
    ),
    "the policy host has no address": (
        lambda world, domain: world.dns.add_txt(f"_mta-sts.{domain}", RECORD),
        "address of the policy host: mta-sts.{0} has no address " + FETCH_ERROR,
    ),
    "the policy host is inside": (
        lambda world, domain: world.announce(domain, host="192.168.1.1"),
        "address of the policy host: mta-sts.{0} has no public address, only 192.168.1.1 " + FETCH_ERROR,
    ),
    "nothing listens": (
        lambda world, domain: world.announce(domain, host=NOBODY),
        f"connection to the policy host: {NOBODY}: connection refused {FETCH_ERROR}",
    ),
    "the handshake is broken off": (
        _site(End.RESET, tls=False),
        "TLS handshake with the policy host: connection reset by peer " + FETCH_ERROR,
    ),
    "the certificate has expired": (
        _expired,
        "certificate of the policy host: certificate has expired (sts-webpki-invalid)",
    ),
    "the certificate is for another name": (
        _wrong_name,
        (
            "certificate of the policy host: "
            "hostname mismatch, certificate is not valid for 'mta-sts.{0}' (sts-webpki-invalid)"
        ),
    ),
    "there is no file": (_site(answer(status=404)), f"HTTP response: status 404 {FETCH_ERROR}"),
    "a redirect": (
        _site(answer(status=301, headers=[("Location", "https://elsewhere.test/\x80")])),
        r"HTTP response: status 301, a redirect to 'https://elsewhere.test/\x80', which must not be followed "
        + FETCH_ERROR,
    ),
    "a web page": (
        _site(answer("<html>", content_type="text/html")),
        f"HTTP response: Content-Type is 'text/html', must be text/plain {FETCH_ERROR}",
    ),
    "the policy host is slow": (_site(HANG), f"HTTP response: timed out after 5 s {FETCH_ERROR}"),
    "the policy is invalid": (
        _published("version: STSv1\nmode: enforce\nmx: mx.test\n"),
        "policy file: no max_age line (sts-policy-invalid)",
    ),
    "the policy would write to the terminal": (
        _published("version: STSv1\nmode: \x1b]0;x\n"),
        r"policy file: line 2: expected name: value, got 'mode: \x1b]0;x' (sts-policy-invalid)",
    ),
}
FOUND: dict[str, tuple[Setup, str, list[str]]] = {
    "enforce": (
        lambda world, domain: world.publish(domain, policy(domain)),
        "OK secure match=mx.{0} servername=hostname",
        ["info: domain={0}, fetched: mode=enforce, max_age=86400, mx=mx.{0}"],
    ),
    "testing": (
        lambda world, domain: world.publish(domain, policy(domain, "testing")),
        "NOTFOUND ",
        ["info: domain={0}, fetched: mode=testing, max_age=86400, mx=mx.{0}"],
    ),
    "none": (
        _published("version: STSv1\nmode: none\nmax_age: 60\n"),
        "NOTFOUND ",
        ["info: domain={0}, fetched: mode=none, max_age=60"],
    ),
    "a policy to be mended": (
        _published("\ufeffversion: STSv1\n\nmode: enforce\nmx: mx.test\nmx: *.test\nmax_age: 99999999\nMode: none\n"),
        "OK secure match=mx.test:.test servername=hostname",
        [
            (
                "warning: domain={0}, policy is valid, but its file should be corrected: "
                "line 1: remove the byte order mark; line 2: blank line; "
                "line 6: max_age 99999999 is treated as 31557600 (the maximum); "
                "line 7: unknown field Mode, did you mean mode?"
            ),
            "info: domain={0}, fetched: mode=enforce, max_age=31557600, mx=mx.test:*.test",
        ],
    ),
}
DISCOVERIES: dict[str, tuple[Setup, str, list[str]]] = (
    {reason: (setup, "NOTFOUND ", [line]) for reason, (setup, line) in NO_POLICY.items()}
    | {reason: (setup, "NOTFOUND ", [_UNAVAILABLE + failure]) for reason, (setup, failure) in UNAVAILABLE.items()}
    | FOUND
)
_numbers = itertools.count()


def quick(world: World, folder: Path, **tables: dict[str, object]) -> Daemon:
    """A daemon that does not wait for long."""
    return Daemon(folder, world.configuration(folder, fetch={"timeout": 5}, dns={"timeout": 4}, **tables))


@pytest.fixture(scope="module")
def common(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for tests that do with any."""
    with quick(world, tmp_path_factory.mktemp("common")) as daemon:
        yield daemon


@pytest.mark.parametrize(("setup", "reply", "lines"), DISCOVERIES.values(), ids=DISCOVERIES.keys())
def test_discovery(world: World, common: Daemon, setup: Setup, reply: str, lines: list[str]) -> None:
    domain = f"d{next(_numbers)}.test"
    setup(world, domain)
    found = ask(socket_of(common), domain), about(common, domain)
    assert found == (reply.replace("{0}", domain), [line.replace("{0}", domain) for line in lines])


def test_on_failure_temp_defers_what_is_unknown_and_only_that(world: World, tmp_path: Path) -> None:
    setups = {f"t{number}.test": case for number, case in enumerate(DISCOVERIES.values())}
    failures = [failure for _, failure in UNAVAILABLE.values()]
    for domain, (setup, _, _) in setups.items():
        setup(world, domain)
    with quick(world, tmp_path, discovery={"on_failure": "temp"}) as daemon, ThreadPoolExecutor(len(setups)) as threads:
        replies = dict(zip(setups, threads.map(partial(ask, socket_of(daemon)), setups), strict=True))
    expected = {}
    for domain, (_, reply, lines) in setups.items():
        failure = lines[0].removeprefix(_UNAVAILABLE)
        expected[domain] = (f"TEMP {_without_type(failure)}" if failure in failures else reply).replace("{0}", domain)
    assert replies == expected


def _without_type(failure: str) -> str:
    return re.sub(r" \(sts-[a-z-]+\)$", "", failure)


# What is kept, and for how long


def test_a_policy_is_served_from_the_cache_though_all_else_is_down(world: World, tmp_path: Path) -> None:
    domain = "kept.test"
    world.publish(domain, policy(domain))
    before = time.time()
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(socket_of(daemon), domain) == secure(domain)
        assert ask(socket_of(daemon), "KEPT.test.") == secure(domain)
        world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(silent=True))
        world.dns.set_behaviour(f"mta-sts.{domain}", Behaviour(silent=True))
        world.https.site(f"mta-sts.{domain}", None, End.RESET)
        daemon.restart()
        entries = stored_entries(tmp_path / "policies.sqlite")
        assert ask(socket_of(daemon), domain) == secure(domain)
        daemon.kill()
        daemon.start()
        assert ask(socket_of(daemon), domain) == secure(domain)
        lines = about(daemon, domain)
    assert (lines, world.asked(domain)) == ([applied(domain)], (1, 1))
    entry = entries[domain]
    assert entry.cached
    parsed, _ = parse(policy(domain).encode())
    assert entries == {
        domain: Entry(
            CachedPolicy(parsed, policy(domain), "1", entry.cached.fetched_at),
            checked_at=entry.checked_at,
            last_used=entry.last_used,
        )
    }
    times = [before, entry.last_used, entry.checked_at, entry.cached.fetched_at, time.time()]
    assert times == sorted(times)


def test_a_policy_of_no_age_is_fetched_for_each_query(world: World, common: Daemon) -> None:
    domain = "ageless.test"
    world.publish(domain, policy(domain, max_age=0))
    replies = [ask(socket_of(common), domain) for _ in range(3)]
    expected = ([secure(domain)] * 3, [applied(domain, max_age=0)] * 3, (3, 3))
    assert (replies, about(common, domain), world.asked(domain)) == expected


def _down(world: World, domain: str) -> None:
    world.announce(domain, host=NOBODY)


_ENDED = "warning: domain={0}, its policy expired 3 days ago: mode=enforce, max_age=172800, mx=mx.old.{0}"
# The row is of mx.old.DOMAIN and two days; then: seconds since its fetch, what the world has, reply, lines, asked.
AGED: dict[str, tuple[int, Setup, str, list[str], tuple[int, int]]] = {
    "a live policy, and a new one under another id": (
        2 * DAY - 60,
        lambda world, domain: world.publish(domain, policy(domain)),
        secure("old.{0}"),
        [],
        (0, 0),
    ),
    "a live policy, and no domain any more": (
        2 * DAY - 60,
        lambda world, domain: None,
        secure("old.{0}"),
        [],
        (0, 0),
    ),
    "an expired policy is fetched again though the id is the same": (
        2 * DAY + 1,
        lambda world, domain: world.publish(domain, policy(domain)),
        secure("{0}"),
        [applied("{0}")],
        (1, 1),
    ),
    "an expired policy, and the policy host is down": (
        5 * DAY,
        _down,
        "NOTFOUND ",
        [
            _ENDED,
            _UNAVAILABLE + f"connection to the policy host: {NOBODY}: connection refused {FETCH_ERROR}",
        ],
        (1, 0),
    ),
    "an expired policy, and DNS is down": (
        5 * DAY,
        lambda world, domain: world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL")),
        "NOTFOUND ",
        [_ENDED, _UNAVAILABLE + "TXT lookup: 127.0.0.1: SERVFAIL"],
        (1, 0),
    ),
    "an expired policy, and no record any more": (
        5 * DAY,
        lambda world, domain: None,
        "NOTFOUND ",
        [_ENDED, _NO_POLICY + "no _mta-sts TXT record"],
        (1, 0),
    ),
}


def test_a_policy_lives_until_its_age_exceeds_max_age(world: World, tmp_path: Path) -> None:
    domains = {reason: f"aged{number}.test" for number, reason in enumerate(AGED)}
    rows = {}
    expected = {}
    for reason, (age, setup, reply, lines, asked) in AGED.items():
        domain = domains[reason]
        setup(world, domain)
        rows[domain] = fetched(policy(f"old.{domain}", max_age=2 * DAY), age)
        expected[reason] = (reply.replace("{0}", domain), [line.replace("{0}", domain) for line in lines], asked)
    store_entries(tmp_path / "policies.sqlite", rows)
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        found = {
            reason: (ask(socket_of(daemon), domain), about(daemon, domain), world.asked(domain))
            for reason, domain in domains.items()
        }
    assert found == expected


def test_a_policy_that_is_fetched_again_replaces_the_old_one(world: World, tmp_path: Path) -> None:
    domain = "renewed.test"
    world.publish(domain, policy(domain))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy("old.test", max_age=DAY), age=DAY + 1, record_id="0")})
    before = time.time()
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert [ask(socket_of(daemon), domain) for _ in range(2)] == [secure(domain)] * 2
    cached = stored_entries(path)[domain].cached
    assert cached
    assert (cached.text, cached.record_id) == (policy(domain), "1")
    assert before <= cached.fetched_at <= time.time()
    assert world.asked(domain) == (1, 1)


def test_a_row_that_cannot_be_understood_is_said_and_replaced(world: World, tmp_path: Path) -> None:
    domain = "row.test"
    world.publish(domain, policy(domain))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain))})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE policies SET value = ?", ('{"version": 2}',))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert [ask(socket_of(daemon), domain) for _ in range(2)] == [secure(domain)] * 2
        assert about(daemon, domain) == [
            f"warning: domain={domain}, its row in cache.path cannot be understood: version 2, not 1",
            applied(domain),
        ]
    assert stored_policies(path) == {domain: policy(domain)}


def test_a_row_that_cannot_be_understood_defers_when_dns_fails_too(world: World, tmp_path: Path) -> None:
    """There may be a policy in it: the mail must not go out without."""
    domain = "row-and-dns.test"
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain))})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE policies SET value = ?", ('{"version": 2}',))
    world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL"))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        replies = [ask(socket_of(daemon), domain) for _ in range(2)]
        assert replies == ["TEMP TXT lookup: 127.0.0.1: SERVFAIL"] * 2
        ignored, *decided = about(daemon, domain)
    assert ignored == f"warning: domain={domain}, its row in cache.path cannot be understood: version 2, not 1"
    assert decided == [f"warning: domain={domain}, mail is deferred: TXT lookup: 127.0.0.1: SERVFAIL"] * 2


def test_mail_is_deferred_while_the_daemon_lacks_descriptors(world: World, tmp_path: Path) -> None:
    """That is no fault of the domain: nothing is noted, and the policy is found as soon as there are some again."""
    domain = "descriptors.test"
    world.publish(domain, policy(domain))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, connected(tmp_path) as client:
        assert exchange(client, "label") == "NOTFOUND "  # The connection is accepted.
        open_now = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_now, limits[1]))
        assert exchange(client, domain) == "TEMP TXT lookup: too many open files"
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        assert exchange(client, domain) == secure(domain)
        assert about(daemon, domain) == [
            f"warning: domain={domain}, mail is deferred: TXT lookup: too many open files",
            applied(domain),
        ]


@contextmanager
def connected(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(folder / "socket"))
        yield client


def exchange(client: socket.socket, key: str) -> str:
    """The reply to one query on an open connection."""
    query = f"postfix {key}".encode()
    client.sendall(b"%d:%s," % (len(query), query))
    reply = b""
    while not reply.endswith(b","):
        reply += client.recv(65536)
    return reply.partition(b":")[2].removesuffix(b",").decode()


# With DNS and the policy hosts gone


class Silence:
    """A nameserver that never answers."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))

    def questions(self, count: int) -> set[str]:
        """The names in all queries until now; this many come, now or soon."""
        names: set[str] = set()
        self._socket.settimeout(20)
        while len(names) < count:
            names.add(self._name())
        self._socket.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                names.add(self._name())
        return names

    def _name(self) -> str:
        query = dns.message.from_wire(self._socket.recv(1000))
        return query.question[0].name.to_text(omit_final_dot=True)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def silence(namespace: None) -> Iterator[Silence]:
    with closing(Silence("127.0.3.1")) as server:
        yield server


def deaf(world: World, folder: Path, silence: Silence, **tables: dict[str, object]) -> Daemon:
    """A daemon whose every lookup takes longer than a test waits for an answer."""
    server = {"listen": [f"unix:{folder / 'socket'}"], "answer_within": 60}
    return Daemon(
        folder,
        world.configuration(
            folder,
            server=server,
            dns={"nameservers": [silence.address], "timeout": 60},
            fetch={"timeout": 60},
            **tables,
        ),
    )


def test_all_cached_domains_are_answered_at_once_after_a_restart(
    world: World, tmp_path: Path, silence: Silence
) -> None:
    domains = [f"warm{number}.test" for number in range(300)]
    world.publish_all(domains, policy)
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, ThreadPoolExecutor(50) as threads:
        assert list(threads.map(partial(ask, socket_of(daemon)), domains)) == list(map(secure, domains))
    with deaf(world, tmp_path, silence) as daemon, ThreadPoolExecutor(50) as threads:
        replies = list(threads.map(partial(ask, socket_of(daemon)), domains))
    assert replies == list(map(secure, domains))
    assert daemon.log == [*ready(socket_of(daemon)), "info: stopping"]


def test_all_cached_domains_are_answered_at_once_though_their_records_are_to_be_checked(
    world: World, tmp_path: Path, silence: Silence
) -> None:
    """More of them than are checked at once."""
    domains = [f"unchecked{number}.test" for number in range(300)]
    rows = {domain: fetched(policy(domain), age=3600, checked=3600) for domain in domains}
    store_entries(tmp_path / "policies.sqlite", rows)
    with deaf(world, tmp_path, silence) as daemon:
        replies = [ask(socket_of(daemon), domain) for domain in domains for _ in range(2)]
        asked = silence.questions(100)
    assert replies == [secure(domain) for domain in domains for _ in range(2)]
    assert asked == {f"_mta-sts.{domain}" for domain in domains[:100]}
    assert daemon.log == [*ready(socket_of(daemon)), "info: stopping"]


def test_a_hit_does_not_wait_for_dns(world: World, tmp_path: Path, silence: Silence) -> None:
    domain = "hit.test"
    store_entries(tmp_path / "policies.sqlite", {domain: fetched(policy(domain), age=3600, checked=301)})
    with deaf(world, tmp_path, silence) as daemon:
        assert ask(socket_of(daemon), domain) == secure(domain)
        assert silence.questions(1) == {f"_mta-sts.{domain}"}
        assert [ask(socket_of(daemon), domain) for _ in range(10)] == [secure(domain)] * 10
    assert daemon.log == [*ready(socket_of(daemon)), "info: stopping"]


def test_a_check_that_fails_is_told_once_and_ends_no_policy(world: World, tmp_path: Path) -> None:
    reasons = {
        "gone.test": "no _mta-sts TXT record",
        "broken.test": "invalid _mta-sts TXT record: id is missing",
        "servfail.test": "TXT lookup: 127.0.0.1: SERVFAIL",
    }
    world.announce("broken.test", b"v=STSv1;")
    world.dns.set_behaviour("_mta-sts.servfail.test", Behaviour(rcode="SERVFAIL"))
    rows = {domain: fetched(policy(domain), age=DAY / 2 - 600, checked=301) for domain in reasons}
    store_entries(tmp_path / "policies.sqlite", rows)
    with quick(world, tmp_path) as daemon:
        for domain in reasons:
            assert ask(socket_of(daemon), domain) == secure(domain)
            daemon.wait_for(f"domain={domain}, policy could not be renewed")
            assert [ask(socket_of(daemon), domain) for _ in range(20)] == [secure(domain)] * 20
        lines = {domain: about(daemon, domain) for domain in reasons}
    assert lines == {
        domain: [f"warning: domain={domain}, policy could not be renewed and expires in 12 hours: {reason}"]
        for domain, reason in reasons.items()
    }
    assert [world.asked(domain) for domain in reasons] == [(1, 0)] * 3
    assert stored_policies(tmp_path / "policies.sqlite") == {domain: policy(domain) for domain in reasons}


def test_another_id_brings_the_new_policy_behind_the_answer(world: World, tmp_path: Path, hold: Hold) -> None:
    domain = "hold.test"
    before = world.asked(domain)
    row = fetched(policy("old.test"), age=3600, record_id="0", checked=301)
    store_entries(tmp_path / "policies.sqlite", {domain: row})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        replies = [ask(socket_of(daemon), domain)]
        assert hold.reached.wait(20)
        replies.append(ask(socket_of(daemon), domain))
        hold.release()
        daemon.wait_for("fetched: ")
        replies.append(ask(socket_of(daemon), domain))
        lines = about(daemon, domain)
    old = f"mode=enforce, max_age={DAY}, mx=mx.old.test"
    new = f"mode=enforce, max_age={DAY}, mx=mx.{domain}"
    asked = tuple(now - then for now, then in zip(world.asked(domain), before, strict=True))
    assert replies == [secure("old.test"), secure("old.test"), secure(domain)]
    assert lines == [
        f"info: domain={domain}, policy changed: now {new}; before {old}",
        applied(domain),
    ]
    assert asked == (1, 1)
    assert stored_policies(tmp_path / "policies.sqlite") == {domain: policy(domain)}


def test_another_id_whose_policy_cannot_be_had_ends_no_policy(world: World, tmp_path: Path) -> None:
    domain = "halfway.test"
    world.announce(domain, host=NOBODY)
    row = fetched(policy(domain, max_age=7 * DAY), age=6 * DAY, record_id="0", checked=301)
    store_entries(tmp_path / "policies.sqlite", {domain: row})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        replies = [ask(socket_of(daemon), domain)]
        daemon.wait_for("could not be renewed")
        daemon.restart()
        replies.extend(ask(socket_of(daemon), domain) for _ in range(10))
        lines = about(daemon, domain)
    failure = f"connection to the policy host: {NOBODY}: connection refused"
    assert replies == [secure(domain)] * 11
    assert lines == [
        f"error: domain={domain}, policy could not be renewed and expires in 24 hours: {failure}",
    ]
    failed = stored_entries(tmp_path / "policies.sqlite")[domain].failed
    assert [(one.record_id, one.count, str(one.failure)) for one in failed] == [("1", 1, failure)]


# What is noted


NOTED: dict[str, tuple[Setup, str, tuple[int, int]]] = {
    "no record": (lambda world, domain: None, _NO_POLICY + "no _mta-sts TXT record", (1, 0)),
    "an invalid record": (
        lambda world, domain: world.announce(domain, b"v=STSv1;"),
        _INVALID + "id is missing",
        (1, 0),
    ),
    "DNS fails": (
        lambda world, domain: world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL")),
        _UNAVAILABLE + "TXT lookup: 127.0.0.1: SERVFAIL",
        (1, 0),
    ),
    "the fetch fails": (
        _site(answer(status=404)),
        _UNAVAILABLE + f"HTTP response: status 404 {FETCH_ERROR}",
        (1, 1),
    ),
    "the policy is invalid": (
        _published("version: STSv1\nmode: enforce\nmx: mx.test\n"),
        _UNAVAILABLE + "policy file: no max_age line (sts-policy-invalid)",
        (1, 1),
    ),
}


@pytest.mark.parametrize(("setup", "line", "asked"), NOTED.values(), ids=NOTED.keys())
def test_what_led_to_no_policy_is_noted(
    world: World, common: Daemon, setup: Setup, line: str, asked: tuple[int, int]
) -> None:
    domain = f"noted{next(_numbers)}.test"
    setup(world, domain)
    replies = {ask(socket_of(common), domain) for _ in range(50)}
    found = replies, about(common, domain), world.asked(domain)
    assert found == ({"NOTFOUND "}, [line.replace("{0}", domain)], asked)


def test_a_mended_record_is_seen_when_the_note_has_ended_only(world: World, common: Daemon) -> None:
    domain = "mended.test"
    assert ask(socket_of(common), domain) == "NOTFOUND "
    world.publish(domain, policy(domain))
    assert ask(socket_of(common), domain) == "NOTFOUND "
    assert world.asked(domain) == (1, 0)


def test_a_flood_of_unknown_domains_pushes_no_policy_out(world: World, tmp_path: Path) -> None:
    """The policy is in memory: its row is gone."""
    domain = "dry.test"
    flood = [f"flood{number}.test" for number in range(1500)]
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain))})
    with DnsServer("127.0.3.2", 53) as dns, ThreadPoolExecutor(20) as threads:
        cache = {"path": str(path), "no_policies_in_memory": 1000}
        config = world.configuration(tmp_path, cache=cache, dns={"nameservers": [dns.address]})
        with Daemon(tmp_path, config) as daemon:
            assert ask(socket_of(daemon), domain) == secure(domain)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("DELETE FROM policies")
            assert set(threads.map(partial(ask, socket_of(daemon)), flood)) == {"NOTFOUND "}
            assert ask(socket_of(daemon), domain) == secure(domain)
            # The first note had to go, the last is there.
            assert [ask(socket_of(daemon), key) for key in (flood[0], flood[-1])] == ["NOTFOUND "] * 2
        asked = Counter(query.name.removeprefix("_mta-sts.") for query in dns.queries)
    assert asked == Counter([*flood, flood[0]])


def test_more_policies_than_there_is_room_for_in_memory(world: World, tmp_path: Path, silence: Silence) -> None:
    domains = [f"many{number}.test" for number in range(1200)]
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain)) for domain in domains})
    with deaf(world, tmp_path, silence, cache={"path": str(path), "policies_in_memory": 1000}) as daemon:
        replies = [ask(socket_of(daemon), domain) for domain in [*domains, *domains]]
    assert replies == [secure(domain) for domain in [*domains, *domains]]


def test_a_hundred_thousand_policies(world: World, tmp_path: Path, silence: Silence) -> None:
    domains = [f"d{number}.test" for number in range(100_000)]
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain)) for domain in domains})
    some = domains[::100]
    begin = time.monotonic()
    with deaf(world, tmp_path, silence, cache={"path": str(path), "policies_in_memory": 1000}) as daemon:
        first = ask(socket_of(daemon), domains[-1])
        seconds = time.monotonic() - begin
        replies = [ask(socket_of(daemon), domain) for domain in some]
        memory = re.findall(r"VmHWM:\s*(\d+ kB)", Path(f"/proc/{pid_of(daemon)}/status").read_text())
    print(f"first answer after {seconds:.2f} s, at most {memory[0]}")  # noqa: T201 - for who wants to know
    assert (first, replies) == (secure(domains[-1]), list(map(secure, some)))


def pid_of(daemon: Daemon) -> int:
    """Of the process that answers at the daemon's socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_of(daemon).removeprefix("unix:"))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)


# Trouble with the database


def trouble(reason: str) -> str:
    return f"error: cache.path: {reason}; queries are still answered, and writes are tried again"


def troubles(daemon: Daemon) -> list[str]:
    return [line for line in daemon.log if "cache.path" in line]


@contextmanager
def locked(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """The database is locked, until the end of the block."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        yield connection


# Readers pass by a writer in WAL mode, but not by this.
LOCKED_FOR_ALL = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE")


def test_an_empty_database_is_opened_once(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert {ask(socket_of(daemon), f"empty{number}.test") for number in range(20)} == {"NOTFOUND "}
        files = open_files(pid_of(daemon))
    path = tmp_path / "policies.sqlite"
    opened = sorted(str(file) for file in files if file.parent == tmp_path)
    assert opened == [str(path), f"{path}-shm", f"{path}-wal"]


def open_files(pid: int) -> list[Path]:
    """What a process has open."""
    files = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # Closed in the meantime.
            files.append(descriptor.readlink())
    return files


def test_a_full_disk_does_not_stop_answers(world: World, tmp_path: Path) -> None:
    domains = [f"full{number}.test" for number in range(6)]
    world.publish_all(domains, policy)
    with small_disk(tmp_path / "disk") as folder:
        path = folder / "policies.sqlite"
        config = world.configuration(tmp_path, cache={"path": str(path)})
        with Daemon(tmp_path, config) as daemon:
            assert ask(socket_of(daemon), domains[0]) == secure(domains[0])
            wait_until_stored(path, domains[0])
            with filled(folder):
                assert ask(socket_of(daemon), domains[1]) == secure(domains[1])
                daemon.wait_for("cache.path")
                replies = [ask(socket_of(daemon), domain) for domain in [*domains, *domains]]
            assert replies == list(map(secure, [*domains, *domains]))
            assert troubles(daemon) == [trouble("database or disk is full")]
            assert stored_policies(path) == {domains[0]: policy(domains[0])}
            assert daemon.stop() == 0
            assert stored_policies(path) == {domain: policy(domain) for domain in domains}
            daemon.start()
            assert ask(socket_of(daemon), domains[-1]) == secure(domains[-1])
            assert about(daemon, domains[-1]) == [
                applied(domains[-1]),
            ]
    assert [world.asked(domain) for domain in domains] == [(1, 1)] * 6


def test_a_full_disk_at_the_start(world: World, tmp_path: Path) -> None:
    domain = "full-start.test"
    world.publish(domain, policy(domain))
    with small_disk(tmp_path / "disk") as folder:
        path = folder / "policies.sqlite"
        with filled(folder):
            daemon = Daemon(tmp_path, world.configuration(tmp_path, cache={"path": str(path)}))
            daemon.start()
            assert [ask(socket_of(daemon), domain) for _ in range(2)] == [secure(domain)] * 2
        assert daemon.stop() == 0
        assert stored_policies(path) == {domain: policy(domain)}
    assert troubles(daemon) == [trouble("database or disk is full")]


def test_a_locked_database_does_not_stop_answers(world: World, tmp_path: Path) -> None:
    domains = [f"locked{number}.test" for number in range(20)]
    world.publish_all(domains, policy)
    path = tmp_path / "policies.sqlite"
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, ThreadPoolExecutor(20) as threads:
        assert ask(socket_of(daemon), domains[0]) == secure(domains[0])
        wait_until_stored(path, domains[0])
        with locked(path, "BEGIN EXCLUSIVE"):
            replies = list(threads.map(partial(ask, socket_of(daemon)), domains))
            daemon.wait_for("cache.path")
            replies.extend(threads.map(partial(ask, socket_of(daemon)), domains))
        assert replies == list(map(secure, [*domains, *domains]))
        assert troubles(daemon) == [trouble("database is locked")]
        assert stored_policies(path) == {domains[0]: policy(domains[0])}
    assert stored_policies(path) == {domain: policy(domain) for domain in domains}
    assert [world.asked(domain) for domain in domains] == [(1, 1)] * 20


def test_what_cannot_be_read_is_never_taken_for_no_policy(world: World, tmp_path: Path) -> None:
    domains = [f"unread{number}.test" for number in range(30)]
    for domain in domains:
        world.dns.set_behaviour(f"_mta-sts.{domain}", Behaviour(rcode="SERVFAIL"))
    fresh, none = "fresh.test", "none.test"
    world.publish(fresh, policy(fresh))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain)) for domain in domains})
    server = {"listen": [f"unix:{tmp_path / 'socket'}"], "answer_within": 6}
    daemon = Daemon(tmp_path, world.configuration(tmp_path, server=server))
    with locked(path, *LOCKED_FOR_ALL), ThreadPoolExecutor(40) as threads:
        daemon.start()
        failed = "TEMP TXT lookup: 127.0.0.1: SERVFAIL"
        late = "TEMP discovery: no result within 6 s; it goes on"
        single = [ask(socket_of(daemon), key) for key in (domains[0], domains[0], none, fresh, fresh)]
        # The last of these wait for longer than they may.
        crowd = list(threads.map(partial(ask, socket_of(daemon)), domains))
    replies = [ask(socket_of(daemon), domain) for domain in domains]
    assert daemon.stop() == 0
    lines = troubles(daemon)
    assert single == [failed, failed, "NOTFOUND ", secure(fresh), secure(fresh)]
    assert set(crowd) == {failed, late}
    assert replies == list(map(secure, domains))
    assert lines == [trouble("database is locked")]
    assert stored_policies(path) == {domain: policy(domain) for domain in [*domains, fresh]}


def test_what_is_fetched_while_the_database_cannot_be_read_replaces_the_old(world: World, tmp_path: Path) -> None:
    domain = "unread-new.test"
    world.publish(domain, policy(domain))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy("old.test"), age=60, record_id="0")})
    daemon = Daemon(tmp_path, world.configuration(tmp_path))
    with locked(path, *LOCKED_FOR_ALL):
        daemon.start()
        assert ask(socket_of(daemon), domain) == secure(domain)
    assert daemon.stop() == 0
    assert stored_policies(path) == {domain: policy(domain)}


def set_aside(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if re.fullmatch(r".*damaged-\d{8}T\d{6}Z", file.name)]


def begin_lost(path: Path) -> None:
    """The page from which all else is found."""
    damage(path, 0, 4096)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damaged", [begin_lost, zeroed, cut], ids=lambda damaged: damaged.__name__)
def test_a_database_that_was_ours_is_set_aside_at_the_start(
    world: World, tmp_path: Path, damaged: Callable[[Path], None]
) -> None:
    domain = "aside.test"
    world.publish(domain, policy(domain))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {f"old{number}.test": fetched(policy("old.test")) for number in range(100)})
    damaged(path)
    content = path.read_bytes()
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert [ask(socket_of(daemon), domain) for _ in range(2)] == [secure(domain)] * 2
        aside = set_aside(tmp_path)
        assert [file.read_bytes() for file in aside] == [content]
        what = "database disk image is malformed" if damaged is cut else "file is not a database"
        assert troubles(daemon) == [trouble(f"{what}; set aside as {aside[0]}")]
    assert stored_policies(path).items() >= {domain: policy(domain)}.items()


def damage(path: Path, begin: int, end: int) -> None:
    """Overwrite a part of a file."""
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * (end - begin))


def test_a_damaged_database_is_set_aside_at_the_start_and_what_can_be_read_goes_on(
    world: World, tmp_path: Path
) -> None:
    domains = [f"damaged{number}.test" for number in range(1000)]
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain)) for domain in domains})
    # The first page, from which all else is found, stays; in the middle four are lost.
    middle = path.stat().st_size // 2 // 4096 * 4096
    damage(path, middle, middle + 4 * 4096)
    with quick(world, tmp_path) as daemon:
        replies = {domain: ask(socket_of(daemon), domain) for domain in domains}
        aside = set_aside(tmp_path)
        assert troubles(daemon) == [trouble(f"database disk image is malformed; set aside as {aside[0]}")]
    wrong = {domain: reply for domain, reply in replies.items() if reply not in (secure(domain), "NOTFOUND ")}
    lost = [domain for domain, reply in replies.items() if reply == "NOTFOUND "]
    assert (wrong, len(aside), 0 < len(lost) < 100) == ({}, 1, True), lost


def test_a_database_that_is_damaged_while_it_runs(world: World, tmp_path: Path) -> None:
    """What is in memory is answered, and written anew."""
    domains = [f"known{number}.test" for number in range(300)]
    others = [f"other{number}.test" for number in range(300)]
    world.publish_all(others, policy)
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy(domain)) for domain in [*domains, *others]})
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert [ask(socket_of(daemon), domain) for domain in domains] == list(map(secure, domains))
        damage(path, 4096, path.stat().st_size)
        replies = [ask(socket_of(daemon), domain) for domain in [*others, *domains]]
        daemon.wait_for("cache.path")
        aside = set_aside(tmp_path)
        assert replies == list(map(secure, [*others, *domains]))
        assert troubles(daemon) == [trouble(f"database disk image is malformed; set aside as {aside[0]}")]
    assert len(aside) == 1
    assert stored_policies(path) == {domain: policy(domain) for domain in [*domains, *others]}


def test_a_disk_that_takes_no_more_writes(world: World, tmp_path: Path) -> None:
    domains = [f"frozen{number}.test" for number in range(6)]
    world.publish_all(domains, policy)
    path = tmp_path / "policies.sqlite"
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(socket_of(daemon), domains[0]) == secure(domains[0])
        wait_until_stored(path, domains[0])
        pid = pid_of(daemon)
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert ask(socket_of(daemon), domains[1]) == secure(domains[1])
        daemon.wait_for("cache.path")
        replies = [ask(socket_of(daemon), domain) for domain in [*domains, *domains]]
        assert replies == list(map(secure, [*domains, *domains]))
        assert troubles(daemon) == [trouble("disk I/O error")]
        assert stored_policies(path) == {domains[0]: policy(domains[0])}
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert stored_policies(path) == {domain: policy(domain) for domain in domains}


# Ends


def test_a_stop_right_after_an_answer_keeps_the_policy(world: World, tmp_path: Path) -> None:
    """Before the daemon has written it by itself."""
    domain = "hasty.test"
    world.publish(domain, policy(domain))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(socket_of(daemon), domain) == secure(domain)
    assert stored_policies(tmp_path / "policies.sqlite") == {domain: policy(domain)}


def test_what_was_in_the_database_survives_a_kill(world: World, tmp_path: Path) -> None:
    """Again and again, under load."""
    rounds = [[f"kill{number}-{part}.test" for part in range(120)] for number in range(6)]
    world.publish_all([domain for domains in rounds for domain in domains], policy)
    path = tmp_path / "policies.sqlite"
    daemon = Daemon(tmp_path, world.configuration(tmp_path))
    kept: dict[str, str] = {}
    with ThreadPoolExecutor(20) as threads:
        for number, domains in enumerate(rounds):
            daemon.start()
            assert [ask(socket_of(daemon), domain) for domain in kept] == list(map(secure, kept))
            replies = threads.map(partial(ask_or_none, socket_of(daemon)), domains)
            wait_until_stored(path, domains[number])
            before = stored_policies(path)
            daemon.kill()
            wrong = set(replies) - set(map(secure, domains)) - {None}
            after = stored_policies(path)
            assert (wrong, kept.items() <= before.items() <= after.items()) == (set(), True)
            kept = after
    assert kept == {domain: policy(domain) for domain in kept}
    assert [world.asked(domain) for domain in kept] == [(1, 1)] * len(kept)
    assert troubles(daemon) == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def ask_or_none(endpoint: str, key: str) -> str | None:
    """None: the daemon was killed before it answered."""
    try:
        return ask(endpoint, key)
    except (OSError, ValueError):
        return None


def test_two_daemons_with_one_database(world: World, tmp_path: Path) -> None:
    domain, other = "shared.test", "mine.test"
    world.publish(domain, policy(domain))
    path = tmp_path / "policies.sqlite"
    store_entries(path, {domain: fetched(policy("old.test"), age=3600, record_id="0")})
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    one, two = (Daemon(folder, world.configuration(folder, cache={"path": str(path)})) for folder in folders)
    with one:
        # Known to the one: the old policy, whose record was just checked.
        assert ask(socket_of(one), domain) == secure("old.test")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE policies SET value = json_set(value, '$.checked_at', 0)")
        with two:
            assert ask(socket_of(two), domain) == secure("old.test")
            two.wait_for("fetched: ")
            assert ask(socket_of(two), domain) == secure(domain)
            # What one has fetched is there for the other.
            world.publish(other, policy(other))
            assert ask(socket_of(one), other) == secure(other)
            wait_until_stored(path, other)
            assert ask(socket_of(two), other) == secure(other)
            assert world.asked(other) == (1, 1)
        assert ask(socket_of(one), domain) == secure("old.test")
        one.restart()
        assert ask(socket_of(one), domain) == secure(domain)
    assert stored_policies(path) == {domain: policy(domain), other: policy(other)}
    assert troubles(one) + troubles(two) == []


# Many at once, and slow ones


def test_one_discovery_for_all_who_ask_at_once(world: World, tmp_path: Path, hold: Hold) -> None:
    before = world.asked("hold.test")
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, ThreadPoolExecutor(100) as threads:
        path = str(tmp_path / "socket")
        connections = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for connection in connections:
            connection.settimeout(20)
            connection.connect(path)
            connection.sendall(b"17:postfix hold.test,")
        # This one is read after all of those.
        assert ask(socket_of(daemon), "last.test") == "NOTFOUND "
        assert hold.reached.wait(20)
        hold.release()
        reply = secure("hold.test").encode()
        expected = b"%d:%b," % (len(reply), reply)
        replies = list(threads.map(lambda connection: connection.recv(1000), connections))
        for connection in connections:
            connection.close()
        lines = about(daemon, "hold.test")
    asked = tuple(now - then for now, then in zip(world.asked("hold.test"), before, strict=True))
    assert (set(replies), lines, asked) == ({expected}, [applied("hold.test")], (1, 1))


@pytest.mark.parametrize(
    ("on_failure", "reply"),
    [("notfound", "NOTFOUND "), ("temp", "TEMP discovery: no result within 0.5 s; it goes on")],
    ids=["notfound", "temp"],
)
def test_who_has_waited_long_enough_is_answered_and_the_discovery_goes_on(
    world: World, tmp_path: Path, hold: Hold, on_failure: str, reply: str
) -> None:
    before = world.asked("hold.test")
    server = {"listen": [f"unix:{tmp_path / 'socket'}"], "answer_within": 0.5}
    config = world.configuration(tmp_path, server=server, discovery={"on_failure": on_failure})
    with Daemon(tmp_path, config) as daemon:
        begin = time.monotonic()
        replies = [ask(socket_of(daemon), "hold.test")]
        took = time.monotonic() - begin
        replies.append(ask(socket_of(daemon), "hold.test"))
        hold.release()
        daemon.wait_for("fetched: ")
        replies.extend(ask(socket_of(daemon), "hold.test") for _ in range(2))
        lines = about(daemon, "hold.test")
        daemon.restart()
        replies.append(ask(socket_of(daemon), "hold.test"))
    asked = tuple(now - then for now, then in zip(world.asked("hold.test"), before, strict=True))
    assert replies == [reply, reply, *[secure("hold.test")] * 3]
    assert asked == (1, 1)
    assert took >= 0.5
    warning = late("hold.test", 0.5)
    assert lines == [warning, warning, applied("hold.test")]


def test_a_slow_domain_does_not_delay_the_others(world: World, tmp_path: Path, hold: Hold) -> None:
    domains = [f"fast{number}.test" for number in range(5)]
    for domain in domains:
        world.publish(domain, policy(domain))
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon, ThreadPoolExecutor() as threads:
        slow = threads.submit(ask, socket_of(daemon), "hold.test")
        assert hold.reached.wait(20)
        assert [ask(socket_of(daemon), domain) for domain in domains] == list(map(secure, domains))
        assert not slow.done()
        hold.release()
        assert slow.result() == secure("hold.test")


def test_only_one_txt_and_two_address_lookups_are_made(world: World, common: Daemon) -> None:
    domain = "lookups.test"
    world.publish(domain, policy(domain))
    assert ask(socket_of(common), domain) == secure(domain)
    assert sorted(query for query in world.dns.queries if query.name.endswith(domain)) == [
        Query(f"_mta-sts.{domain}", "TXT", "udp"),
        Query(f"mta-sts.{domain}", "A", "udp"),
        Query(f"mta-sts.{domain}", "AAAA", "udp"),
    ]


def test_no_policy_host_is_asked_without_a_record(world: World, common: Daemon) -> None:
    domain = "unannounced.test"
    world.publish(domain, policy(domain))
    world.dns.remove(f"_mta-sts.{domain}")
    assert ask(socket_of(common), domain) == "NOTFOUND "
    assert [query for query in world.dns.queries if query.name.endswith(domain)] == [
        Query(f"_mta-sts.{domain}", "TXT", "udp")
    ]
