"""Sends our records to the primary name server of our zone, and reads them back from every name server of it."""

import asyncio
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from postfix_mtasts.config import Config, ConfigError, InetEndpoint
from postfix_mtasts.dns.nameservers import PORT, DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.dns.update import Key, KeyFileError, Removal, Replacement, UpdateError, parse_key, update
from postfix_mtasts.publish.records import TTL, ZoneRecord, domain_records, record_name, shared_records
from postfix_mtasts.publish.state import Stage, State
from postfix_mtasts.query.domain.remark import Remark, error, warning
from postfix_mtasts.remote.network import has_route, in_words

_ADDRESSES = ("A", "AAAA")
_READ_BACK = ("TXT", *_ADDRESSES)
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

    async def publish(self, state: State) -> tuple[Remark, ...]:
        """Let the zone have the records of a domain, or none, and return what is wrong with that.

        Somebody else's TXT record with an id stays until our file was seen, and so do his other records when ours go.
        """
        records = tuple(domain_records(state.domain, state.record, self._publish))
        changes: list[Replacement | Removal] = list(_replacements(records))
        if state.file() is None:
            changes = [Removal(one.name, one.type, one.data) for one in records]
        if state.record is None and state.stage is not Stage.PUBLISHED:
            changes.append(Replacement(record_name(state.domain, self._publish), "TXT", (), TTL))
        return await self._put(changes, self._dns.zone or self._publish.zone or state.domain.name)

    async def publish_shared(self) -> tuple[Remark, ...]:
        """Let the zone have the records that all customers share, and return what is wrong with that."""
        records = tuple(shared_records(self._publish))
        return await self._put(list(_replacements(records)), self._dns.zone or self._publish.zone)

    async def _put(self, changes: Sequence[Replacement | Removal], zone: str) -> tuple[Remark, ...]:
        server = self._dns.server
        changes = [one for one in changes if f".{one.name}".endswith(f".{zone}")]
        if not server or not self._key or not changes:
            return ()
        missing = [one for one in changes if isinstance(one, Removal) or not await self._has(server, one)]
        if missing:
            try:
                await update(server, zone, self._key, missing)
            except UpdateError as failure:
                return (error(f"publish.dns: the name server {server.host} {failure}", "record"),)
        wanted = [one for one in changes if isinstance(one, Replacement) and one.type in _READ_BACK]
        return await self._read_back(zone, wanted, _FETCHED_WITHIN if set(wanted) & set(missing) else 0.0)

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
                        text = f"the name server {host} ({address}) does not show the {one.type} record {one.name}"
                        hint = f"does it get the zone from {self._dns.server}?"
                        return warning(f"{text} as it is to be: {hint}", "record")
                    await asyncio.sleep(_LOOK_AGAIN_AFTER)
            except DnsError as failure:
                text = f"the name server {host} ({address}) cannot be asked for the {one.type} record {one.name}"
                return warning(f"{text}: {failure}", "record")
        return None

    async def _has(self, server: InetEndpoint, wanted: Replacement) -> bool:
        """Whether the primary has these records. CAA records are sent each time: that does no harm."""
        try:
            return wanted.type in _READ_BACK and await self._shows(server, wanted)
        except DnsError:
            return False  # To send them says why.

    async def _shows(self, server: InetEndpoint, wanted: Replacement) -> bool:
        """Whether a name server shows these records. Raises DnsError."""
        resolver = Resolver((server,), timeout=self._timeout)
        if wanted.type in _ADDRESSES:
            return set((await resolver.addresses_of(wanted.name, wanted.type)).records) == set(wanted.data)
        found = (await resolver.texts(wanted.name)).records
        return {" ".join(f'"{part.decode("latin-1")}"' for part in strings) for strings in found} == set(wanted.data)


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
