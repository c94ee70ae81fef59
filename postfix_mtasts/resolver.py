"""DNS, through dnspython: the `_mta-sts` record of a domain, and the addresses of its policy host.

The nameservers of resolv.conf(5), or the configured ones, are asked in turn until one answers, within one time-out for
the whole lookup; a truncated answer is asked for again over TCP. resolv.conf is read again when it has changed.
"""

import asyncio
import contextlib
import pathlib
from collections.abc import Sequence

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver
import dns.ttl

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
# Seconds. Without an SOA, a negative answer does not say how long it holds; later versions of dnspython take this, too.
_TTL_WITHOUT_SOA = 300.0


class DnsError(Exception):
    """No nameserver gave an answer; says why, server by server."""


class Resolver:
    """Asks `nameservers`, or without any those of resolv.conf, for at most `timeout` seconds a lookup."""

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
            chain = await self._lookup(domain.record_name(), dns.rdatatype.TXT)
            record = find_record(rdata.strings for rdata in chain.answer or ())
        except DnsError as error:
            return DnsFailed(Failure(Stage.RECORD, str(error), result_type=None))
        except RecordError as error:
            return RecordInvalid(str(error))
        if record:
            return RecordFound(record)
        return RecordAbsent(float(chain.minimum_ttl) if chain.minimum_ttl < dns.ttl.MAX_TTL else _TTL_WITHOUT_SOA)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, IPv6 and IPv4 by turns; none if it has none.

        Raises DnsError if there is no address and a lookup failed.
        """
        lookups = [self._addresses(host, kind) for kind in (dns.rdatatype.AAAA, dns.rdatatype.A)]
        results = await asyncio.gather(*lookups, return_exceptions=True)
        found: list[list[str]] = []
        failures: list[DnsError] = []
        for result in results:
            if isinstance(result, DnsError):
                failures.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                found.append(result)
        addresses = _by_turns(found)
        if not addresses and failures:
            raise failures[0]
        return addresses

    async def _addresses(self, host: str, kind: dns.rdatatype.RdataType) -> list[str]:
        chain = await self._lookup(host, kind)
        return [rdata.address for rdata in chain.answer or ()]

    async def _lookup(self, name: str, kind: dns.rdatatype.RdataType) -> dns.message.ChainingResult:
        """The end of the CNAME chain that begins at a name; its answer is None if there are no such records."""
        self._read_resolv_conf()
        try:
            answer = await self._resolver.resolve(
                f"{name}.", kind, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN as error:
            response: dns.message.QueryMessage
            (response,) = error.kwargs["responses"].values()
            return response.resolve_chaining()
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise DnsError(_each_server(error)) from error
        except dns.exception.DNSException as error:
            raise DnsError(str(error)) from error
        return answer.chaining_result

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


def _by_turns(lists: list[list[str]]) -> tuple[str, ...]:
    longest = max((len(one) for one in lists), default=0)
    return tuple(one[i] for i in range(longest) for one in lists if i < len(one))


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
