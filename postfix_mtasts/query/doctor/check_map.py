"""Whether Postfix asks this daemon for a policy, and whether it can reach the daemon."""

import pathlib
import shlex
from collections.abc import Iterator

from postfix_mtasts.config import UnixEndpoint
from postfix_mtasts.postfix.installation import TLSRPT_SINCE
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client
from postfix_mtasts.query.doctor.scene import ALL_DEFERRED, PARAMETER, Scene, is_tlspol
from postfix_mtasts.query.doctor.sockets import obstacle
from postfix_mtasts.query.doctor.tables import Table, tables
from postfix_mtasts.query.output import Status

_MX_NAMES_SINCE = (3, 10, 5)  # smtp_tls_enforce_sts_mx_patterns
_NO_LOOKUPS = "Postfix looks up no MTA-STS policies and delivers as if there were none"


def check_map(scene: Scene) -> Iterator[Finding]:
    """What is wrong with smtp_tls_policy_maps of each client, and whether the daemon answers."""
    found = [finding for client in scene.postfix.clients for finding in _check(scene, client)]
    yield from found
    is_outside = any(finding.check == "chroot" for finding in found)
    for endpoint, (what, why) in scene.failing.items():
        if is_outside and not scene.listens(endpoint):
            continue  # The finding on the chroot is the reason.
        fix = ("run", f"postfix-mtasts-daemon{scene.option}") if scene.listens(endpoint) else ("", "")
        yield Finding("daemon", Status.ERROR, what, why, *fix)


def main_cf(scene: Scene) -> str:
    """The line for main.cf. It is the present one if nothing is wrong with it."""
    clients = (client for client in scene.postfix.clients if PARAMETER not in client.own)
    client = next(clients, Client((), chroot=False, settings=scene.postfix.settings))
    is_wrong = any((finding.place, finding.line) == scene.fix(client) for finding in _check(scene, client))
    return f"{PARAMETER} = {scene.wanted(client) if is_wrong else client[PARAMETER]}"


def _check(scene: Scene, client: Client) -> Iterator[Finding]:
    listed = tables(client[PARAMETER])
    mine = [table for table in listed if scene.is_ours(client, table)]
    if not listed:
        # An empty map of one service may be intended.
        status = Status.WARNING if PARAMETER in client.own else Status.ERROR
        yield Finding("map", status, f"{client.where(PARAMETER)} is empty", _NO_LOOKUPS, *scene.fix(client))
    elif not mine:
        yield _not_asked(scene, client, listed)
    else:
        yield from _other_tables(scene, client, listed)
    for table in listed:
        if table in scene.broken:
            what = f"{client.where(PARAMETER)}: {table.text} cannot be used: {scene.broken[table]}"
            yield Finding("table", Status.ERROR, what, ALL_DEFERRED)
    for table in mine:
        yield from _style(scene, client, table)
        yield from _access(scene, client, table)


