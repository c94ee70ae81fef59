"""Examines one domain: asks, discovers, probes, and judges."""

import asyncio
import contextlib
import datetime
import ssl
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace

from postfix_mtasts.config import Config, ConfigError, Fetch, IpNetwork
from postfix_mtasts.config_file import Proxy, read_proxy
from postfix_mtasts.daemon.explain import Explanation
from postfix_mtasts.delivery import certificate, mx
from postfix_mtasts.delivery.hosts import probe_host
from postfix_mtasts.delivery.mx import MxReport, ProbeReport, Rules, unprobed
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Pinned, Resolver
from postfix_mtasts.dns.tlsa import MAX_HOSTS
from postfix_mtasts.postfix.installation import Client
from postfix_mtasts.query.domain import asked, describe, unpublished
from postfix_mtasts.query.domain.asked import Outcome
from postfix_mtasts.query.domain.at_hand import AtHand
from postfix_mtasts.query.domain.discovery import Discovery, Progress, Seen, Sources
from postfix_mtasts.query.domain.now import differences, running_report
from postfix_mtasts.query.domain.remark import Remark, warning
from postfix_mtasts.query.domain.remarks import remarks
from postfix_mtasts.query.domain.report import (
    AnswerReport,
    ExceptionReport,
    PolicyHostReport,
    Report,
    RunningReport,
)
from postfix_mtasts.query.domain.verdict import verdict
from postfix_mtasts.query.output import Output, QueryError, Status
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import CaError, mail_tls_context, tls_context
from postfix_mtasts.remote.probe import EVERYWHERE, Prober
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Apply
from postfix_mtasts.sts.observation import DaneUsable, FetchFailed, PolicyFetched, PolicyInvalid, RecordFound, Stage
from postfix_mtasts.sts.policy import Policy

