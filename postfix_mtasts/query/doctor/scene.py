"""What was found out about one Postfix and the daemon, and the line that main.cf should have."""

import asyncio
import ipaddress
import os
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from postfix_mtasts.config import DEFAULT_PATH, Config, Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.postfix.installation import TLSRPT_SINCE, NoPostfix
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.tables import Table, is_elsewhere, is_same, tables
from postfix_mtasts.query.doctor.entries import entries_of
from postfix_mtasts.query.doctor.installed import Client, Installed, UnreadableError
from postfix_mtasts.query.doctor.routes import Routes
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.query.running.client import NO_DOMAIN, Running, ask_as_postfix

PARAMETER = "smtp_tls_policy_maps"
ALL_DEFERRED = "Postfix gets no answer and defers all mail"
_NONE_ASKS = "Postfix does not ask there yet; if it did, it would defer all mail"
_MAX_REPLY = 100  # Characters.
_WITHIN = 5.0  # Seconds.
_NOBODY = "doctor.invalid"  # No table should have an entry for this name (RFC 6761, 6.4).
# Names that nobody is likely to have. A table that has one of them has all of its top-level domain.
_TOP_LEVELS = (
    "com",
    "net",
    "org",
    "info",
    "biz",
    "edu",
    "gov",
    "de",
    "uk",
    "fr",
    "nl",
    "eu",
    "ru",
    "br",
    "it",
    "jp",
    "in",
)
_SAMPLES = tuple(f"postfix-mtasts-doctor.{domain}" for domain in _TOP_LEVELS)
_TLSPOL_PORT = 8642
_UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


@dataclass(frozen=True, slots=True)
class Scene:
    """The configuration of Postfix and of the daemon, and what a test query to each table led to."""

    postfix: Installed
    settings: Config
    file: str  # The configuration file of the daemon.
    running: Running | None  # What the running daemon says, if it can be asked.
    rules: ReplyRules  # How it answers Postfix, or how it would answer if it read the files now.
    routes: Routes
    # Sockets that do not answer as this daemon does: why, and what follows from that.
    failing: Mapping[Endpoint, tuple[str, str]]
    samples: Mapping[Table, Mapping[str, str]]  # What each table has for names that nobody has.
    entries: Mapping[Table, Mapping[str, str]]  # What each table has, if that can be listed.
    broken: Mapping[Table, str]  # Tables that cannot be used, and why.

    @property
    def sockets(self) -> tuple[Endpoint, ...]:
        """The sockets that the daemon serves; those of its configuration if it cannot be asked."""
        return self.running.sockets if self.running else self.settings.server.listen

    def reached(self, client: Client, table: Table) -> Endpoint | None:
        """The socket that a socketmap table asks. The path of a Unix socket is the one outside the chroot."""
        return _reached(self.postfix, client, table)

    def is_ours(self, client: Client, table: Table) -> bool:
        """Whether a table leads to this daemon, or to one on another machine."""
        endpoint = self.reached(client, table)
        return endpoint is not None and (self.listens(endpoint) or (is_elsewhere(endpoint) and not is_tlspol(table)))

    def listens(self, endpoint: Endpoint) -> bool:
        """Whether this daemon listens on a socket."""
        return any(is_same(listener, endpoint) for listener in self.sockets)

    def is_dead(self, table: Table) -> bool:
        """Whether a table cannot be used, and has no file from which postmap(1) could make it."""
        return table in self.broken and (table.file is None or not table.file.exists())

    def control(self, action: str) -> str:
        """The command that starts, restarts or reloads the daemon."""
        if self.file == DEFAULT_PATH and any(pathlib.Path(at, "postfix-mtasts.service").exists() for at in _UNITS):
            return f"systemctl {action} postfix-mtasts"
        if action == "reload" and self.running:
            return f"kill -HUP {self.running.pid}"
        option = "" if self.file == DEFAULT_PATH else f" --config {shlex.quote(self.file)}"
        stop = f"kill {self.running.pid}; tail --pid={self.running.pid} -f /dev/null; " if self.running else ""
        return f"{stop}postfix-mtasts-daemon{option}"

    def fix(self, client: Client) -> tuple[str, str]:
        """The command that makes a client ask this daemon."""
        return "run", self.postfix.set(client, {PARAMETER: self.wanted(client)})

    def wanted(self, client: Client) -> str:
        """The right value of smtp_tls_policy_maps: tables with exceptions, then this daemon, then catch-all tables."""
        listed = [table for table in tables(client[PARAMETER]) if not self.is_dead(table)]
        style = Style.TLSRPT if self.postfix.version >= TLSRPT_SINCE else Style.PLAIN
        name = "postfix" if self.rules.style is style else style.value
        ours = usual_table(self.sockets, name, self.postfix.queue)
        for table in listed:
            endpoint = self.reached(client, table)
            if endpoint and self.is_ours(client, table) and not self.listens(endpoint):
                ours = f"socketmap:{endpoint}:{style.value}"
        others = [table for table in listed if table.kind != "socketmap"]
        exceptions = [table.text for table in others if not self.samples.get(table)]
        return ", ".join([*exceptions, ours, *(table.text for table in others if self.samples.get(table))])

    def overruled(self, table: Table) -> tuple[str, str] | None:
        """The domains that a table has whoever owns them, such as `every domain`, and what it has for them."""
        found = self.samples.get(table, {})
        if _NOBODY in found:
            return "every domain", found[_NOBODY]
        ends = [f".{name.rpartition('.')[2]}" for name in found]
        return (f"every domain below {', '.join(ends)}", next(iter(found.values()))) if ends else None


