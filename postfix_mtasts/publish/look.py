"""Looks at domains from outside, as senders do, and judges policies that are not published yet.

Both is the work of `postfix-mtasts-query`, with `--probe` and with `--policy`.
"""

import datetime
import pathlib
import socket
import tempfile
from dataclasses import dataclass

from postfix_mtasts.config import Config, Publish
from postfix_mtasts.daemon.explain import Explanation
from postfix_mtasts.dns import tlsa
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import Client
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.publish.events import Looked
from postfix_mtasts.publish.records import leads_here
from postfix_mtasts.publish.sight import Sight, all_remarks, looked, names_with_aliases
from postfix_mtasts.publish.state import State, body
from postfix_mtasts.query.domain.at_hand import AtHand
from postfix_mtasts.query.domain.examine import Examined, Examiner, Options, RunningDaemon
from postfix_mtasts.query.domain.remark import Remark
from postfix_mtasts.query.output import Output
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.sts.observation import RecordAbsent, RecordFound, RecordObservation
from postfix_mtasts.sts.policy import Policy, parse
from postfix_mtasts.sts.record import Record

# The policy is fetched as if this record were found: before there is a record, the file must be seen.
_RECORD = Record("0")
_WHY = "a sender without a cached copy"


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a domain that we publish: the event for the rules, and all remarks."""

    event: Looked
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is published for a domain by somebody else: the record, and the policy if senders can fetch it."""

    record: RecordObservation
    policy: Policy | None


class Looker:
    """Looks at domains. Raises QueryError if there are no CAs."""

    def __init__(self, settings: Config, output: Output) -> None:
        self._settings = settings
        self._output = output
        self._found = AtHand(Client(socket.getfqdn(), checks_patterns=True))  # Senders compare the MX host's own name.
        self._resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
        self._examiner = self._made(Options(probe=True, patient=True, record=str(_RECORD)))
        self._rules = ReplyRules(Style.TLSRPT)

    async def look(self, state: State) -> Look:
        """Look at a domain now."""
        examined = await self._examine(self._examiner, state.domain)
        aliases = {
            name: await _alias(self._resolver, name) for name in names_with_aliases(state, self._settings.publish)
        }
        sight = Sight(
            report=examined.report,
            policies=examined.served,
            record=await self._resolver.record(state.domain),
            aliases=aliases,
            addresses=await _addresses(self._resolver, state.domain.policy_host()),
        )
        now = datetime.datetime.now(datetime.UTC)
        remarks = all_remarks(state, sight, examined.remarks, self._settings.publish, now)
        return Look(looked(state, sight, self._settings.publish, remarks), remarks)

    async def elsewhere(self, domain: PolicyDomain) -> Elsewhere:
        """What is published for a domain that we do not publish yet."""
        record = await self._resolver.record(domain)
        if not isinstance(record, RecordFound):
            return Elsewhere(record, None)
        examined = await self._examine(self._made(Options(patient=True)), domain)
        report = examined.report.policy
        return Elsewhere(record, parse(report.file.encode())[0] if report and not report.problem else None)

    async def judge(self, domain: PolicyDomain, policy: Policy) -> tuple[Remark, ...]:
        """What would be wrong with a policy if it were published."""
        with tempfile.TemporaryDirectory() as folder:
            draft = pathlib.Path(folder, "mta-sts.txt")
            draft.write_bytes(body(policy))  # noqa: ASYNC240 - nobody else waits
            options = Options(policy=str(draft), record=str(_RECORD), patient=True)
            return (await self._examine(self._made(options), domain)).remarks

    async def mx_hosts(self, domain: PolicyDomain) -> tuple[str, ...] | None:
        """The MX hosts of a domain; None if they cannot be looked up."""
        try:
            found = await tlsa.mail_hosts(self._resolver, NextHop(domain))
        except DnsError:
            return None
        return found.records if found.exists else None

    def _made(self, options: Options) -> Examiner:
        return Examiner(self._settings, self._found, options, self._output)

    async def _examine(self, examiner: Examiner, domain: PolicyDomain) -> Examined:
        return await examiner.examine(NextHop(domain), self._no_daemon())

    async def _no_daemon(self) -> RunningDaemon:
        return RunningDaemon(Explanation(Entry(), self._rules, self._settings.server.answer_within, {}), _WHY)


def is_findable(record: RecordObservation) -> bool:
    """Whether senders may find a policy with what DNS has."""
    return not isinstance(record, RecordAbsent)


async def look_whether_it_leads_here(resolver: Resolver, domain: PolicyDomain, settings: Publish) -> bool | None:
    """Look up whether a domain's policy host is ours; None if that is not known."""
    host = domain.policy_host()
    alias = await _alias(resolver, host) if settings.zone else None
    return leads_here(domain, alias, await _addresses(resolver, host), settings)


async def _alias(resolver: Resolver, name: str) -> str | None:
    try:
        found = await resolver.alias(name)
    except DnsError:
        return None
    return found.records[0].lower() if found.records else ""


async def _addresses(resolver: Resolver, name: str) -> tuple[str, ...] | None:
    try:
        return await resolver.addresses(name)
    except DnsError:
        return None
