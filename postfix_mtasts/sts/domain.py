"""What Postfix asks for, as a Policy Domain (RFC 8461, 1.1 and 3.4).

Postfix's key is the next hop as it stands in its tables: a recipient's domain in the case the sender typed, a
U-label under SMTPUTF8, `[host]:port` for a smart host, `.parent` for each parent domain after a "not found", the path
of an LMTP socket. A domain of its own, and a smart host, has a policy; the rest has none, and costs no DNS query.
"""

import re
from dataclasses import dataclass

import idna

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"[0-9]+")
_PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,30}")
_BRACKETED = re.compile(rf"\[(?P<host>[^]]*)\](?::(?P<port>{_PORT.pattern}))?")
_MAX_NAME = 253  # Octets of a name without the root dot (RFC 1035, 2.3.4, in presentation format).
SMTP_PORT = "25"
_RECORD_LABEL = "_mta-sts."
_HOST_LABEL = "mta-sts."


class HostnameError(ValueError):
    """The text is no hostname; says why."""


class PolicyDomainError(ValueError):
    """The key names nothing that could have a policy; says why."""


@dataclass(frozen=True, slots=True)
class PolicyDomain:
    """A domain that may have a policy: lower case, A-labels, no root dot."""

    name: str

    def record_name(self) -> str:
        """Where its TXT record is (RFC 8461, 3.1)."""
        return _RECORD_LABEL + self.name

    def policy_host(self) -> str:
        """The host that serves its policy (RFC 8461, 3.3)."""
        return _HOST_LABEL + self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where Postfix sends mail, and whose policy holds for it."""

    domain: PolicyDomain
    mx: bool = True  # To the MX hosts of the domain; otherwise to the host of that name.
    port: str = SMTP_PORT  # A number, or the name of a service.

    def __str__(self) -> str:
        port = "" if self.port == SMTP_PORT else f":{self.port}"
        return f"{self.domain}{port}" if self.mx else f"[{self.domain}]{port}"


def hostname(text: str) -> str:
    """The hostname in lower-case A-labels, without the root dot (RFC 5321, 4.1.2; RFC 1123, 2.1).

    A last label of digits makes it an address to most programs, so it is refused. Raises HostnameError.
    """
    name = text.removesuffix(".")
    if len(name) > _MAX_NAME:
        raise HostnameError(f"longer than {_MAX_NAME} characters")
    if not name.isascii():
        # Postfix maps U-labels the same way (UTS 46, non-transitional). The standard library's IDNA 2003 would make
        # another domain of "straße".
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError as error:  # idna.IDNAError is one, and the codec raises others.
            raise HostnameError(f"not convertible to A-labels: {error}") from error
    name = name.lower()
    if len(name) > _MAX_NAME or not _HOSTNAME.fullmatch(name):
        raise HostnameError("not a hostname")
    if _NUMERIC.fullmatch(name.rpartition(".")[2]):
        raise HostnameError("an address, not a hostname")
    return name


def next_hop(key: bytes) -> NextHop:
    """The next hop that a socketmap key asks for; a smart host's own domain is its Policy Domain (RFC 8461, 3.4).

    Raises PolicyDomainError.
    """
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyDomainError("not UTF-8") from error
    host, mx, port = _parts(text)
    try:
        name = hostname(host)
    except HostnameError as error:
        raise PolicyDomainError(str(error)) from error
    if "." not in name:
        raise PolicyDomainError("a single label")
    if len(_RECORD_LABEL) + len(name) > _MAX_NAME:
        raise PolicyDomainError(f"too long for {_RECORD_LABEL}")
    return NextHop(PolicyDomain(name), mx, port)


def _parts(text: str) -> tuple[str, bool, str]:
    """Host, whether its MX records count, and port, of `[host]`, `[host]:port` and `host:port`.

    Other shapes are left for `hostname` to refuse.
    """
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return bracketed["host"], False, bracketed["port"] or SMTP_PORT
    host, colon, port = text.partition(":")
    return (host, True, port) if colon and _PORT.fullmatch(port) else (text, True, SMTP_PORT)