_TELL_AFTER = 2.0  # Seconds. What takes longer shows its stage on a terminal.


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted. `policy` is a file, `record` a text and `server` an address that are not published yet."""

    probe: bool = False
    patient: bool = False
    policy: str | None = None
    record: str | None = None
    server: str | None = None

    @property
    def is_unpublished(self) -> bool:
        """Whether something is judged that senders cannot find yet."""
        return bool(self.policy or self.record or self.server)


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """What the running daemon answers from; `why` none could be asked; the exception that Postfix finds before it.

    `silent` is why it does not answer where Postfix asks it.
    """

    known: Explanation
    why: str | None
    exempt: ExceptionReport | None = None
    silent: str | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """The report and what is to be said of it. `publish` is the record to publish, if that was asked for.

    `served` are the different valid policies that the addresses of the policy host serve.
    """

    report: Report
    verdict: Remark
    differences: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    publish: str | None
    served: tuple[Policy, ...]


class Examiner:
    """Examines domains with the settings of the daemon. Raises QueryError if CAs, or credentials for a proxy, lack."""

    def __init__(self, settings: Config, found: AtHand, options: Options, output: Output) -> None:
        self._settings = settings
        self._found = found
        self._options = options
        self._output = output
        self._tls = _tls(settings.fetch.ca_file)
        self._resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
        # Without --probe, Postfix's CAs do not matter.
        client = found.client if options.probe else Client(found.client.helo)
        mail_tls = _mail_tls(client, settings.fetch.ca_file)
        self._proxy = _proxy(settings.fetch)
        self._prober = Prober(self._resolver, mail_tls, client.helo, settings.fetch.allow_addresses, self._proxy)

    async def examine(self, hop: NextHop, asking: Awaitable[RunningDaemon]) -> Examined:
        """Examine a domain, while the daemon is being asked about it."""
        progress = Progress()
        sources, publish = self._sources(hop)
        showing = asyncio.create_task(self._show(progress))
        try:
            seen = await Discovery(sources, self._limit(), progress).discover(hop)
            progress.doing["the daemon"] = None
            daemon = await asking
            known = daemon.known
            now = time.time()
            outcome = asked.ask(known, hop, seen.fresh, now)
            without = asked.ask(replace(known, exception=None), hop, seen.fresh, now)
            progress.doing = dict.fromkeys(["MX hosts"] if self._options.probe else [])
            hosts, rules = await self._mx(hop, known, without, seen)
            progress.doing = {}
            host = await self._policy_host(hop, seen, progress)
        finally:
            showing.cancel()
        running = running_report(known, daemon.why, hop, outcome, now, daemon.exempt, without)
        running = replace(running, silent=daemon.silent)
        answer = describe.answer_report(known, hop, seen.fresh, now)
        report = _report(hop, running, seen, host, hosts, answer)
        judged = [(one.host, mx.judge(one, rules)) for one in hosts]
        said = remarks(report, datetime.datetime.now(datetime.UTC), late=outcome.late)
        differs = () if daemon.why else tuple(differences(known, hop, seen.fresh, now))
        is_old = await self._published_id(hop, report.record.id)
        if is_old and publish:
            publish = unpublished.to_publish(hop.domain, unpublished.new_record(time.time()))
        said = (*said, *is_old)
        if running.withheld:
            without = asked.if_enforced(without, known, hop, seen.fresh)
        judgement = verdict(report, without, judged, (*said, *differs))
        if self._options.is_unpublished:
            judgement = replace(judgement, text=f"once published: {judgement.text}")
        return Examined(report, judgement, differs, said, publish, _served(seen))

    async def _published_id(self, hop: NextHop, record_id: str | None) -> tuple[Remark, ...]:
        if not self._options.policy:
            return ()
        published = await self._resolver.record(hop.domain)
        if isinstance(published, RecordFound) and published.record.id == record_id:
            senders = "senders that know it do not fetch the file; take a new id"
            text = f"the published record already has the id {record_id}: {senders}"
            return (warning(text, "record"),)
        return ()

    def _limit(self) -> float:
        """Seconds for a discovery."""
        limit = self._settings.dns.timeout + self._settings.fetch.timeout
        return limit if self._options.patient else min(limit, self._settings.server.answer_within)

    def _sources(self, hop: NextHop) -> tuple[Sources, str | None]:
        """Where the record and the policy come from, and the record to publish if they are not published."""
        options, settings = self._options, self._settings.fetch
        resolver, allowed = self._resolver, settings.allow_addresses

        def pinned(address: str) -> Fetcher:
            return self._fetcher(Pinned(address), allowed)

        fetcher = self._fetcher(resolver, allowed, self._proxy)
        if options.server:
            fetcher = self._fetcher(Pinned(options.server), EVERYWHERE)
        sources = Sources(resolver, fetcher, None if self._proxy else pinned, options.server or "")
        if not options.is_unpublished:
            return sources, None
        record = unpublished.new_record(time.time())
        given = unpublished.record_of(hop.domain, options.record or str(record))
        if isinstance(given, RecordFound):
            record = given.record
        fetched = unpublished.policy_of(options.policy, record.id) if options.policy else None
        valid = isinstance(given, RecordFound) and not isinstance(fetched, PolicyInvalid)
        publish = unpublished.to_publish(hop.domain, record) if valid else None
        return replace(sources, record=given, fetched=fetched), publish

    def _fetcher(self, resolver: Resolver, allowed: Sequence[IpNetwork], proxy: Proxy | None = None) -> Fetcher:
        timeout = self._settings.fetch.timeout
        return Fetcher(
            resolver, self._tls, timeout=timeout, allow_addresses=allowed, proxy=proxy, keep_certificate=True
        )

    async def _policy_host(self, hop: NextHop, seen: Seen, progress: Progress) -> PolicyHostReport | None:
        """The policy host; None if it was not asked."""
        fetched, name, shown, missing = seen.fresh.fetched, hop.domain.policy_host(), None, None
        if not fetched or self._options.policy:
            return None
        stage = fetched.failure.stage if isinstance(fetched, FetchFailed) else None
        if stage in (Stage.CERTIFICATE, Stage.TLS):
            progress.doing["certificate of the policy host"] = None
            shown = certificate.parse(await self._prober.certificate_of(name))
        elif stage is Stage.ADDRESS and fetched.seen and not fetched.seen.addresses:
            missing = await self._missing(name)
        return describe.policy_host_report(hop, fetched, seen.tried, shown, missing)

    async def _missing(self, host: str) -> str | None:
        """The name that does not exist, if that is why a host has no address. If the lookup fails, that is unknown."""
        with contextlib.suppress(DnsError):
            found = await self._resolver.host(host)
            return None if found.exists else found.name
        return None

    async def _mx(
        self, hop: NextHop, known: Explanation, outcome: Outcome, seen: Seen
    ) -> tuple[tuple[MxReport, ...], Rules]:
        fresh = seen.fresh.fetched.policy if isinstance(seen.fresh.fetched, PolicyFetched) else None
        in_force = outcome.answer.policy if isinstance(outcome.answer, Apply) else fresh
        by_hostname = self._found.client.judges_by_hostname(known.rules.style)
        is_cached = isinstance(outcome.answer, Apply) and not outcome.waits
        rules = Rules(in_force, by_hostname, "the cached policy" if is_cached else "the policy")
        names = (
            () if isinstance(seen.hosts, DnsError) else seen.hosts.records if seen.hosts.exists or not hop.mx else ()
        )
        probed = await asyncio.gather(*(self._probe(name, hop, seen, rules) for name in names[:MAX_HOSTS]))
        rest = len(names) - len(probed)
        return tuple(
            MxReport(name, mx.pattern_for(name, fresh), mx.pattern_for(name, in_force), probes)
            for name, probes in zip(names, [*probed, *[()] * rest], strict=True)
        ), rules

    async def _probe(self, host: str, hop: NextHop, seen: Seen, rules: Rules) -> tuple[ProbeReport, ...]:
        """Probe each address of an MX host, if it has any, and if that is wanted."""
        if host in seen.lacking:
            return (unprobed(problem=seen.lacking[host]),)
        if not self._options.probe:
            return ()
        has_tlsa = isinstance(seen.fresh.dane, DaneUsable) and host in seen.fresh.dane.hosts
        return await probe_host(self._resolver, self._prober, host, hop, rules, has_tlsa=has_tlsa)

    async def _show(self, progress: Progress) -> None:
        """Show on a terminal what the command waits for."""
        begun = time.monotonic()
        await asyncio.sleep(_TELL_AFTER)
        while True:
            if waits_for := progress.words():
                self._output.progress(f"{waits_for} ({time.monotonic() - begun:.0f} s) ...")
            await asyncio.sleep(1)


def _proxy(fetch: Fetch) -> Proxy | None:
    try:
        return read_proxy(fetch)
    except ConfigError as error:
        raise QueryError(str(error), status=Status.CONFIG) from error


def _tls(ours: str) -> ssl.SSLContext:
    try:
        return tls_context(ours)
    except CaError as error:
        raise QueryError(f'fetch.ca_file = "{ours}": {error}', status=Status.CONFIG) from error


def _mail_tls(client: Client, ours: str) -> ssl.SSLContext:
    try:
        return mail_tls_context(client.ca_file, client.ca_path, ours)
    except CaError as error:
        raise QueryError(str(error), status=Status.CONFIG) from error


def _served(seen: Seen) -> tuple[Policy, ...]:
    fetched = [seen.fresh.fetched, *(one.fetched for one in seen.tried)]
    return tuple(dict.fromkeys(one.policy for one in fetched if isinstance(one, PolicyFetched)))


def _report(
    hop: NextHop,
    running: RunningReport,
    seen: Seen,
    host: PolicyHostReport | None,
    hosts: tuple[MxReport, ...],
    answer: AnswerReport,
) -> Report:
    fetched = seen.fresh.fetched
    return Report(
        domain=hop.domain.name,
        next_hop=str(hop),
        running=running,
        record=describe.record_report(hop, seen),
        policy_host=host,
        policy=describe.policy_report(fetched) if isinstance(fetched, PolicyFetched | PolicyInvalid) else None,
        mx=hosts,
        mx_problem=str(seen.hosts) if isinstance(seen.hosts, DnsError) else None,
        exists=isinstance(seen.hosts, DnsError) or seen.hosts.exists or not hop.mx,
        null_mx=not isinstance(seen.hosts, DnsError) and not seen.hosts.records,
        dane=describe.dane_report(seen.fresh.dane),
        tlsrpt=describe.tlsrpt_report(hop, seen.tlsrpt),
        answer=answer,
        resolver_works=seen.resolver_works,
        seconds=seen.seconds,
    )
