"""How Postfix is answered: chosen at the start and after each SIGHUP; told in the log, to systemd and on request."""

import asyncio
import pathlib
from collections.abc import Sequence
from dataclasses import fields, replace

from postfix_mtasts.config import Config, ConfigError, Endpoint
from postfix_mtasts.config_file import read_config
from postfix_mtasts.daemon import service
from postfix_mtasts.daemon.control import Control
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.shadow import Shadow
from postfix_mtasts.log import events
from postfix_mtasts.postfix.installation import NoPostfix, Postfix, choose_dane, choose_style, local_postfix
from postfix_mtasts.postfix.reply import ReplyRules


class Reporter:
    """Tells the administrator how Postfix is answered: in the log, on the control socket and in systemd's status."""

    def __init__(self, control: Control, served: Sequence[Endpoint], file: str) -> None:
        control.config, control.sockets = str(pathlib.Path(file).absolute()), served
        self.served = served
        self._control = control
        self._rules = ""

    def chosen(self, rules: ReplyRules, why_style: str, why_dane: str) -> None:
        """Report the rules by which Postfix is answered from now on."""
        events.reply_rules(rules, why_style, why_dane)
        self._control.chosen(why_style, why_dane)
        nothing = "" if rules.enforce else "; no policy is enforced"
        self._rules = f"style {rules.style.value}, dane {rules.dane.value}{nothing}"

    def ready(self, trouble: str = "") -> None:
        """Report to systemd that the daemon has started, or has read its configuration again."""
        status = f"answers on {', '.join(map(str, self.served))}; {self._rules}"
        service.notify("READY=1", f"STATUS={status}{trouble and f'; {trouble}'}")


async def reload(
    path: str | None,
    running: Config,
    lookup: Lookup,
    shadow: Shadow,
    reporter: Reporter,
    hang_up: asyncio.Event,
) -> None:
    """After each SIGHUP, read the tables [reply], [discovery] and [[exception]] again. Others need a restart."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        service.reloading()
        try:
            fresh = read_config(path)
        except ConfigError as error:
            events.not_reloaded(str(error))
            reporter.ready(f"configuration not reloaded: {error}")
            continue
        taken = replace(running, reply=fresh.reply, discovery=fresh.discovery, exception=fresh.exception)
        names = (field.name for field in fields(Config))
        events.reloaded([name for name in names if getattr(fresh, name) != getattr(taken, name)])
        await lookup.exceptions.load(taken.exception)
        lookup.rules, *why = await choose_reply_rules(taken, reporter.served)
        reporter.chosen(lookup.rules, *why)
        await shadow.follow()
        reporter.ready()


async def choose_reply_rules(settings: Config, served: Sequence[Endpoint]) -> tuple[ReplyRules, str, str]:
    """Return the rules for replies on the addresses `served`, and the reasons for their style and for their DANE."""
    found = await _postfix()
    style, why_style = choose_style(settings.reply.style, found, served)
    dane, why_dane = choose_dane(settings.reply.dane, found, served)
    reply = settings.reply
    rules = ReplyRules(style, settings.discovery.on_failure, reply.testing, dane, reply.enforce)
    return rules, why_style, why_dane


async def _postfix() -> Postfix | NoPostfix:
    try:
        return await local_postfix()
    except NoPostfix as none:
        return none
