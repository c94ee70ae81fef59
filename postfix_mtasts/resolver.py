"""DNS, through dnspython: the `_mta-sts` record of a domain, the addresses of its policy host, and what DANE asks for.

The nameservers of resolv.conf(5), or the configured ones, are asked in turn until one answers, within one time-out for
the whole lookup; a truncated answer is asked for again over TCP. resolv.conf is read again when it has changed.

Whether DNSSEC proves an answer is what the nameserver says with its AD bit. It is believed, with or without
`options trust-ad` in resolv.conf: Postfix turns that on by itself, and DANE must be the same to both.
"""

import asyncio
import contextlib
import io
import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver
import dns.rrset

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.observation import (
    DnsFailed,
    Failure,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    Stage,
    Texts,
)
from postfix_mtasts.record import RecordError, find_record

_T = TypeVar("_T")

RESOLV_CONF = pathlib.Path("/etc/resolv.conf")
# "If no nameserver entries are present, the default is to use the name server on the local machine" (resolv.conf(5)).
_LOCAL_NAMESERVER = "127.0.0.1"
_TTL_WITHOUT_SOA = 300.0  # Seconds. Without an SOA a negative answer does not say how long it holds.
_OTHER_KIND_WITHIN = 0.5  # Seconds that IPv4 addresses wait for IPv6 ones, and the reverse.


class DnsError(Exception):
    """No nameserver gave an answer; says why, server by server."""


class MalformedError(DnsError):
    """There is an answer, but a record in it has no valid form."""


