"""The Internet of the benchmark: an unbound that knows all names, and an nginx that serves their policies.

d0.policy.test …    have a policy
d0.none.test …      have no record
d0.silent.test …    nobody answers for their records
d0.hanging.test …   have a record, and a policy host that takes a connection and says nothing
d0.nameless.test …  have a record, and a policy host that has no certificate for them
d0.large.test …     have a policy of 64 KiB, nearly all of it in a field that nobody knows
d0.hostile.test …   have a record, and a policy host at an address where a measure may put whatever it likes
"""

import datetime
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench.process import running, wait_for_address

NAMESERVER, POLICY_HOST, SILENT_HOST, HOSTILE_HOST = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
# Here they write down who is asked for: the same policies, and a nameserver that a measure starts.
COUNTING_NAMESERVER, COUNTING_HOST = "127.0.0.5", "127.0.0.6"
POLICIES = 6000
HANGING = 500
NAMELESS = LARGE = 10_000
HOSTILE = 20
MX = ("mail.policy.test", "*.mx.policy.test")
REPLY = f"OK secure match={MX[0]}:{MX[1].removeprefix('*')} servername=hostname"
_NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4000; }}
http {{
    log_format names $ssl_server_name;
    map $server_addr $counts {{ {counting} 1; default 0; }}
    access_log {folder}/fetches names if=$counts;
    ssl_session_tickets off;
    ssl_certificate_key {folder}/key.pem;
    server_names_hash_max_size 262144;
    server {{
        listen {address}:443 ssl default_server backlog=4000;
        listen {counting}:443 ssl default_server backlog=4000;
        ssl_reject_handshake on;
    }}
    {servers}
}}
"""
# Certificates of many names are read once, not in each handshake: nginx must not be what is measured.
_NGINX_SERVER = """server {{
        listen {address}:443 ssl;
        listen {counting}:443 ssl;
        server_name {names};
        ssl_certificate {certificate};
        location = /.well-known/mta-sts.txt {{
            default_type text/plain;
            alias {file};
        }}
    }}
"""
_NAMES = 20  # Of one certificate.
_UNBOUND = """server:
 do-daemonize: no
 interface: {address}
 pidfile: ""
 chroot: ""
 username: ""
 use-syslog: no
 verbosity: 0
 local-zone: "test." static
 local-data: "test. SOA ns.test. root.test. 1 3600 600 86400 3600"
 local-zone: "silent.test." deny
"""


def names(zone: str, end: int, begin: int = 0) -> list[str]:
    """Domains of one kind, by their numbers."""
    return [f"d{number}.{zone}.test" for number in range(begin, end)]


@contextmanager
def world(folder: Path) -> Iterator[Path]:
    """Run it in the namespace of tests/namespace; the CA that it is to be trusted by."""
    if not os.environ.get("POSTFIX_MTASTS_NAMESPACE") or os.getuid() != 0:
        sys.exit("make bench: takes root, and a network and mounts of its own")
    folder.chmod(0o755)  # nginx reads the certificates as a user of its own.
    ca, certificates = _certificates(folder)
    large = _policy(*MX)
    large += "x: ".ljust(64 * 1024 - len(large) - 1, "y") + "\n"
    servers = []
    for name, policy in {"policy": _policy(*MX), "large": large}.items():
        file = folder / name
        file.write_text(policy)
        servers += [
            _NGINX_SERVER.format(
                address=POLICY_HOST, counting=COUNTING_HOST, names=" ".join(hosts), certificate=certificate, file=file
            )
            for certificate, hosts in certificates.items()
            if hosts[0].endswith(f".{name}.test")
        ]
    (folder / "nginx.conf").write_text(
        _NGINX.format(folder=folder, address=POLICY_HOST, counting=COUNTING_HOST, servers="".join(servers))
    )
    (folder / "unbound.conf").write_text(_UNBOUND.format(address=NAMESERVER) + "".join(map(_zone, _hosts())))
    (folder / "resolv.conf").write_text(f"nameserver {NAMESERVER}\n")
    # It is the namespace's own: nothing outside sees it.
    subprocess.run(["mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf"], check=True)
    with ExitStack() as stack:
        stack.enter_context(running(["unbound", "-c", folder / "unbound.conf"], folder / "unbound.log"))
        stack.enter_context(running(["nginx", "-c", folder / "nginx.conf"], folder / "nginx.out"))
        silent = stack.enter_context(closing(socket.create_server((SILENT_HOST, 443), backlog=4000)))
        silent.setblocking(False)
        for address, port in ((NAMESERVER, 53), (POLICY_HOST, 443)):
            wait_for_address(f"{address}:{port}")
        yield ca


@contextmanager
def counting(folder: Path, policies: Sequence[str]) -> Iterator[Path]:
    """A nameserver of domains that have policies, and of all that have none; the file with what it was asked."""
    config, log = folder / "counting.conf", folder / "counting.log"
    own = _UNBOUND.format(address=COUNTING_NAMESERVER) + " log-queries: yes\n"
    config.write_text(own + "".join(_zone((domain, COUNTING_HOST)) for domain in policies))
    with running(["unbound", "-c", config], log):
        wait_for_address(f"{COUNTING_NAMESERVER}:53")
        yield log


def _policy(*mx: str) -> str:
    lines = "".join(f"mx: {pattern}\n" for pattern in mx)
    return f"version: STSv1\nmode: enforce\n{lines}max_age: 604800\n"


def _hosts() -> list[tuple[str, str]]:
    kinds = (
        ("policy", POLICIES, POLICY_HOST),
        ("large", LARGE, POLICY_HOST),
        ("nameless", NAMELESS, POLICY_HOST),
        ("hanging", HANGING, SILENT_HOST),
        ("hostile", HOSTILE, HOSTILE_HOST),
    )
    return [(domain, address) for zone, count, address in kinds for domain in names(zone, count)]


def _zone(host: tuple[str, str]) -> str:
    domain, address = host
    return f""" local-data: '_mta-sts.{domain}. TXT "v=STSv1; id=1;"'
 local-data: "mta-sts.{domain}. A {address}"
"""


def _certificates(folder: Path) -> tuple[Path, dict[Path, list[str]]]:
    """A CA's certificate; and certificates of some policy hosts each, all with one key."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA of the benchmark")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(90))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    hosts = [f"mta-sts.{domain}" for domain in (*names("policy", POLICIES), *names("large", LARGE))]
    certificates = {}
    for begin in range(0, len(hosts), _NAMES):
        some = hosts[begin : begin + _NAMES]
        alternatives = x509.SubjectAlternativeName(map(x509.DNSName, some))
        file = folder / f"certificate-{begin}.pem"
        file.write_bytes(certificate(x509.Name([]), key.public_key(), alternatives))
        certificates[file] = some
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    ca = folder / "ca.pem"
    ca.write_bytes(certificate(issuer, authority.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    return ca, certificates
