"""The table [fleet] of the configuration, and how its values are parsed."""

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass, field, replace
from typing import Any

from postfix_mtasts.config_table import key
from postfix_mtasts.config_values import SecretError, WrongError, optional_path, socket_path, strings

_FLEET_URL = re.compile(
    r"(?P<scheme>rediss?)://(?:(?P<user>[^:/@]*)(?::(?P<password>[^/@]*))?@)?"
    r"(?:\[(?P<v6>[^]]*)\]|(?P<host>[A-Za-z0-9.-]+))(?::(?P<port>[0-9]{1,5}))?(?:/(?P<database>[0-9]{0,5}))?"
)
_SENTINEL = re.compile(
    r"(?:(?P<scheme>rediss?)://)?(?:\[(?P<v6>[^]]*)\]|(?P<host>[A-Za-z0-9.-]+))(?::(?P<port>[0-9]{1,5}))?"
)
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,31}:")
_FLEET_PORT, _SENTINEL_PORT = 6379, 26379


@dataclass(frozen=True, slots=True)
class FleetUrl:
    """Where a server of a fleet is, or a sentinel: `rediss` with TLS, `redis`, or `unix` with a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by an address or as localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(value: Any) -> FleetUrl | None:
    """The URL of a server for the fleet, or none for an empty text."""
    text = strings([value])[0]
    if not text:
        return None
    if text.startswith("unix://"):
        return FleetUrl("unix", path=socket_path(text.removeprefix("unix://")))
    match = _FLEET_URL.fullmatch(text)
    try:
        found = _fleet_server(match, _FLEET_PORT)
    except WrongError:
        raise
    except ValueError:
        raise SecretError('must be "rediss://USER:PASSWORD@HOST:PORT/DATABASE" or "unix:///PATH"') from None
    user, password, database = match.group("user", "password", "database") if match else ("", "", "")
    unquote = urllib.parse.unquote
    return replace(found, database=int(database or 0), user=unquote(user or ""), password=unquote(password or ""))


def _sentinels(value: Any) -> tuple[FleetUrl, ...]:
    """Sentinels, with TLS unless it is said otherwise."""
    matches = [_SENTINEL.fullmatch(text) for text in strings(value)]
    return tuple(_fleet_server(match, _SENTINEL_PORT) for match in matches)


def _fleet_server(match: re.Match[str] | None, default_port: int) -> FleetUrl:
    if not match or not 1 <= int(match["port"] or default_port) <= 65535:
        raise ValueError
    host = str(ipaddress.IPv6Address(match["v6"])) if match["v6"] else match["host"].lower()
    scheme = match["scheme"] or "rediss"
    if scheme == "redis" and not is_loopback(host):
        raise SecretError("who can write there decides where mail goes: beyond this machine, it must be rediss://")
    return FleetUrl(scheme, host, int(match["port"] or default_port))


def _prefix(value: Any) -> str:
    """What the names of keys begin with."""
    if not _PREFIX.fullmatch(strings([value])[0]):
        raise ValueError
    return str(value)


def _name(value: Any) -> str:
    """A name of one word, or an empty text."""
    if value != "" and not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", strings([value])[0]):
        raise ValueError
    return str(value)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The Valkey or Redis where a fleet of relays shares what it knows; none without an URL or sentinels."""

    url: FleetUrl | None = key(
        None,
        _url,
        '"rediss://HOST:PORT/DATABASE", "redis://127.0.0.1:PORT/DATABASE", "unix:///PATH" or ""',
    )
    sentinels: tuple[FleetUrl, ...] = key((), _sentinels, 'a list of "HOST", "HOST:PORT" and "redis://127.0.0.1:PORT"')
    name: str = key("", _name, 'the name by which the sentinels know the server, or ""')
    credentials: str = key("", optional_path, 'an absolute path of a file with USER:PASSWORD, or ""')
    ca_file: str = key("", optional_path, 'an absolute path, or "" for the system\'s CAs')
    prefix: str = key("mtasts:", _prefix, "1 to 31 letters, digits, dots, dashes or underscores, and a colon")
