"""The subcommands that change what is published: add, mode, mx, max-age and remove."""

import argparse
import os
from collections.abc import Iterator, Sequence

from postfix_mtasts.config import Config
from postfix_mtasts.publish.arguments import domain_of, max_age_of, mx_of, reason_of
from postfix_mtasts.publish.change import Publisher
from postfix_mtasts.publish.events import (
    Added,
    Decision,
    Event,
    MaxAgeAsked,
    ModeAsked,
    MxAsked,
    RefusedError,
    RemovalAsked,
)
from postfix_mtasts.publish.look import Elsewhere, Looker, is_findable
from postfix_mtasts.publish.records import record_name
from postfix_mtasts.publish.show import show_result
from postfix_mtasts.publish.words import forbidden, next_steps
from postfix_mtasts.query.domain.remark import Remark, warning
from postfix_mtasts.query.output import Output, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy


async def add(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Begin to publish a policy in mode testing."""
    domain = domain_of(arguments.domain)
    mx, max_age = mx_of(arguments.mx or []), max_age_of(arguments.max_age)
    record_name(domain, settings.publish)  # It must not be too long.
    publisher, looker = Publisher(settings.publish, user=arguments.user), Looker(settings, output)
    # Before it takes time to look: the domain must not be published yet.
    publisher.draft(domain, Added(domain, Policy(Mode.TESTING, max_age, ())))
    hosts = await looker.mx_hosts(domain)
    mx = mx or _patterns(hosts, "--mx HOST")
    elsewhere = await looker.elsewhere(domain)
    policy = Policy(Mode.TESTING, max_age, mx)
    event = Added(domain, policy, elsewhere.policy, findable=is_findable(elsewhere.record), hosts=hosts)
    decision, judged = await _judged(publisher, looker, domain, event, forced=False)
    show_result(decision, (*_of_somebody_else(elsewhere), *judged), settings.publish, output)
    if not output.json:
        for step in next_steps(decision.state, settings.publish):
            output.text(f"  next      {step}")
    return Status.OK


def _of_somebody_else(found: Elsewhere) -> Iterator[Remark]:
    """What the administrator must know of a policy that is published already."""
    if found.policy and found.policy.mode is Mode.ENFORCE:
        text = "somebody else publishes a policy in mode enforce, and ours is in mode testing: it protects nobody"
        yield warning(text, "policy")
    if not found.policy and is_findable(found.record):
        which = "there may be a policy of somebody else, but it could not be fetched"
        text = f"{which}: nothing here says which MX hosts the senders that have it refuse, and until when"
        yield warning(text, "policy")


async def mode(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Change the mode of a policy."""
    domain, wanted = domain_of(arguments.domain), Mode(arguments.mode)
    force = reason_of(arguments.force, wanted)
    publisher, looker = Publisher(settings.publish, user=arguments.user), Looker(settings, output)
    problems: tuple[str, ...] = ()
    if wanted is Mode.ENFORCE and publisher.state(domain).wanted.mode is not Mode.ENFORCE:
        look = await looker.look(publisher.publish(domain))
        problems = (*look.event.problems, *map(forbidden, publisher.happened(domain, look.event).warnings))
    event = ModeAsked(wanted, problems, force)
    decision, judged = await _judged(publisher, looker, domain, event, forced=bool(force))
    show_result(decision, judged, settings.publish, output)
    return Status.OK


async def mx(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Change the MX hosts that a policy allows."""
    domain = domain_of(arguments.domain)
    publisher, looker = Publisher(settings.publish, user=arguments.user), Looker(settings, output)
    publisher.state(domain)
    hosts = await looker.mx_hosts(domain)
    wanted = mx_of(arguments.set) if arguments.set else _patterns(hosts, "--set HOST")
    decision, judged = await _judged(publisher, looker, domain, MxAsked(wanted, hosts), forced=False)
    show_result(decision, judged, settings.publish, output)
    return Status.OK


async def max_age(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Change for how long senders keep a policy."""
    domain, event = domain_of(arguments.domain), MaxAgeAsked(max_age_of(arguments.max_age))
    publisher, looker = Publisher(settings.publish, user=arguments.user), Looker(settings, output)
    publisher.state(domain)
    decision, judged = await _judged(publisher, looker, domain, event, forced=False)
    show_result(decision, judged, settings.publish, output)
    return Status.OK


async def remove(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Stop publishing, without stopping mail."""
    domain = domain_of(arguments.domain)
    decision = Publisher(settings.publish, user=arguments.user).happened(domain, RemovalAsked())
    show_result(decision, (), settings.publish, output)
    return Status.OK


async def _judged(
    publisher: Publisher, looker: Looker, domain: PolicyDomain, event: Event, *, forced: bool
) -> tuple[Decision, Sequence[Remark]]:
    """Judge the policy that an event brings, and publish it unless there is an error.

    Raises RefusedError, StoreError and FileError.
    """
    draft = publisher.draft(domain, event)
    remarks: tuple[Remark, ...] = ()
    if draft and draft.mode.checks_hosts:
        remarks = await looker.judge(domain, draft)
        errors = [remark for remark in remarks if remark.status is Status.ERROR]
        if errors and not forced:
            raise RefusedError(f"nothing was changed: {errors[0].text}")
    decision = publisher.happened(domain, event)
    return decision, [remark for remark in remarks if remark.status is not Status.OK]


def _patterns(hosts: tuple[str, ...] | None, option: str) -> tuple[MxPattern, ...]:
    """The MX hosts that DNS has, as lines of a policy."""
    if not hosts:
        why = "its MX records cannot be looked up" if hosts is None else "it has no MX host"
        raise RefusedError(why, f"name the MX hosts with {option}")
    return mx_of([os.fspath(host) for host in hosts])
