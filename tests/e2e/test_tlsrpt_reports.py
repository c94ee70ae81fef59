"""What Postfix hands to a collector of TLSRPT (RFC 8460), where it is built with it."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import of_the_parameter
from tests.e2e.vocabulary import (
    CLEAR,
    FOREIGN,
    MISMATCH,
    NOT_OFFERED,
    STYLES,
    TRUSTED,
    VERIFIED,
    Outcome,
    outcome,
    policy,
)
from tests.world.daemon import Daemon
from tests.world.mail import Certificate, Extras, SmtpClient, World, configuration
from tests.world.postfix import INSTALLATIONS, Installation

COLLECTOR = "collector.sock"  # In the queue directory.
IGNORING = "ignoring.sock"  # In the folder of the world, of a daemon that ignores policies in mode testing.
MAPS = STYLES | {"ignored": f"socketmap:unix:$world/{IGNORING}:tlsrpt"}
# The numbers that libtlsrpt gives to types of policies, and of failures.
STS, NO_POLICY_FOUND = 2, 9
STARTTLS_NOT_SUPPORTED, CERTIFICATE_HOST_MISMATCH, CERTIFICATE_EXPIRED = 201, 202, 204
Event = dict[str, Any]


@pytest.fixture(scope="module", params=INSTALLATIONS[2:], ids=lambda installation: installation.name)
def installation(request: pytest.FixtureRequest) -> Installation:
    """Debian's Postfix has TLSRPT since trixie."""
    return of_the_parameter(request)


@pytest.fixture(scope="module")
def extras() -> Extras:
    return Extras(
        daemon={"reply": {"testing": "report"}},
        settings={"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": COLLECTOR},
        clients=tuple(SmtpClient(f".{way}.test", {"smtp_tls_policy_maps": of}) for way, of in MAPS.items()),
    )