def _not_asked(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Finding:
    """Why Postfix does not ask this daemon, for a list without a table that leads to it."""
    where, fix = client.where(PARAMETER), scene.fix(client)
    servers = [table for table in listed if table.kind == "socketmap"]
    for table in servers:
        if not isinstance(table.endpoint, UnixEndpoint):
            continue
        if table.endpoint != scene.reached(client, table) and scene.listens(table.endpoint):
            why = f"{client} cannot reach the socket from the chroot: {ALL_DEFERRED}"
            return Finding("chroot", Status.ERROR, f"{where}: {table.text} is outside the chroot", why, *fix)
        if scene.listens(UnixEndpoint(f"{scene.postfix.queue}{table.endpoint.path}")):
            who = "proxymap" if table.proxied else client
            why = f"outside a chroot, {who} cannot reach the socket by that path: {ALL_DEFERRED}"
            return Finding("chroot", Status.ERROR, f"{where}: {table.text} is a path inside a chroot", why, *fix)
    listening = f"this daemon, which listens on {', '.join(map(str, scene.settings.server.listen))}"
    if servers:
        what = f"{where}: {servers[0].text} does not lead to this daemon{_guess(servers[0])}"
        return Finding("map", Status.ERROR, what, f"Postfix does not ask {listening}", *fix)
    return Finding("map", Status.ERROR, f"{where} has no table for {listening}", _NO_LOOKUPS, *fix)


def _other_tables(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Iterator[Finding]:
    """What is wrong with the tables that do not lead to this daemon."""
    where, fix = client.where(PARAMETER), scene.fix(client)
    first = min(number for number, table in enumerate(listed) if scene.is_ours(client, table))
    for number, table in enumerate(listed):
        if table.kind == "socketmap" and not scene.is_ours(client, table):
            what = f"{where}: {table.text} does not lead to this daemon{_guess(table)}"
            if number < first:
                why = "it comes first, so Postfix asks this daemon only for domains without a policy there"
                yield Finding("second-server", Status.ERROR, what, why, *fix)
            else:
                why = "Postfix asks it for domains where this daemon has no policy or yields to DANE"
                yield Finding("second-server", Status.WARNING, what, why, *fix)
        elif number < first and table in scene.catch_alls:
            what = f"{where}: {table.text} comes first and has {scene.catch_alls[table]!a} for every domain"
            yield Finding("order", Status.ERROR, what, "Postfix never asks this daemon", *fix)


def _style(scene: Scene, client: Client, table: Table) -> Iterator[Finding]:
    endpoint = scene.reached(client, table)
    style = _style_of_map(table.map_name)
    if style is None and endpoint and scene.listens(endpoint):
        style = scene.rules.style
    postfix, where, fix = scene.postfix, f"{client.where(PARAMETER)}: {table.text}", scene.fix(client)
    if style is Style.TLSRPT and postfix.version < TLSRPT_SINCE:
        what = f"{where} gets replies in style tlsrpt, which {postfix} does not support"
        yield Finding("style", Status.ERROR, what, "mail to every domain that enforces MTA-STS is deferred", *fix)
    elif style is Style.PLAIN and postfix.version >= _MX_NAMES_SINCE:
        what = f"{where} gets replies in style plain, though {postfix} supports tlsrpt"
        yield Finding(
            "style",
            Status.WARNING,
            what,
            "Postfix neither checks MX names against the policy nor reports on it (TLSRPT)",
            *fix,
        )


def _access(scene: Scene, client: Client, table: Table) -> Iterator[Finding]:
    """Whether Postfix has permission to ask a table that leads to this daemon."""
    endpoint, where = scene.reached(client, table), client.where(PARAMETER)
    if table.proxied and table.text not in {
        one.text for one in tables(scene.postfix.settings.get("proxy_read_maps", ""))
    }:
        what = f"{where}: proxymap refuses {table.text}, because it is not in proxy_read_maps"
        command = f'postconf "proxy_read_maps = $(postconf -h proxy_read_maps) {table.text}"'
        yield Finding("proxymap", Status.ERROR, what, ALL_DEFERRED, "run", command)
    if not isinstance(endpoint, UnixEndpoint):
        return
    root = scene.postfix.queue if client.chroot and not table.proxied else pathlib.Path("/")
    found = obstacle(endpoint.path, scene.postfix.settings.get("mail_owner", ""), root)
    if found:
        what = f"{endpoint}: the user {scene.postfix.settings['mail_owner']} cannot"
        if found.is_socket:
            fix = f"{scene.file}, [server]", "socket_mode = 0o666"
            what = f"{what} write to the socket {found.place} ({found.mode})"
        else:
            fix = "run", f"chmod o+x {shlex.quote(str(found.place))}"
            what = f"{what} enter the directory {found.place} ({found.mode})"
        yield Finding("permissions", Status.ERROR, what, ALL_DEFERRED, *fix)


def _guess(table: Table) -> str:
    return ", perhaps to postfix-tlspol" if is_tlspol(table) else ""


def _style_of_map(name: str) -> Style | None:
    """The reply style that the name of a map chooses, or None if reply.style does."""
    styles = {ReplyRules(style).of_map(name.encode()).style for style in Style}
    return styles.pop() if len(styles) == 1 else None
