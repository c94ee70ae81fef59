"""Real servers from the root of Debian 12 that tests/roots made: for DNS and the web, and pebble, a CA with ACME."""

import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.ca import Ca
from tests.world.postfix import INSTALLATIONS, Installation

ROOT = next(one for one in INSTALLATIONS if one.name == "bookworm")
PUBLISHERS = ("caddy", "knotd", "named", "nsd", "pebble")
ACME = "https://127.0.0.1:14000/dir"


def lacking(*programs: str, root: Installation = ROOT) -> str | None:
    """What a test with these programs needs and does not have here, in words for `pytest.skip`."""
    if why := root.missing():
        return why
    folders = [root.root / "usr" / folder for folder in ("bin", "sbin")]
    found = [name for name in programs if not any((folder / name).exists() for folder in folders)]
    return f"needs {', '.join(found)} in the root of {root.name}: run `sudo make roots`" if found else None


@contextmanager
def running(log: Path, *command: str | Path, **environment: str) -> Iterator[None]:
    """A process, whose output goes into a file, beside which it runs."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(log.parent), **environment}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def pebble(folder: Path, ca: Ca, nameserver: str, seconds: int) -> Iterator[bytes]:
    """The CA, whose certificates live so long; its root certificate. It is at ACME, with a certificate of `ca`."""
    certificate = str(ca.issue("127.0.0.1").file)
    settings = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": certificate,
        "privateKey": certificate,
        "httpPort": 80,
        "tlsPort": 443,
        "certificateValidityPeriod": seconds,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    command = ROOT.command("pebble", "-config", f"{folder}/pebble.json", "-dnsserver", f"{nameserver}:53")
    with running(folder / "pebble.log", *command, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0"):
        trusted = ssl.create_default_context(cafile=ca.file)

        def root() -> bytes:
            with urllib.request.urlopen("https://127.0.0.1:15000/roots/0", context=trusted) as response:
                return bytes(response.read())

        yield eventually(root, folder / "pebble.log")


def eventually(attempt: Callable[[], bytes], log: Path, timeout: float = 30) -> bytes:
    """What an attempt gives once it does not fail any more."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return attempt()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
