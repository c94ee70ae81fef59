"""Whether DANE decides over a next hop (RFC 7672, 2.2): MX hosts, their addresses and TLSA records, all of it secure.

Hosts are followed as Postfix does. It may still find another thing than we: it asks for itself, and later.
"""

import asyncio
import hashlib
import socket

from postfix_mtasts.dns.nameservers import DnsError, MalformedAnswerError
from postfix_mtasts.dns.resolver import Resolver, RRset, Tlsa
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable, Failure, Stage

_MAX_HOSTS = 20  # The most preferred ones; Postfix tries no more than five addresses (smtp_mx_address_limit).
_NO_MAIL = "."  # RFC 7505, 3.
_USAGES = (2, 3)  # DANE-TA and DANE-EE; with SMTP the two of PKIX are unusable (RFC 7672, 3.1.3).
_SELECTORS = (0, 1)
_DIGEST_SIZES = {1: hashlib.sha256().digest_size, 2: hashlib.sha512().digest_size}  # Of each matching type.
_FULL = 0  # The matching type of a whole certificate or key.


async def look_up(resolver: Resolver, hop: NextHop) -> DaneObservation:
    """What the TLSA records of a next hop's hosts make of it. Raises DnsError if it is not known which these are."""
    hosts = await mail_hosts(resolver, hop)
    if not hosts.secure:
        return DaneAbsent("the MX records are not secure", hosts.ttl)
    seen = await asyncio.gather(*(_host(resolver, host, hop.port) for host in hosts.records[:_MAX_HOSTS]))
    usable = [one for one in seen if isinstance(one, DaneUsable)]
    if usable:
        return DaneUsable(tuple(one.hosts[0] for one in usable), min([hosts.ttl, *(one.ttl for one in usable)]))
    for one in seen:
        if isinstance(one, DaneFailed):
            return one
    reasons = dict.fromkeys(one.reason for one in seen if isinstance(one, DaneAbsent))
    ttl = min([hosts.ttl, *(one.ttl for one in seen if isinstance(one, DaneAbsent))])
    return DaneAbsent("; ".join(reasons) or "no MX host", ttl)


def is_usable(record: Tlsa) -> bool:
    """Whether a certificate can match a TLSA record, as far as it shows (RFC 7672, 3.1)."""
    if record.usage not in _USAGES or record.selector not in _SELECTORS:
        return False
    if record.matching_type == _FULL:
        return bool(record.data)
    return len(record.data) == _DIGEST_SIZES.get(record.matching_type)


async def mail_hosts(resolver: Resolver, hop: NextHop) -> RRset[str]:
    """The hosts that mail to a next hop goes to, the most preferred ones first. Raises DnsError."""
    name = hop.domain.name
    if not hop.mx:
        return RRset((name,), name, secure=True, ttl=float("inf"))
    found = await resolver.mx_hosts(name)
    # Without MX records the domain is its own MX host (RFC 5321, 5.1).
    records = tuple(host for host in found.records if host != _NO_MAIL) if found.records else (name,)
    return RRset(records, found.name, found.secure, found.ttl)


async def _host(resolver: Resolver, host: str, port: str) -> DaneObservation:
    try:
        number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
        names, ttl = await _base_domains(resolver, host)
    except DnsError as error:
        # No mail goes to a host without an address: others may have one (RFC 7672, 2.1.3).
        return DaneAbsent(f"addresses of {host}: {error}", 0.0)
    except OSError:
        return DaneAbsent(f"no port {port}", 0.0)
    for name in names:
        place = f"_{number}._tcp.{name}"
        unusable = f"no usable TLSA record at {place}"
        try:
            found = await resolver.tlsa(place)
        except MalformedAnswerError:
            return DaneAbsent(unusable, 0.0)
        except DnsError as error:
            return DaneFailed(Failure(Stage.TLSA, f"{place}: {error}", result_type=None))
        ttl = min(ttl, found.ttl)
        if found.secure and found.records:
            return DaneUsable((host,), ttl) if any(map(is_usable, found.records)) else DaneAbsent(unusable, ttl)
    return DaneAbsent(f"no secure TLSA record of {host}" if names else f"no secure address of {host}", ttl)


async def _base_domains(resolver: Resolver, host: str) -> tuple[list[str], float]:
    """The names below which TLSA records may be, the first one first (RFC 7672, 2.2.2 and 2.2.3); and for how long."""
    found = await resolver.host(host)
    if found.secure and found.records:
        return list(dict.fromkeys((found.name, host))), found.ttl
    if found.name == host or not found.records:
        return [], found.ttl
    # The name may be signed though what it is an alias of is not.
    alias = await resolver.alias(host)
    return [host] if alias.secure and alias.records else [], min(found.ttl, alias.ttl)
