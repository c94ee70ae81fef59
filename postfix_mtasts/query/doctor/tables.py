"""The tables of a list such as smtp_tls_policy_maps, and where a socketmap among them leads."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint

_PROXY = "proxy:"


@dataclass(frozen=True, slots=True)
class Table:
    """One table, `text` as in the list; with `proxied`, proxymap(8) is asked, which runs in no chroot."""

    text: str
    proxied: bool
    kind: str
    name: str

    @property
    def direct(self) -> str:
        """The table as proxymap(8) has it."""
        return f"{self.kind}:{self.name}"

    @property
    def endpoint(self) -> Endpoint | None:
        """Whom a socketmap asks, as it is written; None for other tables, and for what Postfix cannot ask."""
        kind, _, rest = self.name.rpartition(":")[0].partition(":")
        if self.kind != "socketmap" or not rest:
            return None
        if kind == "unix":
            return UnixEndpoint(rest)
        host, _, port = rest.rpartition(":")
        try:
            number = int(port) if port.isdecimal() else socket.getservbyname(port, "tcp")
        except OSError:
            return None
        return InetEndpoint(host.removeprefix("[").removesuffix("]"), number) if kind == "inet" else None

    @property
    def map_name(self) -> str:
        """What a socketmap says first in each query."""
        return self.name.rpartition(":")[2]


def tables(value: str) -> tuple[Table, ...]:
    """The tables of a list without $; those inside of pipemap: and unionmap: take the place of these."""
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
    """At commas and white space outside of braces (Postfix's mystrtokq())."""
    word, depth = "", 0
    for c in f"{value},":
        depth += (c == "{") - (c == "}")
        if c not in ", \t\r\n" or depth > 0:
            word += c
        elif word:
            yield word
            word = ""
