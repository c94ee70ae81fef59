"""List, show, forget and refresh what the daemon has cached.

    cache list                 all policies, and domains whose policy could not be fetched
    cache show DOMAIN...       everything cached for a domain, with its policy file
    cache forget DOMAIN...     delete it; the domain has no policy until the next query looks it up again
    cache refresh DOMAIN...    look up the record and fetch the policy now, whatever its age and its failures

The command asks the running daemon over its control socket. Without a daemon, `list` and `show` read the database.

Exit status: 0 if there is an unexpired policy, 1 if that policy could not be renewed, 2 if mail is deferred, or
there may be a policy that could not be fetched, 3 if nothing is cached or there is no policy. Of several domains the
worst counts. `list` has 0.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from postfix_mtasts.cache.database import DatabaseError
from postfix_mtasts.cache.look import read
from postfix_mtasts.cache.row import RowError
from postfix_mtasts.config import Config
from postfix_mtasts.config_file import read_config
from postfix_mtasts.counting import counted
from postfix_mtasts.query.arguments import next_hop_of
from postfix_mtasts.query.output import JSON, PROGRAM, Output, QueryError, Status, say, worst
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.pager import paged
from postfix_mtasts.query.running.render import Known, describe, document, parse_known, summary, table
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.sts.policy import Mode

_HINT = "is it running, and do you have permission to use its socket?"
_PATIENCE = 10.0  # Seconds, for an answer from memory.

_SORTS: Mapping[str, Callable[[Known], float]] = {
    "domain": lambda one: 0.0,
    "fetched": lambda one: one.entry.cached.fetched_at if one.entry.cached else 0.0,
    "expires": lambda one: one.entry.cached.expires_at() if one.entry.cached else 0.0,
    "failures": lambda one: -sum(failed.count for failed in one.entry.failed),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("list", "show", "forget", "refresh"))
    parser.add_argument(
        "domain", nargs="*", default=(), metavar="DOMAIN", help="a domain as in Postfix's tables; none for list"
    )

    parser.add_argument(
        "--failing", action="store_true", help="list domains whose policy could not be fetched or renewed"
    )
    parser.add_argument("--ending", action="store_true", help="list policies that are about to expire, and not renewed")
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], help="list policies in this mode")
    parser.add_argument(
        "--fleet", action="store_true", help="forget or refresh the domain on all relays that share with this one"
    )
    parser.add_argument(
        "--sort", choices=tuple(_SORTS), default="domain", help="how to sort the list (default: domain)"
    )


def chosen(found: Iterable[Known], arguments: argparse.Namespace, now: float) -> list[Known]:
    """Those that the options of `list` choose, sorted as they say."""

    def fits(one: Known) -> bool:
        cached = one.entry.cached
        return (
            (not arguments.failing or one.status(now) in (Status.WARNING, Status.ERROR))
            and (not arguments.mode or (cached is not None and cached.policy.mode.value == arguments.mode))
            and (not arguments.ending or one.is_ending(now))
        )

    return sorted(filter(fits, found), key=lambda one: (_SORTS[arguments.sort](one), one.domain))


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand. Raises QueryError and ConfigError."""
    domains = [next_hop_of(text).domain for text in arguments.domain]
    if (arguments.what == "list") == bool(domains):
        problem = "cache list takes no DOMAIN" if domains else f"cache {arguments.what} needs a DOMAIN"
        raise QueryError(problem, f"{PROGRAM} cache --help", Status.USAGE)
    if arguments.fleet and arguments.what not in ("forget", "refresh"):
        raise QueryError(f"cache {arguments.what} takes no --fleet", f"{PROGRAM} cache --help", Status.USAGE)
    settings = read_config(arguments.config)
    if arguments.what == "list":
        with paged():
            return _list(settings, arguments, output)
    if arguments.what == "show":
        with paged():
            return worst([_show(one, output) for one in _ask_or_read(domains, settings)])
    act = _forget if arguments.what == "forget" else _refresh
    return worst(act(domain, settings, output, everywhere=arguments.fleet) for domain in domains)


