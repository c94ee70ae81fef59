"""Updates of our zone, taken by real BIND and Knot, and by NSD from them; and what refuses them."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import dns.message
import dns.query
import dns.tsigkeyring
import dns.update
import pytest

from postfix_mtasts.config import ConfigError
from postfix_mtasts.config_file import read_config
from postfix_mtasts.publish import nameservers
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.nameservers import OurZone
from postfix_mtasts.publish.state import Clock, Stage, State
from postfix_mtasts.publish.store import Store
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.publish.conftest import NAMESERVER, ZONE, Place
from tests.world.dns import DnsServer
from tests.world.postfix import Installation
from tests.world.servers import running

DOMAIN, OWN = PolicyDomain("example.test"), PolicyDomain(ZONE)
NAME = f"{DOMAIN}._mta-sts.{ZONE}"
PRIMARY, SECONDARY, NOBODY = "127.0.5.1", "127.0.5.2", "127.0.5.9"
SECRET, OTHER = (base64.b64encode(letter * 32).decode() for letter in (b"s", b"o"))
ZONE_FILE = f"""$TTL 300
@ IN SOA ns1 hostmaster 1 3600 900 604800 60
@ IN NS ns1.{ZONE}.
@ IN NS ns2.{ZONE}.
ns1 IN A {PRIMARY}
ns2 IN A {SECONDARY}
@ IN MX 10 mx1
mx1 IN A 127.0.3.1
"""
BIND = f"""
options {{ directory "FOLDER"; listen-on {{ {PRIMARY}; }}; listen-on-v6 {{ none; }}; pid-file none; recursion no;
  dnssec-validation no; allow-transfer {{ any; }}; session-keyfile none; lock-file none; }};
controls {{ }};
key "publish" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
key "stranger" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
zone "{ZONE}" {{ type primary; file "zone"; allow-update {{ key publish; }}; notify explicit;
  also-notify {{ {SECONDARY}; }}; }};
"""
KNOT = f"""
server:
  listen: {PRIMARY}@53
  rundir: FOLDER
database:
  storage: FOLDER/knot
key:
  - id: publish
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: stranger
    algorithm: hmac-sha256
    secret: {SECRET}
remote:
  - id: ns2
    address: {SECONDARY}
acl:
  - id: update
    key: publish
    action: update
  - id: transfer
    address: 127.0.0.0/8
    action: transfer
zone:
  - domain: {ZONE}
    storage: FOLDER
    file: zone
    acl: [update, transfer]
    notify: ns2
"""
NSD = f"""
server:
  ip-address: {SECONDARY}
  zonesdir: "FOLDER"
  zonelistfile: "FOLDER/nsd.list"
  xfrdfile: "FOLDER/nsd.xfrd"
  xfrdir: "FOLDER"
  database: ""
  pidfile: ""
  username: ""
remote-control:
  control-enable: no
zone:
  name: {ZONE}
  zonefile: "nsd.zone"
  request-xfr: AXFR {PRIMARY} NOKEY
  allow-notify: 127.0.0.0/8 NOKEY
