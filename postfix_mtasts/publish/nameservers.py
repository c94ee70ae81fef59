"""Sends our records to the primary name server of our zone, and reads them back from every name server of it."""

import pathlib
from collections.abc import AsyncIterator, Iterable, Iterator

from postfix_mtasts.config import Config, ConfigError, InetEndpoint
from postfix_mtasts.dns.nameservers import PORT, DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.dns.update import Key, KeyFileError, Replacement, UpdateError, parse_key, update
from postfix_mtasts.publish.records import TTL, ZoneRecord, domain_records, record_name, shared_records
from postfix_mtasts.query.domain.remark import Remark, error, warning
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.sts.domain import PolicyDomain

_MAX_KEY_FILE = 10_000  # Octets.


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
        return tuple([remark async for remark in self._read_back(zone, wanted)])

    async def _read_back(self, zone: str, wanted: list[Replacement]) -> AsyncIterator[Remark]:
        try:
            hosts = (await self._resolver.name_servers(zone)).records
            addresses = [(host, one) for host in hosts for one in await self._resolver.addresses(host)]
        except DnsError as failure:
            yield warning(f"the name servers of {zone} cannot be looked up: {failure}", "record")
            return
        for host, address in addresses:
            texts = [one for one in wanted if one.type == "TXT"]
            for one in [one for one in texts if not await self._has(InetEndpoint(address, PORT), one)][:1]:
                text = f"the name server {host} ({address}) does not show the TXT record {one.name} as it is to be"
                yield warning(f"{text}: does it get the zone from {self._dns.server}?", "record")

    async def _has(self, server: InetEndpoint, wanted: Replacement) -> bool:
        """Whether a name server has these TXT records. Others are sent each time: that does no harm."""
        if wanted.type != "TXT":
            return False
        try:
            found = await Resolver((server,), timeout=self._timeout).texts(wanted.name)
        except DnsError:
            return False
        texts = {" ".join(f'"{part.decode("latin-1")}"' for part in strings) for strings in found.records}
        return texts == set(wanted.data)


def _replacements(records: Iterable[ZoneRecord]) -> Iterator[Replacement]:
    """The records, all of one type at one name together."""
    together: dict[tuple[str, str], list[str]] = {}
    for one in records:
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
