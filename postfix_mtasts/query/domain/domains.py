"""Discover domains, and say at each stage what was seen, what is wrong, and what Postfix is told."""

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
from postfix_mtasts.query.running.render import Known, brief, document, known
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import CaError, tls_context
from postfix_mtasts.remote.probe import Prober
from postfix_mtasts.sts.domain import NextHop

_PATIENCE = 10.0  # Seconds for what the daemon has at hand.


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("domain", nargs="+", metavar="DOMAIN", help="as Postfix has it: also [host]:port")
    parser.add_argument(
        "--as-postfix",
        action="store_true",
        help="ask the running daemon as Postfix does, and no more",
    )
    parser.add_argument("--probe", action="store_true", help="connect to the MX hosts too, as Postfix would")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Show each domain; the worst status of them. Raises QueryError and ConfigError."""
    settings = read_config(arguments.config)
    if arguments.as_postfix:
        return asyncio.run(_ask(arguments.domain, settings, output))
    hops = [next_hop_of(word) for word in arguments.domain]
    return asyncio.run(_run(hops, settings, arguments.probe, output))


async def _ask(keys: list[str], settings: Config, output: Output) -> Status:
    """Keys go as they were given: Postfix has some that are no domain."""
    endpoint = settings.server.listen[0]
    for key in keys:
        asked = await ask_as_postfix(endpoint, key)
        if output.json:
            output.document(
                {"key": key, "endpoint": str(endpoint), "reply": asked.reply.rstrip(), "seconds": asked.seconds}
            )
        else:
            output.text(f"{key}: {asked.reply.rstrip()} ({asked.seconds * 1000:.1f} ms, {endpoint})")
    return Status.OK


async def _run(hops: list[NextHop], settings: Config, probe: bool, output: Output) -> Status:
    discovery = await _discovery(settings)
    statuses = []
    for number, hop in enumerate(hops):
        report = await discovery.discover(hop, probe=probe)
        cached = await asyncio.to_thread(_cached, settings, hop)
        now = datetime.datetime.now(datetime.UTC)
        said = remarks(report, now, _file_of(cached, report.record.id))
        status = verdict(report, said)
        statuses.append(status)
        if output.json:
            words = [{"status": remark.status.name.lower(), "text": remark.text} for remark in said]
            entry = None if isinstance(cached, str) else document(cached, now.timestamp(), alone=True)
            output.document({**to_json(report), "cached": entry, "remarks": words, "status": status.name.lower()})
            continue
        if number:
            output.text()
        in_daemon = [cached] if isinstance(cached, str) else list(brief(cached, now.timestamp()))
        text.show(report, said, now, in_daemon, output)
    return worst(statuses)


def _cached(settings: Config, hop: NextHop) -> Known | str:
    """What the running daemon has cached, or why that is unknown."""
    try:
        (reply,) = ask(settings.server.control, {"request": "show", "domain": hop.domain.name}, _PATIENCE)
        return known(reply)
    except (NoDaemon, QueryError, RowError) as error:
        return f"unknown: {error}"


def _file_of(cached: Known | str, record_id: str | None) -> str | None:
    """The policy file that is cached for a record id."""
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
