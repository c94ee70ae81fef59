"""Discovers the policy of a domain with the daemon's own adapters, as if nothing were cached, and within a deadline."""

import asyncio
import ipaddress
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.delivery.hosts import lack
from postfix_mtasts.dns import tlsa
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver, RRset
from postfix_mtasts.query.domain.asked import Fresh
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import has_route, is_global
from postfix_mtasts.sts import tlsrpt
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.observation import (
    DaneFailed,
    DaneObservation,
    DnsFailed,
    Failure,
    FetchFailed,
    FetchObservation,
    FetchTrace,
    RecordFound,
    RecordObservation,
    Stage,
)

_T = TypeVar("_T")
_OTHER_NAME = "example.com"  # It is reserved, and exists (RFC 2606, 3).


@dataclass(frozen=True, slots=True)
class Tried:
    """A fetch from one address of the policy host. `fetched` is None if the address cannot be tried from here."""

    address: str
    fetched: FetchObservation | None
    seconds: float


@dataclass(slots=True)
class Progress:
    """What is under way, and how the fetch goes."""

    doing: dict[str, None] = field(default_factory=dict)
    trace: FetchTrace | None = None

    def words(self) -> str:
        """What the command waits for."""
        stage = [self.trace.stage.value] if self.trace and self.trace.entered else []
        return ", ".join([*stage, *self.doing])


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was observed of a domain."""

    fresh: Fresh
    record_seconds: float
    tried: tuple[Tried, ...]
    hosts: RRset[str] | DnsError
    lacking: Mapping[str, str]  # MX hosts to which nobody can connect, and why.
    tlsrpt: RRset[tuple[bytes, ...]] | DnsError
    resolver_works: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the record and the policy come from: DNS and the policy host, unless they are given.

    `pinned` makes a fetcher that uses only this address of the policy host; with a proxy, addresses are its affair.
    """

    resolver: Resolver
    fetcher: Fetcher
    pinned: Callable[[str], Fetcher] | None
    server: str = ""  # The address of the policy host, if DNS does not know it yet.
    record: RecordObservation | None = None
    fetched: FetchObservation | None = None

    async def record_of(self, domain: PolicyDomain) -> RecordObservation:
        """The record of a domain."""
        return self.record or await self.resolver.record(domain)

    async def policy_of(self, domain: PolicyDomain, record_id: str, trace: FetchTrace) -> FetchObservation:
        """The policy of a domain."""
        return self.fetched or await self.fetcher.fetch(domain, record_id, trace)


