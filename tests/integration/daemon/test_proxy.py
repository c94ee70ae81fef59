"""Policies through a real proxy: tinyproxy, and microsocks for SOCKS5. The daemon, and the commands."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from postfix_mtasts.remote.proxy import GUARD
from tests.integration.conftest import World
from tests.world.daemon import COMMAND, Daemon, ask, query, toml
from tests.world.dns import DnsServer
from tests.world.https import HANG, Flood, answer
from tests.world.postfix import nameserver
from tests.world.proxies import proxy

ROOT = Path(__file__).parents[3]
RESOLVER = "127.0.0.3"  # The daemon's; the proxies ask another one.
PROXY, CLOSED = "127.0.3.1", "127.0.3.2"  # The latter asks for credentials.
CREDENTIALS = "me:secret"
SCHEMES = ["http", "socks5"]
LATE = 2  # Seconds.


@pytest.fixture(scope="module")
def ours(namespace: None) -> Iterator[DnsServer]:
    """The daemon's resolver, which knows no policy host."""
    with DnsServer(RESOLVER, 53) as dns:
        yield dns


@pytest.fixture(scope="module")
def urls(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, str]]]:
    """By their schemes, two proxies: one for everybody, and one that asks for credentials."""
    folder = tmp_path_factory.mktemp("proxies")
    with ExitStack() as stack:
        stack.enter_context(nameserver("127.0.0.1", folder))
        yield {
            scheme: (
                stack.enter_context(proxy(scheme, PROXY, folder)),
                stack.enter_context(proxy(scheme, CLOSED, folder, CREDENTIALS)),
            )
            for scheme in SCHEMES
        }


class Site:
    """A domain whose policy host only the proxies' resolver knows. It is inside: that is the proxy's to refuse."""

    def __init__(self, world: World, ours: DnsServer, folder: Path) -> None:
        self.world, self.ours, self.folder = world, ours, folder

    def publish(self, domain: str) -> None:
        self.ours.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
        self.world.publish(domain, policy(domain))

    def configuration(self, url: str, credentials: str = "", timeout: float = 20) -> dict[str, dict[str, object]]:
        file = ""
        if credentials:
            path = self.folder / "credentials"
            path.write_text(f"{credentials}\n")
            path.chmod(0o600)
            file = str(path)
        fetch = {"proxy": url, "proxy_credentials": file, "allow_addresses": [], "timeout": timeout}
        tables = self.world.configuration(self.folder, dns={"nameservers": [RESOLVER]}, fetch=fetch)
        return {name: dict(table) for name, table in tables.items()}


@pytest.fixture
def site(world: World, ours: DnsServer, tmp_path: Path) -> Site:
    return Site(world, ours, tmp_path)


def policy(domain: str) -> str:
    return f"version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 86400\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


