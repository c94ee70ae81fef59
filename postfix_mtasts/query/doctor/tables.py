"""The tables in a list such as smtp_tls_policy_maps, and the sockets that socketmap tables lead to."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint

_PROXY = "proxy:"


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


def tables(value: str) -> tuple[Table, ...]:
    """The tables in a list in which all $ are expanded. A pipemap: or unionmap: is replaced by its tables."""
    found: list[Table] = []
    for text in _split(value):
        proxied = text.startswith(_PROXY)
        kind, _, name = text.removeprefix(_PROXY).partition(":")
        if kind in ("pipemap", "unionmap"):
            found += tables(name.strip("{} "))
        else:
            found.append(Table(text, proxied, kind, name))
    return tuple(found)


def _split(value: str) -> Iterator[str]:
    """Split at commas and white space outside braces, as Postfix's mystrtokq() does."""
    word, depth = "", 0
    for c in f"{value},":
        depth += (c == "{") - (c == "}")
        if c not in ", \t\r\n" or depth > 0:
            word += c
        elif word:
            yield word
            word = ""