class Discovery:
    """One discovery, which ends after `limit` seconds. `progress` shows how it goes."""

    def __init__(self, sources: Sources, limit: float, progress: Progress) -> None:
        self._sources = sources
        self._limit = limit
        self._ends = 0.0  # On the loop's clock.
        self._progress = progress

    async def discover(self, hop: NextHop) -> Seen:
        """Discover the policy of a next hop, and what else senders look up."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        self._ends = begun + self._limit
        works = asyncio.create_task(self._within("", self._resolver_works(), False))
        no_answer = DnsError(self._too_late())
        parts = await asyncio.gather(
            self._policy(hop.domain),
            self._dane(hop),
            self._mail(hop, no_answer),
            self._within("TLS-RPT lookup", self._tlsrpt(hop.domain), no_answer),
        )
        (record, record_seconds, fetched, seconds, complete, tried), (dane, dane_seconds), (hosts, lacking), reports = (
            parts
        )
        failed = isinstance(record, DnsFailed) or isinstance(hosts, DnsError)
        is_our_fault = failed and not await works
        works.cancel()
        fresh = Fresh(record, fetched, dane, seconds, complete, dane_seconds)
        return Seen(fresh, record_seconds, tried, hosts, lacking, reports, not is_our_fault, clock() - begun)

    async def _policy(
        self, domain: PolicyDomain
    ) -> tuple[RecordObservation, float, FetchObservation | None, float, bool, tuple[Tried, ...]]:
        clock = asyncio.get_running_loop().time
        begun = clock()
        failed: RecordObservation = DnsFailed(Failure(Stage.RECORD, self._too_late(), result_type=None))
        record = await self._within("TXT lookup", self._sources.record_of(domain), failed)
        record_seconds = clock() - begun
        if not isinstance(record, RecordFound):
            return record, record_seconds, self._sources.fetched, record_seconds, record is not failed, ()
        record_id = record.record.id
        trace = self._progress.trace = FetchTrace()
        others = asyncio.create_task(self._try_addresses(domain, record_id))
        gave_up: FetchObservation | None = None
        try:
            async with asyncio.timeout_at(self._ends):
                fetched = await self._sources.policy_of(domain, record_id, trace)
        except TimeoutError:
            fetched = gave_up = FetchFailed(Failure(trace.stage, self._too_late()), record_id, trace)
        finally:
            self._progress.trace = None
        if isinstance(fetched, FetchFailed):
            trace.enter(trace.stage, clock())  # So that the stage that failed has an end.
        seconds = clock() - begun
        return record, record_seconds, fetched, seconds, fetched is not gave_up, await others

    async def _try_addresses(self, domain: PolicyDomain, record_id: str) -> tuple[Tried, ...]:
        """Fetch from each address of the policy host, if it has several."""
        host, pinned = domain.policy_host(), self._sources.pinned
        if self._sources.fetched or self._sources.server or not pinned:
            return ()
        try:
            addresses = await self._within("", self._sources.resolver.addresses(host), ())
        except DnsError:
            return ()
        if len(addresses) < 2:
            return ()
        return tuple(await asyncio.gather(*(self._try(pinned(one), domain, record_id, one) for one in addresses)))

    async def _try(self, fetcher: Fetcher, domain: PolicyDomain, record_id: str, address: str) -> Tried:
        clock = asyncio.get_running_loop().time
        begun = clock()
        if is_global(ipaddress.ip_address(address)) and not has_route(address):
            return Tried(address, None, 0.0)
        trace = FetchTrace()
        late = FetchFailed(Failure(Stage.RESPONSE, self._too_late()), record_id, trace)
        fetched = await self._within("", fetcher.fetch(domain, record_id, trace), late)
        if fetched is late:
            fetched = FetchFailed(Failure(trace.stage, self._too_late()), record_id, trace)
        return Tried(address, fetched, clock() - begun)

    async def _dane(self, hop: NextHop) -> tuple[DaneObservation, float]:
        """What DNS says of DANE, and after how many seconds: infinity if it was given up."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        late = DaneFailed(Failure(Stage.TLSA, self._too_late(), result_type=None))
        found = await self._within("TLSA lookup", Dane(self._sources.resolver, limit=1).of(hop), late)
        return found, math.inf if found is late else clock() - begun

    async def _mail(self, hop: NextHop, no_answer: DnsError) -> tuple[RRset[str] | DnsError, dict[str, str]]:
        """The MX hosts, and those of them that have no address."""
        hosts = await self._within("MX lookup", self._hosts(hop), no_answer)
        if isinstance(hosts, DnsError) or not (hosts.exists or not hop.mx):
            return hosts, {}
        first = hosts.records[: tlsa.MAX_HOSTS]
        lacks = await asyncio.gather(*(self._within("", lack(self._sources.resolver, host), None) for host in first))
        return hosts, {host: lack for host, lack in zip(first, lacks, strict=True) if lack}

    async def _hosts(self, hop: NextHop) -> RRset[str] | DnsError:
        try:
            return await tlsa.mail_hosts(self._sources.resolver, hop)
        except DnsError as error:
            return error

    async def _tlsrpt(self, domain: PolicyDomain) -> RRset[tuple[bytes, ...]] | DnsError:
        try:
            return await self._sources.resolver.texts(tlsrpt.record_name(domain))
        except DnsError as error:
            return error

    async def _resolver_works(self) -> bool:
        """Whether the resolver answers for the root's NS records, or for another name."""
        names = (".", _OTHER_NAME)
        return any(await asyncio.gather(*(self._sources.resolver.is_answered(name) for name in names)))

    async def _within(self, what: str, work: Coroutine[Any, Any, _T], late: _T) -> _T:
        """The result of some work, or `late` when there is no more time."""
        if what:
            self._progress.doing[what] = None
        try:
            async with asyncio.timeout_at(self._ends):
                return await work
        except TimeoutError:
            return late
        finally:
            self._progress.doing.pop(what, None)

    def _too_late(self) -> str:
        return f"not finished within {self._limit:g} s"
