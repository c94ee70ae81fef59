"""What Postfix asks for, and what it is told, for each way in which it comes to a next hop."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    MISMATCH,
    NOT_OFFERED,
    SENDER,
    UNTRUSTED,
    VERIFIED,
    Outcome,
    enforce,
    outcome,
    policy,
    secure,
)
from tests.world.mail import NOBODY, POLICY_HOST, Extras, SmtpClient, World
from tests.world.smtp import Message, SmtpServer
from tests.world.tap import Lookup, Tap

TAP = 8462
EARLIER_TABLE = "inline:{exception.test=may, .parent.test=encrypt}"
LITERAL = "127.0.3.1"
BROKEN_SENDER = "broken@client.test"


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        settings={
            "smtp_tls_policy_maps": f"{EARLIER_TABLE} socketmap:inet:127.0.0.1:{TAP}:postfix",
            "relayhost": "[smart.test]",
            "sender_dependent_relayhost_maps": f"inline:{{{BROKEN_SENDER}=[broken.test]:587}}",
            "smtp_randomize_addresses": "no",
        },
        clients=(SmtpClient("bypassed.test", {"smtp_fallback_relay": "[fallback.test]"}),),
        transports={
            "host.test": "smtp:[smart.test]",
            "port.test": "smtp:[smart.test]:587",
            "domain.test": "smtp:Smart.test",
            "domain-port.test": "smtp:smart.test:587",
            "list.test": "smtp:[down.test], [smart.test]",
            "open-host.test": "smtp:[fallback.test]",
            # What has no transport of its own goes to the relay host: here, all that is not below .test.
            ".test": "smtp:",
            f"[{LITERAL}]": "smtp:",
        },
    )


@pytest.fixture(scope="module")
def fallback(world: World) -> SmtpServer:
    """A host without a policy and without STARTTLS."""
    return add_host(world, "fallback.test", 25)


@pytest.fixture(scope="module", autouse=True)
def destinations(world: World, fallback: SmtpServer) -> None:
    for domain in ("enforced.test", "xn--bcher-kva.test"):
        world.add(domain, "good", enforce(domain))
    for domain in ("a.sub.open.test", "xn--brse-5qa.test", "open.parent.test"):
        world.add(domain, None, None, record=None)
    world.add("exception.test", "self-signed", enforce("exception.test"))
    world.add("enforced.parent.test", "wrong name", enforce("enforced.parent.test"))
    world.servers.enter_context(SmtpServer(LITERAL))
    world.dns.add("down.test", "A", NOBODY)
    for domain, name in (("smart.test", "smart.test"), ("broken.test", "elsewhere.test")):
        publish(world, domain, domain)
        for port in (25, 587):
            add_host(world, domain, port, name)
    world.dns.add("smart.test", "MX", "10 smart.test.")
    world.dns.add("alias.test", "CNAME", "enforced.test.")
    publish(world, "alias.test", "mx.enforced.test")
    world.add("three.test", "wrong name", policy("enforce", "*.three.test", "mx.second.test", "mx.third.test"))
    world.add("second.test", "wrong name", None, record=None)
    world.add("third.test", "good", None, record=None)
    world.dns.add("three.test", "MX", "20 mx.second.test.", "30 mx.third.test.")
    world.dns.add("two-addresses.test", "MX", "10 mx.two-addresses.test.")
    world.dns.add("mx.two-addresses.test", "A", "127.0.2.3", "127.0.2.4")
    publish(world, "two-addresses.test", "mx.two-addresses.test")
    world.dns.add("null-mx.test", "MX", "0 .")
    world.dns.add("no-address.test", "MX", "10 mx.no-address.test.")
    world.dns.add("mx.no-address.test", "TXT", "nothing")


def add_host(world: World, name: str, port: int, certificate: str | None = None) -> SmtpServer:
    """A mail server of this name, that needs no MX record, and shows a certificate for another."""
    address = f"127.0.4.{len(name)}"
    world.dns.add(name, "A", address)
    context = world.ca.issue(certificate).server_context() if certificate else None
    return world.servers.enter_context(SmtpServer(address, port, context))


def publish(world: World, domain: str, mx: str) -> None:
    """Only a policy."""
    world.dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
    world.dns.add(f"mta-sts.{domain}", "A", POLICY_HOST)
    context = world.ca.issue(f"mta-sts.{domain}").server_context()
    world.https.policy(f"mta-sts.{domain}", policy("enforce", mx), context)


@pytest.fixture(scope="module")
def running_tap(world: World) -> Iterator[Tap]:
    with Tap("127.0.0.1", TAP, "127.0.0.1", 8461) as tap:
        yield tap


@pytest.fixture
def tap(running_tap: Tap) -> Tap:
    running_tap.lookups.clear()
    return running_tap


def found(key: str, match: str) -> Lookup:
    return Lookup(f"postfix {key}", f"OK {secure(match)}")


def missing(key: str) -> Lookup:
    return Lookup(f"postfix {key}", "NOTFOUND ")


ENFORCED = found("enforced.test", "mx.enforced.test")
THREE = found("three.test", ".three.test:mx.second.test:mx.third.test")
NO_SUCH = "Host or domain name not found. Name service error for name="


class Case(NamedTuple):
    """A message, and what comes of it."""

    why: str
    recipient: str
    lookups: list[Lookup]
    outcome: Outcome
    sender: str = SENDER


CASES = [
    Case("a policy ends the search", "user@enforced.test", [ENFORCED], VERIFIED),
    Case(
        "without one each parent is asked for, in the sender's case",
        "User@A.Sub.Open.TEST",
        [missing("A.Sub.Open.TEST"), missing(".Sub.Open.TEST"), missing(".Open.TEST"), missing(".TEST")],
        CLEAR,
    ),
    Case(
        "a policy is found in any case",
        "user@Enforced.TEST",
        [found("Enforced.TEST", "mx.enforced.test")],
        VERIFIED,
    ),
    Case("a trailing dot does not reach us", "user@enforced.test.", [ENFORCED], VERIFIED),
    Case("an address has no parents", f"user@[{LITERAL}]", [missing(f"[{LITERAL}]")], CLEAR),
    Case("a host has its own policy", "user@host.test", [found("[smart.test]", "smart.test")], VERIFIED),
    Case("a host has no parents", "user@open-host.test", [missing("[fallback.test]")], CLEAR),
    Case("a port stays", "user@port.test", [found("[smart.test]:587", "smart.test")], VERIFIED),
    Case("a transport's domain, in its case", "user@domain.test", [found("Smart.test", "smart.test")], VERIFIED),
    Case("a domain with a port", "user@domain-port.test", [found("smart.test:587", "smart.test")], VERIFIED),
    Case("relayhost", "user@relayed.example", [found("[smart.test]", "smart.test")], VERIFIED),
    Case(
        "a relay host must keep its own policy",
        "user@relayed.example",
        [found("[broken.test]:587", "broken.test")],
        MISMATCH,
        BROKEN_SENDER,
    ),
    Case(
        "each of a list of transports as it is tried",
        "user@list.test",
        [missing("[down.test]"), found("[smart.test]", "smart.test")],
        VERIFIED,
    ),
    Case(
        "a domain in Unicode",
        "user@bücher.test",
        [found("bücher.test", "mx.xn--bcher-kva.test")],
        VERIFIED,
    ),
    Case(
        "a domain in Unicode has parents",
        "user@börse.test",
        [missing("börse.test"), missing(".test")],
        CLEAR,
    ),
    Case(
        "an A-label",
        "user@xn--bcher-kva.test",
        [found("xn--bcher-kva.test", "mx.xn--bcher-kva.test")],
        VERIFIED,
    ),
    Case(
        "once for each MX host that is tried",
        "user@three.test",
        [THREE] * 3,
        VERIFIED._replace(mistrust="hostname mismatch"),
    ),
    Case(
        "once for all addresses of an MX host",
        "user@two-addresses.test",
        [found("two-addresses.test", "mx.two-addresses.test")],
        Outcome("deferred", "4.4.1", None, "connect to mx.two-addresses.test[127.0.2.4]:25: Connection refused"),
    ),
    Case("once for all recipients of a message", "one@enforced.test, two@enforced.test", [ENFORCED], VERIFIED),
    Case(
        "the recipient's domain, not what it is an alias of",
        "user@alias.test",
        [found("alias.test", "mx.enforced.test")],
        VERIFIED,
    ),
    Case(
        "nothing for a domain that does not exist",
        "user@nowhere.test",
        [],
        Outcome("bounced", "5.4.4", None, f"{NO_SUCH}nowhere.test type=A: Host not found"),
    ),
    Case(
        "nothing for a domain that takes no mail",
        "user@null-mx.test",
        [],
        Outcome("bounced", "5.1.0", None, "Domain null-mx.test does not accept mail (nullMX)"),
    ),
    Case(
        "nothing for a domain whose MX host has no address",
        "user@no-address.test",
        [],
        Outcome(
            "bounced",
            "5.4.4",
            None,
            f"{NO_SUCH}mx.no-address.test type=A: Host found but no data record of requested type",
        ),
    ),
    Case("an entry of an earlier table is final", "user@exception.test", [], UNTRUSTED),
    Case(
        "an earlier table's entry for a parent comes after our answer",
        "user@enforced.parent.test",
        [found("enforced.parent.test", "mx.enforced.parent.test")],
        MISMATCH,
    ),
    Case(
        "and before we are asked for the parent",
        "user@open.parent.test",
        [missing("open.parent.test")],
        NOT_OFFERED,
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.why) for case in CASES])
def test_what_postfix_asks_for(world: World, tap: Tap, case: Case) -> None:
    delivery = world.postfix.deliver(case.recipient, case.sender)
    assert (tap.lookups, outcome(delivery)) == (case.lookups, case.outcome)


def test_a_fallback_relay_bypasses_a_policy(world: World, tap: Tap, fallback: SmtpServer) -> None:
    strict = world.add("bypassed.test", "wrong name", enforce("bypassed.test"))
    delivery = world.postfix.deliver("user@bypassed.test")
    assert tap.lookups == [found("bypassed.test", "mx.bypassed.test"), missing("[fallback.test]")]
    assert (delivery.status, delivery.relay) == ("sent", "fallback.test[127.0.4.13]:25")
    assert strict.messages == []
    assert fallback.received("user@bypassed.test") == [Message(SENDER, ("user@bypassed.test",), False, None)]
