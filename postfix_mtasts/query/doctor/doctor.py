"""Check Postfix and the daemon on this machine, and print the line that fixes each problem. Nothing is changed."""

import argparse
import asyncio
import datetime
import pathlib
import time
from dataclasses import dataclass

import postfix_mtasts
from postfix_mtasts.config import DEFAULT_PATH, Config, ConfigError
from postfix_mtasts.daemon.command import read_config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import PATH, NoPostfix, Postfix, choose_dane, choose_style
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.query.doctor.check_dane import check_dane, check_dns
from postfix_mtasts.query.doctor.check_map import check_map, main_cf
from postfix_mtasts.query.doctor.check_postfix import check_postfix
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Installed, UnreadableError, installed
from postfix_mtasts.query.doctor.scene import PARAMETER, Scene, observe, usual_table
from postfix_mtasts.query.output import SEVERITIES, Output, Status, to_json
from postfix_mtasts.remote.network import CaError, tls_context


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings, the worst first, and the line for main.cf. `postfix` and `main_cf` are None if unknown."""

    postfix: str | None
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
        findings = [{**to_json(finding), "status": finding.status.name.lower()} for finding in examination.findings]
        status = examination.status.name.lower()
        output.document(
            {
                "postfix": examination.postfix,
                "status": status,
                "findings": findings,
                "main_cf": examination.main_cf,
            }
        )
        return
    for finding in examination.findings:
        output.text(f"{SEVERITIES[finding.status]}: {finding.what}", finding.status)
        output.text(f"    {finding.why}")
        if finding.line:
            output.text(f"  {finding.place}:" if finding.place == "run" else f"  in {finding.place}:")
            output.text(f"    {finding.line}")
    if examination.status is Status.OK:
        output.text(f"all is well: {examination.postfix} asks this daemon", Status.OK)
    if examination.main_cf:
        output.text(f"in main.cf: {examination.main_cf}")


async def examine(config: str | None, now: float, path: str = PATH) -> Examination:
    """Check the daemon's configuration, the Postfix found in `path`, DNS, and the clock, which says `now`."""
    findings: list[Finding] = [*_clock(now)]
    settings, scene = None, None
    try:
        settings = read_config(config)
        findings += _ca_file(settings)
    except ConfigError as error:
        findings.append(Finding("config", Status.ERROR, str(error), "the daemon does not start"))
    postfix = None
    try:
        postfix = await installed(path)
    except NoPostfix as none:
        why = "the configuration of the Postfix that asks this daemon cannot be checked from here"
        findings.append(Finding("postfix", Status.WARNING, str(none), why))
    except UnreadableError as error:
        why = "Postfix's configuration cannot be checked"
        findings.append(Finding("postfix", Status.ERROR, str(error), why, "run" if error.remedy else "", error.remedy))
    if postfix:
        findings += check_postfix(postfix)
    if postfix and settings:
        scene = await observe(postfix, settings, config or DEFAULT_PATH, _rules(settings, postfix))
        findings += [*check_map(scene), *check_dane(scene)]
    if settings:
        findings += await check_dns(Resolver(settings.dns.nameservers, timeout=settings.dns.timeout), scene)
    worst_first = sorted(dict.fromkeys(findings), key=lambda finding: -finding.status)
    return Examination(str(postfix) if postfix else None, tuple(worst_first), _line(settings, scene))


def _line(settings: Config | None, scene: Scene | None) -> str | None:
    if scene:
        return main_cf(scene)
    return f"{PARAMETER} = {usual_table(settings)}" if settings else None


def _rules(settings: Config, postfix: Installed) -> ReplyRules:
    """How the daemon answers. It reads the settings of main.cf, not those of master.cf."""
    levels = (postfix.settings.get(name, "") for name in ("smtp_tls_security_level", "smtp_dns_support_level"))
    seen = Postfix(postfix.version[:2], *levels)
    style, _ = choose_style(settings.reply.style, seen, settings.server.listen)
    dane, _ = choose_dane(settings.reply.dane, seen, settings.server.listen)
    return ReplyRules(style, settings.discovery.on_failure, settings.reply.testing, dane)


def _ca_file(settings: Config) -> list[Finding]:
    try:
        tls_context(settings.fetch.ca_file)
    except CaError as error:
        what = f'fetch.ca_file = "{settings.fetch.ca_file}": {error}'
        return [Finding("config", Status.ERROR, what, "the daemon does not start")]
    return []


def _clock(now: float) -> list[Finding]:
    """Without a time server, only one thing is certain: it is later than when this program was built."""
    earliest = pathlib.Path(postfix_mtasts.__file__).stat().st_mtime
    if now >= earliest:
        return []
    shown, then = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (now, earliest))
    what = f"the clock says {shown:%Y-%m-%d %H:%M} UTC, before this program was built ({then:%Y-%m-%d %H:%M} UTC)"
    why = "certificates look as if they were not valid yet, and policies expire at the wrong time"
    return [Finding("clock", Status.ERROR, what, why, "run", "timedatectl set-ntp true")]
