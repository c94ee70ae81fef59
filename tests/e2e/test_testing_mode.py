"""A policy in mode testing, ignored and reported, at levels of TLS that are stricter than `may`."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    MISMATCH,
    NOT_OFFERED,
    SENDER,
    STYLES,
    TRUSTED,
    UNTRUSTED,
    VERIFIED,
    Outcome,
    attributes,
    in_style,
    outcome,
    policy,
)
from tests.world.daemon import Daemon
from tests.world.mail import Certificate, Extras, SmtpClient, World, configuration
from tests.world.smtp import Message

IGNORING = "ignoring.sock"  # Of a daemon with the default, reply.testing = "ignore".
MAPS = {
    "ignored": f"socketmap:unix:$world/{IGNORING}:tlsrpt",
    "plain": STYLES["plain"],
    "reported": STYLES["tlsrpt"],
}
LEVELS = ("encrypt", "secure")


@pytest.fixture(scope="module")
def extras() -> Extras:
    clients = [
        SmtpClient(f".{level}.{way}.test", {"smtp_tls_policy_maps": of, "smtp_tls_security_level": level})
        for way, of in MAPS.items()
        for level in LEVELS
    ]
    return Extras(daemon={"reply": {"testing": "report"}}, clients=tuple(clients))


@pytest.fixture(scope="module", autouse=True)
def _ignoring(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("ignoring")
    with Daemon(folder, configuration(folder, world.ca, f"unix:{world.folder / IGNORING}")):
        yield


class Server(NamedTuple):
    """A mail server, and what becomes of mail to it at Postfix's own levels, and when its policy is reported."""

    certificate: Certificate
    encrypt: Outcome
    secure: Outcome
    reported: Outcome
    policy: str = "mx.D"  # D: the domain.


SERVERS = {
    "good": Server("good", TRUSTED, VERIFIED, TRUSTED),
    "foreign": Server("good", TRUSTED, VERIFIED, TRUSTED, "mx.other.D"),
    "wrong-name": Server("wrong name", TRUSTED, MISMATCH, TRUSTED),
    "expired": Server("expired", UNTRUSTED, MISMATCH._replace(mistrust="certificate has expired"), UNTRUSTED),
    # To have it reported costs the encryption that Postfix would insist on.
    "no-starttls": Server(None, NOT_OFFERED, NOT_OFFERED, CLEAR),
}


@pytest.mark.parametrize("way", MAPS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SERVERS)
def test_mail(world: World, name: str, level: str, way: str) -> None:
    case = SERVERS[name]
    domain = f"{name}.{level}.{way}.test"
    mx = case.policy.replace("D", domain)
    server = world.add(domain, case.certificate, policy("testing", mx))
    delivery = world.postfix.deliver(f"user@{domain}")
    if way == "reported":
        assert outcome(delivery) == in_style("tlsrpt", world.postfix.version, case.reported)
    else:
        assert outcome(delivery) == (case.encrypt if level == "encrypt" else case.secure)
    received = [Message(SENDER, (f"user@{domain}",), delivery.tls is not None, None)]
    assert server.messages == (received if delivery.status == "sent" else [])


@pytest.mark.parametrize("way", MAPS)
def test_what_postfix_is_told(world: World, way: str) -> None:
    domain = f"told.{way}.test"
    world.add(domain, "good", policy("testing", f"mx.{domain}"))
    lines = ("version: STSv1", "mode: testing", f"mx: mx.{domain}", "max_age: 604800")
    reported = "may" + attributes(domain, f"mx.{domain}", *lines)
    table = MAPS[way].replace("$world", str(world.folder))
    assert world.postfix.postmap_q(table, domain) == (reported if way == "reported" else None)
