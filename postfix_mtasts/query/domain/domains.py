"""Look up the MTA-STS policy of each domain: what holds now, what would be found, what is wrong, and what to do."""

import argparse
import asyncio
import datetime
import ipaddress
from dataclasses import replace

from postfix_mtasts.config import Config, Endpoint
from postfix_mtasts.config_file import read_config
from postfix_mtasts.daemon.explain import Explanation, ExplanationError, parse_explanation
from postfix_mtasts.daemon.reload import choose_reply_rules
from postfix_mtasts.query.arguments import next_hop_of
from postfix_mtasts.query.domain import as_postfix
from postfix_mtasts.query.domain.at_hand import AtHand, at_hand
from postfix_mtasts.query.domain.examine import Examined, Examiner, Options, RunningDaemon
from postfix_mtasts.query.domain.text import Text
from postfix_mtasts.query.output import Output, QueryError, Status, to_json, worst
from postfix_mtasts.query.running.client import NO_DOMAIN, NoDaemon, ask, ask_as_postfix, sockets
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Entry

_PATIENCE = 5.0  # Seconds, for an answer from memory.


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("domain", nargs="+", metavar="DOMAIN", help="a domain as in Postfix's tables, also [host]:port")
    parser.add_argument(
        "--as-postfix",
        action="store_true",
        help="only ask the running daemon, on the socket and with the map name of main.cf",
    )
    parser.add_argument("--probe", action="store_true", help="also connect to the MX hosts, as Postfix would")
    parser.add_argument(
        "--patient", action="store_true", help="wait for as long as the daemon, and not only until Postfix is answered"
    )
    parser.add_argument("--all", action="store_true", help="print long lists and texts in full")
    parser.add_argument("--policy", metavar="FILE", help="judge this policy file, which is not published yet")
    parser.add_argument("--record", metavar="TXT", help="judge this TXT record, which is not published yet")
    parser.add_argument("--server", metavar="ADDRESS", help="fetch the policy from this address of the policy host")


def run(arguments: argparse.Namespace, output: Output) -> Status:
    """Show each domain and return the worst status. Raises QueryError and ConfigError."""
    settings = read_config(arguments.config)
    if arguments.as_postfix:
        return asyncio.run(_as_postfix(arguments.domain, settings, output))
    hops = [next_hop_of(word) for word in arguments.domain]
    options = Options(
        probe=arguments.probe,
        patient=arguments.patient,
        policy=arguments.policy,
        record=arguments.record,
        server=_address(arguments.server),
    )
    return asyncio.run(_run(hops, settings, options, output, everything=arguments.all))


def _address(text: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address(text)) if text else None
    except ValueError as error:
        raise QueryError(f"--server {text!a}: must be an IP address", status=Status.USAGE) from error


async def _as_postfix(keys: list[str], settings: Config, output: Output) -> Status:
    return await as_postfix.run(keys, settings, await at_hand(), output)


async def _run(hops: list[NextHop], settings: Config, options: Options, output: Output, *, everything: bool) -> Status:
    found = await at_hand()
    rules, *_ = await choose_reply_rules(settings, settings.server.listen)
    nothing = Explanation(Entry(), rules, settings.server.answer_within, {})
    examiner = Examiner(settings, found, options, output)
    statuses = []
    for number, hop in enumerate(hops):
        # The daemon may not answer either, so it is asked beside all else.
        asking = asyncio.create_task(running_daemon(settings, hop, options, found, nothing))
        examined = await examiner.examine(hop, asking)
        now = datetime.datetime.now(datetime.UTC)
        statuses.append(examined.verdict.status)
        if output.json:
            output.document(_document(examined))
            continue
        if number:
            output.text()
        text = Text(output, everything=everything)
        text.show(examined.report, examined.verdict, examined.differences, examined.remarks, now)
        if examined.publish:
            text.publish(examined.publish, is_wrong=examined.verdict.status is Status.ERROR)
    return worst(statuses)


def _document(examined: Examined) -> dict[str, object]:
    return {
        "verdict": examined.verdict.text,
        **to_json(examined.report),
        "publish": examined.publish,
        "differences": [_remark(one) for one in to_json(examined.differences)],
        "remarks": [_remark(one) for one in to_json(examined.remarks)],
        "status": examined.verdict.status.name.lower(),
    }


def _remark(remark: dict[str, object]) -> dict[str, object]:
    return {**remark, "status": Status(int(str(remark["status"]))).name.lower()}


async def running_daemon(
    settings: Config, hop: NextHop, options: Options, found: AtHand, nothing: Explanation
) -> RunningDaemon:
    """What the running daemon answers Postfix from, or `nothing` and why that is unknown."""
    if options.is_unpublished:
        judged = "policy file" if options.policy else "record" if options.record else ""
        reason = f"this {judged} is not published yet" if judged else "this web server is not in DNS yet"
        return RunningDaemon(nothing, reason)
    served = await asyncio.to_thread(sockets, settings)
    known, why = await asyncio.to_thread(_explanation, settings, hop)
    known = known or nothing
    asks = found.asks(served)
    if asks:  # The name of the map may choose the style.
        known = replace(known, rules=known.rules.of_map(asks[1].encode("ascii", "replace")))
    exempt = await found.exempt(str(hop), served)
    return RunningDaemon(known, why, exempt, await _silent(*asks) if asks else None)


async def _silent(endpoint: Endpoint, map_name: str) -> str | None:
    """Why the daemon does not answer there. None if it does, or if this user may not ask."""
    try:
        await ask_as_postfix(endpoint, NO_DOMAIN, _PATIENCE, map_name)
    except QueryError as error:
        return None if isinstance(error.__cause__, PermissionError) else str(error)
    return None


def _explanation(settings: Config, hop: NextHop) -> tuple[Explanation | None, str | None]:
    """What the running daemon answers from, or why that is unknown."""
    try:
        (reply,) = ask(settings.server.control, {"request": "explain", "domain": hop.domain.name}, _PATIENCE)
        return parse_explanation(dict(reply)), None
    except NoDaemon as error:
        return None, f"{error}: {error.remedy}".removesuffix(": ")
    except (QueryError, ExplanationError) as error:
        return None, str(error)