"""
PRIMARIES = {"named": (BIND, ("-g", "-c")), "knotd": (KNOT, ("-c",))}


def name_server(
    servers: Installation, folder: Path, name: str, text: str, *options: str
) -> AbstractContextManager[None]:
    """A name server with this configuration."""
    folder.mkdir(exist_ok=True)
    config = folder / f"{name}.conf"
    config.write_text(text.replace("FOLDER", str(folder)))
    return running(folder / f"{name}.log", *servers.command(name, *options, str(config)))


def wait_for(address: str, folder: Path) -> None:
    deadline = time.monotonic() + 20
    query = dns.message.make_query(ZONE, "SOA")
    while True:
        try:
            if dns.query.udp(query, address, timeout=1).answer:
                return
        except (dns.exception.Timeout, OSError):
            pass
        logs = "".join(path.read_text() for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, logs
        time.sleep(0.05)


def texts(address: str, name: str = NAME, kind: str = "TXT") -> list[str]:
    """The records at a name, as one name server has them."""
    answer = dns.query.udp(dns.message.make_query(name, kind), address, timeout=10).answer
    return [rdata.to_text() for rrset in answer for rdata in rrset]


def configure(
    place: Place, *, server: str = PRIMARY, zone: str = ZONE, key: str = "publish", secret: str = SECRET
) -> OurZone:
    file = place.folder / "key"
    file.write_text(f'key "{key}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n')
    place.configure()
    dns = f"[publish.dns]\nserver = {json.dumps(server)}\nzone = {json.dumps(zone)}\nkey = {json.dumps(str(file))}\n"
    place.config.write_text(place.config.read_text() + dns)
    return OurZone(read_config(str(place.config)))


@pytest.fixture(params=PRIMARIES)
def primary(place: Place, servers: Installation, request: pytest.FixtureRequest) -> Iterator[str]:
    """A primary and a secondary, which our resolver knows."""
    text, options = PRIMARIES[request.param]
    folder = place.folder / "primary"
    (folder / "knot").mkdir(parents=True)
    # BIND listens on addresses that an interface has, and not on all of 127.0.0.0/8.
    subprocess.run(["ip", "address", "replace", f"{PRIMARY}/32", "dev", "lo"], check=True)
    (folder / "zone").write_text(ZONE_FILE)
    for host, address in (("ns1", PRIMARY), ("ns2", SECONDARY)):
        place.dns.add(ZONE, "NS", f"{host}.{ZONE}.")
        place.dns.add(f"{host}.{ZONE}", "A", address)
    with ExitStack() as stack:
        stack.enter_context(name_server(servers, folder, request.param, text, *options))
        wait_for(PRIMARY, folder)
        stack.enter_context(name_server(servers, place.folder / "secondary", "nsd", NSD, "-d", "-c"))
        wait_for(SECONDARY, place.folder / "secondary")
        yield request.param


def published(record_id: str | None, stage: Stage = Stage.PUBLISHED, domain: PolicyDomain = DOMAIN) -> State:
    policy = Policy(Mode.TESTING, 604_800, (MxPattern(f"mx1.{domain}"),))
    return State(domain, policy, Clock(0.0, 0.0), stage, record=record_id)


async def until_everywhere(zone: OurZone, state: State) -> None:
    """The secondary needs a moment to fetch the zone, and a busy machine more than is waited for."""
    deadline = time.monotonic() + 30
    while remarks := await zone.publish(state):
        assert {remark.text.partition(" as it")[0] for remark in remarks} <= {
            not_shown(f"ns2.{ZONE} ({SECONDARY})", kind, name).partition(" as it")[0]
            for kind, name in (("TXT", NAME), ("A", f"mta-sts.{ZONE}"), ("TXT", f"_mta-sts.{ZONE}"))
        }
        assert time.monotonic() < deadline


def not_shown(server: str, kind: str = "TXT", name: str = NAME) -> str:
    what = f"the name server {server} does not show the {kind} record {name} as it is to be"
    return f"{what}: does it get the zone from inet:{PRIMARY}:53?"


async def test_records_are_sent_and_read_back_from_every_name_server(place: Place, primary: str) -> None:
    zone = configure(place)
    assert await zone.publish_shared() == () or await zone.publish_shared()
    for record_id in ("abc", "def", None, "abc"):
        await until_everywhere(zone, published(record_id, Stage.PUBLISHED if record_id else Stage.WITHDRAWN))
        expected = [f'"v=STSv1; id={record_id};"'] if record_id else []
        assert [texts(address) for address in (PRIMARY, SECONDARY)] == [expected, expected]
    assert texts(SECONDARY, f"policy.{ZONE}", "A") == ["127.0.2.1"]
    assert texts(SECONDARY, f"policy.{ZONE}", "CAA") == ['0 issue "ca.test"']
    assert texts(SECONDARY, f"_smtp._tls.{ZONE}") == ['"v=TLSRPTv1; rua=mailto:tlsrpt@provider.test"']
    before = texts(PRIMARY, ZONE, "SOA")
    await until_everywhere(zone, published("abc"))
    assert texts(PRIMARY, ZONE, "SOA") == before  # What is there already is not sent again.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"key": "nobody"}, "does not know the TSIG key nobody"),
        ({"secret": OTHER}, "has another secret for the TSIG key publish"),
        ({"key": "stranger"}, "TSIG key stranger"),
        ({"zone": "provider.test"}, "a primary name server of provider.test"),
        ({"server": NOBODY}, "connection refused"),
        ({"server": SECONDARY}, ""),
    ],
)
async def test_an_update_that_is_refused_gets_one_line(
    place: Place, primary: str, wrong: dict[str, str], said: str
) -> None:
    zone = configure(place, **wrong)
    (remark,) = await zone.publish(published("abc"))
    assert (remark.status, remark.check) == (Status.ERROR, "record")
    server = wrong.get("server", PRIMARY)
    assert remark.text.startswith(f"publish.dns: the name server {server} ")
    assert said in remark.text
    assert texts(PRIMARY) == []


async def test_what_name_servers_do_not_show_is_told_of_each(
    place: Place, primary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One serves an old zone, one is down, and one has only an address that cannot be reached from here."""
    zone = configure(place)
    await until_everywhere(zone, published("abc"))
    stale = "127.0.5.3"
    for host, kind, address in (("ns3", "A", stale), ("ns4", "A", NOBODY), ("ns5", "AAAA", "2001:db8::53")):
        place.dns.add(ZONE, "NS", f"{host}.{ZONE}.")
        place.dns.add(f"{host}.{ZONE}", kind, address)
    zone._timeout = 1.0
    with DnsServer(stale, 53) as old:
        old.add_txt(NAME, b"v=STSv1; id=old;")
        said = [remark.text for remark in await zone.publish(published("abc"))]
        down = f"the name server ns4.{ZONE} ({NOBODY}) cannot be asked for the TXT record {NAME}: "
        assert [text[: len(down)] if NOBODY in text else text for text in said] == [
            not_shown(f"ns3.{ZONE} ({stale})"),
            down,
        ]
        monkeypatch.setattr(nameservers, "_FETCHED_WITHIN", 20.0)
        waiting = asyncio.create_task(zone.publish(published("def")))
        while sum(query.name == NAME for query in old.queries) < 2:
            await asyncio.sleep(0.01)
        old.remove(NAME)
        old.add_txt(NAME, b"v=STSv1; id=def;")
        assert [remark.text for remark in await waiting if stale in remark.text] == []


