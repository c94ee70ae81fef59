"""Whether Postfix asks this daemon before it sends, and can."""

import pathlib
import shlex
from collections.abc import Iterator

from postfix_mtasts.config import UnixEndpoint
from postfix_mtasts.postfix.installation import TLSRPT_SINCE
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client
from postfix_mtasts.query.doctor.scene import ALL_WAITS, PARAMETER, Scene, is_tlspol
from postfix_mtasts.query.doctor.sockets import obstacle
from postfix_mtasts.query.doctor.tables import Table, tables
from postfix_mtasts.query.output import Status

_MX_NAMES_SINCE = (3, 10, 5)  # smtp_tls_enforce_sts_mx_patterns
_UNPROTECTED = "Postfix does not ask for policies, and sends as if there were none"


def check_map(scene: Scene) -> Iterator[Finding]:
    """What is wrong with the map, client by client, and whether the daemon answers."""
    found = [finding for client in scene.postfix.clients for finding in _check(scene, client)]
    yield from found
    is_lost = any(finding.check == "chroot" for finding in found)
    for endpoint, (what, why) in scene.silent.items():
        if is_lost and not scene.listens(endpoint):
            continue  # That is why.
        fix = ("run", f"postfix-mtasts-daemon{scene.option}") if scene.listens(endpoint) else ("", "")
        yield Finding("daemon", Status.ERROR, what, why, *fix)


def main_cf(scene: Scene) -> str:
    """The line for main.cf: the one that is there if it is right."""
    clients = (client for client in scene.postfix.clients if PARAMETER not in client.own)
    client = next(clients, Client((), chroot=False, settings=scene.postfix.settings))
    is_wrong = any((finding.place, finding.line) == scene.fix(client) for finding in _check(scene, client))
    return f"{PARAMETER} = {scene.wanted(client) if is_wrong else client[PARAMETER]}"


def _check(scene: Scene, client: Client) -> Iterator[Finding]:
    listed = tables(client[PARAMETER])
    mine = [table for table in listed if scene.is_ours(client, table)]
    if not listed:
        # A service without may be meant so.
        status = Status.WARNING if PARAMETER in client.own else Status.ERROR
        yield Finding("map", status, f"{client.where(PARAMETER)} is empty", _UNPROTECTED, *scene.fix(client))
    elif not mine:
        yield _not_asked(scene, client, listed)
    else:
        yield from _beside(scene, client, listed)
    for table in listed:
        if table in scene.broken:
            what = f"{client.where(PARAMETER)}: {table.text} cannot be used: {scene.broken[table]}"
            yield Finding("table", Status.ERROR, what, ALL_WAITS)
    for table in mine:
        yield from _style(scene, client, table)
        yield from _way(scene, client, table)


