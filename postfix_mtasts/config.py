"""The configuration as a frozen `Config`, each key with its default, its parser and the allowed values.

The dataclasses `Server` to `Discovery` are the reference. `config_file` reads them from the file.
"""

import dataclasses
import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PATH = "/etc/postfix-mtasts.toml"
DEFAULT_CONTROL = "/run/postfix-mtasts/control"
_MAX_MODE = 0o777
_MODE = "an octal mode from 0o000 to 0o777"
_OCTAL = re.compile(r"(?:0o?)?([0-7]{1,3})")
_MAX_SOCKET_PATH = 107  # Bytes (unix(7)).
_INET = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<v4>[^:]*))(?::(?P<port>[0-9]{1,5}))?")


class ConfigError(ValueError):
    """The configuration has an error. The message is one line for the administrator."""


class WrongError(ValueError):
    """A value is wrong in a way that what is allowed in general does not tell. The message says how."""


@dataclass(frozen=True, slots=True)
class InetEndpoint:
    """A TCP address to listen on, or the address of a nameserver."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"inet:[{self.host}]:{self.port}" if ":" in self.host else f"inet:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Endpoint = InetEndpoint | UnixEndpoint
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


def _inet(text: str, default_port: int | None) -> InetEndpoint:
    match = _INET.fullmatch(text)
    host, port = (match["v6"] or match["v4"], match["port"]) if match else (text, None)
    number = default_port if port is None else int(port)
    if number is None or not 1 <= number <= 65535:
        raise ValueError
    return InetEndpoint(str(ipaddress.ip_address(host)), number)


def _listen_address(text: str) -> Endpoint:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return UnixEndpoint(_socket_path(rest))
    if kind == "inet":
        return _inet(rest, None)
    raise ValueError


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return value


def _listen(value: Any) -> tuple[Endpoint, ...]:
    endpoints = tuple(_listen_address(item) for item in _strings(value))
    if not endpoints or len(set(endpoints)) < len(endpoints):
        raise ValueError
    for one in endpoints:
        for other in endpoints:
            if _clash(one, other):
                raise WrongError(f"{one} clashes with {other}, which is one of its addresses: remove one of the two")
    return endpoints


def _clash(one: Endpoint, other: Endpoint) -> bool:
    """Whether one is all addresses, and the other one of them, which Linux does not let a process open beside it."""
    if not isinstance(one, InetEndpoint) or not isinstance(other, InetEndpoint) or one.port != other.port:
        return False
    return one != other and one.host == ("::" if ":" in other.host else "0.0.0.0")  # noqa: S104 - compared only


def _mode(value: Any) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool) and (octal := _OCTAL.fullmatch(str(value))):
        if isinstance(value, int) and value <= _MAX_MODE:
            return value
        raise WrongError(f"must be {_MODE}; did you mean 0o{octal[1]:0>3}?")
    return _whole(0, _MAX_MODE)(value)


def _nameservers(value: Any) -> tuple[InetEndpoint, ...]:
    return tuple(_inet(item, 53) for item in _strings(value))


def _networks(value: Any) -> tuple[IpNetwork, ...]:
    return tuple(ipaddress.ip_network(item) for item in _strings(value))


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 90:
        raise ValueError
    return float(value)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise ValueError
    return value


def _socket_path(value: Any) -> str:
    if len(_path(value).encode()) > _MAX_SOCKET_PATH:
        raise ValueError
    return str(value)


def _control(value: Any) -> str:
    return "" if value == "" else _socket_path(value)


def _optional_path(value: Any) -> str:
    return "" if value == "" else _path(value)


def _key(default: Any, parse: Callable[[Any], Any], allowed: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "allowed": allowed})


# Postfix waits up to 100 seconds for a reply (dict_sockmap(3)), so no time limit may be longer than 90.
_SECONDS = "a number of seconds from 0.1 to 90"
_PATH = "an absolute path"
_DOMAINS = _whole(1000, 10_000_000), "a number of domains from 1000 to 10000000"


@dataclass(frozen=True, slots=True)
class Server:
    """The sockets for Postfix and for postfix-mtasts-query, and the time limit for replies to Postfix."""

    listen: tuple[Endpoint, ...] = _key(
        DEFAULT_LISTEN,
        _listen,
        'a list of one or more "inet:ADDRESS:PORT", "inet:[IPV6-ADDRESS]:PORT" and "unix:/PATH", without duplicates',
    )
    socket_mode: int = _key(0o666, _mode, _MODE)
    control: str = _key(
        DEFAULT_CONTROL, _control, f'{_PATH} of at most {_MAX_SOCKET_PATH} bytes, or "" for no control socket'
    )
    control_group: str = _key("", lambda value: _path("/" + _strings([value])[0])[1:], 'the name of a group, or ""')
    answer_within: float = _key(10.0, _seconds, _SECONDS)


@dataclass(frozen=True, slots=True)
class Cache:
    """The file for policies, and how many octets and domains, with and without a policy, are kept in memory."""

    path: str = _key("/var/lib/postfix-mtasts/policies.sqlite", _path, _PATH)
    policies_in_memory: int = _key(10_000, *_DOMAINS)
    no_policies_in_memory: int = _key(100_000, *_DOMAINS)
    memory: int = _key(2**28, _whole(2**24, 2**40), "a number of bytes from 16777216 to 1099511627776")


@dataclass(frozen=True, slots=True)
class Dns:
    """The nameservers, and the time limit for one lookup. Without nameservers, those of resolv.conf(5) are asked."""

    nameservers: tuple[InetEndpoint, ...] = _key(
        (), _nameservers, 'a list of "ADDRESS", "ADDRESS:PORT" and "[IPV6-ADDRESS]:PORT"'
    )
    timeout: float = _key(5.0, _seconds, _SECONDS)


@dataclass(frozen=True, slots=True)
class Fetch:
    """How policies are fetched. Without a CA file, the system's CAs are trusted.

    A policy host must have a public address, or one in `allow_addresses`.
    """

    timeout: float = _key(60.0, _seconds, _SECONDS)
    ca_file: str = _key("", _optional_path, f'{_PATH}, or "" for the system\'s CAs')
    allow_addresses: tuple[IpNetwork, ...] = _key(
        (), _networks, 'a list of networks such as "192.0.2.0/24", "2001:db8::/32" and "192.0.2.1"'
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """What Postfix is told."""

    style: StyleSetting = _key(StyleSetting.AUTO, StyleSetting, '"auto", "plain" or "tlsrpt"')
    dane: DaneSetting = _key(DaneSetting.AUTO, DaneSetting, '"auto", "yield", "dane-only" or "off"')
    testing: OnTesting = _key(OnTesting.IGNORE, OnTesting, '"ignore" or "report"')


@dataclass(frozen=True, slots=True)
class Discovery:
    """What happens if a discovery fails."""

    on_failure: OnFailure = _key(OnFailure.NOTFOUND, OnFailure, '"notfound" or "temp"')


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    server: Server = Server()
    cache: Cache = Cache()
    dns: Dns = Dns()
    fetch: Fetch = Fetch()
    reply: Reply = Reply()
    discovery: Discovery = Discovery()