async def test_an_address_of_a_kind_that_we_have_no_more_is_deleted(place: Place, primary: str) -> None:
    host = f"policy.{ZONE}"
    for addresses in (["127.0.2.1", "::1"], ["127.0.2.2"]):
        place.addresses = addresses
        zone = configure(place)
        await zone.publish_shared()
        assert texts(PRIMARY, host, "A") + texts(PRIMARY, host, "AAAA") == addresses


def put_by_hand(*records: tuple[str, str, str]) -> None:
    message = dns.update.UpdateMessage(f"{ZONE}.", keyring=dns.tsigkeyring.from_text({"publish": SECRET}))
    for name, kind, data in records:
        message.add(dns.name.from_text(f"{name}."), 300, kind, data)
    assert dns.query.tcp(message, PRIMARY, timeout=20).rcode() == 0


async def test_without_a_zone_for_customers_all_records_of_a_domain_are_sent(place: Place, primary: str) -> None:
    """The zone is the domain's own. What somebody else has there stays, unless it is in the place of ours."""
    place.zone, place.addresses = "", ["127.0.2.1", "2001:db8::1"]
    zone = configure(place, zone="")
    theirs = '"v=STSv1; id=theirs;"'
    put_by_hand((f"_mta-sts.{ZONE}", "TXT", theirs), (f"mta-sts.{ZONE}", "A", "127.0.9.9"))
    ours = {
        (f"mta-sts.{ZONE}", "A"): ["127.0.2.1"],
        (f"mta-sts.{ZONE}", "AAAA"): ["2001:db8::1"],
        (f"mta-sts.{ZONE}", "CAA"): ['0 issue "ca.test"'],
        (f"_smtp._tls.{ZONE}", "TXT"): ['"v=TLSRPTv1; rua=mailto:tlsrpt@provider.test"'],
    }
    for state, record in (
        (published(None, domain=OWN), [theirs]),
        (published("abc", domain=OWN), ['"v=STSv1; id=abc;"']),
        (published(None, Stage.WITHDRAWN, OWN), []),
    ):
        await until_everywhere(zone, state)
        found = {key: texts(SECONDARY, *key) for key in (*ours, (f"_mta-sts.{ZONE}", "TXT"))}
        assert found == ours | {(f"_mta-sts.{ZONE}", "TXT"): record}
    put_by_hand((f"mta-sts.{ZONE}", "A", "127.0.9.9"))
    for _ in range(2):
        assert await zone.publish(published(None, Stage.CLEARED, OWN)) == ()
        assert {key: texts(PRIMARY, *key) for key in ours} == {key: [] for key in ours} | {
            (f"mta-sts.{ZONE}", "A"): ["127.0.9.9"]
        }


