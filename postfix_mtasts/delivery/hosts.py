"""Probes the MX hosts of a next hop as Postfix would deliver to them, and judges them by an enforced policy.

An owner chooses how many MX hosts and addresses he lists. `Attempt` is bounded in both, since the daemon makes it for
domains of others without being asked; whoever makes it gives it a deadline. One connection is bounded by
`remote/stream` and `remote/probe`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from postfix_mtasts.delivery.fate import Fate, fate_of
from postfix_mtasts.delivery.mx import (
    NO_ADDRESS,
    NOT_THERE,
    MxReport,
    ProbeReport,
    Rules,
    judge,
    pattern_for,
    probe_report,
    unprobed,
)
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver, Tlsa
from postfix_mtasts.dns.tlsa import MAX_HOSTS, is_usable, mail_hosts
from postfix_mtasts.remote.probe import Prober
from postfix_mtasts.sts.domain import NextHop

MAX_ADDRESSES = 5  # To which an attempt connects. Postfix tries no more (smtp_mx_address_limit).


async def probe_host(
    resolver: Resolver,
    prober: Prober,
    host: str,
    hop: NextHop,
    rules: Rules,
    *,
    has_tlsa: bool,
    most: int | None = None,
) -> tuple[ProbeReport, ...]:
    """Probe each address of an MX host at once, at most so many of them, if it has any.

    With `has_tlsa`, its TLSA records are looked up, and only they count.
    """
    try:
        port = int(hop.port) if hop.port.isdigit() else socket.getservbyname(hop.port, "tcp")
        addresses = await resolver.addresses(host)
    except (DnsError, OSError) as error:
        return (unprobed(unclear=f"address lookup: {error}"),)
    records: Sequence[Tlsa] = ()
    if has_tlsa:
        with contextlib.suppress(DnsError):
            found = await resolver.tlsa(f"_{port}._tcp.{host}")
            records = [record for record in found.records if is_usable(record)]
    probes = await asyncio.gather(*(prober.probe(host, address, port) for address in addresses[:most]))
    return tuple(probe_report(host, probe, rules, records) for probe in probes)


async def lack(resolver: Resolver, host: str) -> str | None:
    """Why an MX host has no address. None if it has one, or if that cannot be found out."""
    try:
        found = await resolver.host(host)
    except DnsError:
        return None
    return None if found.records else NO_ADDRESS if found.exists else NOT_THERE


class Attempt:
    """Goes through the MX hosts of a next hop as one delivery does, up to the first that would be delivered to."""

    def __init__(self, resolver: Resolver, prober: Prober) -> None:
        self._resolver = resolver
        self._prober = prober

    async def make(self, hop: NextHop, rules: Rules, tlsa_hosts: Sequence[str] = ()) -> Fate:
        """What becomes of mail to a next hop under these rules. With hosts that have TLSA records, only these count."""
        seen: list[MxReport] = []
        try:
            hosts = await mail_hosts(self._resolver, hop)
        except DnsError as error:
            return Fate("unclear", f"its MX records cannot be looked up: {error}")
        if hop.mx and not hosts.exists:
            return Fate("returned", f"it {NOT_THERE}")
        if not hosts.records:
            return Fate("returned", "it accepts no mail: it has a null MX record")
        left = MAX_ADDRESSES
        allowed = [one for one in hosts.records if not tlsa_hosts or one in tlsa_hosts][:MAX_HOSTS]
        if not allowed:  # What is known of TLSA records holds for up to an hour.
            return Fate("unclear", "its MX hosts have changed since their TLSA records were looked up")
        for host in allowed:
            probes = await self._probe(hop, host, rules, has_tlsa=bool(tlsa_hosts), most=left)
            left -= sum(probe.address is not None for probe in probes)
            pattern = pattern_for(host, rules.policy)
            seen.append(MxReport(host, pattern, pattern, probes))
            if left <= 0 or judge(seen[-1], rules).state == "fine":
                break
        return fate_of([(one.host, judge(one, rules)) for one in seen])

    async def _probe(
        self, hop: NextHop, host: str, rules: Rules, *, has_tlsa: bool, most: int
    ) -> tuple[ProbeReport, ...]:
        if why := await lack(self._resolver, host):
            return (unprobed(problem=why),)
        return await probe_host(self._resolver, self._prober, host, hop, rules, has_tlsa=has_tlsa, most=most)
