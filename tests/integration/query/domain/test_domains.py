"""What `postfix-mtasts-query DOMAIN` says of everything that can be wrong with a domain: read tests/data/query aloud.

With GOLDEN=write in the environment, what is said becomes what is expected.
"""

import hashlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.sts.entry import Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from tests.integration.conftest import NOBODY, POLICY_HOST, World, fetched, store_entries
from tests.world.ca import Kind
from tests.world.daemon import COMMAND, Config, Daemon, ask, toml
from tests.world.dns import Behaviour
from tests.world.https import HANG, Drip, End, Flood, Step, answer
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
        self.certificates: list[Path] = []  # Of the MX hosts.
        self.draft = ""

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

    def mail(
        self, name: str = "mx", kind: Kind | None = "good", certificate: str = "", greeting: str = "220 ready"
    ) -> None:
        """An MX host, that speaks SMTP; without a kind of certificate it does not offer STARTTLS."""
        self.hosts += 1
        host, address = f"{name}.{self.domain}", f"127.0.3.{self.hosts}"
        self.world.dns.add(self.domain, "MX", f"{self.hosts}0 {host}.")
        self.world.dns.add(host, "A", address)
        issued = self.world.ca.issue(certificate or host, kind=kind) if kind else None
        self.certificates += [issued.file] if issued else []
        context = issued.server_context() if issued else None
        self.servers.enter_context(SmtpServer(address, context=context, greeting=greeting))

    def tlsa(self, host: str, file: Path) -> None:
        """A TLSA record for the certificate in a file."""
        der = ssl.PEM_cert_to_DER_cert(file.read_text().partition("-----END PRIVATE KEY-----\n")[2])
        self.world.dns.add(f"_25._tcp.{host}", "TLSA", f"3 0 1 {hashlib.sha256(der).hexdigest()}")

    def mx_only(self, *names: str) -> None:
        """MX hosts that need not speak."""
        for number, name in enumerate(names or ("mx",), start=1):
            self.world.dns.add(self.domain, "MX", f"{number}0 {name}.{self.domain}.")
            self.world.dns.add(f"{name}.{self.domain}", "A", "127.0.3.200")

    def right(self, text: str = "") -> None:
        self.record()
        self.address()
        self.file(text)


def policy(domain: str, mode: str = "enforce", max_age: int = 1209600, mx: str = "mx.{}") -> str:
    patterns = "".join(f"mx: {pattern.format(domain)}\n" for pattern in mx.split())
    return f"version: STSv1\nmode: {mode}\n{patterns}max_age: {max_age}\n"


CASES: dict[str, tuple[tuple[str, ...], Callable[[Scene], None]]] = {}
CACHED: dict[str, Callable[[Scene], Entry]] = {}  # What the running daemon has cached; without it, none runs.
EXCEPTIONS: dict[str, str] = {}  # TOML of the daemon's exceptions.
ANSWER_WITHIN: dict[str, float] = {}  # Seconds, where that is not the default.


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
    scene.record(b"v=STSv1; id=2026.01.31;")
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
    scene.world.dns.add(scene.domain, "A", "127.0.3.200")


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


@case()
def no_mx_address(scene: Scene) -> None:
    scene.right()
    scene.world.dns.add(scene.domain, "MX", f"10 {scene.mx}.")
    scene.world.dns.add_txt(scene.mx, b"no address")


@case()
def one_mx_host_is_missing(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="*.{}"))
    scene.mx_only()
    scene.world.dns.add(scene.domain, "MX", f"20 gone.{scene.domain}.")


@case()
def policy_host_alias_to_nowhere(scene: Scene) -> None:
    scene.record()
    scene.world.dns.add(scene.host, "CNAME", f"gone.{scene.domain}.")
    scene.mx_only()


@case()
def many_records(scene: Scene) -> None:
    scene.record(*(b"verification=%d" % number for number in range(60)), RECORD)
    scene.address()
    scene.file()
    scene.mx_only()


@case("--probe")
def probe_each_fails_otherwise(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="*.{}"))
    scene.mail("mx1", kind="expired")
    scene.mail("mx2", greeting="421 come back")
    scene.mail("mx3", kind=None)


@case("--policy", "/dev/zero")
def unpublished_endless(scene: Scene) -> None:
    scene.mx_only()


