"""The Postfix on this machine, as postconf(1) shows it: main.cf, and the services of master.cf that run smtp(8)."""

import errno
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from postfix_mtasts.postfix.installation import DEADLINE, PATH, NoPostfix, run

_CHROOT_LEVEL = 1  # From this compatibility_level on, "-" in the chroot column of master.cf means no (master(5)).
# The parameters by which Postfix chooses where mail goes.
ROUTES = (
    "default_transport",
    "relayhost",
    "sender_dependent_default_transport_maps",
    "sender_dependent_relayhost_maps",
    "transport_maps",
)
_OF_THE_MACHINE = (
    "compatibility_level",
    "mail_owner",
    "multi_instance_directories",
    "proxy_read_maps",
    "queue_directory",
    *ROUTES,
)
# The parameters of smtp(8) that matter for policies. Each service of master.cf may override them.
_OF_A_CLIENT = (
    "smtp_discard_ehlo_keywords",
    "smtp_dns_support_level",
    "smtp_enforce_tls",
    "smtp_fallback_relay",
    "smtp_host_lookup",
    "smtp_tls_CAfile",
    "smtp_tls_CApath",
    "smtp_tls_connection_reuse",
    "smtp_tls_dane_insecure_mx_policy",
    "smtp_tls_enforce_sts_mx_patterns",
    "smtp_tls_exclude_ciphers",
    "smtp_tls_mandatory_ciphers",
    "smtp_tls_mandatory_exclude_ciphers",
    "smtp_tls_mandatory_protocols",
    "smtp_tls_per_site",
    "smtp_tls_policy_maps",
    "smtp_tls_security_level",
    "smtp_tls_wrappermode",
    "smtp_use_tls",
    "tls_append_default_CA",
    "tls_high_cipherlist",
    "tls_medium_cipherlist",
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
    """A Postfix and its configuration. `path` lists the directories of its commands.

    `option` tells these commands which of several instances is meant; it is empty for the usual one.
    """

    version: tuple[int, int, int]
    folder: pathlib.Path
    settings: Mapping[str, str]
    clients: tuple[Client, ...]
    services: frozenset[str]  # Of master.cf, such as `tlsproxy/unix`.
    types: frozenset[str]  # Of the tables that it supports.
    path: str
    option: str = ""

    def __str__(self) -> str:
        return f"Postfix {'.'.join(map(str, self.version))}"

    @property
    def queue(self) -> pathlib.Path:
        """The queue directory, which is the root directory of services in a chroot."""
        return pathlib.Path(self.settings["queue_directory"])

    @property
    def others(self) -> tuple[pathlib.Path, ...]:
        """The configuration folders of its other instances (postmulti(1))."""
        return tuple(map(pathlib.Path, self.settings.get("multi_instance_directories", "").replace(",", " ").split()))

    def set(self, client: Client, settings: Mapping[str, str]) -> str:
        """The command that gives parameters these values for a client, in main.cf or in master.cf."""
        main = [f"{name} = {value}" for name, value in settings.items() if name not in client.own]
        master = [
            f"{service}/{name} = {value}"
            for name, value in settings.items()
            if name in client.own
            for service in client.names
        ]
        edits = [f"{option} {shlex.join(words)}" for option, words in (("-e", main), ("-P", master)) if words]
        return " && ".join([*(f"postconf{self.option} {edit}" for edit in edits), self.reload])

    def edit(self, words: str) -> str:
        """The command that runs postconf(1) with these words, and makes Postfix read its configuration again."""
        return f"postconf{self.option} {words} && {self.reload}"

    @property
    def reload(self) -> str:
        """The command that makes Postfix read its configuration again."""
        return f"postfix{self.option} reload"

    async def look_up(self, table: str, *keys: str) -> dict[str, str]:
        """What postmap(1) finds in a table, for those keys that it has. Raises UnreadableError if it cannot be used."""
        output = await self._postmap("-q", "-", table, given="".join(f"{key}\n" for key in keys))
        pairs = (line.partition("\t") for line in output.splitlines())
        return {key: value for key, _, value in pairs}

    async def entries(self, table: str) -> dict[str, str]:
        """All entries of a table that postmap(1) can list. Raises UnreadableError if it cannot."""
        pairs = (line.partition("\t") for line in (await self._postmap("-s", table)).splitlines())
        return {key: value for key, _, value in pairs}

    async def _postmap(self, *words: str, given: str = "") -> str:
        command = shutil.which("postmap", path=self.path)
        if not command:
            raise UnreadableError("there is no postmap command on this machine")
        return await _output(command, *shlex.split(self.option), *words, given=given)


async def installed(path: str = PATH, folder: pathlib.Path | None = None) -> Installed:
    """Read the configuration with the first postconf in `path`. Raises NoPostfix and UnreadableError.

    `folder` is that of another instance than the usual one.
    """
    command = shutil.which("postconf", path=path)
    if not command:
        raise NoPostfix("there is no postconf command on this machine")
    option = f" -c {shlex.quote(str(folder))}" if folder else ""

    async def ask(*words: str) -> dict[str, str]:
        return _settings(await _output(command, *shlex.split(option), *words))

    built_in = _settings(await _output(command, "-d", "mail_version", "config_directory"))
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", built_in.get("mail_version", ""))
    if not numbers:
        raise NoPostfix("postconf prints no version")
    folder = folder or pathlib.Path(built_in.get("config_directory", "/etc/postfix"))
    for file in (folder / "main.cf", folder / "master.cf"):
        if not file.exists():
            raise UnreadableError(f"{file}: no such file")
        if not os.access(file, os.R_OK):
            raise UnreadableError(f"{file} cannot be read", "sudo postfix-mtasts-query doctor")
    settings = await ask("-x", *_OF_THE_MACHINE, *_OF_A_CLIENT)
    if "queue_directory" not in settings:
        raise UnreadableError(f"{command} prints no settings")
    fields = await ask("-F", "*/*/command", "*/*/chroot")
    return Installed(
        version=(int(numbers[1]), int(numbers[2]), int(numbers[3] or 0)),
        folder=folder,
        settings=settings,
        clients=_clients(settings, fields, await ask("-Px")),
        services=frozenset(name.rpartition("/")[0] for name in fields),
        types=frozenset((await _output(command, "-m")).split()),
        path=path,
        option=option,
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


async def _output(command: str, *words: str, given: str = "") -> str:
    """What a command prints on standard output. Raises UnreadableError with its error message, and NoPostfix."""
    try:
        done = await run(command, *words, given=given)
    except TimeoutError as error:
        raise UnreadableError(f"{command}: no answer within {DEADLINE:g} s") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise NoPostfix(f"{command} cannot be run") from error
    said = done.errors.strip()
    # postmap(1) has exit status 1 also if it finds nothing, which is no error.
    if done.status and ("fatal: " in said or "error: " in said):
        # The line is `postconf: fatal: …`.
        raise UnreadableError(said.splitlines()[-1].split(": ", 2)[-1])
    return done.output.strip()
