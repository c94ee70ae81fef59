"""Who is measured: the daemon, on either event loop; a C program that only answers; and postfix-mta-sts-resolver."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import running, wait_for_address
from tests.bench.world import NAMESERVER, REPLY

TCP = "127.0.0.1:8461"
# An import of what is None there fails as if it were not installed.
_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from postfix_mtasts.daemon import main; main()"


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
def ours(bench: Bench, *, uvloop: bool = True, cache: str = "cache.sqlite") -> Iterator[Contestant]:
    """The daemon as it is installed, with a cache file that may be there already."""
    path = str(bench.folder / "ours")
    tables: dict[str, dict[str, object]] = {
        "server": {"listen": [f"inet:{TCP}", f"unix:{path}"], "control": ""},
        "cache": {"path": str(bench.folder / cache)},
        "dns": {"nameservers": [NAMESERVER]},
        "fetch": {"ca_file": str(bench.ca), "allow_addresses": ["127.0.0.0/8"]},
        "reply": {"style": "plain", "dane": "off"},
    }
    config = bench.folder / "ours.toml"
    config.write_text(
        "".join(
            f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            for table, keys in tables.items()
        )
    )
    program = [sys.executable, "-c", _WITHOUT_UVLOOP]
    if uvloop:
        program = [str(Path(sys.executable).with_name("postfix-mtasts-daemon"))]
    with running([*program, "--config", config]) as process:
        wait_for_address(path)
        yield Contestant(process, {"tcp": TCP, "unix": path})


@contextmanager
def limit(bench: Bench, kind: str) -> Iterator[Contestant]:
    """The C program, on one kind of socket."""
    address = {"tcp": "127.0.0.1:8462", "unix": str(bench.folder / "limit")}[kind]
    Path(address).unlink(missing_ok=True)
    with running([bench.programs / "limit", address, REPLY]) as process:
        wait_for_address(address)
        yield Contestant(process, {kind: address})


@contextmanager
def peer(bench: Bench, kind: str, cache: str) -> Iterator[Contestant]:
    """postfix-mta-sts-resolver on uvloop, logging little, on one kind of socket, with one kind of cache."""
    address = {"tcp": "127.0.0.1:8463", "unix": str(bench.folder / "peer")}[kind]
    host, _, port = address.partition(":")
    listen = {"host": host, "port": int(port)} if port else {"path": address}
    database = bench.folder / "peer.sqlite"
    database.unlink(missing_ok=True)
    options = {"internal": {"cache_size": 10_000}, "sqlite": {"filename": str(database)}}[cache]
    config = bench.folder / "peer.yml"
    config.write_text(json.dumps({**listen, "cache": {"type": cache, "options": options}}))  # JSON is YAML.
    command: list[str | Path] = [bench.peer / "bin/mta-sts-daemon", "-v", "warn", "-c", config]
    with running(command, {"SSL_CERT_FILE": str(bench.ca)}) as process:
        wait_for_address(address)
        yield Contestant(process, {kind: address})
