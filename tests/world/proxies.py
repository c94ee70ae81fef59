"""Real proxies, as plain processes: tinyproxy for HTTP, microsocks for SOCKS5.

    with proxy("http", "127.0.3.1", folder, credentials="me:secret") as url: …

They look up names by /etc/resolv.conf.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.programs import program

_PROGRAMS = {"http": "tinyproxy", "socks5": "microsocks"}
_PORTS = {"http": 3128, "socks5": 1080}


@contextmanager
def proxy(scheme: str, address: str, folder: Path, credentials: str = "") -> Iterator[str]:
    """The URL of a proxy that asks for these credentials, if there are any."""
    command, port = program(_PROGRAMS[scheme]), _PORTS[scheme]
    user, _, password = credentials.partition(":")
    if scheme == "http":
        file = folder / f"tinyproxy-{address}.conf"
        asked = f"BasicAuth {user} {password}\n" if user else ""
        file.write_text(f"Listen {address}\nPort {port}\nTimeout 600\nMaxClients 50\nConnectPort 443\n{asked}")
        words = [command, "-d", "-c", str(file)]
    else:
        words = [command, "-i", address, "-p", str(port), *(["-u", user, "-P", password] if user else [])]
    with (folder / f"{scheme}-{address}.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, address, port)
        yield f"{scheme}://{address}:{port}"
    finally:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", address: str, port: int) -> None:
    """Until it listens, which nothing tells."""
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((address, port), 1).close()
        except ConnectionRefusedError:
            assert process.poll() is None, "the proxy has ended"
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return
