"""Add, list and remove exceptions: domains whose policy does not count until the end of a day.

    except add DOMAIN --until DATE --reason TEXT    Postfix is answered as if the domain had no policy
    except list                                     all exceptions, how often each was used, and what if it were not
    except remove DOMAIN                            the policy holds again at once

DOMAIN may be *.example.com, for all domains below example.com. The daemon keeps what is added in a file beside its
cache; of two exceptions for one DOMAIN it counts in place of the one in the configuration, as long as it holds. `list`
looks up each domain, or those that an exception for *.DOMAIN was last used for, and connects to its MX hosts.

Exit status: 0 if it was done, 3 if there was nothing to remove, 69 if the daemon cannot be asked, or refuses.
"""

import argparse
import asyncio
import datetime
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from postfix_mtasts.config import Config, Level
from postfix_mtasts.config_file import read_config
from postfix_mtasts.counting import times
from postfix_mtasts.daemon.exceptions import NOTED
from postfix_mtasts.daemon.explain import Explanation, parse_exception
from postfix_mtasts.daemon.reload import choose_reply_rules
from postfix_mtasts.log.events import span
from postfix_mtasts.query.arguments import next_hop_of
from postfix_mtasts.query.domain.at_hand import AtHand, at_hand
from postfix_mtasts.query.domain.domains import running_daemon
from postfix_mtasts.query.domain.examine import Examiner, Options, RunningDaemon
from postfix_mtasts.query.output import JSON, PROGRAM, WIDTH, Output, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.render import ago, exception_document, iso
from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.sts.exception import PolicyException

_PATIENCE = 10.0  # Seconds, for an answer of the daemon, which may have to wait for its disk.
AT_ONCE = 8  # Domains that are looked at.
_WITHIN = 60.0  # Seconds for all of them.
_HINT = "is it running, and do you have permission to use its socket?"


