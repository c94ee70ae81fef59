"""Turns a key that Postfix looks up into a Policy Domain (RFC 8461, 1.1 and 3.4).

The key is the next hop as Postfix knows it. It may be a recipient's domain in the case that the sender typed, or a
U-label under SMTPUTF8. It may be `[host]:port` for a smart host, or the path of an LMTP socket. After a "not found"
Postfix also asks for `.parent`, once for each parent domain. Only domains and smart hosts can have a policy. All other
keys are answered without a DNS query.
"""

import re
from dataclasses import dataclass

import idna

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"[0-9]+")
_PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,30}")
_BRACKETED = re.compile(rf"\[(?P<host>[^]]*)\](?::(?P<port>{_PORT.pattern}))?")
MAX_NAME = 253  # Characters of a DNS name without its final dot (RFC 1035, 2.3.4, in presentation format).
SMTP_PORT = "25"
_RECORD_LABEL = "_mta-sts."
_HOST_LABEL = "mta-sts."


class HostnameError(ValueError):
    """The text is not a hostname. The message says why."""


class PolicyDomainError(ValueError):
    """The key is not a domain that could have a policy. The message says why."""


@dataclass(frozen=True, slots=True)
class PolicyDomain:
    """A domain that may have a policy, in lower-case A-labels (punycode) and without the final dot."""

    name: str

    def record_name(self) -> str:
        """The name of its TXT record (RFC 8461, 3.1)."""
        return _RECORD_LABEL + self.name

    def policy_host(self) -> str:
        """The host that serves its policy (RFC 8461, 3.3)."""
        return _HOST_LABEL + self.name

    def end(self, labels: int) -> str:
        """Its last labels. By two of them its owner is told, near enough: example.com, but all of co.uk too."""
        return ".".join(self.name.rsplit(".", labels)[-labels:])

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class NextHop:
    """The next hop of a delivery, and the domain whose policy applies to it."""

    domain: PolicyDomain
    mx: bool = True  # Postfix delivers to the domain's MX hosts. If false, it delivers to the host of that name.
    port: str = SMTP_PORT  # A number, or the name of a service.

    def __str__(self) -> str:
        port = "" if self.port == SMTP_PORT else f":{self.port}"
        return f"{self.domain}{port}" if self.mx else f"[{self.domain}]{port}"


def hostname(text: str) -> str:
    """Return the hostname in lower-case A-labels, without the final dot (RFC 5321, 4.1.2; RFC 1123, 2.1).

    A name whose last label is a number is refused, because most programs take it for an IP address. Raises
    HostnameError.
    """
    name = text.removesuffix(".")
    if len(name) > MAX_NAME:
        raise HostnameError(f"longer than {MAX_NAME} characters")
    if not name.isascii():
        # Postfix converts U-labels by the same rules (UTS 46, non-transitional). Python's own codec uses IDNA 2003,
        # which turns "straße" into a different domain.
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError as error:  # idna.IDNAError is one, and the codec raises others.
            raise HostnameError(f"cannot be converted to punycode: {error}") from error
    name = name.lower()
    if len(name) > MAX_NAME or not _HOSTNAME.fullmatch(name):
        raise HostnameError("not a hostname")
    if _NUMERIC.fullmatch(name.rpartition(".")[2]):
        raise HostnameError("ends in a number, like an IP address")
    return name


def next_hop(key: bytes) -> NextHop:
    """Return the next hop that a socketmap key stands for. Raises PolicyDomainError.

    The Policy Domain of a smart host is the smart host's own name (RFC 8461, 3.4).
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
        raise PolicyDomainError("needs a dot, like example.com")
    if len(_RECORD_LABEL) + len(name) > MAX_NAME:
        raise PolicyDomainError(f"too long to have a name with {_RECORD_LABEL} before it")
    return NextHop(PolicyDomain(name), mx, port)


def domain_of_policy_host(host: str) -> PolicyDomain | None:
    """The domain whose policy host this is, or None."""
    name = host.lower()
    try:
        domain = next_hop(name.removeprefix(_HOST_LABEL).encode("utf-8", "replace")).domain
    except PolicyDomainError:
        return None
    return domain if domain.policy_host() == name else None


def _parts(text: str) -> tuple[str, bool, str]:
    """Split `[host]`, `[host]:port`, `host` or `host:port` into the host, whether MX records are used, and the port.

    Any other text is returned as the host. `hostname` then refuses it.
    """
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return bracketed["host"], False, bracketed["port"] or SMTP_PORT
    host, colon, port = text.partition(":")
    return (host, True, port) if colon and _PORT.fullmatch(port) else (text, True, SMTP_PORT)
