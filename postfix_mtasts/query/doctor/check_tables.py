"""What is wrong with tables beside ours in smtp_tls_policy_maps: dead or stale ones, and entries that stop mail."""

import re
from collections.abc import Iterator

from postfix_mtasts.postfix.installation import TLSRPT_SINCE
from postfix_mtasts.postfix.tables import Table, comment, tables
from postfix_mtasts.query.doctor.check_settings import LEVELS, nearest
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client, Installed
from postfix_mtasts.query.doctor.scene import ALL_DEFERRED, PARAMETER, Scene
from postfix_mtasts.query.output import Status

# Debian has a package of its own for each of these types.
_PACKAGES = ("cdb", "ldap", "lmdb", "mongodb", "mysql", "pcre", "pgsql", "sqlite")
_ATTRIBUTES = ("ciphers", "connection_reuse", "enable_rpk", "exclude", "match", "protocols", "servername", "tafile")
_OF_STS = ("mx_host_pattern", "policy_domain", "policy_failure", "policy_string", "policy_ttl", "policy_type")


def check_tables(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong, for each client."""
    for client in scene.postfix.clients:
        where = client.where(PARAMETER)
        if remark := comment(client[PARAMETER]):
            what = f"{where} has {remark!a} behind its tables"
            why = "Postfix has no comments there: it takes these words for tables, and defers all mail"
            yield Finding("comment", Status.ERROR, what, why, *scene.fix(client))
        for table in tables(client[PARAMETER]):
            if trouble := table_trouble(scene.postfix, table, scene.broken.get(table, "")):
                yield _unusable(scene, client, table, *trouble)
            yield from _entries(scene, client, table)


def table_trouble(postfix: Installed, table: Table, why: str) -> tuple[Status, str, str] | None:
    """How bad it is that a table cannot be used, for the reason `why` if that is known; what is wrong; the command."""
    if table.kind not in postfix.types:
        install = f"apt install postfix-{table.kind} && {postfix.reload}" if table.kind in _PACKAGES else ""
        return Status.ERROR, f"this Postfix does not support tables of type {table.kind}", install
    make = f"postmap{postfix.option} {table.direct} && {postfix.reload}"
    if why:
        can_make = table.file and table.index and table.file.exists()
        return Status.ERROR, f"cannot be used: {why}", make if can_make else ""
    if not table.file or not table.index or not table.file.exists() or not table.index.exists():
        return None
    if table.file.stat().st_mtime <= table.index.stat().st_mtime:
        return None
    return Status.WARNING, f"{table.file} is newer than {table.index}", make


def _unusable(scene: Scene, client: Client, table: Table, status: Status, problem: str, line: str) -> Finding:
    what = f"{client.where(PARAMETER)}: {table.text}: {problem}"
    if status is Status.WARNING:
        return Finding("table", status, what, "Postfix does not see the changes in it", "run", line)
    fix = ("run", line) if line else scene.fix(client) if scene.is_dead(table) else ("", "")
    return Finding("table", status, what, ALL_DEFERRED, *fix)


def _entries(scene: Scene, client: Client, table: Table) -> Iterator[Finding]:
    """Entries with a level or an attribute that Postfix does not know."""
    where = f"{client.where(PARAMETER)}: {table.text}"
    for key, value in scene.entries.get(table, {}).items():
        level, *attributes = re.split(r"[\s,]+", value.strip()) or [""]
        why = f"mail to {key} is deferred"
        if level.lower() not in LEVELS:
            near = nearest(level, LEVELS, "")
            what = f"{where} has {value!a} for {key}: allowed are {', '.join(LEVELS)}"
            line = _replace(scene, client, table, level, near) if near else ""
            yield Finding("entry", Status.ERROR, what, why, "run" if line else "", line)
        for name in (one.partition("=")[0].lower() for one in attributes if "{" not in value):
            if name and name not in _ATTRIBUTES and not (name in _OF_STS and scene.postfix.version >= TLSRPT_SINCE):
                what = f"{where} has {value!a} for {key}: there is no attribute {name!a}"
                near = nearest(name, _ATTRIBUTES, "")
                line = _replace(scene, client, table, name, near) if near else ""
                fix = ("run", line) if line else ("", "")
                yield Finding("entry", Status.ERROR, what, why if line else f"{why}: take it out of the entry", *fix)


def _replace(scene: Scene, client: Client, table: Table, old: str, new: str) -> str:
    """The command that corrects a level or an attribute wherever it stands in a table."""
    postfix = scene.postfix
    if table.file:
        make = f"postmap{postfix.option} {table.direct} && " if table.index else ""
        return f"sed -i 's/\\([[:space:]]\\){re.escape(old)}\\>/\\1{new}/' {table.file} && {make}{postfix.reload}"
    right = re.sub(rf"(?<=[=:\s]){re.escape(old)}\b", new, table.text)
    return postfix.set(client, {PARAMETER: client[PARAMETER].replace(table.text, right)})
