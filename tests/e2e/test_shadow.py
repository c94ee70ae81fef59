"""Shadow mode: what the daemon says of 27 domains, each broken in its own way, is what Postfix does once it is off."""

import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.vocabulary import enforce, policy
from tests.world.ca import Kind
from tests.world.daemon import query, toml
from tests.world.mail import MAP, NOBODY, Extras, World, configuration
from tests.world.postfix import HERE, Installation

STATUS = {"delivered": "sent", "deferred": "deferred", "returned": "bounced"}
NOT_VERIFIED = "is for mx.elsewhere.test, not for any name that the policy allows"


@pytest.fixture(scope="module")
def installation() -> Installation:
    """The Postfix of this machine: what it makes of policies in other versions, other modules test."""
    if why := HERE.missing():
        pytest.skip(why)
    return HERE


@pytest.fixture(scope="module")
def control() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "control"


@pytest.fixture(scope="module")
def extras(control: Path) -> Extras:
    return Extras(
        daemon={"server": {"control": str(control)}, "reply": {"enforce": False}},
        settings={"smtp_connect_timeout": "3s"},
    )


class Case(NamedTuple):
    """How a domain is made; what would become of its mail; and why."""

    make: Callable[[World, str], object]
    state: str
    reason: str = ""


def one_host(certificate: Kind | str | None, text: Callable[[str], str] = enforce) -> Callable[[World, str], object]:
    return lambda world, domain: world.add(domain, certificate, text(domain))  # type: ignore[arg-type]


def hosts(*kinds: Kind | str | None) -> Callable[[World, str], object]:
    """MX hosts a, b, … with these certificates, in their order; `gone` has no address, `closed` does not listen."""

    def make(world: World, domain: str) -> None:
        names = [f"{letter}.{domain}" for letter, _ in zip("abcdef", kinds, strict=False)]
        world.publish(domain, policy("enforce", f"*.{domain}"))
        for number, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            world.dns.add(domain, "MX", f"{number} {name}.")
            if kind == "closed":
                world.dns.add(name, "A", NOBODY)
            elif kind == "wrong name":
                world.mail_server(name, world.ca.issue("mx.elsewhere.test").server_context())
            elif kind != "gone":
                world.mail_server(name, world.ca.issue(name, kind=kind).server_context() if kind else None)  # type: ignore[arg-type]

    return make


def with_greeting(greeting: str) -> Callable[[World, str], object]:
    def make(world: World, domain: str) -> None:
        server = world.add(domain, "good", enforce(domain))
        server.greeting = greeting

    return make


def without_mx(world: World, domain: str) -> None:
    world.publish(domain, policy("enforce", domain))
    world.mail_server(domain, world.ca.issue(domain).server_context())


def null_mx(world: World, domain: str) -> None:
    world.publish(domain, enforce(domain))
    world.dns.add(domain, "MX", "0 .")


def six_addresses(world: World, domain: str) -> None:
    """Postfix gives up after five addresses."""
    hosts("closed", "closed", "closed", "closed", "wrong name", "good")(world, domain)


