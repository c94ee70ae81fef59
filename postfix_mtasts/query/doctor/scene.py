"""Which sockets Postfix asks, on which ones the daemon listens, and the line that main.cf should have."""

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
ALL_DEFERRED = "Postfix gets no answer and defers all mail"
_MAX_REPLY = 100  # Characters.
_WITHIN = 5.0  # Seconds.
_KEY = ".doctor"  # A key that begins with a dot has no policy, so the daemon answers without a lookup.
_NOBODY = "doctor.invalid"  # No table should have an entry for this name (RFC 6761, 6.4).
_TLSPOL_PORT = 8642


@dataclass(frozen=True, slots=True)
class Scene:
    """The configuration of Postfix and of the daemon, and what a test query to each table led to."""

    postfix: Installed
    settings: Config
    file: str  # The configuration file of the daemon.
    rules: ReplyRules
    # Sockets that do not answer as this daemon does: why, and what follows from that.
    failing: Mapping[Endpoint, tuple[str, str]]
    catch_alls: Mapping[Table, str]  # Tables with an entry for every domain, and that entry.
    broken: Mapping[Table, str]  # Tables that cannot be used, and why.

    def reached(self, client: Client, table: Table) -> Endpoint | None:
        """The socket that a socketmap table asks. The path of a Unix socket is the one outside the chroot."""
        return _reached(self.postfix, client, table)

    def is_ours(self, client: Client, table: Table) -> bool:
        """Whether a table leads to this daemon, or to one on another machine."""
        endpoint = self.reached(client, table)
        return endpoint is not None and (self.listens(endpoint) or (is_elsewhere(endpoint) and not is_tlspol(table)))

    def listens(self, endpoint: Endpoint) -> bool:
        """Whether this daemon listens on a socket."""
        return any(is_same(listener, endpoint) for listener in self.settings.server.listen)

    @property
    def option(self) -> str:
        """The option that starts the daemon with this configuration file; empty for the default file."""
        return "" if self.file == DEFAULT_PATH else f" --config {shlex.quote(self.file)}"

    def fix(self, client: Client) -> tuple[str, str]:
        """The place and the line that make a client ask this daemon."""
        return self.postfix.line(client, PARAMETER, self.wanted(client))

    def wanted(self, client: Client) -> str:
        """The right value of smtp_tls_policy_maps: tables with exceptions, then this daemon, then catch-all tables."""
        listed = tables(client[PARAMETER])
        style = Style.TLSRPT if self.postfix.version >= TLSRPT_SINCE else Style.PLAIN
        name = "postfix" if self.rules.style is style else style.value
        ours = usual_table(self.settings, name, self.postfix.queue)
        for table in listed:
            endpoint = self.reached(client, table)
            if endpoint and self.is_ours(client, table) and not self.listens(endpoint):
                ours = f"socketmap:{endpoint}:{style.value}"
        others = [table for table in listed if table.kind != "socketmap"]
        exceptions = [table.text for table in others if table not in self.catch_alls]
        return ", ".join([*exceptions, ours, *(table.text for table in others if table in self.catch_alls)])


async def observe(postfix: Installed, settings: Config, file: str, rules: ReplyRules) -> Scene:
    """Send a test query to the daemon, and to every table of Postfix."""
    listed = [(client, table) for client in postfix.clients for table in tables(client[PARAMETER])]
    asked: dict[Endpoint, str] = {settings.server.listen[0]: "postfix"}
    asked |= {endpoint: table.map_name for client, table in listed if (endpoint := _reached(postfix, client, table))}
    answers = await asyncio.gather(*(_failure(endpoint, name) for endpoint, name in asked.items()))
    others = list(dict.fromkeys(table for _, table in listed if table.kind != "socketmap"))
    found = await asyncio.gather(*(postfix.look_up(table.direct, _NOBODY) for table in others), return_exceptions=True)
    entries = list(zip(others, found, strict=True))
    return Scene(
        postfix=postfix,
        settings=settings,
        file=file,
        rules=rules,
        failing={endpoint: why for endpoint, why in zip(asked, answers, strict=True) if why},
        catch_alls={table: value for table, value in entries if isinstance(value, str)},
        # Only root can read all that Postfix reads.
        broken={table: str(why) for table, why in entries if isinstance(why, UnreadableError) and os.geteuid() == 0},
    )


def usual_table(settings: Config, name: str = "postfix", queue: pathlib.Path | None = None) -> str:
    """The table that leads to this daemon, whether smtp(8) runs in a chroot or not."""
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
    """Whether a table leads to the default port of postfix-tlspol."""
    endpoint = table.endpoint
    return isinstance(endpoint, InetEndpoint) and endpoint.port == _TLSPOL_PORT


def _reached(postfix: Installed, client: Client, table: Table) -> Endpoint | None:
    endpoint = table.endpoint
    if not isinstance(endpoint, UnixEndpoint):
        return endpoint
    if endpoint.path.startswith("/") and (table.proxied or not client.chroot):
        return endpoint
    return UnixEndpoint(str(postfix.queue / endpoint.path.lstrip("/")))


async def _failure(endpoint: Endpoint, map_name: str) -> tuple[str, str] | None:
    """Why a socket does not answer as this daemon does, and what follows from that. None if it does."""
    try:
        answer = await ask_as_postfix(endpoint, _KEY, _WITHIN, map_name)
    except QueryError as error:
        return str(error), ALL_DEFERRED
    if answer.reply == "NOTFOUND ":
        return None
    return (
        f"{endpoint} answers {answer.reply[:_MAX_REPLY]!a}: another program listens there",
        "Postfix does what that program says",
    )