def test_the_first_check_of_an_own_domain_announces_its_policy(place: Place, primary: str) -> None:
    place.mx(ZONE)
    place.zone = ""
    configure(place, zone="")
    place.config.write_text(place.config.read_text().replace(f'["{NAMESERVER}"]', f'["{PRIMARY}"]'))
    assert place.run("add", ZONE).returncode == 0
    found = place.json("check", ZONE)
    assert texts(PRIMARY, f"_mta-sts.{ZONE}") == [f'"v=STSv1; id={found["id"]};"']
    assert [one["kind"] for one in found["waits"]] == ["record"]
    deadline = time.monotonic() + 30
    while (done := place.run("check", ZONE)).returncode:  # The secondary has the record a moment later.
        assert time.monotonic() < deadline, done.stdout
    assert done.stdout == f"{ZONE}: mode testing\n"


def test_a_domain_is_removed_when_its_records_are(place: Place, primary: str) -> None:
    place.zone = ""
    store = Store(str(place.folder / "publish.sqlite"))
    store.save(follows(published(None, Stage.CLEARED, OWN)), "the test", 0.0)
    store.close()
    put_by_hand((f"mta-sts.{ZONE}", "A", "127.0.2.1"))
    for server, stage, left in ((NOBODY, "cleared", ["127.0.2.1"]), (PRIMARY, "removed", [])):
        configure(place, server=server, zone="")
        assert place.json("check", ZONE)["stage"] == stage
        assert texts(PRIMARY, f"mta-sts.{ZONE}", "A") == left


async def test_names_outside_the_zone_are_not_sent(place: Place, primary: str) -> None:
    zone = configure(place, zone="other.test")
    assert await zone.publish(published("abc")) == ()


async def test_without_a_server_nothing_is_sent(place: Place) -> None:
    place.configure()
    zone = OurZone(read_config(str(place.config)))
    assert (await zone.publish(published("abc")), await zone.publish_shared()) == ((), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such file or directory"),
        ("", 'is not a key file as tsig-keygen makes it: key "NAME" { algorithm …; secret "…"; };'),
        (
            f'key "x" {{ algorithm hmac-md5; secret "{SECRET}"; }};',
            "has the algorithm hmac-md5, and must have one of hmac",
        ),
        ('key "x" { algorithm hmac-sha256; secret "a"; };', "has a secret that is not in base64"),
        ("x" * 100_000, "is not a key file"),
    ],
)
def test_a_key_file_that_is_none(place: Place, text: str | None, reason: str) -> None:
    configure(place)
    file = place.folder / "key"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        OurZone(read_config(str(place.config)))
    assert str(caught.value).startswith(f'publish.dns.key = "{file}": {reason}')
    done = place.run("check")
    assert done.returncode == 78
    assert done.stderr.startswith(f'postfix-mtasts-publish: error: publish.dns.key = "{file}": ')


def test_the_command_sends_what_a_check_has_found_out(place: Place, primary: str) -> None:
    configure(place)
    place.mx(str(DOMAIN))
    assert place.run("add", str(DOMAIN)).returncode == 0
    place.customer(str(DOMAIN))
    place.load_zone()  # Our resolver knows the rest of the zone.
    place.run("check")
    (text,) = texts(PRIMARY)
    assert text == f'"v=STSv1; id={place.json("show", str(DOMAIN))["id"]};"'
