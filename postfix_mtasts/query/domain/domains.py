"""Look up the MTA-STS policy of each domain, and show each stage, what is wrong, and the reply to Postfix."""

import argparse
import asyncio
import datetime
import socket

from postfix_mtasts.cache.row import RowError
from postfix_mtasts.config import Config
from postfix_mtasts.daemon.command import choose_reply_rules, read_config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.query.arguments import next_hop_of
from postfix_mtasts.query.domain import text
from postfix_mtasts.query.domain.discovery import Discovery
from postfix_mtasts.query.domain.remarks import remarks, verdict
from postfix_mtasts.query.output import Output, QueryError, Status, to_json, worst
from postfix_mtasts.query.running.client import NoDaemon, ask, ask_as_postfix
from postfix_mtasts.query.running.render import Known, describe_briefly, document, parse_known
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import CaError, tls_context
from postfix_mtasts.remote.probe import Prober
from postfix_mtasts.sts.domain import NextHop

_PATIENCE = 10.0  # Seconds, for an answer from memory.


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("domain", nargs="+", metavar="DOMAIN", help="a domain as in Postfix's tables, also [host]:port")
    parser.add_argument(
        "--as-postfix",
        action="store_true",
        help="only ask the running daemon, as Postfix does",
    )
    parser.add_argument("--probe", action="store_true", help="also connect to the MX hosts, as Postfix would")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Show each domain and return the worst status. Raises QueryError and ConfigError."""
    settings = read_config(arguments.config)
    if arguments.as_postfix:
        return asyncio.run(_ask(arguments.domain, settings, output))
    hops = [next_hop_of(word) for word in arguments.domain]
    return asyncio.run(_run(hops, settings, arguments.probe, output))


async def _ask(keys: list[str], settings: Config, output: Output) -> Status:
    """Ask the daemon for each key just as given: Postfix also asks for keys that are not domains."""
    endpoint = settings.server.listen[0]
    for key in keys:
        answer = await ask_as_postfix(endpoint, key)
        if output.json:
            output.document(
                {"key": key, "endpoint": str(endpoint), "reply": answer.reply.rstrip(), "seconds": answer.seconds}
            )
        else:
            output.text(f"{key}: {answer.reply.rstrip()} ({answer.seconds * 1000:.1f} ms, {endpoint})")
    return Status.OK


async def _run(hops: list[NextHop], settings: Config, probe: bool, output: Output) -> Status:
    discovery = await _discovery(settings)
    statuses = []
    for number, hop in enumerate(hops):
        report = await discovery.discover(hop, probe=probe)
        cached = await asyncio.to_thread(_cached, settings, hop)
        now = datetime.datetime.now(datetime.UTC)
        judged = remarks(report, now, _file_of(cached, report.record.id))
        status = verdict(report, judged)
        statuses.append(status)
        if output.json:
            listed = [{"status": remark.status.name.lower(), "text": remark.text} for remark in judged]
            entry = None if isinstance(cached, str) else document(cached, now.timestamp(), alone=True)
            output.document({**to_json(report), "cached": entry, "remarks": listed, "status": status.name.lower()})
            continue
        if number:
            output.text()
        in_daemon = [cached] if isinstance(cached, str) else list(describe_briefly(cached, now.timestamp()))
        text.show(report, judged, now, in_daemon, output)
    return worst(statuses)


def _cached(settings: Config, hop: NextHop) -> Known | str:
    """What the running daemon has cached for a domain, or why that is unknown."""
    try:
        (reply,) = ask(settings.server.control, {"request": "show", "domain": hop.domain.name}, _PATIENCE)
        return parse_known(reply)
    except (NoDaemon, QueryError, RowError) as error:
        return f"unknown: {error}"


def _file_of(cached: Known | str, record_id: str | None) -> str | None:
    """The cached policy file, if it was fetched for this record id."""
    policy = None if isinstance(cached, str) else cached.entry.cached
    return policy.text if policy and policy.record_id == record_id else None


async def _discovery(settings: Config) -> Discovery:
    try:
        tls = tls_context(settings.fetch.ca_file)
    except CaError as error:
        raise QueryError(f'fetch.ca_file = "{settings.fetch.ca_file}": {error}', status=Status.CONFIG) from error
    resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
    allowed = settings.fetch.allow_addresses
    rules, *_ = await choose_reply_rules(settings, settings.server.listen)
    return Discovery(
        resolver,
        Fetcher(resolver, tls, timeout=settings.fetch.timeout, allow_addresses=allowed, keep_certificate=True),
        Prober(resolver, tls, socket.gethostname(), allowed),
        rules,
    )