@dataclass(frozen=True, slots=True)
class Without:
    """What would happen to mail to a domain now, were there no exception."""

    domain: str
    text: str
    status: Status | None  # None if that could not be found out in time.


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("add", "list", "remove"))
    parser.add_argument("domain", nargs="?", metavar="DOMAIN", help="a domain, or *.DOMAIN for all those below it")
    parser.add_argument("--until", metavar="DATE", type=_day, help="the last day, such as 2026-12-31; it counts")
    parser.add_argument("--reason", metavar="TEXT", help="why, in one line, for those who find the exception later")
    parser.add_argument(
        "--level",
        choices=[level.value for level in Level],
        default=Level.NONE.value,
        help="what Postfix is told: none (as if there were no policy), may or encrypt (default: none)",
    )
    parser.add_argument("--dane", action="store_true", help="let the exception overrule DANE too")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand. Raises QueryError and ConfigError."""
    what = arguments.what
    if (what == "list") == bool(arguments.domain):
        raise _misused("except list takes no DOMAIN" if arguments.domain else f"except {what} needs a DOMAIN")
    if what == "add" and not (arguments.until and arguments.reason):
        raise _misused("except add needs --until DATE and --reason TEXT")
    if what != "add" and (arguments.until or arguments.reason or arguments.dane):
        raise _misused(f"except {what} takes no --until, --reason and --dane")
    settings = read_config(arguments.config)
    if what == "list":
        return asyncio.run(_list(settings, output))
    domain = _domain(arguments.domain)
    return _add(domain, arguments, settings, output) if what == "add" else _remove(domain, settings, output)


def _misused(reason: str) -> QueryError:
    return QueryError(reason, f"{PROGRAM} except --help", Status.USAGE)


def _day(text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = None
    if not day or day.isoformat() != text:
        raise argparse.ArgumentTypeError(f"{text!a}: must be a date such as 2026-12-31")
    if day < datetime.date.today():  # noqa: DTZ011 - the day of this machine
        raise argparse.ArgumentTypeError(f"{text} is over: name today or a later day")
    return day


def _domain(word: str) -> str:
    """The domain of an exception, in punycode."""
    below = "*." if word.startswith("*.") else ""
    return below + next_hop_of(word.removeprefix(below)).domain.name


def _add(domain: str, arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    fields = {"until": arguments.until.isoformat(), "reason": arguments.reason, "level": arguments.level}
    (reply,) = _ask({"request": "except", "domain": domain, "dane": arguments.dane, **fields}, settings)
    if arguments.dane and arguments.level == Level.NONE.value:
        output.warn('with level none, a Postfix at level "dane" applies DANE by itself; --level may overrules that too')
    if output.json:
        output.document(reply)
        return Status.OK
    instead = "; it replaces the one that was added before" if reply["replaced"] else ""
    output.text(f"{domain}: exception until {arguments.until}{instead}", Status.OK)
    return Status.OK


def _remove(domain: str, settings: Config, output: Output) -> Status:
    (reply,) = _ask({"request": "unexcept", "domain": domain}, settings)
    if output.json:
        output.document(reply)
    else:
        output.text(f"{domain}: {'exception removed' if reply['removed'] else 'there was no exception'}")
    return Status.OK if reply["removed"] else Status.NOTHING


def _ask(request: JSON, settings: Config) -> list[JSON]:
    try:
        return list(ask(settings.server.control, request, _PATIENCE))
    except NoDaemon as error:
        raise QueryError(f"the daemon cannot be reached: {error}", error.remedy or _HINT) from error


async def _list(settings: Config, output: Output) -> Status:
    found = await asyncio.to_thread(_ask, {"request": "exceptions"}, settings)
    exceptions = [(parse_exception(dict(one)), one) for one in found]
    counting = [(one, use) for one, use in exceptions if not use["over"] and not use["overruled"]]
    domains = [name for one, use in counting for name in _looked_at(one, use)]
    without = await _without(list(dict.fromkeys(domains)), settings, output)
    now = time.time()
    for exception, use in exceptions:
        seen = [without[name] for name in _looked_at(exception, use) if name in without and not use["over"]]
        if use["overruled"]:
            seen = []
        if output.json:
            output.document(document(exception, use, seen))
            continue
        for number, (line, status) in enumerate(describe(exception, use, seen, now)):
            margin = "    " if number else ""
            for part in textwrap.wrap(line, WIDTH, initial_indent=margin, subsequent_indent=margin + "  "):
                output.text(part, status)
    if not exceptions and not output.json:
        output.text("there are no exceptions")
    return Status.OK


def _looked_at(exception: PolicyException, use: JSON) -> Sequence[str]:
    """The domains by which is seen what would happen without an exception."""
    return use["domains"] if exception.domain.startswith("*") else [exception.domain]


async def _without(domains: Sequence[str], settings: Config, output: Output) -> dict[str, Without]:
    """What would happen to mail to each of these domains."""
    if not domains:
        return {}
    found = await at_hand()
    rules, *_ = await choose_reply_rules(settings, settings.server.listen)
    nothing = Explanation(Entry(), rules, settings.server.answer_within, {})
    return await look_at_all(domains, lambda domain: _look(domain, settings, found, nothing, output))


async def look_at_all(
    domains: Sequence[str], look: Callable[[str], Awaitable[Without]], within: float = _WITHIN
) -> dict[str, Without]:
    """Look at domains, some at a time, and give up after so many seconds those that are not done."""
    places = asyncio.Semaphore(AT_ONCE)
    end = asyncio.get_running_loop().time() + within

    async def in_time(domain: str) -> Without:
        try:
            async with asyncio.timeout_at(end), places:
                return await look(domain)
        except TimeoutError:
            return Without(domain, f"unknown: not all could be looked up within {within:g} s", None)

    return {one.domain: one for one in await asyncio.gather(*map(in_time, domains))}


async def _look(domain: str, settings: Config, found: AtHand, nothing: Explanation, output: Output) -> Without:
    hop, options = next_hop_of(domain), Options(probe=True)

    async def without() -> RunningDaemon:
        daemon = await running_daemon(settings, hop, options, found, nothing)
        return replace(daemon, known=replace(daemon.known, exception=None))

    verdict = (await Examiner(settings, found, options, output).examine(hop, without())).verdict
    return Without(domain, verdict.text, verdict.status)


def describe(
    exception: PolicyException, use: JSON, without: Sequence[Without], now: float
) -> Iterator[tuple[str, Status | None]]:
    """An exception, line by line, with the status of what would happen without it."""
    ends = f"ended {ago(exception.ends_at, now)}" if use["over"] else f"ends in {span(exception.ends_at - now)}"
    where = "added by command" if exception.added else "configured"
    dane = ", also for DANE" if exception.dane else ""
    yield f"{exception.domain}: until {exception.until} ({ends}), level {exception.level.value}{dane}, {where}", None
    yield f"reason: {exception.reason}", None
    last = f", last {ago(use['last_used'], now)}" if use["used"] else ""
    yield f"used {times(use['used'])} since {iso(use['since'])}{last}", None
    if use["over"]:
        yield "it has ended, and the policy holds again", None
    elif use["overruled"]:
        yield "it does not count while the one that was added by command holds", None
    elif not without:
        yield "without it: unknown, since no domain has used it yet", None
    for one in without:
        yield f"without it: {one.text}", one.status
    if len(without) == NOTED:
        yield f"only the last {NOTED} domains that used it were looked up", None


def document(exception: PolicyException, use: JSON, without: Sequence[Without]) -> JSON:
    """An exception as JSON."""
    times = {"last_used": iso(use["last_used"]), "since": iso(use["since"])}
    counts = {name: use[name] for name in ("over", "overruled", "used", "domains")}
    seen = [
        {"domain": one.domain, "status": one.status.name.lower() if one.status is not None else None, "text": one.text}
        for one in without
    ]
    return {**exception_document(exception), **counts, **times, "without": seen}
