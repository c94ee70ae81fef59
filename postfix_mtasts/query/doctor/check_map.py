"""Whether Postfix asks this daemon for a policy, in the right style, and may connect to it."""

import pathlib
import shlex
from collections.abc import Iterator

from postfix_mtasts.config import UnixEndpoint
from postfix_mtasts.postfix.installation import TLSRPT_SINCE
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.tables import Table, is_same, tables
from postfix_mtasts.query.doctor.check_tables import check_tables
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client
from postfix_mtasts.query.doctor.scene import ALL_DEFERRED, PARAMETER, Scene, is_tlspol
from postfix_mtasts.query.doctor.sockets import obstacle
from postfix_mtasts.query.output import Status

_MX_NAMES_SINCE = (3, 10, 5)  # smtp_tls_enforce_sts_mx_patterns
_NO_LOOKUPS = "Postfix looks up no MTA-STS policies and delivers as if there were none"


def check_map(scene: Scene) -> Iterator[Finding]:
    """What is wrong with smtp_tls_policy_maps of each client."""
    for client in scene.postfix.clients:
        yield from _check(scene, client)


def main_cf(scene: Scene) -> str:
    """The line for main.cf. It is the present one if nothing is wrong with it."""
    clients = (client for client in scene.postfix.clients if PARAMETER not in client.own)
    client = next(clients, Client((), chroot=False, settings=scene.postfix.settings))
    findings = [*_check(scene, client), *check_tables(scene)]
    is_wrong = any((finding.place, finding.line) == scene.fix(client) for finding in findings)
    return f"{PARAMETER} = {scene.wanted(client) if is_wrong else client[PARAMETER]}"


def _check(scene: Scene, client: Client) -> Iterator[Finding]:
    listed = tables(client[PARAMETER])
    mine = [table for table in listed if scene.is_ours(client, table)]
    if mine:
        yield from _other_tables(scene, client, listed)
    elif outside := _outside(scene, client, listed):
        yield outside
    elif scene.routes.is_used(client):  # Others, such as one that leads to a content filter, need no policies.
        yield _not_asked(scene, client, listed)
    for table in mine:
        yield from _style(scene, client, table)
        yield from _access(scene, client, table)


def _outside(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Finding | None:
    """Why Postfix cannot reach this daemon by a path that leads to it from the other side of the chroot."""
    where = client.where(PARAMETER)
    for table in listed:
        if not isinstance(table.endpoint, UnixEndpoint):
            continue
        if table.endpoint != scene.reached(client, table) and scene.listens(table.endpoint):
            what = f"{where}: {table.text} is outside the chroot"
            why = f"{client} cannot reach the socket from the chroot: {ALL_DEFERRED}"
        elif scene.listens(UnixEndpoint(f"{scene.postfix.queue}{table.endpoint.path}")):
            what = f"{where}: {table.text} is a path inside a chroot"
            who = "proxymap" if table.proxied else client
            why = f"outside a chroot, {who} cannot reach the socket by that path: {ALL_DEFERRED}"
        else:
            continue
        return Finding("chroot", Status.ERROR, what, why, *scene.fix(client))
    return None


def _not_asked(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Finding:
    """Why Postfix does not ask this daemon, for a list without a table that leads to it."""
    where, fix = client.where(PARAMETER), scene.fix(client)
    if not listed:
        # An empty map of one service may be intended.
        status = Status.WARNING if PARAMETER in client.own else Status.ERROR
        return Finding("map", status, f"{where} is empty", _NO_LOOKUPS, *fix)
    servers = [table for table in listed if table.kind == "socketmap"]
    listening = f"this daemon, which listens on {', '.join(map(str, scene.sockets))}"
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
        elif number < first and (overruled := scene.overruled(table)):
            whom, level = overruled
            what = f"{where}: {table.text} comes first and has {level!a} for {whom}"
            why = "Postfix never asks this daemon" + (" about them" if "below" in whom else "")
            yield Finding("order", Status.ERROR, what, why, *fix)


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
        old = f"$(postconf{scene.postfix.option} -h proxy_read_maps)"
        command = scene.postfix.edit(f'-e "proxy_read_maps = {old} {table.text}"')
        yield Finding("proxymap", Status.ERROR, what, ALL_DEFERRED, "run", command)
    if not isinstance(endpoint, UnixEndpoint):
        return
    root = scene.postfix.queue if client.chroot and not table.proxied else pathlib.Path("/")
    found = obstacle(endpoint.path, scene.postfix.settings.get("mail_owner", ""), root)
    if found:
        what = f"{endpoint}: the user {scene.postfix.settings['mail_owner']} cannot"
        if found.is_socket:
            fix = _permit(scene, endpoint)
            what = f"{what} write to the socket {found.place} ({found.mode})"
        else:
            fix = "run", f"chmod o+x {shlex.quote(str(found.place))}"
            what = f"{what} enter the directory {found.place} ({found.mode})"
        yield Finding("permissions", Status.ERROR, what, ALL_DEFERRED, *fix)


def _permit(scene: Scene, endpoint: UnixEndpoint) -> tuple[str, str]:
    """How to let everybody write to a socket: where that is set, or at once if systemd has made the socket."""
    if any(is_same(listener, endpoint) for listener in scene.settings.server.listen):
        return f"{scene.file}, [server]", "socket_mode = 0o666"
    return "run", f"chmod 666 {shlex.quote(endpoint.path)}"


def _guess(table: Table) -> str:
    return ", perhaps to postfix-tlspol" if is_tlspol(table) else ""


def _style_of_map(name: str) -> Style | None:
    """The reply style that the name of a map chooses, or None if reply.style does."""
    styles = {ReplyRules(style).of_map(name.encode()).style for style in Style}
    return styles.pop() if len(styles) == 1 else None
