"""Postfix and the daemon side by side: who asks whom, and what is to stand in main.cf."""

import asyncio
import ipaddress
import os
import pathlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from postfix_mtasts.config import DEFAULT_PATH, Config, Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.installation import TLSRPT_SINCE
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.query.doctor.installed import Client, Installed, UnreadableError
from postfix_mtasts.query.doctor.sockets import is_elsewhere, is_same
from postfix_mtasts.query.doctor.tables import Table, tables
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.query.running.client import ask_as_postfix

PARAMETER = "smtp_tls_policy_maps"
ALL_WAITS = "Postfix gets no answer, and all mail stays in the queue"
_MAX_REPLY = 100  # Characters.
_WITHIN = 5.0  # Seconds.
_KEY = ".doctor"  # Has no policy, and costs the daemon no lookup.
_NOBODY = "doctor.invalid"  # A domain that no table has by its name (RFC 6761, 6.4).
_TLSPOL_PORT = 8642


@dataclass(frozen=True, slots=True)
class Scene:
    """Postfix, the daemon, and what was tried: who does not answer, what tables have for a domain that is nowhere."""

    postfix: Installed
    settings: Config
    file: str  # Where the settings are from.
    rules: ReplyRules
    silent: Mapping[Endpoint, tuple[str, str]]  # Why, and what follows.
    catches: Mapping[Table, str]
    broken: Mapping[Table, str]

    def reached(self, client: Client, table: Table) -> Endpoint | None:
        """Whom a socketmap asks, with the path of a Unix socket as it is outside of the chroot."""
        return _reached(self.postfix, client, table)

    def is_ours(self, client: Client, table: Table) -> bool:
        """Whether a table asks this daemon, or one on another machine."""
        endpoint = self.reached(client, table)
        return endpoint is not None and (self.listens(endpoint) or (is_elsewhere(endpoint) and not is_tlspol(table)))

    def listens(self, endpoint: Endpoint) -> bool:
        """Whether this daemon listens there."""
        return any(is_same(listener, endpoint) for listener in self.settings.server.listen)

    @property
    def option(self) -> str:
        """What the daemon is to be started with for these settings."""
        return "" if self.file == DEFAULT_PATH else f" --config {shlex.quote(self.file)}"

    def fix(self, client: Client) -> tuple[str, str]:
        """The place and the line that have a client ask as it should."""
        return self.postfix.line(client, PARAMETER, self.wanted(client))

    def wanted(self, client: Client) -> str:
        """The list as it should be: our table, after those with exceptions, before those that have all domains."""
        listed = tables(client[PARAMETER])
        style = Style.TLSRPT if self.postfix.version >= TLSRPT_SINCE else Style.PLAIN
        name = "postfix" if self.rules.style is style else style.value
        ours = usual_table(self.settings, name, self.postfix.queue)
        for table in listed:
            endpoint = self.reached(client, table)
            if endpoint and self.is_ours(client, table) and not self.listens(endpoint):
                ours = f"socketmap:{endpoint}:{style.value}"
        others = [table for table in listed if table.kind != "socketmap"]
        exceptions = [table.text for table in others if table not in self.catches]
        return ", ".join([*exceptions, ours, *(table.text for table in others if table in self.catches)])


async def look(postfix: Installed, settings: Config, file: str, rules: ReplyRules) -> Scene:
    """Ask the daemon, and those tables that Postfix has beside it."""
    listed = [(client, table) for client in postfix.clients for table in tables(client[PARAMETER])]
    asked: dict[Endpoint, str] = {settings.server.listen[0]: "postfix"}
    asked |= {endpoint: table.map_name for client, table in listed if (endpoint := _reached(postfix, client, table))}
    answers = await asyncio.gather(*(_silence(endpoint, name) for endpoint, name in asked.items()))
    others = list(dict.fromkeys(table for _, table in listed if table.kind != "socketmap"))
    found = await asyncio.gather(*(postfix.look_up(table.direct, _NOBODY) for table in others), return_exceptions=True)
    entries = list(zip(others, found, strict=True))
    return Scene(
        postfix=postfix,
        settings=settings,
        file=file,
        rules=rules,
        silent={endpoint: why for endpoint, why in zip(asked, answers, strict=True) if why},
        catches={table: value for table, value in entries if isinstance(value, str)},
        # Others than root may see less than Postfix does.
        broken={table: str(why) for table, why in entries if isinstance(why, UnreadableError) and os.geteuid() == 0},
    )


def usual_table(settings: Config, name: str = "postfix", queue: pathlib.Path | None = None) -> str:
    """The table that asks this daemon from wherever smtp(8) runs."""
    inet = [endpoint for endpoint in settings.server.listen if isinstance(endpoint, InetEndpoint)]
    first = inet[0] if inet else settings.server.listen[0]
    if isinstance(first, InetEndpoint):
        address = ipaddress.ip_address(first.host)
        loopback = "127.0.0.1" if address.version == 4 else "::1"
        return f"socketmap:{replace(first, host=loopback) if address.is_unspecified else first}:{name}"
    path = pathlib.Path(first.path)
    if queue and path.is_relative_to(queue):
        return f"socketmap:unix:{path.relative_to(queue)}:{name}"
    return f"proxy:socketmap:unix:{path}:{name}"


def is_tlspol(table: Table) -> bool:
    """Whether a table asks where postfix-tlspol listens by default."""
    endpoint = table.endpoint
    return isinstance(endpoint, InetEndpoint) and endpoint.port == _TLSPOL_PORT


def _reached(postfix: Installed, client: Client, table: Table) -> Endpoint | None:
    endpoint = table.endpoint
    if not isinstance(endpoint, UnixEndpoint):
        return endpoint
    if endpoint.path.startswith("/") and (table.proxied or not client.chroot):
        return endpoint
    return UnixEndpoint(str(postfix.queue / endpoint.path.lstrip("/")))


async def _silence(endpoint: Endpoint, map_name: str) -> tuple[str, str] | None:
    """Why an endpoint does not answer as this daemon does, and what follows; None if it does."""
    try:
        asked = await ask_as_postfix(endpoint, _KEY, _WITHIN, map_name)
    except QueryError as error:
        return str(error), ALL_WAITS
    if asked.reply == "NOTFOUND ":
        return None
    return (
        f"{endpoint}: {asked.reply[:_MAX_REPLY]!a} is no answer of this daemon",
        "Postfix is told what another program says",
    )