def closing(world: World, domain: str) -> None:
    """A server that has no common TLS version with anybody."""
    server = world.add(domain, "good", enforce(domain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # Without a certificate, no handshake succeeds.
    server.context = context


def with_ciphers(ciphers: str) -> Callable[[World, str], object]:
    """A server that knows no TLS but 1.2, with these ciphers alone."""

    def make(world: World, domain: str) -> None:
        server = world.add(domain, "RSA", enforce(domain))
        assert server.context
        server.context.maximum_version = ssl.TLSVersion.TLSv1_2
        server.context.set_ciphers(ciphers)

    return make


CASES = {
    "good": Case(one_host("good"), "delivered"),
    "rsa": Case(one_host("RSA"), "delivered"),
    "old-ciphers": Case(with_ciphers("AES256-SHA:AES128-SHA"), "delivered"),
    "common-name": Case(one_host("no alternative names"), "delivered"),
    "wrong-name": Case(
        one_host("wrong name"), "deferred", "its MX mx.D: its certificate is for mx.elsewhere.test, not for mx.D"
    ),
    "expired": Case(one_host("expired"), "deferred", "its MX mx.D has an expired certificate"),
    "not-yet-valid": Case(one_host("not yet valid"), "deferred", "its MX mx.D: certificate is not yet valid"),
    "self-signed": Case(one_host("self-signed"), "deferred", "its MX mx.D: self-signed certificate"),
    "unknown-ca": Case(
        one_host("unknown CA"), "deferred", "its MX mx.D: intermediate certificate missing, or CA not trusted"
    ),
    "no-starttls": Case(one_host(None), "deferred", "its MX mx.D does not offer STARTTLS"),
    "no-handshake": Case(closing, "deferred", "its MX mx.D: the host sent TLS alert 'handshake failure'"),
    "not-allowed": Case(
        one_host("good", lambda domain: policy("enforce", f"other.{domain}")),
        "deferred",
        "its MX mx.D is not allowed by the policy",
    ),
    "other-names": Case(one_host("wrong name", lambda _: policy("enforce", "mx.elsewhere.test")), "delivered"),
    "no-dot": Case(
        one_host("good", lambda _: policy("enforce", "mx")),
        "deferred",
        "the mx lines of D's policy name no MX host: they have no dot",
    ),
    "second-good": Case(hosts("expired", "good"), "delivered"),
    "second-good-first-closed": Case(hosts("closed", "good"), "delivered"),
    "second-good-first-gone": Case(hosts("gone", "good"), "delivered"),
    "both-bad": Case(
        hosts("wrong name", None), "deferred", f"its MX a.D: its certificate {NOT_VERIFIED} (1 more MX host fails too)"
    ),
    "bad-and-gone": Case(
        hosts("gone", "expired"), "deferred", "its MX b.D has an expired certificate (1 more MX host fails too)"
    ),
    "without-mx": Case(without_mx, "delivered"),
    "null-mx": Case(null_mx, "returned", "it accepts no mail: it has a null MX record"),
    "all-gone": Case(
        hosts("gone", "gone"), "returned", "its MX a.D does not exist in DNS (NXDOMAIN) (1 more MX host fails too)"
    ),
    "closed": Case(hosts("closed"), "unclear", "its MX a.D: connection refused"),
    "greylisting": Case(with_greeting("421 later"), "unclear", "its MX mx.D: its greeting is '421 later'"),
    "rejecting": Case(with_greeting("554 no"), "unclear", "its MX mx.D: its greeting is '554 no'"),
    "bad-and-closed": Case(hosts("closed", "expired"), "deferred", "its MX b.D has an expired certificate"),
    "six-addresses": Case(six_addresses, "deferred", f"its MX e.D: its certificate {NOT_VERIFIED}"),
}


def shadow(world: World) -> tuple[int, Any]:
    status, output, errors = query("shadow", "--json", "--config", world.daemon.config)
    assert errors == ""
    return status, json.loads(output)


def test_what_shadow_mode_says_is_what_postfix_does_once_it_is_off(world: World, control: Path) -> None:
    domains = {name: f"{name}.test" for name in CASES}
    for name, case in CASES.items():
        case.make(world, domains[name])
    world.add("testing.test", "good", policy("testing", "mx.testing.test"))
    world.add("without.test", "good", None, record=None)
    before = deliveries(world, [*domains.values(), "testing.test", "without.test"])
    for name, case in CASES.items():
        if case.state == "returned":  # Postfix does not ask: its MX hosts are gone since it did.
            assert world.postfix.postmap_q(MAP, domains[name]) is None
    for domain in domains.values():
        world.daemon.wait_for(f"domain={domain}, if the policy were enforced for {domain}, ")
    status, found = shadow(world)
    said = {one["domain"]: (one["state"], one["reason"]) for one in found["domains"]}
    expected = {
        domains[name]: (case.state, case.reason.replace("D'", f"{domains[name]}'").replace(".D", f".{domains[name]}"))
        for name, case in CASES.items()
        if case.state != "delivered"
    }
    assert said == expected
    states = [case.state for case in CASES.values()]
    counts = {state: states.count(state) for state in {*states, "dane", "unprobed"}}
    asked = len(CASES) + 2
    wanted = {"asked": asked, "with_policy": asked - 1, "enforced": len(CASES), "status": "error", **counts}
    assert (status, {name: found[name] for name in wanted}) == (2, wanted)
    queries = {one["domain"]: one["queries"] for one in found["domains"]}
    # Postfix asks for each address that it tries.
    assert (queries["wrong-name.test"], queries["six-addresses.test"]) == (1, 5)

    config = configuration(world.folder / "daemon", world.ca, "inet:127.0.0.1:8461")
    world.daemon.config.write_text(toml(config | {"server": config["server"] | {"control": str(control)}}))
    world.daemon.hang_up()
    world.daemon.wait_for("info: policies are enforced; they were not since ")
    after = deliveries(world, list(domains.values()))
    for name, case in CASES.items():
        domain = domains[name]
        if case.state == "unclear":  # It is not for MTA-STS that this mail is not delivered.
            assert (before[domain], after[domain]) == ("deferred", "deferred"), name
        else:
            assert after[domain] == STATUS[case.state], name
            # At level may, Postfix goes without TLS that fails, but not before the second attempt.
            unenforced = "deferred" if name == "no-handshake" else "sent"
            assert before[domain] == ("bounced" if case.state == "returned" else unenforced), name
    assert (before["testing.test"], before["without.test"]) == ("sent", "sent")
    assert shadow(world) == (3, {"since": None, "domains": [], "status": "nothing"})


def deliveries(world: World, domains: list[str]) -> dict[str, str]:
    """How the first attempt to deliver to each of these domains ends."""
    sent = {domain: world.postfix.send(f"user@{domain}") for domain in domains}
    return {domain: world.postfix.wait_for(queue_id).status for domain, queue_id in sent.items()}
