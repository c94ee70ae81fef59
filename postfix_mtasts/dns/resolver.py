"""Looks up the `_mta-sts` record of a domain, the addresses of its policy host, and what DANE and DKIM need.

The nameservers are the configured ones, or else those of resolv.conf(5), which is read again when it has changed.

Whether an answer is signed with DNSSEC is taken from the AD bit of the nameserver's response. The bit is trusted with
or without `options trust-ad` in resolv.conf. Postfix turns that option on by itself, and both must come to the same
result about DANE.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dns.rdatatype import AAAA, CNAME, MX, NS, TLSA, TXT, A, RdataType

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import Answer, Query, ResponseError, text
from postfix_mtasts.dns.nameservers import PORT, DnsError, LocalShortageError, Nameservers
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import (
    DnsFailed,
    Failure,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    RecordTexts,
    Stage,
)
from postfix_mtasts.sts.record import RecordError, find_record

_T = TypeVar("_T")

_MAX_ADDRESSES = 16  # Of a host. Each may cost a connection; the owner of a domain may list as many as he likes.
RESOLV_CONF = pathlib.Path("/etc/resolv.conf")
# "If no nameserver entries are present, the default is to use the name server on the local machine" (resolv.conf(5)).
_LOCAL_NAMESERVER = "127.0.0.1"
_OTHER_KIND_WITHIN = 0.5  # Seconds to wait for the addresses of the other kind when those of one kind are there.


@dataclass(frozen=True, slots=True)
class RRset(Generic[_T]):
    """The records of one type at a name; there may be none. They may be cached for `ttl` seconds."""

    records: tuple[_T, ...]
    name: str  # The last name of the CNAME chain.
    secure: bool  # The nameserver says that the whole chain is signed with DNSSEC.
    ttl: float
    exists: bool = True  # If false, the name does not exist (NXDOMAIN).


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A TLSA record (RFC 6698, 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


class Resolver:
    """Asks `nameservers`, or those of resolv.conf if there are none. A lookup takes about `timeout` seconds at most."""

    def __init__(
        self, nameservers: Sequence[InetEndpoint] = (), *, timeout: float, resolv_conf: pathlib.Path = RESOLV_CONF
    ) -> None:
        self._timeout = timeout
        self._resolv_conf = None if nameservers else resolv_conf
        self._resolv_conf_read: tuple[int, int, int] | None = None
        self._nameservers = Nameservers(nameservers, timeout)

    async def record(self, domain: PolicyDomain) -> RecordObservation:
        """Look up the TXT record of a domain (RFC 8461, 3.1). CNAME records are followed."""
        try:
            answer = await self._lookup(domain.record_name(), TXT)
        except DnsError as error:
            is_local = isinstance(error, LocalShortageError)
            return DnsFailed(Failure(Stage.RECORD, str(error), result_type=None, is_local=is_local))
        strings = [rdata.strings for rdata in answer.records]
        found = _rrset(answer, [b"".join(parts) for parts in strings])
        texts = RecordTexts(answer.names, found.records, found.ttl, found.secure, found.exists)
        try:
            record = find_record(strings)
        except RecordError as error:
            return RecordInvalid(str(error), found.ttl, texts)
        return RecordFound(record, texts) if record else RecordAbsent(found.ttl, texts)

    async def texts(self, name: str) -> RRset[tuple[bytes, ...]]:
        """Look up the TXT records at a name, and return each as its strings. Raises DnsError."""
        answer = await self._lookup(name, TXT)
        return _rrset(answer, [tuple(rdata.strings) for rdata in answer.records])

    async def is_answered(self, name: str) -> bool:
        """Whether the nameservers answer a query for the NS records of a name, if only by saying that it has none."""
        try:
            await self._lookup(name, NS)
        except DnsError:
            return False
        return True

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Look up the addresses of a host, and return IPv6 and IPv4 addresses alternately, at most 16.

        Raises DnsError if a lookup failed and the other one found no address.
        """
        lookups = [asyncio.create_task(self.addresses_of(host, kind)) for kind in ("AAAA", "A")]
        waiting, timeout = set(lookups), None
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if any(not lookup.exception() and lookup.result().records for lookup in done):
                    # Addresses of one kind are enough. The other lookup must not delay the connection (RFC 8305, 3).
                    timeout = _OTHER_KIND_WITHIN
        finally:
            for lookup in lookups:
                lookup.cancel()
            results = await asyncio.gather(*lookups, return_exceptions=True)
        addresses = _alternately([result.records for result in results if isinstance(result, RRset)])
        failures = [result for result in results if isinstance(result, DnsError)]
        if failures and not addresses:
            raise _telling(failures)
        return addresses

    async def addresses_of(self, host: str, kind: str) -> RRset[str]:
        """Look up all addresses of a host that are of one kind, "A" or "AAAA". Raises DnsError."""
        answer = await self._lookup(host, RdataType[kind])
        return _rrset(answer, [rdata.address for rdata in answer.records])

    async def mx_hosts(self, name: str) -> RRset[str]:
        """Look up the MX hosts of a domain, and return the most preferred ones first. Raises DnsError.

        The host `.` means that the domain accepts no mail (RFC 7505).
        """
        answer = await self._lookup(name, MX)
        mx = sorted(answer.records, key=lambda rdata: rdata.preference)
        return _rrset(answer, [text(rdata.exchange) for rdata in mx])

    async def host(self, name: str) -> RRset[str]:
        """Look up the IPv6 addresses of an MX host, or its IPv4 addresses if there are none.

        Raises DnsError if a lookup failed and the other one found no address.
        """
        kinds = (AAAA, A)
        results = await asyncio.gather(*(self._host(name, kind) for kind in kinds), return_exceptions=True)
        answers = [result for result in results if isinstance(result, RRset)]
        with_address = [answer for answer in answers if answer.records]
        failures = [result for result in results if isinstance(result, DnsError)]
        if failures and not with_address:
            raise _telling(failures)
        return (with_address or answers)[0]

    async def alias(self, name: str) -> RRset[str]:
        """Look up the CNAME record of a name, without following it. Raises DnsError."""
        answer = await self._lookup(name, CNAME)
        return _rrset(answer, [text(rdata.target) for rdata in answer.records])

    async def name_servers(self, zone: str) -> RRset[str]:
        """Look up the name servers of a zone. Raises DnsError."""
        answer = await self._lookup(zone, NS)
        return _rrset(answer, [text(rdata.target) for rdata in answer.records])

    async def tlsa(self, name: str) -> RRset[Tlsa]:
        """Look up the TLSA records at a name. One that is too short has fields that nobody can use. Raises DnsError."""
        answer = await self._lookup(name, TLSA)
        return _rrset(answer, [tlsa(rdata.data) for rdata in answer.records])

    async def _host(self, name: str, kind: RdataType) -> RRset[str]:
        answer = await self._lookup(name, kind)
        return _rrset(answer, [rdata.address for rdata in answer.records[:_MAX_ADDRESSES]])

    async def _lookup(self, name: str, kind: RdataType) -> Answer:
        """Ask the nameservers that resolv.conf has now, or the configured ones. Raises DnsError."""
        self._read_resolv_conf()
        try:
            query = Query(name, kind)
        except ResponseError as error:
            raise DnsError(str(error)) from error
        return await self._nameservers.ask(query)

    def _read_resolv_conf(self) -> None:
        if not self._resolv_conf:
            return
        try:
            status = self._resolv_conf.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            version = (0, 0, 0)
        if version == self._resolv_conf_read:
            return
        self._resolv_conf_read = version
        hosts = []
        with contextlib.suppress(OSError):
            hosts = _hosts(self._resolv_conf.read_text("utf-8", "replace"))
        servers = [InetEndpoint(host, PORT) for host in hosts or [_LOCAL_NAMESERVER]]
        self._nameservers = Nameservers(servers, self._timeout)


