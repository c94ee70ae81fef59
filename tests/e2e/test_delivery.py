"""Real mail through a real Postfix that asks the daemon: what is sent, what stays queued, what Postfix is told."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    MISMATCH,
    NO_ANSWER,
    NOT_OFFERED,
    SENDER,
    UNTRUSTED,
    VERIFIED,
    Outcome,
    applied,
    blames,
    enforce,
    outcome,
    policy,
    secure,
    secured,
)
from tests.integration.conftest import wait_until_stored
from tests.world.ca import Kind
from tests.world.daemon import Daemon, ask
from tests.world.https import Hold, answer
from tests.world.mail import LISTEN, MAP, Certificate, Extras, SmtpClient, World, configuration
from tests.world.smtp import Message

# For these domains Postfix asks another daemon, at the Unix socket of this name in the world's folder.
OWN_DAEMON = {f"{name}.test": f"{name}.sock" for name in ("open", "closed", "cautious", "slow")}


@pytest.fixture(scope="module")
def extras() -> Extras:
    maps = {domain: f"socketmap:unix:$world/{socket}:postfix" for domain, socket in OWN_DAEMON.items()}
    return Extras(clients=tuple(SmtpClient(domain, {"smtp_tls_policy_maps": value}) for domain, value in maps.items()))


class Enforced(NamedTuple):
    """A domain with an enforce policy, and what becomes of mail to it."""

    domain: str
    certificate: Certificate
    outcome: Outcome
    mx: str = ""  # The patterns of the policy; empty: the domain's own MX host.
    match: str = ""


ENFORCED = [
    Enforced("good.test", "good", VERIFIED),
    Enforced("wildcard.test", "good", VERIFIED, "*.wildcard.test", ".wildcard.test"),
    Enforced("two.test", "good", VERIFIED, "*.backup.test:MX.two.test", ".backup.test:MX.two.test"),
    Enforced("deeper.test", "good", MISMATCH, "*.mx.deeper.test", ".mx.deeper.test"),
    Enforced("foreign.test", "good", MISMATCH, "mx.other.test", "mx.other.test"),
    Enforced("wrong-name.test", "wrong name", MISMATCH),
    Enforced("expired.test", "expired", MISMATCH._replace(mistrust="certificate has expired")),
    Enforced("not-yet-valid.test", "not yet valid", MISMATCH._replace(mistrust="certificate not yet valid")),
    Enforced("self-signed.test", "self-signed", MISMATCH._replace(mistrust="self-signed certificate")),
    Enforced("unknown-ca.test", "unknown CA", MISMATCH._replace(mistrust="untrusted issuer /CN=Unknown CA")),
    Enforced("no-starttls.test", None, NOT_OFFERED),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.domain) for case in ENFORCED])
def test_an_enforced_policy(world: World, case: Enforced) -> None:
    domain = case.domain
    mx = case.mx or f"mx.{domain}"
    server = world.add(domain, case.certificate, policy("enforce", *mx.split(":")))
    assert outcome(world.postfix.deliver(f"user@{domain}")) == case.outcome
    assert server.messages == (secured(domain, f"user@{domain}") if case.outcome.status == "sent" else [])
    assert world.postfix.postmap_q(MAP, domain) == secure(case.match or mx)
    line = f"info: domain={domain}, fetched: mode=enforce, max_age=604800, mx={mx}"
    assert world.daemon.wait_for(f"domain={domain},") == line


class Lenient(NamedTuple):
    """A domain whose mail is sent however its server receives it, and what the daemon logs (DOMAIN: its name)."""

    name: str
    policy: str | None
    log: str
    record: bytes | None = b"v=STSv1; id=1;"
    policy_host: Kind = "good"


LENIENT = [
    Lenient(
        "testing",
        policy("testing", "mx.listed.test"),
        "info: domain=DOMAIN, fetched: mode=testing, max_age=604800, mx=mx.listed.test",
    ),
    Lenient("none", policy("none"), "info: domain=DOMAIN, fetched: mode=none, max_age=604800"),
    Lenient("no-record", enforce("listed.test"), "info: domain=DOMAIN, no policy: no _mta-sts TXT record", None),
    Lenient(
        "bad-record",
        enforce("listed.test"),
        "info: domain=DOMAIN, no policy: invalid _mta-sts TXT record: id must be 1 to 32 letters and digits, not 'a-b'",
        b"v=STSv1; id=a-b;",
    ),
    Lenient(
        "bad-policy",
        policy("enforce"),
        "warning: domain=DOMAIN, policy unavailable: policy file: no mx line (sts-policy-invalid)",
    ),
    Lenient(
        "unreachable",
        None,
        "warning: domain=DOMAIN, policy unavailable: connection to the policy host:"
        " 127.0.2.2: connection refused (sts-policy-fetch-error)",
    ),
    Lenient(
        "policy-host-expired",
        enforce("listed.test"),
        "warning: domain=DOMAIN, policy unavailable: certificate of the policy host:"
        " certificate has expired (sts-webpki-invalid)",
        policy_host="expired",
    ),
]


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [pytest.param("self-signed", UNTRUSTED, id="self-signed"), pytest.param(None, CLEAR, id="clear")],
)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in LENIENT])
def test_what_is_not_enforced(world: World, case: Lenient, certificate: Certificate, expected: Outcome) -> None:
    domain = f"{case.name}.{certificate or 'clear'}.test"
    server = world.add(domain, certificate, case.policy, case.record, case.policy_host)
    assert outcome(world.postfix.deliver(f"user@{domain}")) == expected
    assert server.messages == [Message(SENDER, (f"user@{domain}",), certificate is not None, None)]
    assert world.postfix.postmap_q(MAP, domain) is None
    assert world.daemon.wait_for(f"domain={domain},") == case.log.replace("DOMAIN", domain)


def test_a_domain_in_unicode(world: World) -> None:
    domain = "xn--bcher-kva.test"
    server = world.add(domain, "good", enforce(domain))
    assert outcome(world.postfix.deliver("user@bücher.test")) == VERIFIED
    assert server.messages == secured(domain, "user@bücher.test")
    assert world.postfix.postmap_q(MAP, "bücher.test") == secure(f"mx.{domain}")
    assert world.daemon.wait_for(f"domain={domain},") == applied(domain)


def test_a_second_mail_server_is_tried_when_the_first_fails(world: World) -> None:
    first = world.add("first.test", "wrong name", policy("enforce", "mx.first.test", "mx.second.test"))
    second = world.add("second.test", "good", None, record=None)
    world.dns.add("first.test", "MX", "20 mx.second.test.")
    # The mistrust is for the first.
    assert outcome(world.postfix.deliver("user@first.test")) == VERIFIED._replace(mistrust="hostname mismatch")
    assert first.messages == []
    assert second.messages == secured("second.test", "user@first.test")


def test_mail_is_sent_when_the_certificate_is_mended(world: World) -> None:
    server = world.add("mended.test", "wrong name", enforce("mended.test"))
    queue_id = world.postfix.send("user@mended.test")
    assert outcome(world.postfix.wait_for(queue_id)) == MISMATCH
    server.context = world.mail_server_context("mended.test", "good")
    world.postfix.flush()
    assert outcome(world.postfix.wait_for(queue_id, 2)) == VERIFIED
    assert server.messages == secured("mended.test", "user@mended.test")


@pytest.mark.parametrize(
    ("end", "status"), [pytest.param(Daemon.stop, 0, id="SIGTERM"), pytest.param(Daemon.kill, -9, id="SIGKILL")]
)
def test_policies_survive_a_restart(world: World, end: Callable[[Daemon], int], status: int) -> None:
    good, bad = (f"{kind}.{end.__name__}.test" for kind in ("good", "bad"))
    good_server = world.add(good, "good", enforce(good))
    bad_server = world.add(bad, "wrong name", enforce(bad))
    assert [outcome(world.postfix.deliver(f"before@{domain}")) for domain in (good, bad)] == [VERIFIED, MISMATCH]
    for domain in (good, bad):
        world.withdraw_policy_host(domain)
    if end is Daemon.kill:
        wait_until_stored(world.daemon.config.parent / "policies.sqlite", good, bad)
    assert end(world.daemon) == status
    since = len(world.daemon.log)
    world.daemon.start()
    assert [outcome(world.postfix.deliver(f"after@{domain}")) for domain in (good, bad)] == [VERIFIED, MISMATCH]
    assert good_server.messages == secured(good, f"before@{good}", f"after@{good}")
    assert bad_server.messages == []
    for domain in (good, bad):
        assert world.daemon.about(domain, LISTEN, since) == []


def test_mail_waits_while_the_daemon_is_down(world: World) -> None:
    enforced = world.add("waits.test", "good", enforce("waits.test"))
    plain = world.add("waits-too.test", None, None, record=None)
    assert world.daemon.stop() == 0
    try:
        queue_ids = [world.postfix.send("user@waits.test"), world.postfix.send("user@waits-too.test")]
        deliveries = [world.postfix.wait_for(queue_id) for queue_id in queue_ids]
    finally:
        world.daemon.start()
    assert [outcome(delivery) for delivery in deliveries] == [NO_ANSWER, NO_ANSWER]
    assert [blames(delivery, "Connection refused") for delivery in deliveries] == [True, True]
    assert (enforced.messages, plain.messages) == ([], [])
    world.postfix.flush()
    assert [outcome(world.postfix.wait_for(queue_id, 2)) for queue_id in queue_ids] == [VERIFIED, CLEAR]
    assert enforced.messages == secured("waits.test", "user@waits.test")
    assert plain.messages == [Message(SENDER, ("user@waits-too.test",), False, None)]


def test_a_unix_socket(world: World, tmp_path: Path) -> None:
    server = world.add("open.test", "good", enforce("open.test"))
    socket = world.folder / OWN_DAEMON["open.test"]
    with Daemon(tmp_path, configuration(tmp_path, world.ca, f"unix:{socket}", 0o666)) as daemon:
        assert outcome(world.postfix.deliver("user@open.test")) == VERIFIED
        # The killed daemon leaves its socket behind.
        daemon.kill()
        assert outcome(world.postfix.deliver("nobody@open.test")) == NO_ANSWER
        daemon.start()
        assert stat.filemode(socket.stat().st_mode) == "srw-rw-rw-"
        assert outcome(world.postfix.deliver("again@open.test")) == VERIFIED
    assert server.messages == secured("open.test", "user@open.test", "again@open.test")
    assert not socket.exists()


def test_a_unix_socket_that_is_closed_to_postfix(world: World, tmp_path: Path) -> None:
    server = world.add("closed.test", "good", enforce("closed.test"))
    socket = world.folder / OWN_DAEMON["closed.test"]
    with Daemon(tmp_path, configuration(tmp_path, world.ca, f"unix:{socket}", 0o600)):
        assert stat.filemode(socket.stat().st_mode) == "srw-------"
        delivery = world.postfix.deliver("user@closed.test")
    assert outcome(delivery) == NO_ANSWER
    assert blames(delivery, "Permission denied")
    assert server.messages == []


def test_a_failed_discovery_can_defer_mail(world: World, tmp_path: Path) -> None:
    server = world.add("cautious.test", "good", None)
    endpoint = f"unix:{world.folder / OWN_DAEMON['cautious.test']}"
    config = configuration(tmp_path, world.ca, endpoint)
    config["discovery"] = {"on_failure": "temp"}
    with Daemon(tmp_path, config):
        delivery = world.postfix.deliver("user@cautious.test")
    assert outcome(delivery) == NO_ANSWER
    assert blames(delivery, "connection to the policy host: 127.0.2.2: connection refused")
    assert server.messages == []


def test_a_policy_that_comes_late_holds_for_the_next_message(world: World, tmp_path: Path) -> None:
    server = world.add("slow.test", None, enforce("slow.test"))
    hold = hold_policy(world, "slow.test")
    config = configuration(tmp_path, world.ca, f"unix:{world.folder / OWN_DAEMON['slow.test']}", answer_within=0.5)
    with Daemon(tmp_path, config) as daemon:
        assert outcome(world.postfix.deliver("early@slow.test")) == CLEAR
        hold.release()
        assert daemon.wait_for("domain=slow.test, fetched") == applied("slow.test")
        assert outcome(world.postfix.deliver("late@slow.test")) == NOT_OFFERED
    assert server.messages == [Message(SENDER, ("early@slow.test",), False, None)]


def hold_policy(world: World, domain: str) -> Hold:
    """From now on the policy host waits before it answers."""
    hold = Hold()
    context = world.ca.issue(f"mta-sts.{domain}").server_context()
    world.https.site(f"mta-sts.{domain}", context, hold, answer(enforce(domain)))
    return hold


def test_many_messages_at_once_cost_one_discovery(world: World) -> None:
    server = world.add("burst.test", "good", enforce("burst.test"))
    hold = hold_policy(world, "burst.test")
    queue_ids = [world.postfix.send(f"user{number}@burst.test") for number in range(20)]
    hold.release()
    assert {outcome(world.postfix.wait_for(queue_id)) for queue_id in queue_ids} == {VERIFIED}
    assert len(server.messages) == 20
    assert world.https.sni.count("mta-sts.burst.test") == 1
    assert [query.name for query in world.dns.queries].count("_mta-sts.burst.test") == 1


@pytest.mark.parametrize(
    ("map_name", "with_attributes"),
    [("postfix", False), ("QUERY", False), ("plain", False), ("tlsrpt", True), ("QUERYwithTLSRPT", True)],
)
def test_the_name_of_the_map_chooses_the_style(world: World, map_name: str, with_attributes: bool) -> None:
    domain = f"{map_name}.styles.test".lower()
    world.add(domain, "good", enforce(domain))
    attributes = (
        f" policy_type=sts policy_domain={domain} mx_host_pattern=mx.{domain}"
        " { policy_string = version: STSv1 } { policy_string = mode: enforce }"
        f" {{ policy_string = mx: mx.{domain} }} {{ policy_string = max_age: 604800 }}"
    )
    expected = secure(f"mx.{domain}") + (attributes if with_attributes else "")
    assert world.postfix.postmap_q(f"socketmap:{LISTEN}:{map_name}", domain) == expected


@pytest.fixture(scope="module")
def keys_domain(world: World) -> str:
    world.add("keys.test", "good", enforce("keys.test"))
    return "keys.test"


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("KEYS.Test", True),
        ("keys.test.", True),
        ("[keys.test]", True),
        ("[keys.test]:587", True),
        ("keys.test:submission", True),
        (".keys.test", False),
        (".test", False),
        ("mx.keys.test", False),
        ("localhost", False),
        ("[127.0.1.1]", False),
        ("[IPv6:::1]", False),
        ("/var/run/lmtp", False),
    ],
)
def test_a_key(world: World, keys_domain: str, key: str, found: bool) -> None:
    expected = secure(f"mx.{keys_domain}")
    assert world.postfix.postmap_q(MAP, key) == (expected if found else None)
    # Without the space Postfix 3.7 would take a reply for something else.
    assert ask(LISTEN, key) == (f"OK {expected}" if found else "NOTFOUND ")
