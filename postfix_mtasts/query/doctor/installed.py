"""The Postfix on this machine, as postconf(1) shows it: main.cf, and the services of master.cf that run smtp(8)."""

import asyncio
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_mtasts.postfix.installation import PATH, NoPostfix

_DEADLINE = 5.0  # Seconds for one command.
_CHROOT_LEVEL = 1  # From this compatibility_level on, "-" in the chroot column of master.cf means no (master(5)).
_OF_THE_MACHINE = ("compatibility_level", "mail_owner", "proxy_read_maps", "queue_directory", "relayhost")
# The parameters of smtp(8) that matter for policies. Each service of master.cf may override them.
_OF_A_CLIENT = (
    "smtp_dns_support_level",
    "smtp_enforce_tls",
    "smtp_fallback_relay",
    "smtp_tls_CAfile",
    "smtp_tls_CApath",
    "smtp_tls_connection_reuse",
    "smtp_tls_dane_insecure_mx_policy",
    "smtp_tls_enforce_sts_mx_patterns",
    "smtp_tls_per_site",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_use_tls",
    "tls_append_default_CA",
)


class UnreadableError(Exception):
    """Postfix's configuration cannot be read. The message says why, and `remedy` is a command that may help."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Client:
    """Services of master.cf that run smtp(8) with the same settings, such as `relay/unix`.

    If no service runs smtp(8), there is one client without names, with the settings of main.cf.
    """

    names: tuple[str, ...]
    chroot: bool
    settings: Mapping[str, str]
    own: frozenset[str] = frozenset()  # The parameters that master.cf overrides.

    def __getitem__(self, parameter: str) -> str:
        """The value for this service, with all $ expanded; empty if this Postfix does not have the parameter."""
        return self.settings.get(parameter, "")

    def __str__(self) -> str:
        return ", ".join(self.names) or "smtp/unix"

    @property
    def level(self) -> str:
        """The default TLS level of this service, also if an obsolete parameter sets it; may be empty."""
        if self["smtp_tls_security_level"]:
            return self["smtp_tls_security_level"].lower()
        if self["smtp_enforce_tls"] == "yes":
            return "encrypt"
        return "may" if self["smtp_use_tls"] == "yes" else ""

    def where(self, parameter: str) -> str:
        """The name of a parameter, followed by the services if master.cf overrides it there."""
        return f"{parameter} of {self}" if parameter in self.own else parameter


@dataclass(frozen=True, slots=True)
class Installed:
    """A Postfix and its configuration. `path` lists the directories of its commands."""

    version: tuple[int, int, int]
    folder: pathlib.Path
    settings: Mapping[str, str]
    clients: tuple[Client, ...]
    services: frozenset[str]  # Of master.cf, such as `tlsproxy/unix`.
    path: str

    def __str__(self) -> str:
        return f"Postfix {'.'.join(map(str, self.version))}"

    @property
    def queue(self) -> pathlib.Path:
        """The queue directory, which is the root directory of services in a chroot."""
        return pathlib.Path(self.settings["queue_directory"])

    def line(self, client: Client, parameter: str, value: str) -> tuple[str, str]:
        """The place and the line that set a parameter for a client: in main.cf, or with postconf(1) for master.cf."""
        if parameter not in client.own:
            return str(self.folder / "main.cf"), f"{parameter} = {value}"
        words = (shlex.quote(f"{name}/{parameter} = {value}") for name in client.names)
        return "run", f"postconf -P {' '.join(words)}"

    async def look_up(self, table: str, key: str) -> str | None:
        """What postmap(1) finds in a table for a key. Raises UnreadableError if the table cannot be used."""
        command = shutil.which("postmap", path=self.path)
        if not command:
            raise UnreadableError("there is no postmap command on this machine")
        return await _output(command, "-q", key, table) or None


async def installed(path: str = PATH) -> Installed:
    """Read the configuration with the first postconf in `path`. Raises NoPostfix and UnreadableError."""
    command = shutil.which("postconf", path=path)
    if not command:
        raise NoPostfix("there is no postconf command on this machine")
    built_in = _settings(await _output(command, "-d", "mail_version", "config_directory"))
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", built_in.get("mail_version", ""))
    if not numbers:
        raise NoPostfix("postconf prints no version")
    folder = pathlib.Path(built_in.get("config_directory", "/etc/postfix"))
    for file in (folder / "main.cf", folder / "master.cf"):
        if not file.exists():
            raise UnreadableError(f"{file}: no such file")
        if not os.access(file, os.R_OK):
            raise UnreadableError(f"{file} cannot be read", "sudo postfix-mtasts-query doctor")
    settings = _settings(await _output(command, "-x", *_OF_THE_MACHINE, *_OF_A_CLIENT))
    if "queue_directory" not in settings:
        raise UnreadableError(f"{command} prints no settings")
    fields = _settings(await _output(command, "-F", "*/*/command", "*/*/chroot"))
    return Installed(
        version=(int(numbers[1]), int(numbers[2]), int(numbers[3] or 0)),
        folder=folder,
        settings=settings,
        clients=_clients(settings, fields, _settings(await _output(command, "-Px"))),
        services=frozenset(name.rpartition("/")[0] for name in fields),
        path=path,
    )


def _clients(settings: Mapping[str, str], fields: Mapping[str, str], own: Mapping[str, str]) -> tuple[Client, ...]:
    """The clients among the services.

    `fields` are the commands and chroot columns of master.cf, `own` are the parameters that master.cf overrides.
    """
    level = int((re.match(r"\d+", settings.get("compatibility_level", "")) or "0")[0])
    usual = "n" if level >= _CHROOT_LEVEL else "y"
    alike: dict[tuple[bool, frozenset[tuple[str, str]]], list[str]] = {}
    for field, command in fields.items():
        name, _, kind = field.rpartition("/")
        if kind == "command" and command.split()[:1] == ["smtp"]:
            chroot = fields.get(f"{name}/chroot", "-").replace("-", usual) == "y"
            mine = ((one, own.get(f"{name}/{one}")) for one in _OF_A_CLIENT)
            key = chroot, frozenset((one, value) for one, value in mine if value is not None)
            alike.setdefault(key, []).append(name)
    return tuple(
        Client(tuple(names), chroot, {**settings, **dict(mine)}, frozenset(dict(mine)))
        for (chroot, mine), names in alike.items()
    ) or (Client((), chroot=False, settings=settings),)


def _settings(output: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in output.split("\n") if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


async def _output(command: str, *words: str) -> str:
    """What a command prints on standard output. Raises UnreadableError with its error message, and NoPostfix."""
    process = None
    try:
        async with asyncio.timeout(_DEADLINE):
            process = await asyncio.create_subprocess_exec(
                *(command, *words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, complaints = await process.communicate()
    except TimeoutError as error:
        raise UnreadableError(f"{command}: no answer within {_DEADLINE:g} s") from error
    except OSError as error:
        raise NoPostfix(f"{command} cannot be run") from error
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()  # The event loop may be closed next.
    said = complaints.decode("utf-8", "replace").strip()
    # postmap(1) has exit status 1 also if it finds nothing, which is no error.
    if process.returncode and ("fatal: " in said or "error: " in said):
        # The line is `postconf: fatal: …`.
        raise UnreadableError(said.splitlines()[-1].split(": ", 2)[-1])
    return output.decode("utf-8", "replace").strip()
