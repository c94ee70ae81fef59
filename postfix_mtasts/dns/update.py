"""Changes records of a zone on its primary name server, by updates (RFC 2136) that are signed with TSIG (RFC 8945).

The key is in a file as tsig-keygen(8) of BIND makes it:

    key "name" { algorithm hmac-sha256; secret "…"; };
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import dns.exception
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update

from postfix_mtasts.config import InetEndpoint

ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")  # MD5 and SHA-1 are not for new keys.
TIMEOUT = 10.0  # Seconds for an update. The name server may have to write its journal.
_KEY = re.compile(
    r'\s*key\s+"?(?P<name>[A-Za-z0-9._-]{1,253})"?\s*\{\s*'
    r'algorithm\s+"?(?P<algorithm>[a-z0-9-]{1,20})"?\s*;\s*'
    r'secret\s+"(?P<secret>[A-Za-z0-9+/=]{1,1000})"\s*;\s*\}\s*;?\s*'
)
_REFUSALS = {
    dns.rcode.REFUSED: "refuses updates of {zone} with the TSIG key {key}",
    dns.rcode.NOTAUTH: "is not a primary name server of {zone}, or does not accept the TSIG key {key}",
    dns.rcode.NOTZONE: "has no zone {zone} with these names",
    dns.rcode.NOTIMP: "accepts no updates",
}


class KeyFileError(ValueError):
    """The text is not a TSIG key. The message says what is wrong."""


class UpdateError(Exception):
    """The name server did not make the change. The message says why. Nothing of the update was made."""


@dataclass(frozen=True, slots=True)
class Key:
    """A TSIG key."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replacement:
    """All records of a type at a name, to take the place of those that are there. `data` is as in a zone file."""

    name: str
    type: str
    data: tuple[str, ...]
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """One record that is to go. Others of its type at the name stay. `data` is as in a zone file."""

    name: str
    type: str
    data: str


def parse_key(text: str) -> Key:
    """The key in a key file. Raises KeyFileError."""
    found = _KEY.fullmatch(text)
    if not found:
        raise KeyFileError('is not a key file as tsig-keygen makes it: key "NAME" { algorithm …; secret "…"; };')
    if found["algorithm"] not in ALGORITHMS:
        raise KeyFileError(f"has the algorithm {found['algorithm']}, and must have one of {', '.join(ALGORITHMS)}")
    try:
        secret = base64.b64decode(found["secret"], validate=True)
    except binascii.Error as error:
        raise KeyFileError("has a secret that is not in base64") from error
    return Key(found["name"].rstrip("."), found["algorithm"], secret)


async def update(server: InetEndpoint, zone: str, key: Key, changes: Iterable[Replacement | Removal]) -> None:
    """Make all changes, or none. Raises UpdateError."""
    message = dns.update.UpdateMessage(f"{zone}.")
    message.use_tsig(dns.tsig.Key(key.name, key.secret, key.algorithm))
    for one in changes:
        name = dns.name.from_text(f"{one.name}.")
        if isinstance(one, Removal):
            message.delete(name, one.type, one.data)
            continue
        message.delete(name, one.type)
        for data in one.data:
            message.add(name, one.ttl, one.type, data)
    try:
        answer = await asyncio.to_thread(dns.query.tcp, message, server.host, TIMEOUT, server.port)
    except dns.tsig.PeerBadKey as error:
        raise UpdateError(f"does not know the TSIG key {key.name}") from error
    except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature) as error:
        raise UpdateError(f"has another secret for the TSIG key {key.name}") from error
    except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as error:
        raise UpdateError("has a clock that differs from ours by more than five minutes") from error
    except dns.exception.Timeout as error:
        raise UpdateError(f"no answer within {TIMEOUT:g} s") from error
    except dns.exception.FormError as error:  # Knot's answer about a zone that it does not have.
        raise UpdateError(f"gives a malformed answer: is it a primary name server of {zone}?") from error
    except (dns.exception.DNSException, EOFError) as error:
        raise UpdateError(f"answers what is not DNS: {type(error).__name__}") from error
    except OSError as error:
        raise UpdateError((error.strerror or str(error)).lower()) from error
    rcode = answer.rcode()
    if rcode != dns.rcode.NOERROR:
        words = _REFUSALS.get(rcode, "answers " + dns.rcode.to_text(rcode))
        raise UpdateError(words.format(zone=zone, key=key.name))