class Pinned(Resolver):
    """A resolver for which each host has just these addresses. Whatever else is looked up fails."""

    def __init__(self, *addresses: str) -> None:
        super().__init__(timeout=0.0)
        self._addresses_of_all = addresses

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Return the addresses, whatever the host."""
        return self._addresses_of_all


def tlsa(data: bytes) -> Tlsa:
    """The TLSA record with this data."""
    usage, selector, matching_type = data[:3].ljust(3, b"\xff")
    return Tlsa(usage, selector, matching_type, data[3:])


def _rrset(answer: Answer, records: Sequence[_T]) -> RRset[_T]:
    """Make an RRset of an answer and of `records`, which are those of the answer in another form."""
    return RRset(tuple(records), answer.names[-1], answer.authentic, answer.ttl, answer.exists)


def _hosts(resolv_conf: str) -> list[str]:
    """Return the addresses in the lines `nameserver ADDRESS` of a resolv.conf(5)."""
    hosts = []
    for line in resolv_conf.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with contextlib.suppress(ValueError):
                    hosts.append(str(ipaddress.ip_address(address)))
    return hosts


def _telling(failures: Sequence[DnsError]) -> DnsError:
    """The failure that says most: where this machine could not ask, nothing is known."""
    return next((failure for failure in failures if isinstance(failure, LocalShortageError)), failures[0])


def _alternately(lists: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(one for turn in itertools.zip_longest(*lists) for one in turn if one)[:_MAX_ADDRESSES]
