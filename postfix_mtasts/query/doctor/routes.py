"""Where Postfix sends mail: by which services of master.cf, and to which next hops."""

from collections.abc import Mapping
from dataclasses import dataclass

from postfix_mtasts.postfix.installation import NoPostfix
from postfix_mtasts.postfix.tables import Table, tables
from postfix_mtasts.query.doctor.entries import entries_of
from postfix_mtasts.query.doctor.installed import ROUTES, Client, Installed, UnreadableError

DIRECT = ""  # The next hop of mail that goes to the MX hosts of its recipients.
_NOBODY = ("doctor@doctor.invalid", "@doctor.invalid", "doctor.invalid", "*")
_MAPS = tuple(name for name in ROUTES if name.endswith("_maps"))


@dataclass(frozen=True, slots=True)
class Hop:
    """A transport and a next hop, as in transport(5): what says so, for whom, the service, and the next hop."""

    origin: str  # `transport_maps: hash:/etc/postfix/transport`
    whom: str  # `*` for all.
    service: str
    next_hop: str

    @property
    def text(self) -> str:
        """As in transport(5)."""
        return f"{self.service}:{self.next_hop}"


@dataclass(frozen=True, slots=True)
class Routes:
    """All that is known of where mail goes. `default` is where it goes if no table says otherwise."""

    default: Hop
    others: tuple[Hop, ...]
    broken: Mapping[tuple[str, Table], str]  # Tables of a parameter that cannot be used, and why.

    def next_hops(self, client: Client) -> set[str]:
        """Where a client sends mail, as far as is known."""
        names = {name.partition("/")[0] for name in client.names} or {self.default.service}
        return {hop.next_hop for hop in (self.default, *self.others) if hop.service in names}

    def is_default(self, client: Client) -> bool:
        """Whether mail that no table directs elsewhere goes by this client."""
        return not client.names or self.default.service in {name.partition("/")[0] for name in client.names}

    def is_used(self, client: Client) -> bool:
        """Whether mail that no table directs elsewhere, or mail to MX hosts, goes by this client."""
        return self.is_default(client) or self.is_direct(client)

    def is_direct(self, client: Client) -> bool:
        """Whether a client is known to send mail to the MX hosts of its recipients."""
        return DIRECT in self.next_hops(client)


async def routes_of(postfix: Installed) -> Routes:
    """Read the tables by which Postfix chooses where mail goes."""
    settings = postfix.settings
    service, _, next_hop = settings.get("default_transport", "smtp").partition(":")
    origin = "default_transport" if next_hop or not settings.get("relayhost") else "relayhost"
    default = Hop(origin, "*", service, next_hop or settings.get("relayhost", ""))
    hops, broken = [], {}
    for parameter in _MAPS:
        for table in tables(settings.get(parameter, "")):
            try:
                everybody = await postfix.look_up(table.direct, *_NOBODY)
            except UnreadableError as error:
                broken[parameter, table] = str(error)
                continue
            except NoPostfix:
                continue
            found = [("*", value) for value in everybody.values()]
            found += (await entries_of(postfix, table)).items()
            to = f"{parameter}: {table.text}"
            hops += [_hop(to, whom, value, default, parameter) for whom, value in found]
    return Routes(default, tuple(dict.fromkeys(hops)), broken)


def _hop(origin: str, whom: str, value: str, default: Hop, parameter: str) -> Hop:
    if value in ("", ":"):  # As if there were no entry.
        return Hop(origin, whom, default.service, default.next_hop)
    if parameter == "sender_dependent_relayhost_maps":
        return Hop(origin, whom, default.service, DIRECT if value.upper() == "DUNNO" else value)
    service, _, next_hop = value.partition(":")
    return Hop(origin, whom, service or default.service, next_hop)
