"""The tables in a list such as smtp_tls_policy_maps, and the sockets that socketmap tables lead to."""

import ipaddress
import pathlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint

_PROXY = "proxy:"
_SPACE = ", \t\r\n"
# The file that postmap(1) makes of the source of a table.
_INDEX = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag", "sdbm": ".pag"}
_FILES = ("texthash", "regexp", "pcre", "cidr")


@dataclass(frozen=True, slots=True)
class Table:
    """One table, `text` as in the list. If `proxied`, Postfix asks it through proxymap(8), which has no chroot."""

    text: str
    proxied: bool
    kind: str
    name: str

    @property
    def direct(self) -> str:
        """The table without `proxy:`, as proxymap(8) opens it."""
        return f"{self.kind}:{self.name}"

    @property
    def file(self) -> pathlib.Path | None:
        """The file in which an administrator writes the entries of this table."""
        return pathlib.Path(self.name) if self.kind in (*_INDEX, *_FILES) else None

    @property
    def index(self) -> pathlib.Path | None:
        """The file that postmap(1) makes of it."""
        return pathlib.Path(self.name + _INDEX[self.kind]) if self.kind in _INDEX else None

    @property
    def endpoint(self) -> Endpoint | None:
        """The socket that a socketmap table names. None for other tables, and for names that Postfix refuses."""
        kind, _, rest = self.name.rpartition(":")[0].partition(":")
        if self.kind != "socketmap" or not rest:
            return None
        if kind == "unix":
            return UnixEndpoint(rest)
        host, _, port = rest.rpartition(":")
        try:
            number = int(port) if port.isdecimal() else socket.getservbyname(port, "tcp")
        except (OSError, ValueError):  # A port of thousands of digits, or with a NUL.
            return None
        return InetEndpoint(host.removeprefix("[").removesuffix("]"), number) if kind == "inet" else None

    @property
    def map_name(self) -> str:
        """The map name that Postfix sends in each query to a socketmap table."""
        return self.name.rpartition(":")[2]


def comment(value: str) -> str:
    """What an administrator wrote behind a list as a comment, such as `# ours`. Postfix takes it for tables."""
    at = value.find("#")
    return value[at:] if at == 0 or (at > 0 and value[at - 1] in _SPACE) else ""


def tables(value: str) -> tuple[Table, ...]:
    """The tables in a list in which all $ are expanded. A pipemap: or unionmap: is replaced by its tables."""
    found: list[Table] = []
    for text in _split(value.removesuffix(comment(value))):
        proxied = text.startswith(_PROXY)
        kind, _, name = text.removeprefix(_PROXY).partition(":")
        if kind in ("pipemap", "unionmap"):
            found += tables(name.strip("{} "))
        else:
            found.append(Table(text, proxied, kind, name))
    return tuple(found)


def is_same(listener: Endpoint, endpoint: Endpoint) -> bool:
    """Whether a connection to `endpoint` reaches the program that listens on `listener`."""
    if isinstance(listener, UnixEndpoint) and isinstance(endpoint, UnixEndpoint):
        here, there = pathlib.Path(listener.path), pathlib.Path(endpoint.path)
        # Some administrators bring a socket into a chroot by a bind mount, so the files are compared too.
        return here.resolve() == there.resolve() or (here.exists() and there.exists() and here.samefile(there))
    if isinstance(listener, UnixEndpoint) or isinstance(endpoint, UnixEndpoint):
        return False
    address = ipaddress.ip_address(listener.host)
    named = endpoint.host == "localhost" and address.is_loopback
    return listener.port == endpoint.port and (address.is_unspecified or named or listener.host == endpoint.host)


def is_elsewhere(endpoint: Endpoint) -> bool:
    """Whether a socket may be on another machine."""
    if isinstance(endpoint, UnixEndpoint) or endpoint.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return True


def _split(value: str) -> Iterator[str]:
    """Split at commas and white space outside braces, as Postfix's mystrtokq() does."""
    word, depth = "", 0
    for c in f"{value},":
        depth += (c == "{") - (c == "}")
        if c not in _SPACE or depth > 0:
            word += c
        elif word:
            yield word
            word = ""
