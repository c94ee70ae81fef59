"""What `postfix-mtasts-query DOMAIN` says of everything that can be wrong with a domain: read tests/data/query aloud.

With GOLDEN=write in the environment, what is said becomes what is expected.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.conftest import NOBODY, POLICY_HOST, World
from tests.world.ca import Kind
from tests.world.daemon import COMMAND, Config, toml
from tests.world.dns import Behaviour
from tests.world.https import HANG, End, Flood, Step, answer
from tests.world.smtp import SmtpServer

GOLDEN = Path(__file__).parents[3] / "data/query"
RECORD = b"v=STSv1; id=20260131;"
EE = "3 1 1 " + 32 * "ab"
QUERY = COMMAND.with_name("postfix-mtasts-query")


class Scene:
    """A domain in the making; everything about it is right until a case spoils it."""

    def __init__(self, world: World, domain: str, servers: ExitStack) -> None:
        self.world = world
        self.domain = domain
        self.mx = f"mx.{domain}"
        self.host = f"mta-sts.{domain}"
        self.servers = servers
        self.hosts = 0

    def record(self, *texts: bytes) -> None:
        for text in texts or (RECORD,):
            self.world.dns.add_txt(f"_mta-sts.{self.domain}", text)

    def address(self, address: str = POLICY_HOST) -> None:
        self.world.dns.add(self.host, "A", address)

    def file(self, text: str = "", kind: Kind = "good", name: str = "") -> None:
        context = self.world.ca.issue(name or self.host, kind=kind).server_context()
        self.world.https.policy(self.host, text or policy(self.domain), context)

    def site(self, *steps: Step) -> None:
        self.world.https.site(self.host, self.world.ca.issue(self.host).server_context(), *steps)

    def mail(self, name: str = "mx", kind: Kind | None = "good", certificate: str = "") -> None:
        """An MX host, that speaks SMTP; without a kind of certificate it does not offer STARTTLS."""
        self.hosts += 1
        host, address = f"{name}.{self.domain}", f"127.0.3.{self.hosts}"
        self.world.dns.add(self.domain, "MX", f"{self.hosts}0 {host}.")
        self.world.dns.add(host, "A", address)
        context = self.world.ca.issue(certificate or host, kind=kind).server_context() if kind else None
        self.servers.enter_context(SmtpServer(address, context=context))

    def mx_only(self, *names: str) -> None:
        """MX hosts of which nothing but the names is asked for."""
        for number, name in enumerate(names or ("mx",), start=1):
            self.world.dns.add(self.domain, "MX", f"{number}0 {name}.{self.domain}.")

    def right(self, text: str = "") -> None:
        self.record()
        self.address()
        self.file(text)


def policy(domain: str, mode: str = "enforce", max_age: int = 1209600, mx: str = "mx.{}") -> str:
    patterns = "".join(f"mx: {pattern.format(domain)}\n" for pattern in mx.split())
    return f"version: STSv1\nmode: {mode}\n{patterns}max_age: {max_age}\n"


CASES: dict[str, tuple[tuple[str, ...], Callable[[Scene], None]]] = {}


def case(*options: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def register(prepare: Callable[[Scene], None]) -> Callable[[Scene], None]:
        CASES[prepare.__name__.replace("_", "-")] = (options, prepare)
        return prepare

    return register


# All is well


@case()
def good(scene: Scene) -> None:
    scene.right()
    scene.mx_only()


@case("--probe")
def good_probed(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="mx.{} *.{}"))
    scene.mail()
    scene.mail("backup")


@case()
def alias(scene: Scene) -> None:
    scene.world.dns.add(f"_mta-sts.{scene.domain}", "CNAME", f"one.{scene.domain}.")
    scene.world.dns.add(f"one.{scene.domain}", "CNAME", f"two.{scene.domain}.")
    scene.world.dns.add_txt(f"two.{scene.domain}", b"v=STSv1;", b" id=1;")
    scene.world.dns.add(scene.host, "CNAME", f"web.{scene.domain}.")
    scene.world.dns.add(f"web.{scene.domain}", "A", POLICY_HOST)
    scene.file()
    scene.mx_only()


@case()
def other_records(scene: Scene) -> None:
    scene.record(b"junk", RECORD, b"\x1b[31m\xff")
    scene.address()
    scene.file()
    scene.mx_only()


# The record


@case()
def no_record(scene: Scene) -> None:
    scene.mx_only()


@case()
def no_such_domain(scene: Scene) -> None:
    """Nothing."""


@case()
def record_malformed(scene: Scene) -> None:
    scene.record(b"v=STSv1; id=2026-01-31;")
    scene.mx_only()


@case()
def two_records(scene: Scene) -> None:
    scene.record(b"v=STSv1; id=1;", b"v=STSv1; id=2;")
    scene.mx_only()


@case()
def record_fails(scene: Scene) -> None:
    scene.world.dns.set_behaviour(f"_mta-sts.{scene.domain}", Behaviour(rcode="SERVFAIL"))
    scene.mx_only()


@case()
def dns_is_silent(scene: Scene) -> None:
    for name in (f"_mta-sts.{scene.domain}", scene.domain):
        scene.world.dns.set_behaviour(name, Behaviour(silent=True))


# The policy host


@case()
def no_address(scene: Scene) -> None:
    scene.record()
    scene.mx_only()


@case()
def private_address(scene: Scene) -> None:
    scene.record()
    scene.address("10.0.0.1")
    scene.mx_only()


@case()
def address_fails(scene: Scene) -> None:
    scene.record()
    scene.world.dns.set_behaviour(scene.host, Behaviour(rcode="SERVFAIL"))
    scene.mx_only()


@case()
def refused(scene: Scene) -> None:
    scene.record()
    scene.address(NOBODY)
    scene.mx_only()


@case()
def hangs(scene: Scene) -> None:
    scene.record()
    scene.address()
    scene.site(HANG)
    scene.mx_only()


@case()
def no_tls(scene: Scene) -> None:
    scene.record()
    scene.address()
    scene.world.https.site(scene.host, None, answer("plain"))
    scene.mx_only()


@case()
def unknown_to_the_web_server(scene: Scene) -> None:
    scene.record()
    scene.address()
    scene.mx_only()


def _certificate(kind: Kind) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.record()
        scene.address()
        scene.file(kind=kind)
        scene.mx_only()

    return prepare


for _kind in ("expired", "not yet valid", "self-signed", "no alternative names", "unknown CA"):
    CASES[f"certificate-{_kind.lower().replace(' ', '-')}"] = ((), _certificate(_kind))


@case()
def certificate_of_another_name(scene: Scene) -> None:
    scene.record()
    scene.address()
    scene.file(name=f"www.{scene.domain}")
    scene.mx_only()


def _response(*steps: Step) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.record()
        scene.address()
        scene.site(*steps)
        scene.mx_only()

    return prepare


CASES |= {
    "status-404": ((), _response(answer("nothing", status=404))),
    "redirect": ((), _response(answer(status=301, headers=[("Location", "https://www.example.com/mta-sts.txt")]))),
    "a-page": ((), _response(answer("<html>", content_type="text/html; charset=utf-8"))),
    "no-media-type": ((), _response(answer("version: STSv1", content_type=None))),
    "too-large": ((), _response(answer(headers=[("Content-Length", "70000")]), Flood(70000))),
    "compressed": ((), _response(answer("x", headers=[("Content-Encoding", "gzip")]))),
    "no-http": ((), _response(b"220 ready\r\n")),
    "closed": ((), _response(End.RESET)),
}


# The policy file


def _file(text: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.right(text.replace("DOMAIN", scene.domain))
        scene.mx_only()

    return prepare


CASES |= {
    "wrong-mode": ((), _file("version: STSv1\nmode: enforced\nmx: mx.DOMAIN\nmax_age: 1209600\n")),
    "no-mx": ((), _file("version: STSv1\r\nmode: enforce\r\nnmx: mx.DOMAIN\r\nmax_age: 1209600\r\n")),
    "mx-is-an-address": ((), _file("version: STSv1\nmode: enforce\nmx: 192.0.2.1\nmax_age: 1209600\n")),
    "empty": ((), _file("\n")),
    "not-utf-8": ((), _response(answer(b"version: STSv1\nx: \xff\n"))),
    "slips": (
        (),
        _file("\ufeffversion: STSv1\nmode: enforce\n\nmx: mx.DOMAIN\nnmx: mx2.DOMAIN\nmax_age: 9999999999\nx: \x1b}\n"),
    ),
    "a-slip": (
        (),
        _file("\ufeffversion: STSv1\nmode: enforce\n\nmx: mx.DOMAIN\nnmx: mx2.DOMAIN\nmax_age: 9999999999\nx: é}\n"),
    ),
    "max-age-of-a-day": ((), _file("version: STSv1\nmode: enforce\nmx: mx.DOMAIN\nmax_age: 86400\n")),
    "max-age-of-a-minute": ((), _file("version: STSv1\nmode: enforce\nmx: mx.DOMAIN\nmax_age: 60\n")),
    "testing": ((), _file("version: STSv1\nmode: testing\nmx: mx.elsewhere.test\nmax_age: 1209600\n")),
    "none": ((), _file("version: STSv1\nmode: none\nmax_age: 1209600\n")),
}


# The MX hosts


@case()
def mx_not_allowed(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="mx.{} old.{}"))
    scene.mx_only("mx", "new", "also.new")


@case()
def no_mx_allowed(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="*.mail.{}"))
    scene.mx_only("mx", "a.b.mail")


@case()
def no_mx_record(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="{}"))


@case()
def mx_fails(scene: Scene) -> None:
    scene.right()
    scene.world.dns.set_behaviour(scene.domain, Behaviour(rcode="SERVFAIL"))


def _mail(*kinds: Kind | None, certificate: str = "") -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.right()
        for kind in kinds:
            scene.mail(kind=kind, certificate=certificate)

    return prepare


CASES |= {
    "probe-expired": (("--probe",), _mail("expired")),
    "probe-self-signed": (("--probe",), _mail("self-signed")),
    "probe-another-name": (("--probe",), _mail("good", certificate="other.example")),
    "probe-no-starttls": (("--probe",), _mail(None)),
}


@case("--probe")
def probe_refused(scene: Scene) -> None:
    scene.right()
    scene.mx_only()
    scene.world.dns.add(scene.mx, "A", "127.0.3.200")


@case("--probe")
def probe_no_address(scene: Scene) -> None:
    scene.right()
    scene.mx_only()


# DANE


@case()
def dane_signed(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.world.dns.add(f"_25._tcp.{scene.mx}", "TLSA", EE)


@case()
def dane_fails_signed(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.world.dns.set_behaviour(f"_25._tcp.{scene.mx}", Behaviour(rcode="SERVFAIL"))


# Tests


@pytest.fixture
def scene(world: World, request: pytest.FixtureRequest) -> Iterator[Scene]:
    name: str = request.param
    world.dns.authenticated = {"signed"}
    with ExitStack() as servers:
        yield Scene(world, f"{name}.signed" if name.endswith("-signed") else f"{name}.test", servers)


def query(world: World, folder: Path, *words: str) -> tuple[int, str, str]:
    config: Config = {
        "server": {"control": ""},
        "dns": {"nameservers": ["127.0.0.1"], "timeout": 3},
        "fetch": {"ca_file": str(world.ca.file), "allow_addresses": ["127.0.2.0/24"], "timeout": 5},
        "reply": {"style": "plain", "dane": "yield"},
    }
    (folder / "config").write_text(toml(config))
    done = subprocess.run([QUERY, "--config", folder / "config", *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


# Of these, each run has its own, or each machine.
_OWN = [
    (r"\(\d+\.\d{3} s\)", "(TIME)"),
    (r'"(seconds|address|connect|tls|response|policy|expires_in)": \d+\.\d+', r'"\1": 0.0'),
    (r"TLSv1\.\d [A-Z0-9_]+", "TLS"),
    (r"(?<!id=)\b20\d\d-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", "DATE"),
    (r"(expires\s+in\s+)\d+(\s+days)", r"\1N\2"),
]


def own_made_common(text: str) -> str:
    for pattern, word in _OWN:
        text = re.sub(pattern, word, text)
    return text


def expect(file: Path, text: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize(("scene", "name"), [(name, name) for name in CASES], ids=list(CASES), indirect=["scene"])
def test_what_is_said_of_a_domain(world: World, scene: Scene, name: str, tmp_path: Path) -> None:
    options, prepare = CASES[name]
    prepare(scene)
    status, text, errors = query(world, tmp_path, *options, scene.domain)
    assert errors == ""
    expect(GOLDEN / f"{name}.txt", own_made_common(f"{text}=> {status}\n"))
    status_again, document, errors = query(world, tmp_path, "--json", *options, scene.domain)
    assert (status_again, errors) == (status, "")
    pretty = json.dumps(json.loads(document), indent=2)
    expect(GOLDEN / f"{name}.json", own_made_common(f"{pretty}\n"))


def test_every_expectation_has_a_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)
