"""Sends our records to the primary name server of our zone, and reads them back from every name server of it."""

import asyncio
import pathlib
from collections.abc import Iterable, Iterator

from postfix_mtasts.config import Config, ConfigError, InetEndpoint
from postfix_mtasts.dns.nameservers import PORT, DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.dns.update import Key, KeyFileError, Replacement, UpdateError, parse_key, update
from postfix_mtasts.publish.records import TTL, ZoneRecord, domain_records, record_name, shared_records
from postfix_mtasts.query.domain.remark import Remark, error, warning
from postfix_mtasts.remote.network import has_route, in_words
from postfix_mtasts.sts.domain import PolicyDomain

_ADDRESSES = ("A", "AAAA")
_MAX_KEY_FILE = 10_000  # Octets.
_MAX_SERVERS = 20  # Addresses of name servers of our zone that records are read back from.
# Seconds for the other name servers to fetch what was sent just now, and between two looks.
_FETCHED_WITHIN = 5.0
_LOOK_AGAIN_AFTER = 0.5


class OurZone:
    """The zone of `[publish.dns]`. Without it, nothing is sent. Raises ConfigError if the key cannot be read."""

    def __init__(self, settings: Config) -> None:
        self._publish = settings.publish
        self._dns = settings.publish.dns
        self._timeout = settings.dns.timeout
        self._resolver = Resolver(settings.dns.nameservers, timeout=self._timeout)
        self._key = _key(self._dns.key) if self._dns.server else None

    async def publish(self, domain: PolicyDomain, record_id: str | None) -> tuple[Remark, ...]:
        """Let the zone have the record of a domain, or none, and return what is wrong with that."""
        name = record_name(domain, self._publish)
        records = [one for one in domain_records(domain, record_id, self._publish) if one.name == name]
        return await self._put([Replacement(name, "TXT", tuple(one.data for one in records), TTL)])

    async def publish_shared(self) -> tuple[Remark, ...]:
        """Let the zone have the records that all customers share, and return what is wrong with that."""
        records = tuple(shared_records(self._publish))
        return await self._put(list(_replacements(records))) if records else ()

    async def _put(self, wanted: list[Replacement]) -> tuple[Remark, ...]:
        server = self._dns.server
        zone = self._dns.zone or self._publish.zone
        wanted = [one for one in wanted if f".{one.name}".endswith(f".{zone}")]
        if not server or not self._key or not wanted:
            return ()
        missing = [one for one in wanted if not await self._has(server, one)]
        if missing:
            try:
                await update(server, zone, self._key, missing)
            except UpdateError as failure:
                return (error(f"publish.dns: the name server {server.host} {failure}", "record"),)
        texts = [one for one in wanted if one.type == "TXT"]
        return await self._read_back(zone, texts, _FETCHED_WITHIN if set(texts) & set(missing) else 0.0)

    async def _read_back(self, zone: str, wanted: list[Replacement], patience: float) -> tuple[Remark, ...]:
        """What name servers do not show. An address family that this machine does not have is left out."""
        try:
            hosts = (await self._resolver.name_servers(zone)).records
            found = [(host, one) for host in hosts for one in await self._resolver.addresses(host) if has_route(one)]
        except DnsError as failure:
            return (warning(f"the name servers of {zone} cannot be looked up: {failure}", "record"),)
        until = asyncio.get_running_loop().time() + patience
        remarks = await asyncio.gather(*(self._missed(*one, wanted, until) for one in found[:_MAX_SERVERS]))
        return tuple(remark for remark in remarks if remark)

    async def _missed(self, host: str, address: str, wanted: list[Replacement], until: float) -> Remark | None:
        """What one name server does not show at that time, on the loop's clock."""
        server, clock = InetEndpoint(address, PORT), asyncio.get_running_loop().time
        for one in wanted:
            try:
                while not await self._shows(server, one):
                    if clock() >= until:
                        text = f"the name server {host} ({address}) does not show the TXT record {one.name}"
                        hint = f"does it get the zone from {self._dns.server}?"
                        return warning(f"{text} as it is to be: {hint}", "record")
                    await asyncio.sleep(_LOOK_AGAIN_AFTER)
            except DnsError as failure:
                text = f"the name server {host} ({address}) cannot be asked for the TXT record {one.name}"
                return warning(f"{text}: {failure}", "record")
        return None

    async def _has(self, server: InetEndpoint, wanted: Replacement) -> bool:
        """Whether the primary has these TXT records. Others are sent each time: that does no harm."""
        try:
            return wanted.type == "TXT" and await self._shows(server, wanted)
        except DnsError:
            return False  # To send them says why.

    async def _shows(self, server: InetEndpoint, wanted: Replacement) -> bool:
        """Whether a name server shows these TXT records. Raises DnsError."""
        found = await Resolver((server,), timeout=self._timeout).texts(wanted.name)
        texts = {" ".join(f'"{part.decode("latin-1")}"' for part in strings) for strings in found.records}
        return texts == set(wanted.data)


def _replacements(records: Iterable[ZoneRecord]) -> Iterator[Replacement]:
    """The records, all of one type at one name together."""
    together: dict[tuple[str, str], list[str]] = {}
    for one in records:
        if one.type in _ADDRESSES:  # There may be none of the other kind any more.
            together |= {(one.name, kind): together.get((one.name, kind), []) for kind in _ADDRESSES}
        together.setdefault((one.name, one.type), []).append(one.data)
    for (name, kind), data in together.items():
        yield Replacement(name, kind, tuple(data), TTL)


def _key(path: str) -> Key:
    if not path:
        raise ConfigError('publish.dns.key = "": must name a key file, since publish.dns.server is set')
    try:
        with pathlib.Path(path).open("rb") as file:
            return parse_key(file.read(_MAX_KEY_FILE).decode("ascii", "replace"))
    except OSError as failure:
        raise ConfigError(f'publish.dns.key = "{path}": {in_words(failure)}') from failure
    except KeyFileError as failure:
        raise ConfigError(f'publish.dns.key = "{path}": {failure}') from failure