def _not_asked(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Finding:
    """Why not, of a list without a table of this daemon."""
    where, fix = client.where(PARAMETER), scene.fix(client)
    servers = [table for table in listed if table.kind == "socketmap"]
    for table in servers:
        if not isinstance(table.endpoint, UnixEndpoint):
            continue
        if table.endpoint != scene.reached(client, table) and scene.listens(table.endpoint):
            why = f"{client} runs in a chroot and does not find it: {ALL_WAITS}"
            return Finding("chroot", Status.ERROR, f"{where}: {table.text} is outside of the chroot", why, *fix)
        if scene.listens(UnixEndpoint(f"{scene.postfix.queue}{table.endpoint.path}")):
            why = f"{'proxymap' if table.proxied else client} runs in none and does not find it: {ALL_WAITS}"
            return Finding("chroot", Status.ERROR, f"{where}: {table.text} is a path inside of a chroot", why, *fix)
    listening = f"this daemon listens on {', '.join(map(str, scene.settings.server.listen))}"
    if servers:
        what = f"{where}: {servers[0].text} is another policy server{_name(servers[0])}"
        return Finding("map", Status.ERROR, what, f"{listening}, and is not asked", *fix)
    return Finding("map", Status.ERROR, f"{where} asks no policy server; {listening}", _UNPROTECTED, *fix)


def _beside(scene: Scene, client: Client, listed: tuple[Table, ...]) -> Iterator[Finding]:
    """The tables beside ours."""
    where, fix = client.where(PARAMETER), scene.fix(client)
    first = min(number for number, table in enumerate(listed) if scene.is_ours(client, table))
    for number, table in enumerate(listed):
        if table.kind == "socketmap" and not scene.is_ours(client, table):
            what = f"{where}: {table.text} is another policy server{_name(table)}"
            if number < first:
                why = "it goes first: this daemon is asked only where that has no policy"
                yield Finding("second-server", Status.ERROR, what, why, *fix)
            else:
                why = "it is asked where this daemon has no policy, or leaves a domain to DANE"
                yield Finding("second-server", Status.WARNING, what, why, *fix)
        elif number < first and table in scene.catches:
            what = f"{where}: {table.text} goes first, and has {scene.catches[table]!a} for every domain"
            yield Finding("order", Status.ERROR, what, "Postfix never comes to ask for policies", *fix)


def _style(scene: Scene, client: Client, table: Table) -> Iterator[Finding]:
    endpoint = scene.reached(client, table)
    style = _style_of_map(table.map_name)
    if style is None and endpoint and scene.listens(endpoint):
        style = scene.rules.style
    postfix, where, fix = scene.postfix, f"{client.where(PARAMETER)}: {table.text}", scene.fix(client)
    if style is Style.TLSRPT and postfix.version < TLSRPT_SINCE:
        what = f"{where} is answered in style tlsrpt, which {postfix} does not know"
        yield Finding(
            "style", Status.ERROR, what, "mail to every domain that enforces MTA-STS stays in the queue", *fix
        )
    elif style is Style.PLAIN and postfix.version >= _MX_NAMES_SINCE:
        what = f"{where} is answered in style plain, though {postfix} knows tlsrpt"
        yield Finding("style", Status.WARNING, what, "Postfix checks no MX names, and reports no policies", *fix)


def _way(scene: Scene, client: Client, table: Table) -> Iterator[Finding]:
    """Whether Postfix may go the way to our table."""
    endpoint, where = scene.reached(client, table), client.where(PARAMETER)
    if table.proxied and table.text not in {
        one.text for one in tables(scene.postfix.settings.get("proxy_read_maps", ""))
    }:
        what = f"{where}: proxymap refuses {table.text}, which is not in proxy_read_maps"
        command = f'postconf "proxy_read_maps = $(postconf -h proxy_read_maps) {table.text}"'
        yield Finding("proxymap", Status.ERROR, what, ALL_WAITS, "run", command)
    if not isinstance(endpoint, UnixEndpoint):
        return
    root = scene.postfix.queue if client.chroot and not table.proxied else pathlib.Path("/")
    found = obstacle(endpoint.path, scene.postfix.settings.get("mail_owner", ""), root)
    if found:
        what = f"{endpoint}: {scene.postfix.settings['mail_owner']} may not"
        if found.is_socket:
            fix = f"{scene.file}, [server]", "socket_mode = 0o666"
            what = f"{what} write to {found.place} ({found.mode})"
        else:
            fix = "run", f"chmod o+x {shlex.quote(str(found.place))}"
            what = f"{what} enter {found.place} ({found.mode})"
        yield Finding("permissions", Status.ERROR, what, ALL_WAITS, *fix)


def _name(table: Table) -> str:
    return ", perhaps postfix-tlspol" if is_tlspol(table) else ""


def _style_of_map(name: str) -> Style | None:
    """The style that the name of a map asks for."""
    styles = {ReplyRules(style).of_map(name.encode()).style for style in Style}
    return styles.pop() if len(styles) == 1 else None
