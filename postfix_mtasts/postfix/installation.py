"""Asks postconf(1) which Postfix this machine has, and chooses the reply style and the use of DANE accordingly.

It is not an error if there is no Postfix or it does not answer, because Postfix may be on another machine. The safe
choice is made in this case, and the log says why.
"""

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import re
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.config import DaneSetting, Endpoint, InetEndpoint, StyleSetting
from postfix_mtasts.postfix.reply import Style

DEADLINE = 5.0  # Seconds for one command.
_MAX_OUTPUT = 2**20  # Octets of what a command prints.
_END_WITHIN = 1.0  # Seconds for a command to end when it was killed.
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
DANE_LEVELS = ("dane", "dane-only")
CLIENT_SETTINGS = ("smtp_helo_name", "smtp_tls_CAfile", "smtp_tls_CApath", "smtp_tls_enforce_sts_mx_patterns")
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
        async with asyncio.timeout(DEADLINE):
            # -d prints the built-in version, and does not need a readable main.cf.
            version, folder = await _values(command, "-d", names=("mail_version", "config_directory"))
            main_cf = pathlib.Path(folder, "main.cf")
            found = Postfix(_parse(version))
            if os.access(main_cf, os.R_OK):  # If main.cf is not readable, postconf takes a second to say so.
                # -x expands $name in a value.
                names = ("smtp_tls_security_level", "smtp_dns_support_level")
                found = Postfix(found.version, *await _values(command, "-x", names=names))
    except TimeoutError as error:
        raise NoPostfix(f"{command} did not answer within {DEADLINE:g} s") from error
    except OSError as error:
        raise NoPostfix(f"{command} cannot be run") from error
    return found


async def _values(command: str, option: str, *, names: Sequence[str]) -> list[str]:
    """Return the values that postconf prints for parameters, and an empty text for each that it does not print."""
    lines = [line.strip() for line in (await run(command, option, "-h", *names)).output.split("\n")]
    return (lines + [""] * len(names))[: len(names)]


@dataclass(frozen=True, slots=True)
class Client:
    """How Postfix connects to MX hosts, by main.cf. Without a Postfix, `helo` is this machine's name."""

    helo: str
    ca_file: str = ""
    ca_path: str = ""
    checks_patterns: bool | None = None  # Whether it checks MX names against the patterns that it is sent.

    def judges_by_hostname(self, style: Style) -> bool:
        """Whether a certificate must be for the MX host's own name, if the policy is answered in this style.

        Otherwise it must be for a name in the policy. A Postfix of which nothing is known is taken for one that checks.
        """
        return style is Style.TLSRPT and self.checks_patterns is not False


def client_of(values: Mapping[str, str]) -> Client:
    """The client that these values of `CLIENT_SETTINGS` make."""
    helo = values.get("smtp_helo_name") or socket.gethostname()
    checks = values.get("smtp_tls_enforce_sts_mx_patterns") == "yes" if values else None
    return Client(helo, values.get("smtp_tls_CAfile", ""), values.get("smtp_tls_CApath", ""), checks)


async def settings(names: Sequence[str], path: str = PATH) -> dict[str, str]:
    """Ask the first postconf(1) in the folders of `path` for settings. One that does not answer is taken for none."""
    command = shutil.which("postconf", path=path)
    if not command:
        return {}
    try:
        # A parameter that this version of Postfix does not know is left out.
        lines = (await run(command, "-x", *names)).output.splitlines()
    except (OSError, TimeoutError):
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


@dataclass(frozen=True, slots=True)
class Done:
    """The exit status of a command, and what it printed on standard output and standard error."""

    status: int
    output: str
    errors: str


class _Command(asyncio.SubprocessProtocol):
    """Collects what a command prints, until it has ended and nobody can print any more."""

    def __init__(self) -> None:
        self.printed = {1: bytearray(), 2: bytearray()}
        self.exited, self.ended = asyncio.Event(), asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.printed[fd] += data[: _MAX_OUTPUT - len(self.printed[fd])]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


async def run(command: str, *words: str, given: str = "") -> Done:
    """Run a command. `given`, of at most 4096 octets, is its standard input.

    Raises TimeoutError after 5 seconds, and OSError.
    """
    stdin, writer = os.pipe()
    os.write(writer, given.encode())  # A pipe takes that at once.
    os.close(writer)
    try:
        transport, process = await asyncio.get_running_loop().subprocess_exec(
            _Command, command, *words, stdin=stdin, start_new_session=True
        )
    finally:
        os.close(stdin)
    try:
        async with asyncio.timeout(DEADLINE):
            await process.ended.wait()
    finally:
        if not process.ended.is_set():
            await _kill(transport.get_pid(), process)
        transport.close()  # What the command has started may still hold its pipes.
    output, errors = (bytes(printed).decode("utf-8", "replace") for printed in process.printed.values())
    return Done(transport.get_returncode() or 0, output, errors)


async def _kill(group: int, process: _Command) -> None:
    """Kill a command and what it has started. Wait until it has ended, but not for long: the kernel may hold it up."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_WITHIN):
            await process.exited.wait()


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