@case("--probe")
def dane_of_one_host_signed(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="*.{}"))
    scene.mail("mx1")
    scene.mail("mx2")
    scene.tlsa(f"mx1.{scene.domain}", scene.certificates[0])


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


@case("--probe")
def dane_probed_signed(scene: Scene) -> None:
    scene.right()
    scene.mail(kind="self-signed")
    scene.tlsa(scene.mx, scene.certificates[0])


@case("--probe")
def dane_probed_wrong_signed(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.world.dns.add(f"_25._tcp.{scene.mx}", "TLSA", EE)


# What the running daemon has


def cached(
    name: str, entry: Callable[[Scene], Entry], *options: str
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def register(prepare: Callable[[Scene], None]) -> Callable[[Scene], None]:
        CASES[name] = (options, prepare)
        CACHED[name] = entry
        return prepare

    return register


def old(age: float = 7200, record_id: str = "20260131", **changed: str | int) -> Callable[[Scene], Entry]:
    """A policy that was fetched two hours ago, and whose record was looked up two minutes ago."""

    def make(scene: Scene) -> Entry:
        return fetched(policy(scene.domain, **changed), age, record_id, checked=120)  # type: ignore[arg-type]

    return make


def failed_before(scene: Scene) -> Entry:
    failed = FailedFetch("20260131", 1, time.time() - 130, Failure(Stage.RESPONSE, "status 404"))
    return replace(old(age=1209600 + 7200)(scene), failed=(failed,), checked_at=time.time() - 300)


@cached("cached-nothing", lambda _: Entry())
@cached("cached-same", old())
@cached("cached-other-mx", old(mx="old.{}"))
@cached("cached-other-mx-and-id", old(mx="old.{} mx.{}", record_id="20250131"))
@cached("cached-new-id", old(record_id="20250131"))
@cached("cached-testing", old(mode="testing"))
@cached("cached-expired", old(age=1209600 + 86400))
@cached("cached-failed-before", failed_before)
@cached("cached-probed", old(mx="old.{}"), "--probe")
def cached_and_right(scene: Scene) -> None:
    scene.right()
    scene.mail()


@cached("cached-web-server-down", old(age=86400 * 8))
def cached_web_server_down(scene: Scene) -> None:
    scene.record()
    scene.address(NOBODY)
    scene.mx_only()


@cached("cached-record-gone", old())
def cached_record_gone(scene: Scene) -> None:
    scene.mx_only()


@cached("cached-record-fails", old())
def cached_record_fails(scene: Scene) -> None:
    scene.world.dns.set_behaviour(f"_mta-sts.{scene.domain}", Behaviour(rcode="SERVFAIL"))
    scene.mx_only()


@cached("cached-record-broken", old())
def cached_record_broken(scene: Scene) -> None:
    scene.record(b"v=STSv1; id=2026.01.31")
    scene.mx_only()


@cached("cached-none", old(mode="none"))
def cached_none(scene: Scene) -> None:
    scene.mx_only()


@cached("cached-dane-signed", old())
def cached_dane_signed(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.world.dns.add(f"_25._tcp.{scene.mx}", "TLSA", EE)


@cached("cached-resolver-down", old())
@case()
def resolver_down(scene: Scene) -> None:
    scene.world.dns.set_behaviour(".", Behaviour(rcode="SERVFAIL"))


# Records that nearly are one


def _nearly(*texts: bytes) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.record(*texts)
        scene.mx_only()

    return prepare


CASES |= {
    "nearly-upper-case": ((), _nearly(b"V=STSv1; id=1;")),
    "nearly-quotes": ((), _nearly(b'"v=STSv1; id=1;"')),
    "nearly-leading-blank": ((), _nearly(b" v=STSv1; id=1;")),
    "nearly-id-first": ((), _nearly(b"id=1; v=STSv1")),
    "nearly-version": ((), _nearly(b"other", b"v=STS1; id=1;")),
}


@case()
def nearly_alias_to_nowhere(scene: Scene) -> None:
    scene.world.dns.add(f"_mta-sts.{scene.domain}", "CNAME", f"nowhere.{scene.domain}.")
    scene.mx_only()


# Addresses, MX hosts, and lines of the policy


@case()
def dead_address(scene: Scene) -> None:
    scene.right()
    scene.address(NOBODY)
    scene.world.dns.add(scene.host, "AAAA", "2a00::1")
    scene.address("10.0.0.1")
    scene.mx_only()


@case()
def null_mx(scene: Scene) -> None:
    scene.right()
    scene.world.dns.add(scene.domain, "MX", "0 .")


CASES |= {
    "mx-with-preference": ((), _file("version: STSv1\nmode: enforce\nmx: 10 mx.DOMAIN\nmax_age: 1209600\n")),
    "duplicates": (
        (),
        _file("version: STSv1\nmode: enforce\nmode: none\nmx: mx.DOMAIN\nmax_age: 1209600\nmax_age: 0\n"),
    ),
    "long": (
        (),
        _file("version: STSv1\nmode: enforce\n" + "mx: mx.DOMAIN\nmx: *.DOMAIN\n" * 500 + "max_age: 1209600\n"),
    ),
}


@case()
def long_certificate(scene: Scene) -> None:
    scene.record()
    scene.address()
    names = (scene.host, *(f"{number}.{scene.domain}" for number in range(299)))
    scene.world.https.policy(scene.host, policy(scene.domain), scene.world.ca.issue(*names).server_context())
    scene.mx_only(*(f"mx{number}" for number in range(30)))


# Too late


def slow(scene: Scene) -> None:
    scene.record()
    scene.address()
    scene.site(Drip(answer(policy(scene.domain)), 0.02))
    scene.mx_only()


for _name, _options in (("too-late", ()), ("too-late-patient", ("--patient",))):
    CASES[_name] = (_options, slow)
    ANSWER_WITHIN[_name] = 1


# TLS-RPT


def _reports(*texts: bytes) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.right()
        scene.mx_only()
        for text in texts:
            scene.world.dns.add_txt(f"_smtp._tls.{scene.domain}", text)

    return prepare


CASES |= {
    "tlsrpt": ((), _reports(b"v=TLSRPTv1; rua=mailto:tls@example.com,https://example.com/tls")),
    "tlsrpt-broken": ((), _reports(b"v=TLSRPTv1; rua=tls@example.com")),
    "tlsrpt-nearly": ((), _reports(b"v=TLSRPT1; rua=mailto:tls@example.com")),
    "tlsrpt-unknown-scheme": ((), _reports(b"v=TLSRPTv1; rua=http://example.com/tls")),
}


# Probes that cannot be judged from here


def _greeting(text: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        scene.right()
        scene.mail(greeting=text)

    return prepare


CASES |= {
    "probe-deferred": (("--probe",), _greeting("451 try again later")),
    "probe-blocked": (("--probe",), _greeting("554 your address is on a list")),
    "probe-hangs": (("--probe",), _greeting("")),
    "probe-common-name": (("--probe",), _mail("no alternative names")),
}


@case("--probe")
def probe_one_address_of_two(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.world.dns.add(scene.mx, "A", "127.0.3.200")


@case("--probe")
def probe_one_host_of_three(scene: Scene) -> None:
    scene.right(policy(scene.domain, mx="*.{}"))
    scene.mail("mx1")
    scene.mail("mx2", kind="expired")
    scene.mail("mx3")


# Exceptions of the daemon


def exception(domain: str, level: str) -> str:
    table = {"domain": domain, "reason": "their certificate is to be renewed, ticket 4711", "level": level}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    return f"[[exception]]\nuntil = 2099-01-01\n{lines}"


@cached("exception-probed", old(), "--probe")
def exception_probed(scene: Scene) -> None:
    scene.right()
    scene.mail(kind="expired")


@cached("exception-that-changes-nothing-signed", old(), "--probe")
def exception_that_changes_nothing_signed(scene: Scene) -> None:
    scene.right()
    scene.mail()
    scene.tlsa(scene.mx, scene.certificates[0])


EXCEPTIONS["exception-probed"] = exception("exception-probed.test", "none")
EXCEPTIONS["exception-that-changes-nothing-signed"] = exception(
    "exception-that-changes-nothing-signed.signed", "encrypt"
)


# Before publishing


@case("--policy", "FILE", "--probe")
def unpublished(scene: Scene) -> None:
    scene.mail()
    scene.mail("new")
    scene.draft = policy(scene.domain)


@case("--policy", "FILE", "--record", "v=STSv1; id=1")
def unpublished_with_a_record(scene: Scene) -> None:
    scene.mx_only()
    scene.draft = policy(scene.domain)


@case("--policy", "FILE", "--record", "v=STSv1 id=1")
def unpublished_broken(scene: Scene) -> None:
    scene.mx_only()
    scene.draft = "version: STSv1\nmode: enforced\n"


@case("--policy", "FILE", "--record", "v=STSv1; id=20260131;")
def unpublished_old_id(scene: Scene) -> None:
    scene.right()
    scene.mx_only()
    scene.draft = policy(scene.domain, mx="mx.{} new.{}")


@case("--server", POLICY_HOST)
def unpublished_server(scene: Scene) -> None:
    scene.file()
    scene.mx_only()


# Tests


@pytest.fixture
def scene(world: World, request: pytest.FixtureRequest) -> Iterator[Scene]:
    name: str = request.param
    world.dns.authenticated = {"signed"}
    with ExitStack() as servers:
        yield Scene(world, f"{name}.signed" if name.endswith("-signed") else f"{name}.test", servers)
    world.dns.set_behaviour(".", Behaviour())


def configuration(world: World, folder: Path, name: str) -> Config:
    return {
        "server": {
            "control": str(folder / "control") if name in CACHED else "",
            "listen": [f"unix:{folder}/socket"],
            "answer_within": ANSWER_WITHIN.get(name, 10),
        },
        "cache": {"path": str(folder / "policies.sqlite")},
        "dns": {"nameservers": ["127.0.0.1"], "timeout": 3},
        "fetch": {"ca_file": str(world.ca.file), "allow_addresses": ["127.0.2.0/24"], "timeout": 5},
        "reply": {"style": "plain", "dane": "yield"},
    }


def query(folder: Path, *words: str) -> tuple[int, str, str]:
    command: list[str | Path] = [QUERY, "--config", folder / "postfix-mtasts.toml", *words]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def running(world: World, scene: Scene, folder: Path, name: str) -> Iterator[Daemon | None]:
    """The daemon, if it is to have something cached."""
    config = configuration(world, folder, name)
    if name not in CACHED:
        (folder / "postfix-mtasts.toml").write_text(toml(config))
        yield None
        return
    entry = CACHED[name](scene)
    if entry.cached:
        store_entries(folder / "policies.sqlite", {scene.domain: entry})
    with Daemon(folder, toml(config) + EXCEPTIONS.get(name, "")) as daemon:
        yield daemon


# Of these, each run has its own, or each machine.
_OWN = [
    (r"\(\d+\.\d{3} s\)", "(TIME)"),
    (r'"(seconds|address|connect|tls|certificate|response|policy|expires_in)": \d+\.\d+', r'"\1": 0.0'),
    (r"\b20\d{6}T\d{6}\b", "NEWID"),
    (r"came only after \d+ s", "came only after N s"),
    (r"TLSv1\.\d [A-Z0-9_]+", "TLS"),
    (r"(?<!id=)\b20\d\d-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", "DATE"),
    (r"(ends\s+in\s+)[\d,]+(\s+days)", r"\1N\2"),
    (r"(expires\s+in\s+)[\d,]+(\s+days)", r"\1N\2"),
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
    (tmp_path / "draft").write_text(scene.draft)
    words = [str(tmp_path / "draft") if option == "FILE" else option for option in options]
    with running(world, scene, tmp_path, name) as daemon:
        status, text, errors = query(tmp_path, *words, scene.domain)
        status_again, document, errors_again = query(tmp_path, "--json", *words, scene.domain)
        if daemon:
            postfix_gets = ask(f"unix:{tmp_path}/socket", scene.domain).rstrip()
            assert json.loads(document)["running"]["reply"] == postfix_gets
    assert (errors, errors_again, status_again) == ("", "", status)
    too_wide = [line for line in text.splitlines() if len(line) > 80 and "IN TXT" not in line]
    assert too_wide == []
    verdict = text.partition(f"\n{scene.domain}\n")[0].replace("\n ", "")
    assert own_made_common(json.loads(document)["verdict"]) == own_made_common(verdict)
    expect(GOLDEN / f"{name}.txt", own_made_common(f"{text}=> {status}\n"))
    pretty = json.dumps(json.loads(document), indent=2)
    expect(GOLDEN / f"{name}.json", own_made_common(f"{pretty}\n"))


def test_every_expectation_has_a_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)
