"""What the Postfix on this machine can take in, asked of postconf(1), and what follows from it.

No Postfix here, or one that does not answer, is normal: it may be on another machine. Then the safe choice is made, and
the log says why.
"""

import asyncio
import ipaddress
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint, StyleSetting
from postfix_mtasts.reply import Style

_DEADLINE = 5.0  # Seconds.
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_TLSRPT_SINCE = (3, 10)  # The first version that knows policy_type= and its like; earlier ones defer the mail.


class NoPostfix(Exception):  # noqa: N818 - nothing has gone wrong
    """There is no Postfix on this machine to ask; says what was found instead."""


@dataclass(frozen=True, slots=True)
class Postfix:
    """The Postfix on this machine."""

    version: tuple[int, int]

    def __str__(self) -> str:
        return f"Postfix {'.'.join(map(str, self.version))}"


async def local_postfix(path: str = _PATH) -> Postfix:
    """Ask the postconf that is found first in the folders of `path`. Raises NoPostfix."""
    command = shutil.which("postconf", path=path)
    if not command:
        raise NoPostfix("no postconf on this machine")
    try:
        async with asyncio.timeout(_DEADLINE):
            # -d: the version is built in, and main.cf need not be readable.
            process = await asyncio.create_subprocess_exec(
                *(command, "-d", "-h", "mail_version"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
    except TimeoutError as error:
        raise NoPostfix(f"{command} gave no answer within {_DEADLINE:g} seconds") from error
    except OSError as error:
        raise NoPostfix(f"{command} cannot be run") from error
    return _parse(output.decode("ascii", "replace"))


def _parse(output: str) -> Postfix:
    version = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", output)
    if not version:
        raise NoPostfix("postconf names no version")
    return Postfix((int(version[1]), int(version[2])))


def choose_style(
    setting: StyleSetting, postfix: Postfix | NoPostfix, listeners: Sequence[Endpoint]
) -> tuple[Style, str]:
    """The style for maps whose name asks for none, and the reason in words."""
    if setting is not StyleSetting.AUTO:
        return Style(setting.value), "configured"
    remote = [endpoint for endpoint in listeners if not _is_local(endpoint)]
    if remote:
        return Style.PLAIN, f"{remote[0]} can be reached from other machines, whose Postfix is unknown"
    if isinstance(postfix, NoPostfix):
        return Style.PLAIN, str(postfix)
    if postfix.version < _TLSRPT_SINCE:
        return Style.PLAIN, f"{postfix} does not know the attributes of tlsrpt"
    return Style.TLSRPT, f"{postfix} knows its attributes, and checks MX names by them"


def _is_local(endpoint: Endpoint) -> bool:
    return not isinstance(endpoint, InetEndpoint) or ipaddress.ip_address(endpoint.host).is_loopback
