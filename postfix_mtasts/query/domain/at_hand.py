"""The Postfix on this machine, as far as a probe must do as it does, and the socket that its main.cf names."""

import asyncio
import contextlib
import re
import shutil
import socket
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.installation import PATH

_DEADLINE = 5.0  # Seconds.
_NAMES = ("smtp_helo_name", "smtp_tls_CAfile", "smtp_tls_enforce_sts_mx_patterns", "smtp_tls_policy_maps")
_SOCKETMAP = re.compile(
    r"(?:proxy:)?socketmap:(?:inet:(?P<host>\[[^]]*\]|[^:,\s]+):(?P<port>\w+)|unix:(?P<path>[^:,\s]+)):(?P<name>[^\s,:}]+)"
)


@dataclass(frozen=True, slots=True)
class AtHand:
    """What main.cf says. Without a Postfix, `helo` is this machine's name, and the rest is empty."""

    helo: str
    ca_file: str = ""
    checks_patterns: bool | None = None  # Whether it checks MX names against the patterns that it is sent.
    maps: tuple[tuple[Endpoint, str], ...] = ()  # The sockets and map names of its socketmap tables.


async def at_hand(path: str = PATH) -> AtHand:
    """Ask the first postconf(1) in the folders of `path`. A Postfix that does not answer is taken for none."""
    values = {}
    command = shutil.which("postconf", path=path)
    with contextlib.suppress(OSError, TimeoutError):
        if command:
            values = await _values(command)
    helo = values.get("smtp_helo_name") or socket.gethostname()
    patterns = values.get("smtp_tls_enforce_sts_mx_patterns")
    checks = patterns == "yes" if values else None
    maps = tuple(_maps(values.get("smtp_tls_policy_maps", "")))
    return AtHand(helo, values.get("smtp_tls_CAfile", ""), checks, maps)


async def _values(command: str) -> dict[str, str]:
    """The values of the parameters, without those that this version of Postfix does not know."""
    process = await asyncio.create_subprocess_exec(
        *(command, "-x", *_NAMES),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    lines = [line.partition("=") for line in output.decode("ascii", "replace").splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def _maps(value: str) -> list[tuple[Endpoint, str]]:
    found: list[tuple[Endpoint, str]] = []
    for match in _SOCKETMAP.finditer(value):
        if match["path"]:
            found.append((UnixEndpoint(match["path"]), match["name"]))
            continue
        with contextlib.suppress(OSError):
            port = int(match["port"]) if match["port"].isdecimal() else socket.getservbyname(match["port"], "tcp")
            found.append((InetEndpoint(match["host"].strip("[]"), port), match["name"]))
    return found
