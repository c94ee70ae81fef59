"""Parses single values of the configuration file. Each function returns the value, or raises ValueError."""

import datetime
import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MODE = "an octal mode from 0o000 to 0o777"
_MAX_MODE = 0o777
_OCTAL = re.compile(r"(?:0o?)?([0-7]{1,3})")
Day = datetime.date
MAX_LINE = 200  # Characters of a text, so that a line of the log holds it beside the rest.
MAX_SOCKET_PATH = 107  # Bytes (unix(7)).
_INET = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<v4>[^:]*))(?::(?P<port>[0-9]{1,5}))?")
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A mail address without quotes. It cannot be taken for an option of a command.
_ADDRESS = re.compile(r"(?!-)[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?P<domain>.*)")
# RFC 3986, 2, without the characters that a TXT record for TLS reports wants encoded (RFC 8460, 3).
_REPORT_URI = re.compile(r"(?:mailto|https):(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+")
_DOMAIN = re.compile(rf"(?=.{{1,253}}$){LABEL}(?:\.{LABEL})+")  # In A-labels.
_PROXY = re.compile(r"(?P<scheme>http|socks5)://(?:\[(?P<v6>[^]]*)\]|(?P<host>[^:/@]*)):(?P<port>[0-9]{1,5})/?")


class WrongError(ValueError):
    """A value is wrong in a way that what is allowed in general does not tell. The message says how."""


class SecretError(WrongError):
    """A value is wrong, and may hold a password: it is not to be shown."""


class Level(enum.Enum):
    """What Postfix is told in place of a policy: "not found", or one of its own levels."""

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"


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


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """Where a proxy is, and what it speaks: `http` (CONNECT) or `socks5`. The host is a name or an address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return (
            f"{self.scheme}://[{self.host}]:{self.port}"
            if ":" in self.host
            else (f"{self.scheme}://{self.host}:{self.port}")
        )


def inet(text: str, default_port: int | None) -> InetEndpoint:
    """An address, with a port or the default one."""
    match = _INET.fullmatch(text)
    host, port = (match["v6"] or match["v4"], match["port"]) if match else (text, None)
    number = default_port if port is None else int(port)
    if number is None or not 1 <= number <= 65535:
        raise ValueError
    return InetEndpoint(str(ipaddress.ip_address(host)), number)


def _listen_address(text: str) -> Endpoint:
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return UnixEndpoint(socket_path(rest))
    if kind == "inet":
        return inet(rest, None)
    raise ValueError


def strings(value: Any) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return value


def listen(value: Any) -> tuple[Endpoint, ...]:
    """Addresses for `server.listen`."""
    endpoints = tuple(_listen_address(item) for item in strings(value))
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


def mode(value: Any) -> int:
    """The mode of a file."""
    if isinstance(value, int | str) and not isinstance(value, bool) and (octal := _OCTAL.fullmatch(str(value))):
        if isinstance(value, int) and value <= _MAX_MODE:
            return value
        raise WrongError(f"must be {MODE}; did you mean 0o{octal[1]:0>3}?")
    return whole(0, _MAX_MODE)(value)


def optional_endpoint(value: Any) -> Endpoint | None:
    """An address to listen on, or none for an empty text."""
    return None if value == "" else _listen_address(strings([value])[0])


def local_endpoint(value: Any) -> Endpoint:
    """An address to listen on that no other machine reaches."""
    endpoint = _listen_address(strings([value])[0])
    if isinstance(endpoint, InetEndpoint) and not ipaddress.ip_address(endpoint.host).is_loopback:
        raise ValueError
    return endpoint


def nameservers(value: Any) -> tuple[InetEndpoint, ...]:
    """Addresses of nameservers."""
    return tuple(inet(item, 53) for item in strings(value))


def server(value: Any) -> InetEndpoint | None:
    """A nameserver, or none for an empty text."""
    return None if value == "" else nameservers([value])[0]


def networks(value: Any) -> tuple[IpNetwork, ...]:
    """IP networks."""
    return tuple(ipaddress.ip_network(item) for item in strings(value))


def proxy(value: Any) -> ProxyUrl | None:
    """The URL of a proxy, or none for an empty text."""
    text = strings([value])[0]
    if not text:
        return None
    if "@" in text:
        raise SecretError("must not have a user and a password: write them to a file, and name it in proxy_credentials")
    match = _PROXY.fullmatch(text)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise ValueError
    host = (match["v6"] or match["host"]).lower()
    if match["v6"] or not _DOMAIN.fullmatch(host) or host.rpartition(".")[2].isdigit():
        host = str(ipaddress.ip_address(host))
    return ProxyUrl(match["scheme"], host, int(match["port"]))


def seconds(value: Any) -> float:
    """A time limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 90:
        raise ValueError
    return float(value)


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def whole(least: int, most: int) -> Callable[[Any], int]:
    """A parser for whole numbers from `least` to `most`."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def path(value: Any) -> str:
    """An absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise ValueError
    return value


def socket_path(value: Any) -> str:
    """The path of a Unix socket."""
    if len(path(value).encode()) > MAX_SOCKET_PATH:
        raise ValueError
    return str(value)


def control(value: Any) -> str:
    """The path of a Unix socket, or an empty text."""
    return "" if value == "" else socket_path(value)


def optional_path(value: Any) -> str:
    """An absolute path, or an empty text."""
    return "" if value == "" else path(value)


def group(value: Any) -> str:
    """The name of a group, or an empty text."""
    return path("/" + strings([value])[0])[1:]


def domains(value: Any) -> tuple[str, ...]:
    """Domains in lower-case A-labels."""
    names = tuple(name.lower() for name in strings(value))
    if not all(map(_DOMAIN.fullmatch, names)):
        raise ValueError
    return names


def address(value: str) -> str:
    """A mail address."""
    match = _ADDRESS.fullmatch(value)
    if not match or not _DOMAIN.fullmatch(match["domain"].lower()):
        raise ValueError
    return value


def addresses(value: Any) -> tuple[str, ...]:
    """Mail addresses."""
    return tuple(map(address, strings(value)))


def domain(value: Any) -> str:
    """A domain in lower-case A-labels, or an empty text."""
    return "" if value == "" else domains([value])[0]


def domain_or_below(value: Any) -> str:
    """A domain in lower-case A-labels, or `*.` and a domain, for all those below it."""
    name = strings([value])[0].lower()
    if not _DOMAIN.fullmatch(name.removeprefix("*.")):
        raise ValueError
    return name


def day(value: Any) -> Day:
    """A date, without a time of day."""
    if type(value) is not Day:  # A date with a time is one too.
        raise ValueError
    return value


def one_line(value: Any) -> str:
    """A text of one line that says something."""
    text = strings([value])[0].strip()
    if not text.isprintable() or not 1 <= len(text) <= MAX_LINE:
        raise ValueError
    return text


def ip_addresses(value: Any) -> tuple[str, ...]:
    """IP addresses."""
    return tuple(str(ipaddress.ip_address(item)) for item in strings(value))


def report_uris(value: Any) -> tuple[str, ...]:
    """URIs for TLS reports."""
    uris = tuple(strings(value))
    if not all(map(_REPORT_URI.fullmatch, uris)):
        raise ValueError
    return uris
