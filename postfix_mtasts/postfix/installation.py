"""Asks postconf(1) which Postfix this machine has, and chooses the reply style and the use of DANE accordingly.

It is not an error if there is no Postfix or it does not answer, because Postfix may be on another machine. The safe
choice is made in this case, and the log says why.
"""

import asyncio
import ipaddress
import os
import pathlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import DaneSetting, Endpoint, InetEndpoint, StyleSetting
from postfix_mtasts.postfix.reply import Style

_DEADLINE = 5.0  # Seconds.
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
DANE_LEVELS = ("dane", "dane-only")
TLSRPT_SINCE = (3, 10)  # The first version that supports policy_type= and the like. Earlier ones defer the mail.


class NoPostfix(Exception):  # noqa: N818 - this is not an error
    """There is no Postfix on this machine that can be asked. The message says why."""


@dataclass(frozen=True, slots=True)
class Postfix:
    """The Postfix on this machine, and its settings in main.cf. Settings in master.cf are not read."""

    version: tuple[int, int]
    smtp_tls_security_level: str = ""
    smtp_dns_support_level: str = ""

    def __str__(self) -> str:
        return f"Postfix {'.'.join(map(str, self.version))}"


async def local_postfix(path: str = PATH) -> Postfix:
    """Ask the first postconf in the folders of `path` about the version and settings. Raises NoPostfix."""
    command = shutil.which("postconf", path=path)
    if not command:
        raise NoPostfix("there is no postconf command on this machine")
    try:
        async with asyncio.timeout(_DEADLINE):
            # -d prints the built-in version, and does not need a readable main.cf.
            version, folder = await _values(command, "-d", names=("mail_version", "config_directory"))
            main_cf = pathlib.Path(folder, "main.cf")
            found = Postfix(_parse(version))
            if os.access(main_cf, os.R_OK):  # If main.cf is not readable, postconf takes a second to say so.
                # -x expands $name in a value.
                names = ("smtp_tls_security_level", "smtp_dns_support_level")
                found = Postfix(found.version, *await _values(command, "-x", names=names))
    except TimeoutError as error:
        raise NoPostfix(f"{command} did not answer within {_DEADLINE:g} s") from error
    except OSError as error:
        raise NoPostfix(f"{command} cannot be run") from error
    return found


async def _values(command: str, option: str, *, names: Sequence[str]) -> list[str]:
    """Return the values that postconf prints for parameters, and an empty text for each that it does not print."""
    process = await asyncio.create_subprocess_exec(
        *(command, option, "-h", *names),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    lines = [line.strip() for line in output.decode("ascii", "replace").split("\n")]
    return (lines + [""] * len(names))[: len(names)]


def _parse(text: str) -> tuple[int, int]:
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", text)
    if not version:
        raise NoPostfix("postconf prints no version")
    return int(version[1]), int(version[2])


def choose_style(
    setting: StyleSetting, postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]
) -> tuple[Style, str]:
    """Return the style for maps whose name does not choose one, and the reason for the log."""
    if setting is not StyleSetting.AUTO:
        return Style(setting.value), "configured"
    client = _client(postfix, listeners)
    if isinstance(client, str):
        return Style.PLAIN, client
    if client.version < TLSRPT_SINCE:
        return Style.PLAIN, f"{client} does not support the attributes of tlsrpt"
    return Style.TLSRPT, f"{client} supports its attributes, and checks MX names with them"


def choose_dane(
    setting: DaneSetting, postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]
) -> tuple[DaneSetting, str]:
    """Return how DANE is used, and the reason for the log."""
    if setting is not DaneSetting.AUTO:
        return setting, "configured"
    client = _client(postfix, listeners)
    if isinstance(client, str):
        return DaneSetting.OFF, client
    if client.smtp_tls_security_level not in DANE_LEVELS:
        level = client.smtp_tls_security_level or "(empty)"
        return DaneSetting.OFF, f"{client} has smtp_tls_security_level = {level}"
    if client.smtp_dns_support_level != "dnssec":
        return DaneSetting.OFF, f"{client} does not apply DANE without smtp_dns_support_level = dnssec"
    return DaneSetting.YIELD, f"{client} has smtp_tls_security_level = {client.smtp_tls_security_level}"


def _client(postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]) -> Postfix | str:
    """Return the Postfix that sends the queries, or why it is unknown."""
    remote = [endpoint for endpoint in listeners if not _is_local(endpoint)]
    if remote:
        return f"other machines can connect to {remote[0]}, and their Postfix is unknown"
    return str(postfix) if isinstance(postfix, NoPostfix) else postfix


def _is_local(endpoint: Endpoint) -> bool:
    return not isinstance(endpoint, InetEndpoint) or ipaddress.ip_address(endpoint.host).is_loopback
