"""Finds out whether DANE applies to a next hop (RFC 7672, 2.2).

It does if an MX host has usable TLSA records, and if the MX record, the host's address and the TLSA records are signed
with DNSSEC. Aliases are followed in the same way as in Postfix. Postfix does its own lookups later, so its result may
still be different.
"""

import asyncio
import hashlib
import socket

from postfix_mtasts.dns.nameservers import DnsError, LocalShortageError
from postfix_mtasts.dns.resolver import Resolver, RRset, Tlsa
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable, Failure, Stage
from postfix_mtasts.turns import Turns

# MX hosts of a domain whose addresses or TLSA records are looked up: the most preferred ones. By default Postfix tries
# only five addresses (smtp_mx_address_limit).
MAX_HOSTS = 20
_NO_MAIL = "."  # RFC 7505, 3.
_USAGES = (2, 3)  # DANE-TA and DANE-EE. The PKIX usages cannot be used with SMTP (RFC 7672, 3.1.3).
_SELECTORS = (0, 1)
_DIGEST_SIZES = {1: hashlib.sha256().digest_size, 2: hashlib.sha512().digest_size}  # By matching type.
_FULL = 0  # The matching type for a whole certificate or key.


async def look_up(resolver: Resolver, hop: NextHop, turns: Turns) -> DaneObservation:
    """Look up whether the hosts of a next hop have usable TLSA records.

    The owner of a domain lists as many hosts as he likes, so each takes one of the `turns`. Raises DnsError if the MX
    lookup fails, and LocalShortageError if any lookup does because of this machine.
    """
    hosts = await mail_hosts(resolver, hop)
    if not hosts.secure:
        return DaneAbsent("the MX records are not signed with DNSSEC", hosts.ttl)
    seen = await asyncio.gather(*(_host(resolver, host, hop.port, turns) for host in hosts.records[:MAX_HOSTS]))
    usable = [one for one in seen if isinstance(one, DaneUsable)]
    if usable:
        ttl = min([hosts.ttl, *(one.ttl for one in usable)])
        return DaneUsable(tuple(one.hosts[0] for one in usable), ttl, covers_all=len(usable) == len(hosts.records))
    for one in seen:
        if isinstance(one, DaneFailed):
            return one
    reasons = dict.fromkeys(one.reason for one in seen if isinstance(one, DaneAbsent))
    ttl = min([hosts.ttl, *(one.ttl for one in seen if isinstance(one, DaneAbsent))])
    return DaneAbsent("; ".join(reasons) or "the domain accepts no mail (null MX record)", ttl)


def is_usable(record: Tlsa) -> bool:
    """Whether a certificate can match a TLSA record, as far as the record's fields show (RFC 7672, 3.1)."""
    if record.usage not in _USAGES or record.selector not in _SELECTORS:
        return False
    if record.matching_type == _FULL:
        return bool(record.data)
    return len(record.data) == _DIGEST_SIZES.get(record.matching_type)


async def mail_hosts(resolver: Resolver, hop: NextHop) -> RRset[str]:
    """Look up the hosts that Postfix delivers to, and return the most preferred ones first. Raises DnsError.

    There are none if the domain accepts no mail (RFC 7505).
    """
    name = hop.domain.name
    if not hop.mx:
        return RRset((name,), name, secure=True, ttl=float("inf"))
    found = await resolver.mx_hosts(name)
    # Without MX records the domain is its own MX host (RFC 5321, 5.1).
    records = tuple(host for host in found.records if host != _NO_MAIL) if found.records else (name,)
    return RRset(records, found.name, found.secure, found.ttl, found.exists)


async def _host(resolver: Resolver, host: str, port: str, turns: Turns) -> DaneObservation:
    await turns.take(1)
    try:
        number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
        names, without, ttl = await _base_domains(resolver, host)
    except LocalShortageError:
        raise  # Postfix may well know the address.
    except DnsError as error:
        # Postfix skips a host whose address it cannot look up, and tries the others (RFC 7672, 2.1.3).
        return DaneAbsent(f"the address lookup of {host} failed: {error}", 0.0)
    except OSError:
        return DaneAbsent(f"{port} is not the name of a TCP service", 0.0)
    for name in names:
        place = f"_{number}._tcp.{name}"
        try:
            found = await resolver.tlsa(place)
        except LocalShortageError:
            raise
        except DnsError as error:
            return DaneFailed(Failure(Stage.TLSA, f"{place}: {error}", result_type=None))
        ttl = min(ttl, found.ttl)
        if found.secure and found.records:
            if any(map(is_usable, found.records)):
                return DaneUsable((host,), ttl)
            return DaneAbsent(f"no usable TLSA record at {place}", ttl)
    return DaneAbsent(f"{host} has no TLSA record that is signed with DNSSEC" if names else without, ttl)


async def _base_domains(resolver: Resolver, host: str) -> tuple[list[str], str, float]:
    """Return the TLSA base domains of a host, and for how many seconds they are valid (RFC 7672, 2.2.2 and 2.2.3).

    TLSA records are looked for at the first name, then at the next. If there is no name, the text says why.
    """
    found = await resolver.host(host)
    if not found.records:
        return [], f"{host} has no address", found.ttl
    if found.secure:
        return list(dict.fromkeys((found.name, host))), "", found.ttl
    unsigned = f"{host}'s address is not signed with DNSSEC"
    if found.name == host:
        return [], unsigned, found.ttl
    # The CNAME record may be signed although the address behind it is not.
    alias = await resolver.alias(host)
    return [host] if alias.secure and alias.records else [], unsigned, min(found.ttl, alias.ttl)
