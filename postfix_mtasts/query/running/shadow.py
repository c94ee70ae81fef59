"""Tell what would stop if policies were enforced today (reply.enforce = false).

    no policy is enforced since 2026-11-29 (4 days)
    domains asked for: 512; with a policy: 61; in mode enforce: 40. If they were enforced today, of these:
          36  would be delivered
           2  would be deferred
           …

    would be deferred                     queries  probed
    example.com                                12  2 hours ago
        its MX mx.example.com has an expired certificate

The running daemon probes each of these domains once a day. `postfix-mtasts-query --probe DOMAIN` does so now, and tells
more.

Exit status: 0 if all would be delivered, 1 if some are not known yet, 2 if some would be deferred, 3 if policies are
enforced, or no domain with a policy in mode enforce was asked for.
"""

import argparse
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence

from postfix_mtasts.config_file import read_config
from postfix_mtasts.log.events import span
from postfix_mtasts.query.output import JSON, WIDTH, Output, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.pager import paged
from postfix_mtasts.query.running.render import ago, iso

_PATIENCE = 10.0  # Seconds, for an answer from memory.
_DOMAIN = 52  # Columns of a domain.
_MOST = 50  # Domains of each table, unless all are wanted.
# The counts that add up to the domains with a policy in mode enforce, and what they mean.
_COUNTS: Mapping[str, str] = {
    "delivered": "would be delivered",
    "deferred": "would be deferred",
    "returned": "are returned to their senders, as they are now",
    "unclear": "could not be judged from here: if mail to them is deferred now, it stays so",
    "dane": "would not change: DANE decides",
    "unprobed": "not probed yet",
}
TABLES = {"deferred": "would be deferred", "returned": "are returned now", "unclear": "could not be judged"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--all", action="store_true", help=f"list all domains, not only {_MOST} of each kind")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Run the subcommand. Raises QueryError and ConfigError."""
    settings = read_config(arguments.config)
    try:
        counts, *found = ask(settings.server.control, {"request": "shadow"}, _PATIENCE)
    except NoDaemon as error:
        hint = error.remedy or "is postfix-mtasts-daemon running with this configuration?"
        raise QueryError(f"the daemon cannot be reached: {error}", hint) from error
    status = judge(counts)
    domains = ordered(found)
    now = time.time()
    if output.json:
        output.document(document(counts, domains, status))
        return status
    with paged():
        for line, of in lines(counts, domains, now, most=len(domains) if arguments.all else _MOST):
            output.text(line, of)
    return status


def judge(counts: JSON) -> Status:
    """What the counts mean for the day on which policies are enforced."""
    if counts["since"] is None or not counts["enforced"]:
        return Status.NOTHING
    if counts["deferred"]:
        return Status.ERROR
    return Status.WARNING if counts["unclear"] or counts["unprobed"] else Status.OK


def ordered(domains: Sequence[JSON]) -> list[JSON]:
    """The domains with the most queries first."""
    return sorted(domains, key=lambda one: (-one["queries"], one["domain"]))


def lines(counts: JSON, domains: Sequence[JSON], now: float, most: int) -> Iterator[tuple[str, Status | None]]:
    """The answer in 80 columns, with at most so many domains in each table."""
    if counts["since"] is None:
        yield "policies are enforced: shadow mode is off (reply.enforce = true)", None
        return
    since = counts["since"]
    yield f"no policy is enforced since {(iso(since) or '')[:10]} ({span(max(0.0, now - since))})", Status.WARNING
    yield from _wrapped(_sum(counts))
    for state, words in _COUNTS.items():
        if counts[state]:
            status = {"delivered": Status.OK, "deferred": Status.ERROR}.get(state)
            first, *rest = textwrap.wrap(words, WIDTH - 10)
            yield f"{counts[state]:>8}  {first}", status
            yield from ((f"{'':10}{line}", status) for line in rest)
    for state, heading in TABLES.items():
        yield from _table(heading, [one for one in domains if one["state"] == state], now, most)


def _sum(counts: JSON) -> str:
    asked = f"{'more than ' if counts['asked_is_at_least'] else ''}{counts['asked']}"
    enforced = counts["enforced"]
    if not enforced:
        return f"domains asked for: {asked}; with a policy: {counts['with_policy']}, none of them in mode enforce"
    what = f"domains asked for: {asked}; with a policy: {counts['with_policy']}; in mode enforce: {enforced}"
    return f"{what}. If they were enforced today, of these:"


def _table(heading: str, domains: Sequence[JSON], now: float, most: int) -> Iterator[tuple[str, Status | None]]:
    if not domains:
        return
    yield "", None
    yield f"{heading:{_DOMAIN}}  queries  probed", None
    for one in domains[:most]:
        name = one["domain"]
        if len(name) > _DOMAIN:
            yield name, None
            name = ""
        yield f"{name:{_DOMAIN}}  {one['queries']:>7}  {ago(one['probed_at'], now)}", None
        yield from _wrapped(one["reason"], "    ")
    if len(domains) > most:
        yield f"and {len(domains) - most} more; --all lists them", None


def _wrapped(text: str, margin: str = "") -> Iterator[tuple[str, None]]:
    for line in textwrap.wrap(text, WIDTH, initial_indent=margin, subsequent_indent=margin):
        yield line, None


def document(counts: JSON, domains: Sequence[JSON], status: Status) -> JSON:
    """The same as JSON, with all domains. Times are ISO 8601 in UTC."""
    times = ("probed_at", "asked_at")
    listed = [{**one, **{name: iso(one[name]) for name in times}} for one in domains]
    return {**counts, "since": iso(counts["since"]), "domains": listed, "status": status.name.lower()}
