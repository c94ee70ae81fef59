"""DNS, through dnspython: the `_mta-sts` record of a domain, and the addresses of its policy host.

The nameservers of resolv.conf(5), or the configured ones, are asked in turn until one answers, within one time-out for
the whole lookup; a truncated answer is asked for again over TCP. resolv.conf is read again when it has changed.
"""

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import Sequence

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
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
)
from postfix_mtasts.record import RecordError, find_record

RESOLV_CONF = pathlib.Path("/etc/resolv.conf")
# "If no nameserver entries are present, the default is to use the name server on the local machine" (resolv.conf(5)).
_LOCAL_NAMESERVER = "127.0.0.1"
_TTL_WITHOUT_SOA = 300.0  # Seconds. Without an SOA a negative answer does not say how long it holds.
_OTHER_KIND_WITHIN = 0.5  # Seconds that IPv4 addresses wait for IPv6 ones, and the reverse.


class DnsError(Exception):
    """No nameserver gave an answer; says why, server by server."""


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
        # Named here, or dnspython looks at every lookup which event loop is running.
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def record(self, domain: PolicyDomain) -> RecordObservation:
        """What DNS says of a domain's record (RFC 8461, 3.1). CNAMEs are followed."""
        try:
            response = await self._lookup(domain.record_name(), dns.rdatatype.TXT)
            record = find_record(rdata.strings for rdata in _found(response))
        except DnsError as error:
            return DnsFailed(Failure(Stage.RECORD, str(error), result_type=None))
        except RecordError as error:
            return RecordInvalid(str(error), _ttl(response))
        return RecordFound(record) if record else RecordAbsent(_ttl(response))

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

    async def _addresses(self, host: str, kind: dns.rdatatype.RdataType) -> list[str]:
        return [rdata.address for rdata in _found(await self._lookup(host, kind))]

    async def _lookup(self, name: str, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        """The answer, also one that there is no such name or record. Raises DnsError."""
        self._read_resolv_conf()
        try:
            answer = await self._resolver.resolve(
                f"{name}.", kind, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN as error:
            response: dns.message.QueryMessage
            (response,) = error.kwargs["responses"].values()
            return response
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise DnsError(_each_server(error)) from error
        except dns.exception.DNSException as error:
            raise DnsError(str(error)) from error
        return answer.response

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
        with contextlib.suppress(dns.resolver.NoResolverConfiguration):
            fresh.read_resolv_conf(str(self._resolv_conf))
        self._use([str(server) for server in fresh.nameservers] or [_LOCAL_NAMESERVER])

    def _use(self, servers: list[str]) -> None:
        self._resolver.nameservers = list(servers)
        self._resolver.lifetime = self._timeout
        # So that each server is asked, though all those before it are silent.
        self._resolver.timeout = self._timeout / (len(servers) + 1)


def _found(response: dns.message.QueryMessage) -> dns.rrset.RRset | tuple[()]:
    """The records at the end of the CNAME chain."""
    return response.resolve_chaining().answer or ()


def _ttl(response: dns.message.QueryMessage) -> float:
    """How many seconds an answer, or that there is none, may be believed."""
    ttl = float(response.resolve_chaining().minimum_ttl)
    if _found(response) or any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority):
        return ttl
    return min(ttl, _TTL_WITHOUT_SOA)


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
