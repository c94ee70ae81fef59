"""What the Postfix on this machine can take in, asked of postconf(1), and what follows from it.

No Postfix here, or one that does not answer, is normal: it may be on another machine. Then the safe choice is made, and
the log says why.
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
TLSRPT_SINCE = (3, 10)  # The first version that knows policy_type= and its like; earlier ones defer the mail.


class NoPostfix(Exception):  # noqa: N818 - nothing has gone wrong
    """There is no Postfix on this machine to ask; says what was found instead."""


@dataclass(frozen=True, slots=True)
class Postfix:
    """The Postfix on this machine, and its settings in main.cf; those of single services in master.cf are not seen."""

    version: tuple[int, int]
    smtp_tls_security_level: str = ""
    smtp_dns_support_level: str = ""

    def __str__(self) -> str:
        return f"Postfix {'.'.join(map(str, self.version))}"


async def local_postfix(path: str = PATH) -> Postfix:
    """Ask the postconf that is found first in the folders of `path`. Raises NoPostfix."""
    command = shutil.which("postconf", path=path)
    if not command:
        raise NoPostfix("no postconf on this machine")
    try:
        async with asyncio.timeout(_DEADLINE):
            # -d: the version is built in, and main.cf need not be readable.
            version, folder = await _values(command, "-d", names=("mail_version", "config_directory"))
            main_cf = pathlib.Path(folder, "main.cf")
            found = Postfix(_parse(version))
            if os.access(main_cf, os.R_OK):  # Without, postconf takes a second to complain.
                # -x: the administrator may have set one to $another.
                names = ("smtp_tls_security_level", "smtp_dns_support_level")
                found = Postfix(found.version, *await _values(command, "-x", names=names))
    except TimeoutError as error:
        raise NoPostfix(f"{command} gave no answer within {_DEADLINE:g} seconds") from error
    except OSError as error:
        raise NoPostfix(f"{command} cannot be run") from error
    return found


async def _values(command: str, option: str, *, names: Sequence[str]) -> list[str]:
    """What postconf says of parameters; an empty text for each that it does not speak of."""
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
        raise NoPostfix("postconf names no version")
    return int(version[1]), int(version[2])


def choose_style(
    setting: StyleSetting, postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]
) -> tuple[Style, str]:
    """The style for maps whose name asks for none, and the reason in words."""
    if setting is not StyleSetting.AUTO:
        return Style(setting.value), "configured"
    known = _who_asks(postfix, listeners)
    if isinstance(known, str):
        return Style.PLAIN, known
    if known.version < TLSRPT_SINCE:
        return Style.PLAIN, f"{known} does not know the attributes of tlsrpt"
    return Style.TLSRPT, f"{known} knows its attributes, and checks MX names by them"


def choose_dane(
    setting: DaneSetting, postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]
) -> tuple[DaneSetting, str]:
    """What becomes of DANE, and the reason in words."""
    if setting is not DaneSetting.AUTO:
        return setting, "configured"
    known = _who_asks(postfix, listeners)
    if isinstance(known, str):
        return DaneSetting.OFF, known
    if known.smtp_tls_security_level not in DANE_LEVELS:
        level = known.smtp_tls_security_level or "(empty)"
        return DaneSetting.OFF, f"{known} has smtp_tls_security_level = {level}"
    if known.smtp_dns_support_level != "dnssec":
        return DaneSetting.OFF, f"{known} applies no DANE without smtp_dns_support_level = dnssec"
    return DaneSetting.YIELD, f"{known} has smtp_tls_security_level = {known.smtp_tls_security_level}"


def _who_asks(postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]) -> Postfix | str:
    """The Postfix that will ask, or why it is unknown."""
    remote = [endpoint for endpoint in listeners if not _is_local(endpoint)]
    if remote:
        return f"{remote[0]} can be reached from other machines, whose Postfix is unknown"
    return str(postfix) if isinstance(postfix, NoPostfix) else postfix


def _is_local(endpoint: Endpoint) -> bool:
    return not isinstance(endpoint, InetEndpoint) or ipaddress.ip_address(endpoint.host).is_loopback
