"""Who is measured: the daemon, on either event loop; two programs that only answer, one in C and one on uvloop; and
postfix-mta-sts-resolver."""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import running, wait_for_address, wait_for_line
from tests.bench.world import NAMESERVER, REPLY
from tests.world.daemon import COMMAND, toml

# An import of what is None there fails as if it were not installed.
_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from postfix_mtasts.daemon.main import main; main()"


@dataclass(frozen=True)
class Bench:
    """What the contestants need: a folder to write in, the CA of the world, and the programs."""

    folder: Path
    ca: Path
    programs: Path  # Where `load` and `limit` are.
    peer: Path  # The virtual environment of the peer.


@dataclass(frozen=True)
class Contestant:
    """A server that runs, and where."""

    process: subprocess.Popen[bytes]
    addresses: dict[str, str]  # By the kind of socket, as the load generator takes them.


@contextmanager
def ours(
    bench: Bench,
    *,
    loop: str = "uvloop",
    cache: Path | None = None,
    metrics: bool = False,
    fleet: Mapping[str, object] | None = None,
    nameserver: str = NAMESERVER,
) -> Iterator[Contestant]:
    """The daemon as it is installed, on the event loop `uvloop` or `asyncio`; its cache is empty or this file.

    With `metrics`, it has an address for them too. `fleet` is its table [fleet]; then it shares what it knows.
    """
    with _folder(bench) as folder:
        tcp, unix = f"127.0.0.1:{_free_port()}", str(folder / "socket")
        tables: dict[str, dict[str, object]] = {
            "server": {"listen": [f"inet:{tcp}", f"unix:{unix}"], "control": ""},
            "cache": {"path": str(cache or folder / "cache.sqlite")},
            "dns": {"nameservers": [nameserver]},
            "fetch": {"ca_file": str(bench.ca), "allow_addresses": ["127.0.0.0/8"]},
            "reply": {"style": "plain", "dane": "off"},
        }
        addresses = {"tcp": tcp, "unix": unix}
        if metrics:
            addresses["metrics"] = f"127.0.0.1:{_free_port()}"
            tables["metrics"] = {"listen": f"inet:{addresses['metrics']}"}
        if fleet:
            tables["fleet"] = dict(fleet)
        config, log = folder / "config.toml", folder / "log"
        config.write_text(toml(tables))
        programs: dict[str, list[str | Path]] = {
            "uvloop": [COMMAND],
            "asyncio": [sys.executable, "-c", _WITHOUT_UVLOOP],
        }
        with running([*programs[loop], "--config", config], log) as process:
            wait_for_line(log, f"event loop is {loop}\n")
            if fleet:
                wait_for_line(log, "fleet: policies are shared")
            yield Contestant(process, addresses)


@contextmanager
def limit(bench: Bench, kind: str, reply: str = REPLY) -> Iterator[Contestant]:
    """The C program, on one kind of socket."""
    with _constant(bench, kind, reply, [bench.programs / "limit"]) as contestant:
        yield contestant


@contextmanager
def alone(bench: Bench, kind: str, reply: str = REPLY) -> Iterator[Contestant]:
    """The event loop by itself, on one kind of socket."""
    with _constant(bench, kind, reply, [sys.executable, Path(__file__).with_name("alone.py")]) as contestant:
        yield contestant


@contextmanager
def _constant(bench: Bench, kind: str, reply: str, program: list[str | Path]) -> Iterator[Contestant]:
    with _folder(bench) as folder:
        address = {"tcp": f"127.0.0.1:{_free_port()}", "unix": str(folder / "socket")}[kind]
        with running([*program, address, reply], folder / "log") as process:
            wait_for_address(address)
            yield Contestant(process, {kind: address})


@contextmanager
def peer(bench: Bench, kind: str, cache: str) -> Iterator[Contestant]:
    """postfix-mta-sts-resolver at its fastest, on one kind of socket, with the cache `internal` or `sqlite`.

    It runs on uvloop, logs no decisions, and believes what it has cached for the whole benchmark (`cache_grace`).
    """
    with _folder(bench) as folder:
        port = _free_port()
        address = {"tcp": f"127.0.0.1:{port}", "unix": str(folder / "socket")}[kind]
        listen = {"host": "127.0.0.1", "port": port} if kind == "tcp" else {"path": address}
        options = {"internal": {"cache_size": 10_000}, "sqlite": {"filename": str(folder / "cache.sqlite")}}[cache]
        config, log = folder / "config.yml", folder / "log"
        tables = {**listen, "cache": {"type": cache, "options": options}, "cache_grace": 3600}
        config.write_text(json.dumps(tables))  # JSON is YAML.
        command: list[str | Path] = [bench.peer / "bin/mta-sts-daemon", "-v", "warn", "-c", config]
        with running(command, log, {"SSL_CERT_FILE": str(bench.ca)}) as process:
            wait_for_address(address)
            yield Contestant(process, {kind: address})


@contextmanager
def _folder(bench: Bench) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        yield Path(folder)


def _free_port() -> int:
    """In a network of our own, nobody takes it in between."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
