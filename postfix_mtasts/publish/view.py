"""The subcommands that change nothing by themselves: list, show, records, zone and ready; and check."""

import argparse
import asyncio
import time
from collections.abc import Iterator

from postfix_mtasts.config import Config
from postfix_mtasts.publish.arguments import domain_of
from postfix_mtasts.publish.change import Publisher
from postfix_mtasts.publish.events import Decision, RefusedError
from postfix_mtasts.publish.files import FileError
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.look import Looker
from postfix_mtasts.publish.nameservers import OurZone
from postfix_mtasts.publish.ready import as_of, readiness, stops_mail
from postfix_mtasts.publish.records import customer_records, domain_records, host_name, zone_records
from postfix_mtasts.publish.show import show_domain, show_line, show_readiness, show_result, status_of, tell
from postfix_mtasts.publish.state import Stage
from postfix_mtasts.publish.store import StoreError
from postfix_mtasts.publish.told import told
from postfix_mtasts.publish.weigh import Scale
from postfix_mtasts.query.domain.remark import Remark, error
from postfix_mtasts.query.output import Output, QueryError, Status, worst
from postfix_mtasts.sts.domain import PolicyDomain

# At most so many domains are looked at together, and so many are begun in a second: a name server of ours or of our
# customers gets some ten queries for each. One that hangs takes a minute, so ten thousand take less than a day.
AT_ONCE = 10
EACH_SECOND = 5


# What is asked of the owner of a domain whose names lead to ours.
_ASKED = {
    Stage.PUBLISHED: "; The owner of {} adds these lines to its zone, once. No change of the policy needs more.",
    Stage.LEAVING: "; The owner of {} must keep these lines in its zone for now.",
    Stage.WITHDRAWN: "; The owner of {} removes the first and the last of these lines now, the second one at the end.",
    Stage.CLEARED: "; The owner of {} removes these lines now.",
}


async def domains(_: argparse.Namespace, settings: Config, output: Output) -> Status:
    """List all domains."""
    for line in Publisher(settings.publish).store.lines():
        show_line(line, output)
    return Status.OK


async def show(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Show a domain with its history."""
    domain = domain_of(arguments.domain)
    store = Publisher(settings.publish).store
    state = store.get(domain)
    if not state:
        raise RefusedError("is not published here", "postfix-mtasts-publish list")
    show_domain(follows(state), store.history(domain), settings.publish, output)
    return Status.OK


async def records(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Show what the owner of a domain puts into its zone."""
    domain = domain_of(arguments.domain)
    state = Publisher(settings.publish).state(domain)
    record = follows(state).publication.record
    wanted = customer_records(domain, settings.publish)
    ours = () if state.stage is Stage.CLEARED else tuple(domain_records(domain, record, settings.publish))
    if output.json:
        for kind, of_zone in (("customer", wanted), ("ours", ours)):
            for one in of_zone:
                made = {"domain": domain.name, "zone": kind, "name": one.name, "type": one.type, "data": one.data}
                output.document(made)
        return Status.OK
    if wanted:
        output.text(_ASKED[state.stage].format(domain))
        for one in wanted:
            output.text(str(one))
        if settings.publish.ca and state.stage is Stage.PUBLISHED:
            output.text(f"; CAA records of {domain} need no change: the one where the CNAME leads to counts.")
    if ours:
        output.text("; In our zone:" if wanted else f"; In the zone of {domain}:")
    elif state.stage is Stage.CLEARED and not wanted:
        output.text(f"; {domain} needs no records of ours any more.")
    for one in ours:
        output.text(str(one))
    if not settings.publish.addresses and state.stage is Stage.PUBLISHED:
        host = host_name(domain, settings.publish)
        output.text(f"; publish.addresses is empty: add the A and AAAA records of {host} that lead to your web server.")
    if record is None and state.stage is Stage.PUBLISHED:
        output.text("; The TXT record for MTA-STS comes once the policy file was seen: postfix-mtasts-publish check")
    return Status.OK


async def zone(_: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Print the records of all domains, as in a zone file."""
    lines = Publisher(settings.publish).store.lines()
    gone = (Stage.CLEARED.value, Stage.REMOVED.value)
    known = ((PolicyDomain(line.domain), line.record) for line in lines if line.stage not in gone)
    for one in zone_records(known, settings.publish):
        if output.json:
            output.document({"name": one.name, "type": one.type, "data": one.data})
        else:
            output.text(str(one))
    return Status.OK


async def ready(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Show whether mode enforce is safe."""
    domain = domain_of(arguments.domain)
    now = time.time()
    state = as_of(Publisher(settings.publish).state(domain), now)
    facts = told(settings.reports, state, now)
    found = readiness(state, facts)
    alarm = stops_mail(state, facts)
    show_readiness(state, found, alarm, output)
    return Status.ERROR if alarm else Status.OK if found.ready else Status.WARNING


async def check(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Look at domains from outside, and do what can be done next."""
    publisher = Publisher(settings.publish, user=arguments.user)
    looker, ours = Looker(settings, output), OurZone(settings)
    scale = Scale(settings, publisher, looker)
    wanted = [domain_of(word) for word in arguments.domain]
    for domain in wanted:
        try:
            publisher.state(domain)
        except RefusedError as refused:
            raise QueryError(f"{domain}: {refused}", refused.hint, Status.ERROR) from refused
    waiting = iter(wanted or _published(publisher))
    shared = await ours.publish_shared()
    for remark in shared:
        tell(remark, output)
    statuses = [remark.status for remark in shared]
    turn, clock = asyncio.Lock(), asyncio.get_running_loop().time
    may_begin = clock()

    async def work() -> None:
        nonlocal may_begin
        while True:
            async with turn:
                domain = next(waiting, None)
                if domain is None:
                    return
                await asyncio.sleep(may_begin - clock())
                may_begin = clock() + 1 / EACH_SECOND
            statuses.append(await _check(domain, publisher, looker, ours, scale, output))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return worst(statuses)


def _published(publisher: Publisher) -> Iterator[PolicyDomain]:
    names = [line.domain for line in publisher.store.lines() if line.stage != Stage.REMOVED.value]
    return map(PolicyDomain, names)


async def _look(
    domain: PolicyDomain, publisher: Publisher, looker: Looker, ours: OurZone
) -> tuple[Decision, tuple[Remark, ...]]:
    """Look at a domain, and let our zone have its records. Raises RefusedError, StoreError and FileError."""
    before = publisher.publish(domain)
    sent = await ours.publish(before)  # Senders need them to see anything.
    if before.stage is Stage.CLEARED and any(one.status is Status.ERROR for one in sent):
        return follows(before), sent  # No check takes the records of a domain that is removed out of the zone.
    look = await looker.look(before)
    decision = publisher.happened(domain, look.event)
    if (decision.state.record, decision.state.stage) != (before.record, before.stage):
        sent = await ours.publish(decision.state)
    return decision, (*look.remarks, *sent)


async def _check(
    domain: PolicyDomain, publisher: Publisher, looker: Looker, ours: OurZone, scale: Scale, output: Output
) -> Status:
    try:
        decision, remarks = await _look(domain, publisher, looker, ours)
        decision, weighed = await scale.weigh(decision, remarks)
    except (RefusedError, StoreError, FileError) as failure:
        # The others are looked at all the same.
        text = f"{domain}: {failure}"
        if output.json:
            output.document({"domain": domain.name, "error": str(failure)})
        else:
            output.text(text, Status.ERROR)
        return error(text).status
    remarks = (*remarks, *weighed)
    show_result(decision, remarks, scale.settings.publish, output)
    return status_of(decision, remarks)
