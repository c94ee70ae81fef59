"""With smtp_tls_connection_reuse, tlsproxy speaks TLS, and a connection may serve several messages."""

import re
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    FOREIGN,
    MISMATCH,
    NO_ANSWER,
    NOT_OFFERED,
    STYLES,
    VERIFIED,
    Outcome,
    enforce,
    in_style,
    outcome,
    policy,
)
from tests.world.mail import Certificate, Extras, SmtpClient, World
from tests.world.postfix import Delivery

REUSE = {
    "smtp_tls_connection_reuse": "yes",
    "smtp_connection_cache_destinations": "static:all",
    "smtp_connection_cache_time_limit": "1h",
    "smtp_connection_reuse_time_limit": "1h",
}


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        settings={"connection_cache_ttl_limit": "1h"},
        services=("tlsproxy unix - - n - 0 tlsproxy",),
        clients=tuple(
            SmtpClient(f".{style}.test", REUSE | {"smtp_tls_policy_maps": of}) for style, of in STYLES.items()
        ),
    )


class Ending(NamedTuple):
    """What became of a message, and for how many messages its connection was used."""

    status: str
    dsn: str
    text: str
    uses: int


def ending(known: Delivery | Outcome, uses: int = 1) -> Ending:
    """What is wrong with a certificate is not in it: tlsproxy logs that for itself."""
    if isinstance(known, Delivery):
        found = re.search(r", conn_use=(\d+), ", known.lines[-1])
        uses = int(found[1]) if found else 1
        known = outcome(known)
    return Ending(known.status, known.dsn, known.text, uses)


def delivered(world: World, recipient: str) -> Ending:
    """The ending, when the connection has been put away that is to be kept."""
    found = ending(world.postfix.deliver(recipient))
    world.postfix.wait_until_idle()
    return found


class Case(NamedTuple):
    """A certificate and the MX host of the policy, D being the domain, and what becomes of mail in both styles."""

    certificate: Certificate
    mx: str
    plain: Outcome
    tlsrpt: Outcome


CASES = {
    "good": Case("good", "mx.D", VERIFIED, VERIFIED),
    "wrong-name": Case("wrong name", "mx.D", MISMATCH, MISMATCH),
    "no-starttls": Case(None, "mx.D", NOT_OFFERED, NOT_OFFERED),
    "foreign": Case("good", "mx.other.D", MISMATCH, FOREIGN),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", CASES)
def test_an_enforced_policy(world: World, name: str, style: str) -> None:
    case = CASES[name]
    domain = f"{name}.{style}.test"
    world.add(domain, case.certificate, policy("enforce", case.mx.replace("D", domain)))
    expected = in_style(style, world.postfix.version, case.plain, case.tlsrpt)
    assert delivered(world, f"user@{domain}") == ending(expected)
    # Only a verified connection is kept.
    again = ending(expected, 2 if expected == VERIFIED else 1)
    assert ending(world.postfix.deliver(f"again@{domain}")) == again


def cached(world: World, domain: str) -> None:
    """A domain without a policy, with a connection that is kept."""
    world.dns.add(domain, "MX", f"10 mx.{domain}.")
    world.mail_server(f"mx.{domain}", world.mail_server_context(domain, "good"))
    endings = [delivered(world, f"user@{domain}") for _ in range(2)]
    assert endings == [ending(VERIFIED), ending(VERIFIED, 2)]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [pytest.param(True, VERIFIED, id="allowed"), pytest.param(False, MISMATCH, id="foreign")],
)
def test_a_domain_with_a_policy_gets_a_connection_of_its_own(world: World, allowed: bool, expected: Outcome) -> None:
    domain = f"{'allowed' if allowed else 'foreign'}.guest.plain.test"
    host = f"host.{domain}"
    cached(world, host)
    world.publish(domain, policy("enforce", f"mx.{host if allowed else domain}"))
    world.dns.add(domain, "MX", f"10 mx.{host}.")
    assert ending(world.postfix.deliver(f"user@{domain}")) == ending(expected)


def asked(world: World) -> bool:
    """Whether Postfix asks for a policy when it has a connection to the domain. Earlier versions do not."""
    return world.postfix.version >= (3, 10)


def test_a_policy_begins(world: World) -> None:
    domain = "begins.plain.test"
    cached(world, domain)
    world.publish(domain, enforce("elsewhere.test"))
    world.daemon.restart()
    expected = ending(MISMATCH) if asked(world) else ending(VERIFIED, 3)
    assert ending(world.postfix.deliver(f"user@{domain}")) == expected


def test_the_daemon_is_down(world: World) -> None:
    domain = "down.plain.test"
    cached(world, domain)
    assert world.daemon.stop() == 0
    try:
        delivery = world.postfix.deliver(f"user@{domain}")
    finally:
        world.daemon.start()
    assert ending(delivery) == (ending(NO_ANSWER) if asked(world) else ending(VERIFIED, 3))
