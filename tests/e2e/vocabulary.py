"""What domains publish, and what the daemon and Postfix make of it: the words in which the tests expect it."""

from typing import NamedTuple

from tests.world.mail import LISTEN
from tests.world.postfix import Delivery
from tests.world.smtp import Message

SENDER = "sender@client.test"


class Outcome(NamedTuple):
    """What Postfix logs of an attempt; in `text`, MX stands for the name and the address of the mail server."""

    status: str
    dsn: str
    tls: str | None
    text: str
    mistrust: str | None = None


VERIFIED = Outcome("sent", "2.0.0", "Verified", "250 received")
TRUSTED = VERIFIED._replace(tls="Trusted")
UNTRUSTED = VERIFIED._replace(tls="Untrusted")
CLEAR = VERIFIED._replace(tls=None)
MISMATCH = Outcome("deferred", "4.7.5", "Untrusted", "Server certificate not verified", "hostname mismatch")
NOT_OFFERED = Outcome("deferred", "4.7.4", None, "TLS is required, but was not offered by host MX")
NO_ANSWER = Outcome("deferred", "4.7.5", None, "client TLS configuration problem")

# The maps that have a style by their name.
STYLES = {style: f"socketmap:{LISTEN}:{style}" for style in ("plain", "tlsrpt")}
# What Postfix makes of style tlsrpt, by its version: attributes that it takes, and MX hosts that it passes over.
TLSRPT_SINCE = (3, 10)
MX_CHECK_SINCE = (3, 10, 5)
FOREIGN = Outcome("deferred", "4.3.0", None, "server unavailable or unable to receive mail")


def outcome(delivery: Delivery) -> Outcome:
    """The same for all versions of Postfix."""
    text = delivery.text.replace(delivery.relay.removesuffix(":25"), "MX")
    # Later versions of Postfix call a certificate with another name Trusted: its chain is.
    mismatch = delivery.tls == "Trusted" and delivery.mistrust == "hostname mismatch"
    return Outcome(delivery.status, delivery.dsn, "Untrusted" if mismatch else delivery.tls, text, delivery.mistrust)


def policy(mode: str, *mx: str) -> str:
    """A policy file."""
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {pattern}" for pattern in mx), "max_age: 604800"]
    return "".join(f"{line}\r\n" for line in lines)


def enforce(domain: str) -> str:
    """The policy file of a domain with one MX host."""
    return policy("enforce", f"mx.{domain}")


def secure(match: str) -> str:
    """What Postfix is told of an enforced policy, in style plain."""
    return f"secure match={match} servername=hostname"


def attributes(domain: str, mx: str, *policy_strings: str) -> str:
    """What style tlsrpt adds to a level, for these patterns, with a colon between them."""
    patterns = "".join(f" mx_host_pattern={pattern}" for pattern in mx.split(":"))
    strings = "".join(f" {{ policy_string = {line} }}" for line in policy_strings)
    return f" policy_type=sts policy_domain={domain}{patterns}{strings}"


def secured(domain: str, *recipients: str) -> list[Message]:
    """Messages as an enforced policy lets them arrive: Postfix was told to name the MX host in its ClientHello."""
    return [Message(SENDER, (recipient,), True, f"mx.{domain}") for recipient in recipients]


def applied(domain: str) -> str:
    """What the daemon logs of `enforce(domain)` when it has fetched that."""
    return f"info: domain={domain}, fetched: mode=enforce, max_age=604800, mx=mx.{domain}"


def blames(delivery: Delivery, cause: str) -> bool:
    """Whether Postfix warned that it could not ask, for this cause."""
    return any("warning: " in line and cause in line for line in delivery.lines)


def in_style(style: str, version: tuple[int, ...], known: Outcome, tlsrpt: Outcome | None = None) -> Outcome:
    """The outcome that is known of style plain, in a style; `tlsrpt` is that where Postfix checks MX names too."""
    if style == "plain":
        return known
    if version < TLSRPT_SINCE:
        return NO_ANSWER
    return tlsrpt if tlsrpt and version >= MX_CHECK_SINCE else known
