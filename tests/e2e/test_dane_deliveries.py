"""DANE beside MTA-STS, with a zone that is really signed: what the daemon says, what Postfix does then, and what it
makes of the same records by itself. The local part of a recipient chooses the service that delivers."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import (
    CLEAR,
    MISMATCH,
    NO_ANSWER,
    NOT_OFFERED,
    UNTRUSTED,
    VERIFIED,
    Outcome,
    blames,
    outcome,
    policy,
    secure,
)
from tests.world.ca import Certificate as Issued
from tests.world.ca import Kind
from tests.world.daemon import Daemon, ask
from tests.world.dns import Behaviour
from tests.world.dnssec import SIGNED, UNSIGNED, Spoilt, Tlsa, Unbound, root_with_unbound
from tests.world.mail import LISTEN, POLICY_HOST, Certificate, Extras, SmtpClient, World, configuration
from tests.world.postfix import Delivery
from tests.world.smtp import SmtpServer

DANE_SETTINGS = ("dane-only", "off")  # Of daemons besides the one with reply.dane = "yield".
MAPS = {setting: f"socketmap:unix:$world/{setting}:postfix" for setting in DANE_SETTINGS}
CLIENTS = (
    SmtpClient("yield", {}),
    SmtpClient("dane-only", {"smtp_tls_policy_maps": MAPS["dane-only"], "smtp_tls_security_level": "may"}),
    # What would go wrong.
    SmtpClient("off", {"smtp_tls_policy_maps": MAPS["off"]}),
    # What Postfix makes of the records.
    SmtpClient("alone", {"smtp_tls_policy_maps": "", "smtp_tls_security_level": "dane-only"}),
    # A Postfix that cannot do DANE.
    SmtpClient(
        "no-dnssec",
        {
            "smtp_tls_policy_maps": MAPS["dane-only"],
            "smtp_tls_security_level": "may",
            "smtp_dns_support_level": "",
        },
    ),
    SmtpClient("no-dnssec-alone", {"smtp_tls_policy_maps": "", "smtp_dns_support_level": ""}),
)
SMART_HOST = f"smart.{SIGNED}"


@pytest.fixture(scope="module")
def extras() -> Extras:
    routes = "".join(
        f" {{/^{client.name}@{place}/ {client.name}:{hop}}}"
        for place, hop in ((SMART_HOST, f"[{SMART_HOST}]:587"), ("", ""))
        for client in CLIENTS
    )
    return Extras(
        # Both ask what resolv.conf names.
        daemon={"dns": {"nameservers": []}, "reply": {"dane": "yield"}},
        settings={
            "smtp_tls_security_level": "dane",
            "smtp_dns_support_level": "dnssec",
            "transport_maps": f"regexp:{{{routes} }}",
        },
        services=tuple(client.service for client in CLIENTS),
        dns_address="127.0.0.2",
    )


class Server(SmtpServer):
    """A mail server in the text of records: `{first}` is its address, `{first[3 1 1]}` a TLSA record of it."""

    def __init__(self, address: str, port: int, certificate: Issued, *, starttls: bool) -> None:
        super().__init__(address, port, certificate.server_context() if starttls else None)
        self._address = address
        self._tlsa = Tlsa(certificate.file.read_bytes())

    def __str__(self) -> str:
        return self._address

    def __getitem__(self, parameters: str) -> str:
        return self._tlsa[parameters]

    def reached(self) -> list[str]:
        """The services that delivered here."""
        return sorted(recipient.split("@")[0] for message in self.messages for recipient in message.recipients)


class Domain(NamedTuple):
    """A domain with two mail servers; most use but the first."""

    name: str
    next_hop: str
    host: str
    first: Server
    second: Server

    def generalized(self, text: str) -> str:
        """With HOST and DOMAIN for the names."""
        return text.replace(self.host, "HOST").replace(self.name, "DOMAIN")

    def seen(self, delivery: Delivery) -> Outcome:
        """What became of a message, in general terms."""
        found = outcome(delivery)
        return found._replace(text=self.generalized(found.text))


@dataclass
class Scene:
    """A world with DNSSEC."""

    world: World
    resolver: Unbound
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def publish(
        self,
        name: str,
        records: str,
        certificate: Certificate = "self-signed",
        *,
        second: Kind = "good",
        zone: str = SIGNED,
        host: str = "mx.{domain}",
        enforced: bool = True,
        spoilt: Sequence[Spoilt] = (),
    ) -> Domain:
        """A domain with these records, to which `{other}` is a name in the zone that it is not in.

        `host` is what the policy allows and a good certificate of the first server is for; the second is `mx2`.
        """
        label = name.replace(" ", "-")
        domain, other = f"{label}.{zone}", f"{label}.{UNSIGNED if zone == SIGNED else SIGNED}"
        host = host.format(domain=domain, other=other)
        port = 587 if domain == SMART_HOST else 25
        servers = {
            "first": self._server(host, certificate, port),
            "second": self._server(f"mx2.{domain}", second, port),
        }
        text = records.format_map(
            servers | {"domain": domain, "other": other, "ca": Tlsa(self.world.ca.file.read_bytes())}
        )
        self.world.dns.add_text(text, domain)
        if enforced:
            self._enforce(domain, host, f"mx2.{domain}")
        self.resolver.publish(*(one._replace(owner=one.owner.format(domain=domain)) for one in spoilt))
        return Domain(domain, f"[{domain}]:587" if port == 587 else domain, host, **servers)

    def replies(self, domain: Domain) -> tuple[str, str]:
        """What the daemons with `yield` and `dane-only` answer, in general terms."""
        return (
            domain.generalized(ask(LISTEN, domain.next_hop)),
            domain.generalized(ask(f"unix:{self.world.folder}/dane-only", domain.next_hop)),
        )

    def outcomes(self, domain: Domain, *services: str) -> dict[str, Outcome]:
        """What becomes of one message for each service."""
        queued = {service: self.world.postfix.send(f"{service}@{domain.name}") for service in services}
        return {service: domain.seen(self.world.postfix.wait_for(queue_id)) for service, queue_id in queued.items()}

    def _server(self, host: str, certificate: Certificate, port: int) -> Server:
        if certificate == "wrong name":
            issued = self.world.ca.issue("mx.elsewhere.test")
        else:
            issued = self.world.ca.issue(host, kind=certificate or "good")
        with issued.file.open("ab") as chain:
            chain.write(self.world.ca.file.read_bytes())  # DANE-TA needs it.
        address = f"127.0.3.{next(self._numbers)}"
        return self.world.servers.enter_context(Server(address, port, issued, starttls=certificate is not None))

    def _enforce(self, domain: str, *hosts: str) -> None:
        self.world.dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
        self.world.dns.add(f"mta-sts.{domain}", "A", POLICY_HOST)
        context = self.world.ca.issue(f"mta-sts.{domain}").server_context()
        self.world.https.policy(f"mta-sts.{domain}", policy("enforce", *hosts), context)


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Scene]:
    with ExitStack() as stack:
        root = stack.enter_context(root_with_unbound(world.postfix.installation))
        resolver = stack.enter_context(Unbound(root, world.folder, world.dns))
        for setting in DANE_SETTINGS:
            folder = world.folder / f"daemon-{setting}"
            folder.mkdir()
            config = configuration(folder, world.ca, f"unix:{world.folder / setting}")
            config["reply"]["dane"] = setting
            config["dns"]["nameservers"] = []
            stack.enter_context(Daemon(folder, config))
        world.dns.set_behaviour(f"fails.{UNSIGNED}", Behaviour(rcode="SERVFAIL"))
        yield Scene(world, resolver)


@pytest.fixture
def scene(running: Scene) -> Scene:
    """The zone is empty at first: to sign what other tests have in it would take most of the time."""
    for rrset in running.world.dns.below(SIGNED):
        running.world.dns.remove(rrset.name.to_text())
    return running


NOTFOUND = "NOTFOUND "
DANE_ONLY = "OK dane-only"
BY_POLICY = f"OK {secure('HOST:mx2.DOMAIN')}"
FAILED = "TEMP TLSA lookup: _25._tcp.HOST: 127.0.0.1: SERVFAIL"

TRUSTED = VERIFIED._replace(tls="Trusted")
NO_MATCH = MISMATCH._replace(mistrust="no matching DANE TLSA records")
SELF_SIGNED = MISMATCH._replace(mistrust="self-signed certificate")
EXPIRED = MISMATCH._replace(mistrust="certificate has expired")
NO_TLSA = NO_ANSWER._replace(text="no TLSA records found")
NOT_SIGNED = NO_ANSWER._replace(text="non DNSSEC destination")
UNUSABLE = NO_ANSWER._replace(text="TLSA records unusable")
UNVERIFIABLE = MISMATCH._replace(mistrust="unspecified certificate verification error")
TLSA_ERROR = NO_ANSWER._replace(text="TLSA lookup error for HOST:25")
NO_NAME = "Host or domain name not found. Name service error for name={} type={}: Host not found, try again"
NO_MX = Outcome("deferred", "4.4.3", None, NO_NAME.format("DOMAIN", "MX"))
NO_ADDRESS = NO_MX._replace(text=NO_NAME.format("HOST", "A"))

WRONG = "3 1 1 " + 64 * "0"
ONE = "@ MX 10 mx\nmx A {first}\n"
GOOD = ONE + "_25._tcp.mx TLSA {first[3 1 1]}"
BAD = ONE + f"_25._tcp.mx TLSA {WRONG}"
ALIAS = "@ MX 10 mx\nmx CNAME real\nreal A {first}\n"
ALIAS_INTO_OTHER = "@ MX 10 mx\nmx CNAME real.{other}.\nreal.{other}. A {first}\n"
IN_OTHER = "@ MX 10 mx.{other}.\nmx.{other}. A {first}\n"
TWO = "@ MX 10 mx\n@ MX 20 mx2\nmx A {first}\nmx2 A {second}\n"


class Decides(NamedTuple):
    """Usable TLSA records, what they make of a certificate, and what MTA-STS would make of it."""

    name: str
    records: str
    dane: Outcome = VERIFIED
    sts: Outcome = SELF_SIGNED
    certificate: Certificate = "self-signed"
    host: str = "mx.{domain}"


DECIDES = [
    Decides("key", GOOD),
    Decides("both pass", GOOD, VERIFIED, VERIFIED, "good"),
    Decides("dane ee knows no names", GOOD, VERIFIED, MISMATCH, "wrong name"),
    Decides("dane ee knows no dates", GOOD, VERIFIED, EXPIRED, "expired"),
    Decides("whole key", ONE + "_25._tcp.mx TLSA {first[3 1 0]}"),
    Decides("sha512 of the key", ONE + "_25._tcp.mx TLSA {first[3 1 2]}"),
    Decides("certificate", ONE + "_25._tcp.mx TLSA {first[3 0 1]}"),
    Decides("dane ta", ONE + "_25._tcp.mx TLSA {ca[2 1 1]}", VERIFIED, VERIFIED, "good"),
    Decides("dane ta knows names", ONE + "_25._tcp.mx TLSA {ca[2 1 1]}", MISMATCH, MISMATCH, "wrong name"),
    Decides("other key", BAD, NO_MATCH, VERIFIED, "good"),
    Decides("no starttls", BAD, NOT_OFFERED, NOT_OFFERED, None),
    Decides("old and new key", BAD + "\n_25._tcp.mx TLSA {first[3 1 1]}"),
    Decides("unusable beside usable", BAD + "\n_25._tcp.mx TLSA {first[1 1 1]}", NO_MATCH, VERIFIED, "good"),
    Decides("end of alias", ALIAS + "_25._tcp.real TLSA {first[3 1 1]}"),
    Decides("start of alias", ALIAS + "_25._tcp.mx TLSA {first[3 1 1]}"),
    Decides(
        "end of alias goes first",
        ALIAS + f"_25._tcp.real TLSA {WRONG}\n" + "_25._tcp.mx TLSA {first[3 1 1]}",
        NO_MATCH,
        VERIFIED,
        "good",
    ),
    Decides("signed alias of unsigned host", ALIAS_INTO_OTHER + "_25._tcp.mx TLSA {first[3 1 1]}"),
    Decides("alias of domain", "@ CNAME real\nreal MX 10 mx\nmx A {first}\n_25._tcp.mx TLSA {first[3 1 1]}"),
    Decides("tlsa alias", ONE + "_25._tcp.mx CNAME tlsa\ntlsa TLSA {first[3 1 1]}"),
    Decides("tlsa wildcard", ONE + "*._tcp.mx TLSA {first[3 1 1]}"),
    Decides("no mx", "@ A {first}\n_25._tcp TLSA {first[3 1 1]}", host="{domain}"),
    Decides("smart", "@ A {first}\n_587._tcp TLSA {first[3 1 1]}", host="{domain}"),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in DECIDES])
def test_dane_decides(scene: Scene, case: Decides) -> None:
    domain = scene.publish(case.name, case.records, case.certificate, host=case.host)
    assert scene.replies(domain) == (NOTFOUND, DANE_ONLY)
    expected = {"yield": case.dane, "dane-only": case.dane, "alone": case.dane, "off": case.sts}
    assert scene.outcomes(domain, *expected) == expected
    assert domain.first.reached() == sorted(who for who, what in expected.items() if what.status == "sent")


class Absent(NamedTuple):
    """No usable TLSA records: what Postfix says that wants some, and what MTA-STS makes of a certificate."""

    name: str
    records: str
    alone: Outcome
    sts: Outcome = VERIFIED
    certificate: Certificate = "good"
    zone: str = SIGNED
    host: str = "mx.{domain}"
    spoilt: tuple[Spoilt, ...] = ()


ABSENT = [
    Absent("no tlsa", ONE, NO_TLSA),
    Absent("no tlsa wrong name", ONE, NO_TLSA, MISMATCH, "wrong name"),
    Absent("unsigned", BAD, NOT_SIGNED, zone=UNSIGNED),
    Absent("unsigned wrong name", GOOD, NOT_SIGNED, MISMATCH, "wrong name", UNSIGNED),
    Absent("unsigned tlsa fails", ONE + f"_25._tcp.mx CNAME fails.{UNSIGNED}.", NOT_SIGNED, zone=UNSIGNED),
    Absent("pkix ta", ONE + "_25._tcp.mx TLSA {ca[0 1 1]}", UNUSABLE),
    Absent("pkix ee", ONE + "_25._tcp.mx TLSA {first[1 1 1]}", UNUSABLE),
    Absent("pkix ee wrong name", ONE + "_25._tcp.mx TLSA {first[1 1 1]}", UNUSABLE, MISMATCH, "wrong name"),
    Absent("unknown usage", ONE + "_25._tcp.mx TLSA 4 1 1 " + 64 * "0", UNUSABLE),
    # Postfix finds out but in the handshake; at level `dane` it delivers then.
    Absent("unknown selector", ONE + "_25._tcp.mx TLSA 3 2 1 " + 64 * "0", UNVERIFIABLE),
    Absent("unknown digest", ONE + "_25._tcp.mx TLSA 3 1 9 " + 64 * "0", UNVERIFIABLE),
    Absent("unsigned host", IN_OTHER + f"_25._tcp.mx.{{other}}. TLSA {WRONG}", NO_TLSA, host="mx.{other}"),
    Absent(
        "unsigned host tlsa fails",
        IN_OTHER + f"_25._tcp.mx.{{other}}. CNAME fails.{UNSIGNED}.",
        NO_TLSA,
        host="mx.{other}",
    ),
    # Postfix by itself uses them at level `dane` (smtp_tls_dane_insecure_mx_policy).
    Absent(
        "unsigned mx of signed host",
        IN_OTHER + f"_25._tcp.mx.{{other}}. TLSA {WRONG}",
        NOT_SIGNED,
        zone=UNSIGNED,
        host="mx.{other}",
    ),
    Absent("tlsa at unsigned end of alias", ALIAS_INTO_OTHER + f"_25._tcp.real.{{other}}. TLSA {WRONG}", NO_TLSA),
    Absent("tlsa alias not signed", ONE + "_25._tcp.mx CNAME t.{other}.\n" + f"t.{{other}}. TLSA {WRONG}", NO_TLSA),
    Absent("forged mx", BAD, NO_MX, NO_MX, spoilt=(Spoilt("{domain}", "MX"),)),
    Absent("forged address", BAD, NO_ADDRESS, NO_ADDRESS, spoilt=(Spoilt("mx.{domain}", "A"),)),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in ABSENT])
def test_mta_sts_decides(scene: Scene, case: Absent) -> None:
    domain = scene.publish(
        case.name, case.records, case.certificate, zone=case.zone, host=case.host, spoilt=case.spoilt
    )
    assert scene.replies(domain) == (BY_POLICY, BY_POLICY)
    expected = {"yield": case.sts, "dane-only": case.sts, "off": case.sts, "alone": case.alone}
    assert scene.outcomes(domain, *expected) == expected
    assert domain.first.reached() == sorted(who for who, what in expected.items() if what.status == "sent")


class Unknown(NamedTuple):
    """Whether there are TLSA records cannot be found out."""

    name: str
    records: str
    spoilt: tuple[Spoilt, ...] = ()


UNKNOWN = [
    Unknown("forged", GOOD, (Spoilt("_25._tcp.mx.{domain}", "TLSA"),)),
    Unknown("signature expired", GOOD, (Spoilt("_25._tcp.mx.{domain}", "TLSA", "expired"),)),
    Unknown("forged denial", ONE, (Spoilt("mx.{domain}", "NSEC"),)),
    Unknown("resolver fails", ONE + f"_25._tcp.mx CNAME fails.{UNSIGNED}."),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in UNKNOWN])
@pytest.mark.parametrize("enforced", [pytest.param(True, id="policy"), pytest.param(False, id="no policy")])
def test_mail_waits_when_tlsa_records_cannot_be_looked_up(scene: Scene, case: Unknown, enforced: bool) -> None:
    name = f"{case.name} {'sts' if enforced else 'plain'}"
    domain = scene.publish(name, case.records, "good", enforced=enforced, spoilt=case.spoilt)
    # Without a policy, Postfix finds out by itself.
    assert scene.replies(domain) == (FAILED if enforced else NOTFOUND, FAILED)
    expected = {
        "yield": NO_ANSWER if enforced else TLSA_ERROR,
        "dane-only": NO_ANSWER,
        "alone": TLSA_ERROR,
        "off": VERIFIED if enforced else TLSA_ERROR,
    }
    assert scene.outcomes(domain, *expected) == expected
    assert domain.first.reached() == (["off"] if enforced else [])


class Plain(NamedTuple):
    """A domain without a policy, and what becomes of its mail at level `dane`, or at `may` and with our `dane-only`."""

    name: str
    records: str
    reply: str
    outcome: Outcome
    certificate: Certificate = "self-signed"
    zone: str = SIGNED


PLAIN = [
    Plain("matches", GOOD, DANE_ONLY, VERIFIED),
    Plain("does not match", BAD, DANE_ONLY, NO_MATCH),
    Plain("offers no starttls", BAD, DANE_ONLY, NOT_OFFERED, None),
    Plain("has no records", ONE, NOTFOUND, UNTRUSTED),
    Plain("has no records and no starttls", ONE, NOTFOUND, CLEAR, None),
    Plain("is not signed", BAD, NOTFOUND, UNTRUSTED, zone=UNSIGNED),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in PLAIN])
def test_a_domain_without_a_policy(scene: Scene, case: Plain) -> None:
    domain = scene.publish(case.name, case.records, case.certificate, zone=case.zone, enforced=False)
    assert scene.replies(domain) == (NOTFOUND, case.reply)
    expected = {"yield": case.outcome, "dane-only": case.outcome}
    assert scene.outcomes(domain, *expected) == expected


class Hosts(NamedTuple):
    """Two MX hosts, the first one self-signed, and what each service delivers to which of them."""

    name: str
    records: str
    replies: tuple[str, str]
    expected: dict[str, Outcome]
    first: list[str]
    second: list[str]
    certificate: Kind = "self-signed"
    second_certificate: Kind = "good"
    spoilt: tuple[Spoilt, ...] = ()


FIRST_GOOD, FIRST_BAD = "_25._tcp.mx TLSA {first[3 1 1]}\n", f"_25._tcp.mx TLSA {WRONG}\n"
SECOND_GOOD = "_25._tcp.mx2 TLSA {second[3 1 1]}\n"
FORGED_FIRST = (Spoilt("_25._tcp.mx.{domain}", "TLSA"),)
YIELDS = (NOTFOUND, DANE_ONLY)
ONLY = (DANE_ONLY, DANE_ONLY)  # Both with `yield` and with `dane-only`: not all hosts have records.


def after(first: Outcome, second: Outcome) -> Outcome:
    """The outcome at the second server when the first was mistrusted."""
    return second._replace(mistrust=first.mistrust)


HOSTS = [
    Hosts(
        "first fails",
        TWO + FIRST_BAD + SECOND_GOOD,
        YIELDS,
        dict.fromkeys(("yield", "dane-only", "alone"), after(NO_MATCH, VERIFIED)) | {"off": VERIFIED},
        ["off"],
        ["alone", "dane-only", "yield"],
        "good",
        "self-signed",
    ),
    Hosts(
        "first alone has records",
        TWO + FIRST_GOOD,
        ONLY,
        dict.fromkeys(("yield", "dane-only", "alone"), VERIFIED) | {"off": after(SELF_SIGNED, VERIFIED)},
        ["alone", "dane-only", "yield"],
        ["off"],
    ),
    Hosts(
        # Postfix's level `dane` is `may` for a host without records. MTA-STS asks for more, so it must not be used.
        "second alone has records",
        TWO + SECOND_GOOD,
        ONLY,
        dict.fromkeys(("yield", "dane-only", "alone"), VERIFIED) | {"off": after(SELF_SIGNED, VERIFIED)},
        [],
        ["alone", "dane-only", "off", "yield"],
    ),
    Hosts(
        # Whoever keeps Postfix from the first must not have the mail go to the second as at `may`.
        "first fails and second has none",
        TWO + FIRST_BAD,
        ONLY,
        {
            "yield": NO_MATCH._replace(text=NO_TLSA.text),
            "dane-only": NO_MATCH._replace(text=NO_TLSA.text),
            "alone": NO_MATCH._replace(text=NO_TLSA.text),
            "off": VERIFIED,
        },
        ["off"],
        [],
        "good",
    ),
    Hosts(
        # Whether the first has records is unknown, so it is not counted on.
        "first forged",
        TWO + FIRST_GOOD + SECOND_GOOD,
        ONLY,
        dict.fromkeys(("yield", "dane-only", "alone", "off"), VERIFIED),
        ["off"],
        ["alone", "dane-only", "yield"],
        "good",
        "self-signed",
        FORGED_FIRST,
    ),
    Hosts(
        "first forged and second has none",
        TWO + FIRST_GOOD,
        (FAILED, FAILED),
        {"yield": NO_ANSWER, "dane-only": NO_ANSWER, "alone": NO_TLSA, "off": VERIFIED},
        ["off"],
        [],
        "good",
        spoilt=FORGED_FIRST,
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in HOSTS])
def test_two_hosts(scene: Scene, case: Hosts) -> None:
    domain = scene.publish(
        case.name, case.records, case.certificate, second=case.second_certificate, spoilt=case.spoilt
    )
    assert scene.replies(domain) == case.replies
    assert scene.outcomes(domain, *case.expected) == case.expected
    assert (domain.first.reached(), domain.second.reached()) == (case.first, case.second)


def test_dane_only_on_a_postfix_without_dnssec_defers(scene: Scene) -> None:
    """Which is why it is not chosen by itself."""
    signed, unsigned = scene.publish("deaf", GOOD, "good"), scene.publish("deaf", ONE, "good", zone=UNSIGNED)
    delivery = scene.world.postfix.deliver(f"no-dnssec@{signed.name}")
    assert outcome(delivery) == NO_ANSWER
    assert blames(delivery, "dane-only configured with dnssec lookups disabled")
    assert scene.outcomes(unsigned, "no-dnssec") == {"no-dnssec": VERIFIED}


def test_level_dane_on_a_postfix_without_dnssec_is_may(scene: Scene) -> None:
    """Which is why we do not yield to it."""
    domain = scene.publish("deaf alone", BAD)
    assert scene.outcomes(domain, "no-dnssec-alone", "alone") == {"no-dnssec-alone": UNTRUSTED, "alone": NO_MATCH}


@pytest.mark.parametrize("options", ["", "options edns0", "options edns0 trust-ad"])
def test_the_resolver_is_believed_as_postfix_believes_it(scene: Scene, options: str) -> None:
    """Postfix turns on trust-ad by itself."""
    domain = scene.publish(f"believed {options}".strip(), BAD, "good")
    resolv_conf = scene.world.folder / "resolv.conf"
    usual = resolv_conf.read_text()
    resolv_conf.write_text(f"{usual}{options}\n")
    try:
        assert scene.replies(domain) == (NOTFOUND, DANE_ONLY)
        expected = dict.fromkeys(("yield", "dane-only", "alone"), NO_MATCH)
        assert scene.outcomes(domain, *expected) == expected
    finally:
        resolv_conf.write_text(usual)


def test_tlsa_records_come_and_go(scene: Scene) -> None:
    """The daemon is started anew, or what it knows would hold for its TTL."""
    domain = scene.publish("changes", ONE)
    postfix, dns = scene.world.postfix, scene.world.dns
    queue_id = postfix.send(f"yield@{domain.name}")
    assert outcome(postfix.wait_for(queue_id)) == SELF_SIGNED
    dns.add(f"_25._tcp.mx.{domain.name}", "TLSA", domain.first["3 1 1"])
    scene.resolver.publish()
    assert scene.replies(domain)[0] == BY_POLICY
    scene.world.daemon.restart()
    postfix.flush()
    assert outcome(postfix.wait_for(queue_id, 2)) == VERIFIED
    dns.remove(f"_25._tcp.mx.{domain.name}")
    scene.resolver.publish()
    scene.world.daemon.restart()
    assert scene.outcomes(domain, "yield") == {"yield": SELF_SIGNED}


def test_mail_waits_while_the_resolver_is_down(scene: Scene) -> None:
    """No policy is lost, and nothing is concluded from what cannot be looked up."""
    domains = scene.publish("down dane", GOOD), scene.publish("down sts", ONE, "good", zone=UNSIGNED)
    postfix = scene.world.postfix
    assert [scene.replies(domain)[0] for domain in domains] == [NOTFOUND, BY_POLICY]
    scene.resolver.stop()
    try:
        assert [scene.replies(domain)[0] for domain in domains] == [NOTFOUND, BY_POLICY]
        scene.world.daemon.restart()
        # Whether the first has TLSA records, nobody knows; but Postfix knows no MX host of it either.
        assert [scene.replies(domain)[0] for domain in domains] == [BY_POLICY, BY_POLICY]
        queue_ids = [postfix.send(f"yield@{domain.name}") for domain in domains]
        waiting = [domain.seen(postfix.wait_for(queue_id)) for domain, queue_id in zip(domains, queue_ids, strict=True)]
    finally:
        scene.resolver.start()
    assert waiting == [NO_MX, NO_MX]
    postfix.flush()
    assert [outcome(postfix.wait_for(queue_id, 2)) for queue_id in queue_ids] == [VERIFIED, VERIFIED]
    assert [domain.first.reached() for domain in domains] == [["yield"], ["yield"]]