def _list(settings: Config, arguments: argparse.Namespace, output: Output) -> Status:
    try:
        found = ask(settings.server.control, {"request": "list"}, _PATIENCE)
    except NoDaemon as error:
        found = _stored(settings, error)
    now = time.time()
    policies = chosen(_understood(found), arguments, now)
    if output.json:
        for one in policies:
            output.document(document(one, now, alone=False))
    elif policies:
        for line, status in table(policies, now):
            output.text(line, status)
    else:
        output.text("nothing is cached")
    return Status.OK


def _ask_or_read(domains: Iterable[PolicyDomain], settings: Config) -> list[Known]:
    names = [domain.name for domain in domains]
    path = settings.server.control
    found: Iterable[JSON]
    try:
        found = [one for name in names for one in ask(path, {"request": "show", "domain": name}, _PATIENCE)]
    except NoDaemon as error:
        found = [row for row in _stored(settings, error) if row["domain"] in names]
    understood = {one.domain: one for one in _understood(found)}
    return [understood.get(name, Known(name, Entry())) for name in names]


def _show(one: Known, output: Output) -> Status:
    now = time.time()
    status = one.status(now)
    if output.json:
        output.document(document(one, now, alone=True))
        return status
    for number, line in enumerate(describe(one, now)):
        output.text(line, None if number else status)
    return status


def _forget(domain: PolicyDomain, settings: Config, output: Output, *, everywhere: bool) -> Status:
    reply = _ask_running("forget everywhere" if everywhere else "forget", domain, settings)
    if output.json:
        output.document(reply)
    else:
        output.text(f"{domain}: {'forgotten' if reply['forgotten'] else 'nothing was cached'}{_told(reply)}")
    return Status.OK if reply["forgotten"] else Status.NOTHING


def _told(reply: JSON) -> str:
    if "relays" not in reply:
        return ""
    return f"; {counted(reply['relays'], 'relay was', 'relays were')} told, this one included"


def _refresh(domain: PolicyDomain, settings: Config, output: Output, *, everywhere: bool) -> Status:
    reply = _ask_running("refresh everywhere" if everywhere else "refresh", domain, settings)
    now = time.time()
    one = parse_known(reply)
    status = one.status(now)
    if output.json:
        more = {name: reply[name] for name in ("fetched", "reason", "relays") if name in reply}
        output.document({**document(one, now, alone=True), **more})
    elif reply["fetched"]:
        output.text(f"{domain}: fetched: {summary(one, now)}{_told(reply)}", status)
    else:
        cached = f"; cached: {summary(one, now)}" if one.entry.cached else ""
        output.text(f"{domain}: not fetched: {reply['reason']}{cached}", status)
    return status


def _ask_running(request: str, domain: PolicyDomain, settings: Config) -> JSON:
    # The daemon may first have to finish a discovery that has begun, and then does this one.
    patience = _PATIENCE + 2 * (settings.dns.timeout + settings.fetch.timeout)
    try:
        (reply,) = ask(settings.server.control, {"request": request, "domain": domain.name}, patience)
    except NoDaemon as error:
        raise QueryError(f"the daemon cannot be reached: {error}", error.remedy or _HINT) from error
    return reply


def _stored(settings: Config, why: NoDaemon) -> Iterator[JSON]:
    path = settings.cache.path
    try:
        rows = read(path)
    except DatabaseError as error:
        reason = f'the daemon cannot be reached: {why}; the database cannot be read: cache.path = "{path}": {error}'
        hint = why.remedy or "has the daemon ever run, and do you have permission to read its files?"
        raise QueryError(reason, hint) from error
    say(f"info: the daemon cannot be reached: {why}; showing the stored copy in {path}")
    return ({"domain": domain, "row": row} for domain, row in rows)


def _understood(documents: Iterable[JSON]) -> Iterator[Known]:
    for one in documents:
        try:
            yield parse_known(one)
        except RowError as error:
            say(f"warning: domain={one['domain']!a}, database row ignored: {error}")