async def observe(
    postfix: Installed, settings: Config, file: str, running: Running | None, rules: ReplyRules, routes: Routes
) -> Scene:
    """Send a test query to the daemon, and to every table of Postfix."""
    listed = [(client, table) for client in postfix.clients for table in tables(client[PARAMETER])]
    asked: dict[Endpoint, str] = dict.fromkeys(running.sockets if running else settings.server.listen[:1], "postfix")
    named = {endpoint: table.map_name for client, table in listed if (endpoint := _reached(postfix, client, table))}
    asked |= named
    answers = await asyncio.gather(
        *(
            _failure(endpoint, name, ALL_DEFERRED if endpoint in named else _NONE_ASKS)
            for endpoint, name in asked.items()
        )
    )
    others = list(dict.fromkeys(table for _, table in listed if table.kind != "socketmap"))
    samples, broken = await _look_up(postfix, others)
    return Scene(
        postfix=postfix,
        settings=settings,
        file=file,
        running=running,
        rules=rules,
        routes=routes,
        failing={endpoint: why for endpoint, why in zip(asked, answers, strict=True) if why},
        samples=samples,
        entries={table: await entries_of(postfix, table) for table in others if table not in broken},
        broken=broken,
    )


async def _look_up(postfix: Installed, others: Iterable[Table]) -> tuple[dict[Table, dict[str, str]], dict[Table, str]]:
    """What each table has for names that nobody has, and the tables that cannot be used."""
    samples, broken = {}, {}
    for table in others:
        try:
            samples[table] = await postfix.look_up(table.direct, _NOBODY, *_SAMPLES)
        except UnreadableError as error:
            if os.geteuid() == 0:  # Only root can read all that Postfix reads.
                broken[table] = str(error)
        except NoPostfix:
            pass
    return samples, broken


def usual_table(sockets: Iterable[Endpoint], name: str = "postfix", queue: pathlib.Path | None = None) -> str:
    """The table that leads to this daemon, whether smtp(8) runs in a chroot or not."""
    served = list(sockets)
    first = next((endpoint for endpoint in served if isinstance(endpoint, InetEndpoint)), served[0])
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


async def _failure(endpoint: Endpoint, map_name: str, silence: str) -> tuple[str, str] | None:
    """Why a socket does not answer as this daemon does, and what follows from that: `silence` if it says nothing.

    None if it does.
    """
    try:
        answer = await ask_as_postfix(endpoint, NO_DOMAIN, _WITHIN, map_name)
    except QueryError as error:
        return str(error), silence
    if answer.reply == "NOTFOUND ":
        return None
    return (
        f"{endpoint} answers {answer.reply[:_MAX_REPLY]!a}: another program listens there",
        "Postfix does what that program says",
    )