@pytest.fixture(scope="module")
def collect(world: World) -> Iterator[Callable[[], list[Event]]]:
    """Gives the events since the last call. They are sent before Postfix logs how a delivery ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        path = world.postfix.queue / COLLECTOR
        collector.bind(str(path))
        path.chmod(0o666)
        collector.setblocking(False)

        def received() -> Iterator[Event]:
            while True:
                try:
                    yield json.loads(collector.recv(65_536))
                except BlockingIOError:
                    return

        yield lambda: list(received())


@pytest.fixture(scope="module", autouse=True)
def _ignoring(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("ignoring")
    with Daemon(folder, configuration(folder, world.ca, f"unix:{world.folder / IGNORING}")):
        yield


class Case(NamedTuple):
    """A policy and a mail server, what becomes of mail, and which event there is; None: no event."""

    way: str
    policy: tuple[str, str]  # The mode and the MX host; D: the domain.
    certificate: Certificate
    outcome: Outcome
    event: tuple[int, list[int]] | None  # The type of the policy, and the failures.


ENFORCE = ("enforce", "mx.D")
TESTING = ("testing", "mx.D")
EXPIRED = MISMATCH._replace(mistrust="certificate has expired")
CASES = {
    "good": Case("tlsrpt", ENFORCE, "good", VERIFIED, (STS, [])),
    "wrong-name": Case("tlsrpt", ENFORCE, "wrong name", MISMATCH, (STS, [CERTIFICATE_HOST_MISMATCH])),
    "expired": Case("tlsrpt", ENFORCE, "expired", EXPIRED, (STS, [CERTIFICATE_EXPIRED])),
    "no-starttls": Case("tlsrpt", ENFORCE, None, NOT_OFFERED, (STS, [STARTTLS_NOT_SUPPORTED])),
    # No connection is made, and no event.
    "foreign": Case("tlsrpt", ("enforce", "mx.other.D"), "good", FOREIGN, None),
    # At level may, Postfix does not see what is wrong.
    "testing-good": Case("tlsrpt", TESTING, "good", TRUSTED, (STS, [])),
    "testing-wrong-name": Case("tlsrpt", TESTING, "wrong name", TRUSTED, (STS, [])),
    "testing-foreign": Case("tlsrpt", ("testing", "mx.other.D"), "good", TRUSTED, (STS, [])),
    "testing-no-starttls": Case("tlsrpt", TESTING, None, CLEAR, None),
    "none": Case("tlsrpt", ("none", "mx.D"), "good", TRUSTED, (NO_POLICY_FOUND, [])),
    # Nothing tells Postfix why there is no policy.
    "invalid": Case("tlsrpt", ("enforced", "mx.D"), "good", TRUSTED, (NO_POLICY_FOUND, [])),
    "testing-ignored": Case("ignored", TESTING, "good", TRUSTED, (NO_POLICY_FOUND, [])),
    "plain-good": Case("plain", ENFORCE, "good", VERIFIED, (NO_POLICY_FOUND, [])),
    "plain-wrong-name": Case("plain", ENFORCE, "wrong name", MISMATCH, (NO_POLICY_FOUND, [CERTIFICATE_HOST_MISMATCH])),
    "plain-testing": Case("plain", TESTING, "good", TRUSTED, (NO_POLICY_FOUND, [])),
}


@pytest.mark.parametrize("name", CASES)
def test_an_event(world: World, collect: Callable[[], list[Event]], name: str) -> None:
    case = CASES[name]
    domain = f"{name}.{case.way}.test"
    mode, mx = (text.replace("D", domain) for text in case.policy)
    text = policy(mode, mx)
    world.add(domain, case.certificate, text)
    record = f"v=TLSRPTv1; rua=mailto:reports@{domain}"
    world.dns.add_txt(f"_smtp._tls.{domain}", record.encode())
    delivery = world.postfix.deliver(f"user@{domain}")
    events = [essence(event) for event in collect()]
    assert outcome(delivery) == case.outcome
    expected = []
    if case.event:
        kind, failures = case.event
        facts: Event = {"policy-type": kind, "policy-domain": domain, "t": len(failures), "f": len(failures)}
        if kind == STS:
            facts |= {"policy-string": text.splitlines(), "mx-host": [mx]}
        if failures:
            facts["failure-details"] = [{"c": code, "n": f"mx.{domain}"} for code in failures]
        expected = [{"d": domain, "pr": record, "policies": [facts]}]
        if world.postfix.version >= (3, 11):
            expected[0]["dpv"] = "1"
    assert events == expected


def essence(event: Event) -> Event:
    """Without the addresses of a failed connection, and the greeting in it."""
    for facts in event["policies"]:
        if "failure-details" in facts:
            facts["failure-details"] = [{key: one[key] for key in ("c", "n")} for one in facts["failure-details"]]
    return event


def test_a_policy_too_large_for_all_of_its_lines(world: World, collect: Callable[[], list[Event]]) -> None:
    domain = "large.tlsrpt.test"
    patterns = [*(f"{number:03}{'.x' * 85}.{domain}" for number in range(220)), f"mx.{domain}"]
    world.add(domain, "good", policy("enforce", *patterns))
    world.dns.add_txt(f"_smtp._tls.{domain}", b"v=TLSRPTv1; rua=mailto:reports@large.tlsrpt.test")
    delivery = world.postfix.deliver(f"user@{domain}")
    [event] = collect()
    assert outcome(delivery) == VERIFIED
    facts = {"policy-type": STS, "policy-domain": domain, "policy-string": ["version: STSv1"], "mx-host": patterns}
    assert event["policies"] == [facts | {"t": 0, "f": 0}]


@pytest.mark.parametrize(
    ("record", "header"),
    [
        pytest.param(None, "", id="wants-none"),
        pytest.param(b"v=TLSRPTv1; rua=mailto:reports@not-required.tlsrpt.test", "TLS-Required: no", id="not-required"),
    ],
)
def test_no_event(world: World, collect: Callable[[], list[Event]], record: bytes | None, header: str) -> None:
    domain = f"{'not-required' if header else 'wants-none'}.tlsrpt.test"
    world.add(domain, "good", policy("enforce", f"mx.{domain}"))
    if record:
        world.dns.add_txt(f"_smtp._tls.{domain}", record)
    delivery = world.postfix.deliver(f"user@{domain}", header=header)
    assert collect() == []
    assert outcome(delivery) == (TRUSTED if header else VERIFIED)
