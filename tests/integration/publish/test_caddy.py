"""contrib/caddy/Caddyfile with the Caddy of Debian 12 and 14, and pebble, a CA that speaks ACME: from `add` to a policy
that our own fetcher fetched, and the renewal of its certificate.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.publish.conftest import NAMESERVER, PUBLISH, WEB, FileServer, Place
from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.postfix import INSTALLATIONS, Installation
from tests.world.servers import ACME, lacking, pebble, running

CADDYFILE = Path(__file__).parents[3] / "contrib/caddy/Caddyfile"
DOMAIN = "example.test"
DAYS_30 = 30 * 86_400
BRIEFLY = 45  # Seconds. Caddy renews a certificate when a third of its time is left, and somebody visits.

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["bookworm", "forky"])
def caddy(servers: Installation, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Where Caddy is: version 2.6, and 2.11 or later."""
    root = next(one for one in INSTALLATIONS if one.name == request.param)
    if root is servers:
        yield root
        return
    if why := lacking("caddy", root=root):
        pytest.skip(why)
    with root.mounted():
        yield root


@pytest.fixture
def served(caddy: Installation, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """The place, with Caddy in front of our files. MX hosts have certificates of another CA."""
    seconds = getattr(request, "param", DAYS_30)  # How long certificates of policy hosts live.
    ca = Ca(tmp_path)
    with ExitStack() as stack:
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        place = Place(tmp_path, ca, dns, FileServer(WEB, tmp_path / "policies", ca), stack)
        text = CADDYFILE.read_text().replace("/var/lib/postfix-mtasts-publish/policies", str(tmp_path / "policies"))
        ours = f"{{\n\tacme_ca {ACME}\n\tacme_ca_root {ca.file}\n"
        (tmp_path / "Caddyfile").write_text(text.replace("{\n", ours, 1))
        root = stack.enter_context(pebble(tmp_path, ca, NAMESERVER, seconds))
        place.ca_file = tmp_path / "both.pem"
        place.ca_file.write_bytes(ca.file.read_bytes() + root)
        place.configure()
        command = caddy.command("caddy", "run", "--adapter", "caddyfile", "--config", f"{tmp_path}/Caddyfile")
        stack.enter_context(running(tmp_path / "caddy.log", *command))
        yield place


def issued(place: Place) -> int:
    """How many certificates the CA has issued."""
    return (place.folder / "pebble.log").read_text().count("Issued certificate ")


def serial() -> str:
    """The serial number of the certificate that the policy host shows."""
    pem = served_certificate(f"mta-sts.{DOMAIN}")
    command = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(command, input=pem, capture_output=True, text=True, check=True).stdout


def served_certificate(host: str) -> str:
    command = ["openssl", "s_client", "-connect", f"{WEB}:443", "-servername", host]
    return subprocess.run(command, input="", capture_output=True, text=True, check=False).stdout


def test_no_client_holds_a_connection_for_ever(caddy: Installation, tmp_path: Path) -> None:
    file = tmp_path / "Caddyfile"  # A root shares /tmp with this machine, and not the place of this tree.
    file.write_text(CADDYFILE.read_text())
    command = caddy.command("caddy", "adapt", "--adapter", "caddyfile", "--config", str(file))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    servers = json.loads(done.stdout)["apps"]["http"]["servers"]
    assert [one["read_header_timeout"] for one in servers.values()] == [60_000_000_000]


def test_from_add_to_a_policy_that_was_fetched(served: Place) -> None:
    served.mx(DOMAIN)
    assert served.run("add", DOMAIN).returncode == 0
    log = served.folder / "serve.log"
    with running(log, PUBLISH, "serve", "--config", served.config):
        served.customer(DOMAIN)
        served.load_zone()
        done = served.run("check", DOMAIN)
        assert done.returncode == 0, done.stdout + (served.folder / "caddy.log").read_text()
        served.load_zone()
        found = served.json("check", DOMAIN)
        assert (found["remarks"], found["waits"], found["certificate"]) == ([], [], True)
        assert served.run("mode", DOMAIN, "enforce").returncode == 0
        # A stranger's host gets no certificate, and costs no order.
        assert "no peer certificate available" in served_certificate("mta-sts.other.test")
        assert "other.test" not in (served.folder / "pebble.log").read_text()
    # Policies go on being served when this program is down.
    assert served.json("check", DOMAIN)["policy"].startswith("version: STSv1\nmode: enforce")
    served.load_zone()
    assert served.json("check", DOMAIN)["remarks"] == []


@pytest.mark.parametrize("served", [BRIEFLY], indirect=True)
def test_the_check_is_the_visitor_by_which_a_certificate_is_renewed(served: Place) -> None:
    served.mx(DOMAIN)
    assert served.run("add", DOMAIN).returncode == 0
    with running(served.folder / "serve.log", PUBLISH, "serve", "--config", served.config):
        served.customer(DOMAIN)
        served.load_zone()
        (remark,) = served.json("check", DOMAIN)["remarks"]
        assert remark["text"].startswith(f"the certificate of mta-sts.{DOMAIN} expires ")
        first = serial()
        deadline = time.monotonic() + 4 * BRIEFLY
        while issued(served) < 2:  # Nobody but the check visits.
            assert time.monotonic() < deadline, (served.folder / "caddy.log").read_text()
            served.run("check", DOMAIN)
            time.sleep(0.5)
        while serial() == first:  # It may have to be stored yet.
            assert time.monotonic() < deadline, (served.folder / "caddy.log").read_text()
            time.sleep(0.1)


def test_a_customer_without_the_cname_costs_no_order(served: Place) -> None:
    served.mx(DOMAIN)
    assert served.run("add", DOMAIN).returncode == 0
    served.load_zone()
    with running(served.folder / "serve.log", PUBLISH, "serve", "--config", served.config):
        assert "no peer certificate available" in served_certificate(f"mta-sts.{DOMAIN}")
    assert DOMAIN not in (served.folder / "pebble.log").read_text()
