"""Parses the configuration file, which is TOML, into a frozen `Config`. All tables and keys are optional.

The dataclasses `Server` to `Web` are the reference. They have each key with its default and the allowed values.
Anything else in the file raises ConfigError: one line with the file, the key, the value and what is allowed.
"""

import dataclasses
import enum
import re
import tomllib
from dataclasses import dataclass
from typing import Any

from postfix_mtasts import config_access as access
from postfix_mtasts import config_values as values
from postfix_mtasts.config_fleet_values import Fleet as Fleet
from postfix_mtasts.config_fleet_values import FleetUrl as FleetUrl
from postfix_mtasts.config_table import ConfigError as ConfigError
from postfix_mtasts.config_table import key as _key
from postfix_mtasts.config_table import parse_table, parse_tables, shown, unknown
from postfix_mtasts.config_values import Endpoint as Endpoint
from postfix_mtasts.config_values import InetEndpoint as InetEndpoint
from postfix_mtasts.config_values import IpNetwork as IpNetwork
from postfix_mtasts.config_values import Level as Level
from postfix_mtasts.config_values import ProxyUrl as ProxyUrl
from postfix_mtasts.config_values import UnixEndpoint as UnixEndpoint

DEFAULT_PATH = "/etc/postfix-mtasts.toml"
DEFAULT_CONTROL = "/run/postfix-mtasts/control"
# In TOML, a number must not begin with a zero, and the error of the parser does not say so.
_ZERO_FIRST = re.compile(r"^\s*(?:server\s*\.\s*)?socket_mode\s*=\s*0([0-7]{1,3})\s*(?:#.*)?$", re.MULTILINE)


# If `server.listen` is this very object, it was not set. Then sockets from systemd replace it.
DEFAULT_LISTEN: tuple[Endpoint, ...] = (InetEndpoint("127.0.0.1", 8461),)


class StyleSetting(enum.Enum):
    """The attributes that Postfix is sent."""

    AUTO = "auto"
    PLAIN = "plain"
    TLSRPT = "tlsrpt"


class DaneSetting(enum.Enum):
    """What Postfix is told about domains with TLSA records: "not found" (YIELD), or level `dane-only` (DANE_ONLY)."""

    AUTO = "auto"
    YIELD = "yield"
    DANE_ONLY = "dane-only"
    OFF = "off"


class OnTesting(enum.Enum):
    """What Postfix is told about a policy in mode testing. REPORT works only in style tlsrpt."""

    IGNORE = "ignore"
    REPORT = "report"


class OnFailure(enum.Enum):
    """What Postfix is told if the discovery fails and no policy is cached."""

    NOTFOUND = "notfound"
    TEMP = "temp"


# Postfix waits up to 100 seconds for a reply (dict_sockmap(3)), so no time limit may be longer than 90.
_SECONDS = "a number of seconds from 0.1 to 90"
_PATH = "an absolute path"
_DAYS = "a number of days from 1 to 4000"
_DOMAINS = values.whole(1000, 10_000_000), "a number of domains from 1000 to 10000000"


@dataclass(frozen=True, slots=True)
class Server:
    """The sockets for Postfix and for postfix-mtasts-query, and the time limit for replies to Postfix."""

    listen: tuple[Endpoint, ...] = _key(
        DEFAULT_LISTEN,
        values.listen,
        'a list of one or more "inet:ADDRESS:PORT", "inet:[IPV6-ADDRESS]:PORT" and "unix:/PATH", without duplicates',
    )
    socket_mode: int = _key(0o666, values.mode, values.MODE)
    control: str = _key(
        DEFAULT_CONTROL,
        values.control,
        f'{_PATH} of at most {values.MAX_SOCKET_PATH} bytes, or "" for no control socket',
    )
    control_group: str = _key("", values.group, 'the name of a group, or ""')
    answer_within: float = _key(10.0, values.seconds, _SECONDS)


@dataclass(frozen=True, slots=True)
class Cache:
    """The file for policies, and how many octets and domains, with and without a policy, are kept in memory."""

    path: str = _key("/var/lib/postfix-mtasts/policies.sqlite", values.path, _PATH)
    policies_in_memory: int = _key(10_000, *_DOMAINS)
    no_policies_in_memory: int = _key(100_000, *_DOMAINS)
    memory: int = _key(2**28, values.whole(2**24, 2**40), "a number of bytes from 16777216 to 1099511627776")


