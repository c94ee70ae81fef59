"""Check Postfix and the daemon on this machine, and print the line that fixes each problem. Nothing is changed."""

import argparse
import asyncio
import time
from dataclasses import dataclass, replace

from postfix_mtasts.config import DEFAULT_PATH, Config, ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import PATH, NoPostfix, Postfix, choose_dane, choose_style
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.query.doctor.check_daemon import (
    check_age,
    check_other_sockets,
    check_running,
    check_shadow,
    check_sockets,
    is_outdated,
)
from postfix_mtasts.query.doctor.check_dane import check_dane
from postfix_mtasts.query.doctor.check_dns import check_dns
from postfix_mtasts.query.doctor.check_exceptions import check_exceptions
from postfix_mtasts.query.doctor.check_fleet import check_fleet
from postfix_mtasts.query.doctor.check_machine import check_ca_file, check_clock, check_proxy
from postfix_mtasts.query.doctor.check_map import check_map, main_cf
from postfix_mtasts.query.doctor.check_postfix import check_postfix
from postfix_mtasts.query.doctor.check_routes import check_routes
from postfix_mtasts.query.doctor.check_settings import check_settings
from postfix_mtasts.query.doctor.check_tables import check_tables
from postfix_mtasts.query.doctor.finding import Finding, documents
from postfix_mtasts.query.doctor.finding import show as show_findings
from postfix_mtasts.query.doctor.installed import Installed, UnreadableError, installed
from postfix_mtasts.query.doctor.routes import routes_of
from postfix_mtasts.query.doctor.scene import PARAMETER, Scene, observe, usual_table
from postfix_mtasts.query.output import JSON, Output, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, Running, running
from postfix_mtasts.query.running.render import iso


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings, the worst first, and the line for main.cf. What is unknown is None."""

    postfix: str | None
    daemon: Running | None
    findings: tuple[Finding, ...]
    main_cf: str | None

    @property
    def status(self) -> Status:
        """The status of the worst finding."""
        return max((finding.status for finding in self.findings), default=Status.OK)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: there are none."""


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Print all findings, and return the status of the worst."""
    examination = asyncio.run(examine(arguments.config, time.time()))
    show(examination, output)
    return examination.status


def show(examination: Examination, output: Output) -> None:
    """Print an examination, as text or as JSON."""
    if output.json:
        status = examination.status.name.lower()
        output.document(
            {
                "postfix": examination.postfix,
                "daemon": examination.daemon and _document(examination.daemon),
                "status": status,
                "findings": documents(examination.findings),
                "main_cf": examination.main_cf,
            }
        )
        return
    show_findings(examination.findings, output)
    if examination.status is Status.OK:
        output.text(f"all is well: {examination.postfix} asks this daemon", Status.OK)
    if examination.daemon:
        told = _document(examination.daemon)
        nothing = "" if told["enforce"] else ", and no policy is enforced"
        rules = f"style {told['style']}, dane {told['dane']}{nothing}"
        output.text(f"the daemon runs since {told['started_at']}, on {', '.join(told['sockets'])}, with {rules}")
    if examination.main_cf:
        output.text(f"for main.cf: {examination.main_cf}")


async def examine(config: str | None, now: float, path: str = PATH) -> Examination:
    """Check the daemon and its configuration, the Postfix found in `path`, DNS, and the clock, which says `now`."""
    findings: list[Finding] = [*check_clock(now)]
    file = config or DEFAULT_PATH
    settings, daemon = None, None
    try:
        settings = read_config(config)
        findings += check_ca_file(settings)
        told = _ask(settings)
        findings += check_running(told, file)
        daemon = told if isinstance(told, Running) else None
        findings += check_shadow(settings, daemon)
        findings += check_exceptions(daemon, now) if daemon else ()
    except ConfigError as error:
        findings.append(Finding("config", Status.ERROR, str(error), "the daemon does not start"))
    postfix, scenes = None, list[Scene]()
    try:
        postfix = await installed(path)
        for instance in (None, *postfix.others):
            one = await installed(path, instance) if instance else postfix
            scene, found = await _check(one, settings, file, daemon, postfix)
            scenes += [scene] if scene else []
            findings += [replace(each, what=f"{instance}: {each.what}") if instance else each for each in found]
    except NoPostfix as none:
        why = "the configuration of the Postfix that asks this daemon cannot be checked from here"
        findings.append(Finding("postfix", Status.WARNING, str(none), why))
    except UnreadableError as error:
        why = "Postfix's configuration cannot be checked"
        findings.append(Finding("postfix", Status.ERROR, str(error), why, "run" if error.remedy else "", error.remedy))
    if settings:
        resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
        findings += [*await check_dns(resolver, scenes), *await check_proxy(settings, resolver)]
        findings += await check_fleet(settings, daemon, time.time())
    worst_first = sorted(dict.fromkeys(findings), key=lambda finding: -finding.status)
    sockets = daemon.sockets if daemon else settings.server.listen if settings else ()
    line = main_cf(scenes[0]) if scenes else f"{PARAMETER} = {usual_table(sockets)}" if sockets else None
    return Examination(str(postfix) if postfix else None, daemon, tuple(worst_first), line)


async def _check(
    postfix: Installed, settings: Config | None, file: str, daemon: Running | None, usual: Installed
) -> tuple[Scene | None, list[Finding]]:
    """What is wrong with one instance of Postfix. The daemon reads main.cf of the `usual` one."""
    routes = await routes_of(postfix)
    found = [*check_postfix(postfix, routes), *check_settings(postfix, routes), *check_routes(postfix, routes)]
    if not settings:
        return None, found
    wanted = _rules(settings, usual, daemon)
    rules = wanted
    if daemon and not is_outdated(daemon, wanted, file, usual.folder):
        rules = replace(wanted, style=daemon.style, dane=daemon.dane, enforce=daemon.shadow_since is None)
    scene = await observe(postfix, settings, file, daemon, rules, routes)
    age = check_age(scene, wanted) if postfix is usual else ()
    asked = [*age, *check_map(scene), *check_tables(scene), *check_dane(scene)]
    is_outside = any(finding.check == "chroot" for finding in asked)  # That is why others are not reached.
    others = () if is_outside else check_other_sockets(scene)
    # First a daemon that answers, then a Postfix that asks it: the other way round, all mail would wait in between.
    return scene, [*found, *check_sockets(scene), *asked, *others]


def _ask(settings: Config) -> Running | NoDaemon | None:
    """What the running daemon says, why it cannot be asked, or None without a control socket."""
    if not settings.server.control:
        return None
    try:
        return running(settings)
    except NoDaemon as none:
        return none
    except QueryError as error:
        return NoDaemon(str(error))


def _rules(settings: Config, postfix: Installed, daemon: Running | None) -> ReplyRules:
    """How the daemon answers by the files. It reads the settings of main.cf, not those of master.cf."""
    levels = (postfix.settings.get(name, "") for name in ("smtp_tls_security_level", "smtp_dns_support_level"))
    seen = Postfix(postfix.version[:2], *levels)
    sockets = daemon.sockets if daemon else settings.server.listen
    style, _ = choose_style(settings.reply.style, seen, sockets)
    dane, _ = choose_dane(settings.reply.dane, seen, sockets)
    reply = settings.reply
    return ReplyRules(style, settings.discovery.on_failure, reply.testing, dane, reply.enforce)


def _document(daemon: Running) -> JSON:
    return {
        "started_at": iso(daemon.started_at),
        "config": daemon.config,
        "sockets": [str(endpoint) for endpoint in daemon.sockets],
        "style": daemon.style.value,
        "dane": daemon.dane.value,
        "enforce": daemon.shadow_since is None,
    }