@dataclass(frozen=True, slots=True)
class Found(Generic[_T]):
    """What DNS has at a name, perhaps nothing; it may be believed for `ttl` seconds."""

    records: tuple[_T, ...]
    name: str  # The end of the CNAME chain.
    secure: bool  # Whether DNSSEC proves it, with the whole chain.
    ttl: float


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A TLSA record (RFC 6698, 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


class _Answer:
    """A response, and where the CNAME chain in it leads: to follow that costs as much as to parse it."""

    def __init__(self, response: dns.message.QueryMessage, chain: dns.message.ChainingResult) -> None:
        self._response = response
        self._chain = chain

    @property
    def records(self) -> dns.rrset.RRset | tuple[()]:
        """The records at the end of the chain."""
        return self._chain.answer or ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the aliases of the chain point to, in order."""
        return tuple(_text(rdata.target) for alias in self._chain.cnames for rdata in alias)

    @property
    def ttl(self) -> float:
        """How many seconds the answer, or that there is none, may be believed."""
        ttl = float(self._chain.minimum_ttl)
        if self._chain.answer or any(rrset.rdtype == dns.rdatatype.SOA for rrset in self._response.authority):
            return ttl
        return min(ttl, _TTL_WITHOUT_SOA)

    def with_records(self, records: Sequence[_T]) -> Found[_T]:
        """What was found, when the records have been made of those in the answer."""
        secure = bool(self._response.flags & dns.flags.AD)
        return Found(tuple(records), _text(self._chain.canonical_name), secure, self.ttl)


class Resolver:
    """Asks `nameservers`, or without any those of resolv.conf; a lookup takes `timeout` seconds, or little more."""

    def __init__(
        self, nameservers: Sequence[InetEndpoint] = (), *, timeout: float, resolv_conf: pathlib.Path = RESOLV_CONF
    ) -> None:
        self._timeout = timeout
        self._resolv_conf = None if nameservers else resolv_conf
        self._resolv_conf_read: tuple[int, int] | None = None
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameserver_ports = {server.host: server.port for server in nameservers}
        self._use([server.host for server in nameservers])
        # A query with AD asks for it in the answer (RFC 6840, 5.7).
        self._resolver.set_flags(dns.flags.RD | dns.flags.AD)
        # Named here, or dnspython looks at every lookup which event loop is running.
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def record(self, domain: PolicyDomain) -> RecordObservation:
        """What DNS says of a domain's record (RFC 8461, 3.1). CNAMEs are followed."""
        try:
            answer = await self._lookup(domain.record_name(), dns.rdatatype.TXT)
        except DnsError as error:
            return DnsFailed(Failure(Stage.RECORD, str(error), result_type=None))
        strings = [rdata.strings for rdata in answer.records]
        found = answer.with_records([b"".join(parts) for parts in strings])
        names = (domain.record_name(), *answer.names)
        texts = Texts(names, found.records, found.ttl, found.secure)
        try:
            record = find_record(strings)
        except RecordError as error:
            return RecordInvalid(str(error), found.ttl, texts)
        return RecordFound(record, texts) if record else RecordAbsent(found.ttl, texts)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, IPv6 and IPv4 by turns; none if it has none.

        Raises DnsError if there is no address and a lookup failed.
        """
        kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
        lookups = [asyncio.create_task(self._addresses(host, kind)) for kind in kinds]
        try:
            for done in asyncio.as_completed(lookups):
                with contextlib.suppress(DnsError):
                    if await done:
                        # One is enough to begin with: the other kind must not hold up a connection (cf. RFC 8305, 3).
                        await asyncio.wait(lookups, timeout=_OTHER_KIND_WITHIN)
                        break
        finally:
            for lookup in lookups:
                lookup.cancel()
            results = await asyncio.gather(*lookups, return_exceptions=True)
        addresses = _by_turns([result for result in results if isinstance(result, list)])
        failures = [result for result in results if isinstance(result, DnsError)]
        if failures and not addresses:
            raise failures[0]
        return addresses

    async def mx_hosts(self, name: str) -> Found[str]:
        """The MX hosts of a domain, the most preferred ones first; `.` says that it takes no mail (RFC 7505).

        Raises DnsError.
        """
        answer = await self._lookup(name, dns.rdatatype.MX)
        mx = sorted(answer.records, key=lambda rdata: rdata.preference)
        return answer.with_records([_text(rdata.exchange) for rdata in mx])

    async def host(self, name: str) -> Found[str]:
        """Addresses of an MX host, of one kind. Raises DnsError if there are none and a lookup failed."""
        kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
        results = await asyncio.gather(*(self._host(name, kind) for kind in kinds), return_exceptions=True)
        answers = [result for result in results if isinstance(result, Found)]
        with_address = [answer for answer in answers if answer.records]
        failures = [result for result in results if isinstance(result, DnsError)]
        if failures and not with_address:
            raise failures[0]
        return (with_address or answers)[0]

    async def alias(self, name: str) -> Found[str]:
        """What a name is an alias of. Raises DnsError."""
        answer = await self._lookup(name, dns.rdatatype.CNAME)
        return answer.with_records([_text(rdata.target) for rdata in answer.records])

    async def tlsa(self, name: str) -> Found[Tlsa]:
        """The TLSA records at a name. Raises DnsError, MalformedError among them."""
        try:
            answer = await self._lookup(name, dns.rdatatype.TLSA)
        except DnsError:
            # dnspython since 2.9 takes an answer with a digest of wrong length for a forged one, and waits for another.
            answer = await self._lookup(name, dns.rdatatype.TLSA, tcp=True)
        records = [Tlsa(rdata.usage, rdata.selector, rdata.mtype, rdata.cert) for rdata in answer.records]
        return answer.with_records(records)

    async def _host(self, name: str, kind: dns.rdatatype.RdataType) -> Found[str]:
        answer = await self._lookup(name, kind)
        return answer.with_records([rdata.address for rdata in answer.records])

    async def _addresses(self, host: str, kind: dns.rdatatype.RdataType) -> list[str]:
        return [rdata.address for rdata in (await self._lookup(host, kind)).records]

    async def _lookup(self, name: str, kind: dns.rdatatype.RdataType, *, tcp: bool = False) -> _Answer:
        """The answer, also one that there is no such name or record. Raises DnsError."""
        self._read_resolv_conf()
        try:
            answer = await self._resolver.resolve(
                f"{name}.", kind, tcp=tcp, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN as error:
            response: dns.message.QueryMessage
            (response,) = error.kwargs["responses"].values()
            return _Answer(response, response.resolve_chaining())
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            malformed = all(isinstance(what, dns.exception.FormError) for *_, what, _ in error.kwargs["errors"])
            raise (MalformedError if malformed else DnsError)(_each_server(error)) from error
        except dns.exception.DNSException as error:
            raise DnsError(str(error)) from error
        return _Answer(answer.response, answer.chaining_result)

    def _read_resolv_conf(self) -> None:
        if not self._resolv_conf:
            return
        try:
            status = self._resolv_conf.stat()
            version = (status.st_mtime_ns, status.st_ino)
        except OSError:
            version = (0, 0)
        if version == self._resolv_conf_read:
            return
        self._resolv_conf_read = version
        fresh = dns.resolver.Resolver(configure=False)
        with contextlib.suppress(dns.resolver.NoResolverConfiguration, OSError):
            fresh.read_resolv_conf(io.StringIO(self._resolv_conf.read_text("utf-8", "replace")))
        self._use([str(server) for server in fresh.nameservers] or [_LOCAL_NAMESERVER])

    def _use(self, servers: list[str]) -> None:
        self._resolver.nameservers = list(servers)
        self._resolver.lifetime = self._timeout
        # So that each server is asked, though all those before it are silent.
        self._resolver.timeout = self._timeout / (len(servers) + 1)


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _by_turns(lists: list[list[str]]) -> tuple[str, ...]:
    return tuple(one for turn in itertools.zip_longest(*lists) for one in turn if one)


def _each_server(error: dns.exception.DNSException) -> str:
    """`192.0.2.1: SERVFAIL; 192.0.2.2: no answer`: each server's last word."""
    words: dict[str, str] = {}
    for server, _, port, what, _ in error.kwargs["errors"]:
        if isinstance(what, dns.exception.Timeout):
            word = "no answer"
        elif isinstance(what, OSError):
            word = what.strerror or str(what)
        else:
            word = str(what)
        # Since dnspython 2.4 a server is called "Do53:192.0.2.1@53".
        address = str(server).removeprefix("Do53:").rpartition("@")[0] or server
        words[address if port == 53 else f"{address} port {port}"] = word
    return "; ".join(f"{server}: {word}" for server, word in words.items()) or "no answer"