@dataclass(frozen=True, slots=True)
class Dns:
    """The nameservers, and the time limit for one lookup. Without nameservers, those of resolv.conf(5) are asked."""

    nameservers: tuple[InetEndpoint, ...] = _key(
        (), values.nameservers, 'a list of "ADDRESS", "ADDRESS:PORT" and "[IPV6-ADDRESS]:PORT"'
    )
    timeout: float = _key(5.0, values.seconds, _SECONDS)


@dataclass(frozen=True, slots=True)
class Fetch:
    """How policies are fetched. Without a CA file, the system's CAs are trusted.

    A policy host must have a public address, or one in `allow_addresses`. With a proxy, that is the proxy's to see to:
    it looks up the host, and connects to it.
    """

    timeout: float = _key(60.0, values.seconds, _SECONDS)
    ca_file: str = _key("", values.optional_path, f'{_PATH}, or "" for the system\'s CAs')
    allow_addresses: tuple[IpNetwork, ...] = _key(
        (), values.networks, 'a list of networks such as "192.0.2.0/24", "2001:db8::/32" and "192.0.2.1"'
    )
    proxy: ProxyUrl | None = _key(None, values.proxy, '"http://HOST:PORT", "socks5://HOST:PORT" or "" for no proxy')
    proxy_credentials: str = _key("", values.optional_path, f'{_PATH} of a file with USER:PASSWORD, or ""')


@dataclass(frozen=True, slots=True)
class Reply:
    """What Postfix is told."""

    style: StyleSetting = _key(StyleSetting.AUTO, StyleSetting, '"auto", "plain" or "tlsrpt"')
    dane: DaneSetting = _key(DaneSetting.AUTO, DaneSetting, '"auto", "yield", "dane-only" or "off"')
    testing: OnTesting = _key(OnTesting.IGNORE, OnTesting, '"ignore" or "report"')
    enforce: bool = _key(True, values.boolean, "true or false")