@pytest.mark.parametrize("with_credentials", [False, True], ids=["for everybody", "with credentials"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_name_goes_to_the_proxy_and_tls_to_the_policy_host(
    site: Site, urls: dict[str, tuple[str, str]], scheme: str, with_credentials: bool
) -> None:
    domain = f"{scheme}-{with_credentials}.test".lower()
    site.publish(domain)
    before = len(site.world.https.sni)
    settings = site.configuration(urls[scheme][with_credentials], CREDENTIALS if with_credentials else "")
    with Daemon(site.folder, settings) as daemon:
        assert ask(f"unix:{site.folder}/socket", domain) == secure(domain)
        assert daemon.about(domain, f"unix:{site.folder}/socket") == [
            f"info: domain={domain}, fetched: mode=enforce, max_age=86400, mx=mx.{domain}"
        ]
    assert site.world.https.sni[before:] == [f"mta-sts.{domain}"]
    host = f"mta-sts.{domain}"
    assert host not in {one.name for one in site.ours.queries}
    assert host in {one.name for one in site.world.dns.queries}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_goes_wrong_behind_a_proxy(site: Site, urls: dict[str, tuple[str, str]], scheme: str) -> None:
    """Certificates, names, bounds and deadlines are those of a fetch without a proxy."""
    names = ("other", "expired", "flood", "hangs", "silent", "nowhere", "later")
    other, expired, flood, hangs, silent, nowhere, later = (f"{name}-{scheme}.test" for name in names)
    world = site.world
    for domain in (other, expired, flood, hangs, silent, later):
        site.publish(domain)
    site.ours.add_txt(f"_mta-sts.{nowhere}", b"v=STSv1; id=1;")
    host = f"mta-sts.{hangs}"
    world.https.policy(f"mta-sts.{other}", policy(other), world.ca.issue("mta-sts.wrong.test").server_context())
    context = world.ca.issue(f"mta-sts.{expired}", kind="expired").server_context()
    world.https.policy(f"mta-sts.{expired}", policy(expired), context)
    context = world.ca.issue(f"mta-sts.{flood}").server_context()
    world.https.site(f"mta-sts.{flood}", context, answer(headers=[("Content-Length", "9999999")]), Flood(9_999_999))
    world.https.site(host, world.ca.issue(host).server_context(), HANG)
    world.https.site(f"mta-sts.{silent}", None, HANG)
    settings = site.configuration(urls[scheme][0], timeout=LATE)
    refused = {
        "http": rf"{re.escape(urls['http'][0])} did not connect to mta-sts.{nowhere}:443: status 5\d\d .*",
        "socks5": rf"{re.escape(urls['socks5'][0])} did not connect to mta-sts.{nowhere}:443: .*",
    }[scheme]
    error = r"\(sts-policy-fetch-error\)"
    expected = {
        other: r"certificate of the policy host: [hH]ostname mismatch, .* \(sts-webpki-invalid\)",
        expired: r"certificate of the policy host: certificate has expired \(sts-webpki-invalid\)",
        flood: rf"HTTP response: larger than 64 KiB {error}",
        hangs: rf"HTTP response: timed out after {LATE} s {error}",
        silent: rf"TLS handshake with the policy host: timed out after {LATE} s {error}",
        nowhere: rf"proxy: {refused} {error}",
    }
    socket = f"unix:{site.folder}/socket"
    with Daemon(site.folder, settings) as daemon:
        for domain, words in expected.items():
            assert ask(socket, domain) == "NOTFOUND "
            (line,) = daemon.about(domain, socket)
            assert re.fullmatch(rf"warning: domain={domain}, policy unavailable: {words}", line)
        assert ask(socket, later) == secure(later)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_credentials(site: Site, urls: dict[str, tuple[str, str]], scheme: str) -> None:
    domain = f"forbidden-{scheme}.test"
    site.publish(domain)
    url = urls[scheme][1]
    missing, not_ours = (" (status 407)", " (status 401)") if scheme == "http" else ("", "")
    wrong = {
        "": f"{url} asks for a user and a password: set fetch.proxy_credentials{missing}",
        "me:wrong": f"{url} does not accept the user and password in fetch.proxy_credentials{not_ours}",
    }
    for credentials, why in wrong.items():
        (site.folder / "policies.sqlite").unlink(missing_ok=True)
        with Daemon(site.folder, site.configuration(url, credentials)) as daemon:
            assert ask(f"unix:{site.folder}/socket", domain) == "NOTFOUND "
            line = f"warning: domain={domain}, policy unavailable: proxy: {why} (sts-policy-fetch-error)"
            assert daemon.about(domain, f"unix:{site.folder}/socket") == [line]


def test_proxies_of_the_environment_are_not_heeded(world: World, tmp_path: Path) -> None:
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    environment = dict.fromkeys(names, f"http://{CLOSED}:1")  # Nobody listens there.
    world.publish("direct.test", policy("direct.test"))
    with Daemon(tmp_path, world.configuration(tmp_path), environment=environment):
        assert ask(f"unix:{tmp_path}/socket", "direct.test") == secure("direct.test")
    assert world.asked("direct.test") == (1, 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_commands_use_the_proxy_and_show_it(site: Site, urls: dict[str, tuple[str, str]], scheme: str) -> None:
    domain = f"shown-{scheme}.test"
    site.publish(domain)
    site.ours.add(domain, "MX", f"10 mx.{domain}.")
    site.ours.add(f"mx.{domain}", "A", "127.0.2.2")
    url = urls[scheme][0]
    config = site.folder / "config"
    config.write_text(toml(site.configuration(url)))
    status, text, errors = query("--config", config, domain)
    assert (status, errors) == (0, "")
    assert re.search(
        rf" host mta-sts\.{domain}: through the proxy {url} \(0\.\d+ s\) TLSv1.3", re.sub(r"\s+", " ", " " + text)
    )
    host = json.loads(query("--config", config, "--json", domain)[1])["policy_host"]
    assert (host["proxy"], host["addresses"], host["tried"], host["status"]) == (url, [], [], 200)
    world = site.world
    world.https.policy(f"mta-sts.{domain}", "", world.ca.issue("elsewhere.test").server_context())
    host = json.loads(query("--config", config, "--json", domain)[1])["policy_host"]
    assert (host["stage"], host["certificate"]["names"]) == ("certificate", ["elsewhere.test"])
    check = subprocess.run([COMMAND, "--config", config, "--check"], capture_output=True, text=True, check=True)
    assert check.stdout == f'{config}: ok\nnote: fetch.proxy = "{url}": {GUARD}\n'


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_dead_proxy(site: Site, scheme: str) -> None:
    domain = f"dead-{scheme}.test"
    site.publish(domain)
    config = site.folder / "config"
    url = f"{scheme}://127.0.3.3:1080"
    config.write_text(toml(site.configuration(url)))
    status, text, _ = query("--config", config, domain)
    assert status == 2
    why = f"{url} cannot be reached: 127.0.3.3: connection refused"
    remedy = f"your proxy must connect to mta-sts.{domain}:443: ask its administrator, and see fetch.proxy"
    said = " ".join(text.split())
    assert f"mail to {domain} is sent without a policy: proxy: {why}" in said
    assert f"error: the policy could not be fetched: proxy: {why}; that is not the domain's fault; {remedy}" in said


def test_the_commands_of_the_manual(site: Site, urls: dict[str, tuple[str, str]]) -> None:
    section = (ROOT / "docs/operations.md").read_text().split("## Through a proxy\n")[1].split("\n## ")[0]
    blocks = [block.splitlines() for block in re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)]
    settings, (install, edit, check, doctor) = ([line.strip() for line in block] for block in blocks)
    file = site.folder / "postfix-mtasts-proxy"
    assert edit == "editor /etc/postfix-mtasts-proxy"
    made = install.replace("/etc/postfix-mtasts-proxy", str(file)).replace("-g _postfix-mtasts", "-g 0")
    subprocess.run(shlex.split(made), check=True)
    file.write_text(CREDENTIALS)
    ours = "\n".join(settings).replace("/etc/postfix-mtasts-proxy", str(file))
    ours = ours.replace("http://proxy.example:3128", urls["http"][1])
    tables = site.configuration("")
    tables["fetch"] = {"ca_file": tables["fetch"]["ca_file"], **tomllib.loads(ours)["fetch"]}
    site.publish("manual.test")
    with Daemon(site.folder, tables) as daemon:
        assert ask(f"unix:{site.folder}/socket", "manual.test") == secure("manual.test")
        assert check == "postfix-mtasts-daemon --check && systemctl restart postfix-mtasts"
        subprocess.run([COMMAND, "--config", daemon.config, "--check"], check=True, capture_output=True)
        assert doctor == "postfix-mtasts-query doctor"
        _, text, _ = query("doctor", "--config", daemon.config)
        # example.com is not in our DNS.
        assert f"warning: proxy {urls['http'][1]} did not connect to example.com:443: status 5" in text


def test_credentials_that_cannot_be_used_stop_the_start(site: Site) -> None:
    settings = site.configuration("http://127.0.3.1:3128", CREDENTIALS)
    path = site.folder / "credentials"
    path.chmod(0o644)
    config = site.folder / "config"
    config.write_text(toml(settings))
    why = f"every user of this machine may read it or write to it; run: chmod o= {path}"
    line = f'fetch.proxy_credentials = "{path}": {why}'
    done = subprocess.run([COMMAND, "--config", config, "--check"], capture_output=True, text=True, check=False)
    expected = (os.EX_CONFIG, f"postfix-mtasts-daemon: error: {config}: {line}\n")
    assert (done.returncode, done.stderr) == expected
    status, _, errors = query("--config", config, "example.com")
    assert (status, errors) == (os.EX_CONFIG, f"postfix-mtasts-query: error: {line}\n")
