"""Whether the daemon runs and answers, and whether it does what the files say now."""

import os
import pathlib
import shlex
from collections.abc import Iterator

from postfix_mtasts.config import DEFAULT_LISTEN, DEFAULT_PATH, Config, DaneSetting
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.scene import Scene
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.client import NoDaemon, Running
from postfix_mtasts.query.running.render import iso

_UNKNOWN = "what the running daemon does is unknown: only the files are checked"


def check_running(told: Running | NoDaemon | None, file: str) -> Iterator[Finding]:
    """Whether the daemon can be asked what it does, and whether `file` is what it was configured with."""
    if isinstance(told, NoDaemon):
        option = "" if file == DEFAULT_PATH else f" --config {shlex.quote(file)}"
        fix = ("run", f"sudo postfix-mtasts-query doctor{option}") if told.forbidden else ("", "")
        yield Finding("control", Status.WARNING, str(told), _UNKNOWN, *fix)
    elif told and not _is_same_file(told.config, file):
        what = f"the running daemon was started with {told.config}, and not with {file}"
        line = f"postfix-mtasts-query doctor --config {shlex.quote(told.config)}"
        yield Finding("config", Status.ERROR, what, "the file that is checked here does not configure it", "run", line)


def check_sockets(scene: Scene) -> Iterator[Finding]:
    """Sockets of this daemon that do not answer."""
    for endpoint, (what, why) in scene.failing.items():
        if scene.listens(endpoint):
            yield Finding("daemon", Status.ERROR, what, why, "run", scene.control("start"))


def check_other_sockets(scene: Scene) -> Iterator[Finding]:
    """Sockets of others, in tables of Postfix, that do not answer."""
    for endpoint, (what, why) in scene.failing.items():
        if not scene.listens(endpoint):
            yield Finding("daemon", Status.ERROR, what, why)


def check_shadow(settings: Config, running: Running | None) -> Iterator[Finding]:
    """Whether policies are enforced: as the daemon says, or as the file does."""
    if not (running.shadow_since if running else not settings.reply.enforce):
        return
    since = f" since {(iso(running.shadow_since) or '')[:10]}" if running else ""
    what = f"no policy is enforced{since}: reply.enforce = false"
    why = "mail to domains that enforce MTA-STS is sent as if they had no policy"
    yield Finding("shadow", Status.WARNING, what, why, "run", "postfix-mtasts-query shadow")


def check_age(scene: Scene, wanted: ReplyRules) -> Iterator[Finding]:
    """Whether the daemon would do something else if it read the files again; `wanted` is how it would answer."""
    running = scene.running
    if not running or not _is_same_file(running.config, scene.file):
        return
    for endpoint in scene.settings.server.listen if scene.settings.server.listen is not DEFAULT_LISTEN else ():
        if not scene.listens(endpoint):
            what = f"server.listen in {scene.file} has {endpoint}, on which the running daemon does not listen"
            why = "the daemon was started before the file changed"
            yield Finding("restart", Status.ERROR, what, why, "run", scene.control("restart"))
    if is_outdated(running, wanted, scene.file, scene.postfix.folder):
        does = _words(running.style, running.dane, enforces=running.shadow_since is None)
        would = _words(wanted.style, wanted.dane, enforces=wanted.enforce)
        what = f"the daemon answers Postfix with {does}, and would answer with {would} if it were reloaded"
        why = f"main.cf or {scene.file} has changed since the daemon read it"
        yield Finding("reload", Status.ERROR, what, why, "run", scene.control("reload"))


def is_outdated(running: Running, wanted: ReplyRules, file: str, folder: pathlib.Path) -> bool:
    """Whether the daemon answers in another way than it would now, because a file has changed since it read it."""
    does = (running.style, running.dane, running.shadow_since is None)
    return does != (wanted.style, wanted.dane, wanted.enforce) and any(
        path.exists() and path.stat().st_ctime > running.configured_at
        for path in (folder / "main.cf", pathlib.Path(file))
    )


def _words(style: Style, dane: DaneSetting, *, enforces: bool) -> str:
    return f"style {style.value}, dane {dane.value}{'' if enforces else ', nothing enforced'}"


def _is_same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