@dataclass(frozen=True, slots=True)
class Discovery:
    """What happens if a discovery fails."""

    on_failure: OnFailure = _key(OnFailure.NOTFOUND, OnFailure, '"notfound" or "temp"')


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where Prometheus reads the metrics of the daemon. Without an address, there are none."""

    listen: Endpoint | None = _key(
        None, values.optional_endpoint, '"inet:ADDRESS:PORT", "inet:[IPV6-ADDRESS]:PORT", "unix:/PATH" or ""'
    )


@dataclass(frozen=True, slots=True)
class ExceptionSetting:
    """A domain, or all those below `*.DOMAIN`, whose policy does not count until the end of a day.

    `level` is what Postfix is told in its place. DANE is overruled only if `dane` says so.
    """

    domain: str = _key(None, values.domain_or_below, '"DOMAIN" or "*.DOMAIN", in punycode', required=True)
    until: values.Day = _key(None, values.day, "a date without quotes, such as 2026-12-31", required=True)
    reason: str = _key(None, values.one_line, f"a text of 1 to {values.MAX_LINE} characters on one line", required=True)
    level: Level = _key(Level.NONE, Level, '"none", "may" or "encrypt"')
    dane: bool = _key(False, values.boolean, "true or false")


@dataclass(frozen=True, slots=True)
class Reports:
    """TLS reports of others: the database, whose folder also has their mails, of which domains, and how long they stay.

    Without domains, reports about every domain count. A domain stands for those below it too. `alert_to` are the
    addresses that alerts and summaries are mailed to.
    """

    path: str = _key("/var/lib/postfix-mtasts-reports/reports.sqlite", values.path, _PATH)
    domains: tuple[str, ...] = _key((), values.domains, 'a list of domains such as "example.com", in punycode')
    keep_mails: int = _key(30, values.whole(1, 4000), _DAYS)
    keep_facts: int = _key(400, values.whole(1, 4000), _DAYS)
    alert_to: tuple[str, ...] = _key((), values.addresses, 'a list of addresses such as "postmaster@example.com"')


@dataclass(frozen=True, slots=True)
class PublishDns:
    """The primary name server that records are sent to. Without a server, nothing is sent."""

    server: InetEndpoint | None = _key(None, values.server, '"ADDRESS", "ADDRESS:PORT", "[IPV6-ADDRESS]:PORT" or ""')
    zone: str = _key("", values.domain, 'the name of a zone on that server, in punycode, or "" for publish.zone')
    key: str = _key("", values.optional_path, f'{_PATH} of a file with a TSIG key, or ""')


@dataclass(frozen=True, slots=True)
class Publish:
    """Policies of our own: the database, the folder of the policy files, and what their records say.

    With a zone, customers point to names below it. The addresses are those of the policy host; reports go to the URIs.
    """

    path: str = _key("/var/lib/postfix-mtasts-publish/publish.sqlite", values.path, _PATH)
    policies: str = _key("/var/lib/postfix-mtasts-publish/policies", values.path, _PATH)
    zone: str = _key("", values.domain, 'a domain such as "sts.example.net", in punycode, or ""')
    addresses: tuple[str, ...] = _key((), values.ip_addresses, 'a list of IP addresses such as "192.0.2.1"')
    reports: tuple[str, ...] = _key(
        (), values.report_uris, 'a list of URIs such as "mailto:tlsrpt@example.net" and "https://example.net/tlsrpt"'
    )
    ask: Endpoint = _key(
        InetEndpoint("127.0.0.1", 8462),
        values.local_endpoint,
        '"inet:127.0.0.1:PORT", "inet:[::1]:PORT" or "unix:/PATH"',
    )
    ca: str = _key("", values.domain, 'the domain of a CA in CAA records, such as "letsencrypt.org", or ""')
    auto: bool = _key(False, values.boolean, "true or false")
    dns: PublishDns = PublishDns()  # It is a table in this table.


@dataclass(frozen=True, slots=True)
class Web:
    """The dashboard. Without `listen` it is off. Over TCP, it needs a token or a proxy that says who asks.

    `hosts` are the names by which browsers reach it.
    """

    listen: Endpoint | None = _key(
        None, access.listener, '"unix:/PATH", "inet:ADDRESS:PORT", "inet:[IPV6-ADDRESS]:PORT" or ""'
    )
    beyond_loopback: bool = _key(False, values.boolean, "true or false")
    group: str = _key("postfix-mtasts", values.group, 'the name of a group, or ""')
    hosts: tuple[str, ...] = _key(
        ("localhost", "127.0.0.1", "::1"),
        access.hosts,
        'a list of one or more names and IP addresses such as "localhost"',
    )
    token_file: str = _key("", values.optional_path, f'{_PATH}, or ""')
    user_header: str = _key("", access.header, 'the name of a header such as "X-Remote-User", or ""')

    def __post_init__(self) -> None:
        if isinstance(self.listen, InetEndpoint):
            access.safe_listener(
                self.listen, known=bool(self.token_file or self.user_header), twice=self.beyond_loopback
            )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    server: Server = Server()
    cache: Cache = Cache()
    dns: Dns = Dns()
    fetch: Fetch = Fetch()
    reply: Reply = Reply()
    discovery: Discovery = Discovery()
    metrics: Metrics = Metrics()
    exception: tuple[ExceptionSetting, ...] = dataclasses.field(default=(), metadata={"each": ExceptionSetting})
    fleet: Fleet = Fleet()
    reports: Reports = Reports()
    publish: Publish = Publish()
    web: Web = Web()


def parse(data: bytes, source: str) -> Config:
    """Parse the content of a configuration file. `source` is its name for error messages. Raises ConfigError."""
    text = data.decode("utf-8", "replace")
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8: byte {error.start + 1}") from error
    except (ValueError, RecursionError) as error:  # It is not TOML, has a number that is too long, or is too deep.
        mode = _ZERO_FIRST.search(text)
        hint = f"; write server.socket_mode = 0o{mode[1]}" if mode else ""
        raise ConfigError(f"{source}: not TOML: {error}{hint}") from error
    known = {field.name: field for field in dataclasses.fields(Config)}
    parsed: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in known:
            raise ConfigError(f"{source}: {unknown(name, 'table', known)}")
        if each := known[name].metadata.get("each"):
            parsed[name] = parse_tables(each, name, table, source)
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"{source}: {name} = {shown(table)}: must be a table, [{name}]")
        parsed[name] = parse_table(type(known[name].default), name, table, source, known)
    _refuse_twins(parsed.get("exception", ()), source)
    return Config(**parsed)


def _refuse_twins(exceptions: tuple[ExceptionSetting, ...], source: str) -> None:
    """Raise ConfigError if a domain has two exceptions: nobody would know which of them holds."""
    seen = set[str]()
    for number, one in enumerate(exceptions, start=1):
        if one.domain in seen:
            where = f"{source}: [[exception]] number {number}: exception.domain"
            raise ConfigError(f'{where} = "{one.domain}": has an exception above already: remove one of the two')
        seen.add(one.domain)
