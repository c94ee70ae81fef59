"""Style tlsrpt beside style plain: which MX hosts and which certificates Postfix accepts for an enforced policy."""

from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    FOREIGN,
    MISMATCH,
    MX_CHECK_SINCE,
    NOT_OFFERED,
    SENDER,
    STYLES,
    TLSRPT_SINCE,
    VERIFIED,
    Outcome,
    blames,
    enforce,
    in_style,
    outcome,
    policy,
    secured,
)
from tests.world.mail import Certificate, Extras, SmtpClient, World
from tests.world.smtp import Message

UNKNOWN_ATTRIBUTE = 'invalid attribute name: "policy_type"'


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        clients=tuple(SmtpClient(f".{style}.test", {"smtp_tls_policy_maps": of}) for style, of in STYLES.items())
    )


CERTIFICATES: dict[str, tuple[Certificate, Outcome]] = {
    "good": ("good", VERIFIED),
    "wrong-name": ("wrong name", MISMATCH),
    "expired": ("expired", MISMATCH._replace(mistrust="certificate has expired")),
    "self-signed": ("self-signed", MISMATCH._replace(mistrust="self-signed certificate")),
    "no-starttls": (None, NOT_OFFERED),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_the_certificate(world: World, name: str) -> None:
    certificate, known = CERTIFICATES[name]
    domain = f"{name}.tlsrpt.test"
    server = world.add(domain, certificate, enforce(domain))
    delivery = world.postfix.deliver(f"user@{domain}")
    assert outcome(delivery) == in_style("tlsrpt", world.postfix.version, known)
    assert blames(delivery, UNKNOWN_ATTRIBUTE) == (world.postfix.version < TLSRPT_SINCE)
    assert server.messages == (secured(domain, f"user@{domain}") if outcome(delivery) == VERIFIED else [])


class Names(NamedTuple):
    """Who receives mail for a domain, D for short, who is allowed to, and what becomes of mail to it."""

    name: str
    mx: str
    certificate: str
    policy: str
    plain: Outcome
    tlsrpt: Outcome
    target: str = ""  # Of a CNAME at the MX host.


NAMES = [
    Names("upper-case", "mx.D", "mx.D", "MX.D", VERIFIED, VERIFIED),
    Names("wildcard", "mx.D", "mx.D", "*.D", VERIFIED, VERIFIED),
    Names("wildcard-certificate", "mx.D", "*.D", "*.D", VERIFIED, VERIFIED),
    Names("wildcard-certificate-for-a-name", "mx.D", "*.D", "mx.D", VERIFIED, VERIFIED),
    Names("apex-certificate", "mx.D", "D", "*.D", MISMATCH, MISMATCH),
    Names("apex", "D", "D", "*.D", MISMATCH, FOREIGN),
    Names("foreign", "mx.other.D", "mx.other.D", "mx.D", MISMATCH, FOREIGN),
    # In style plain, Postfix compares the certificate with the whole policy, whatever the host is called.
    Names("two-labels-deep", "a.b.D", "a.b.D", "*.D", VERIFIED, FOREIGN),
    Names("foreign-with-an-allowed-name", "mx.other.D", "mx.D", "mx.D", VERIFIED, FOREIGN),
    Names("certificate-of-another-mx", "mx.D", "mx2.D", "mx.D:mx2.D", VERIFIED, MISMATCH),
    # The name in the MX record counts, not that at the end of its CNAME.
    Names("alias", "mx.D", "mx.D", "mx.D", VERIFIED, VERIFIED, "target.D"),
    Names("certificate-of-the-target", "mx.D", "target.D", "mx.D", MISMATCH, MISMATCH, "target.D"),
    Names("policy-of-the-target", "mx.D", "target.D", "target.D", VERIFIED, FOREIGN, "target.D"),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in NAMES])
def test_the_names(world: World, case: Names, style: str) -> None:
    domain = f"{case.name}.{style}.test"
    mx, certificate, patterns, target = (text.replace("D", domain) for text in case[1:4] + case[6:])
    world.publish(domain, policy("enforce", *patterns.split(":")))
    world.dns.add(domain, "MX", f"10 {mx}.")
    if target:
        world.dns.add(mx, "CNAME", f"{target}.")
    server = world.mail_server(target or mx, world.ca.issue(certificate).server_context())
    delivery = world.postfix.deliver(f"user@{domain}")
    assert outcome(delivery) == in_style(style, world.postfix.version, case.plain, case.tlsrpt)
    received = [Message(SENDER, (f"user@{domain}",), True, mx)]
    assert server.messages == (received if delivery.status == "sent" else [])
    passed_over = f"MX name '{mx}' does not match STS MX pattern for '{domain}'"
    assert blames(delivery, passed_over) == (outcome(delivery) == FOREIGN)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("certificate", "plain", "receives"),
    [
        pytest.param("foreign", VERIFIED._replace(mistrust="hostname mismatch"), "mx", id="its own name"),
        pytest.param("mx", VERIFIED, "foreign", id="an allowed name"),
    ],
)
def test_a_foreign_mx_host_comes_first(
    world: World, style: str, certificate: str, plain: Outcome, receives: str
) -> None:
    domain = f"{certificate}.first.{style}.test"
    world.publish(domain, enforce(domain))
    world.dns.add(domain, "MX", f"10 foreign.{domain}.", f"20 mx.{domain}.")
    servers = {
        name: world.mail_server(f"{name}.{domain}", world.ca.issue(f"{shown}.{domain}").server_context())
        for name, shown in [("foreign", certificate), ("mx", "mx")]
    }
    delivery = world.postfix.deliver(f"user@{domain}")
    assert outcome(delivery) == in_style(style, world.postfix.version, plain, VERIFIED)
    receiver = "mx" if style == "tlsrpt" and world.postfix.version >= MX_CHECK_SINCE else receives
    received = {receiver: [Message(SENDER, (f"user@{domain}",), True, f"{receiver}.{domain}")]}
    none: dict[str, list[Message]] = {"foreign": [], "mx": []}
    assert {name: server.messages for name, server in servers.items()} == (
        none | received if delivery.status == "sent" else none
    )


def test_a_domain_in_unicode(world: World) -> None:
    domain = "xn--bcher-kva.tlsrpt.test"
    server = world.add(domain, "good", enforce(domain))
    delivery = world.postfix.deliver("user@bücher.tlsrpt.test")
    assert outcome(delivery) == in_style("tlsrpt", world.postfix.version, VERIFIED)
    assert server.messages == (secured(domain, "user@bücher.tlsrpt.test") if delivery.status == "sent" else [])
    reply = world.postfix.postmap_q(STYLES["tlsrpt"], "bücher.tlsrpt.test")
    assert reply is not None
    assert f" policy_domain={domain} " in reply
