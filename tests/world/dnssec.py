"""A zone that is signed, and a real validating resolver: unbound, from the root of an installation.

    with Unbound(root, world.folder, world.dns) as resolver:
        world.dns.add("mx.example.signed.test", "A", "127.0.1.1")    # will be signed
        world.dns.add("mx.example.unsigned.test", "A", "127.0.1.2")  # is asked of the DnsServer
        resolver.publish()                                           # signs
        resolver.publish(Spoilt("mx.example.signed.test", "A"))      # now unbound answers that with SERVFAIL

Signatures are those of dnspython, with NSEC; what they are worth is unbound's opinion alone.
"""

import hashlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.rdatatype
import dns.rrset
import dns.transaction
import dns.zone
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_pem_x509_certificate

from tests.world.dns import DnsServer
from tests.world.postfix import HERE, INSTALLATIONS, Installation

ADDRESS = "127.0.0.1"
SIGNED = "signed.test"
UNSIGNED = "unsigned.test"

_DAY = 86400
_FORGER = ec.generate_private_key(ec.SECP256R1())  # Claims to be the key of the zone.


class Spoilt(NamedTuple):
    """Records whose signature is no good."""

    owner: str
    rdtype: str
    how: Literal["forged", "expired"] = "forged"


@contextmanager
def root_with_unbound(installation: Installation) -> Iterator[Installation]:
    """The installation, which is mounted, if it is a root; else any root, mounted. Skips the test if there is none."""
    if installation is not HERE:
        yield installation
        return
    root = next((root for root in INSTALLATIONS if root is not HERE and not root.missing()), None)
    if not root:
        pytest.skip("needs a root with unbound: run `sudo make roots`")
    with root.mounted():
        yield root


class Tlsa:
    """The TLSA records that a certificate matches: `Tlsa(pem)["3 1 1"]`."""

    def __init__(self, pem: bytes) -> None:
        certificate = load_pem_x509_certificate(pem)
        key = certificate.public_key()
        self._selected = {
            "0": certificate.public_bytes(serialization.Encoding.DER),
            "1": key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        }

    def __getitem__(self, parameters: str) -> str:
        _, selector, matching_type = parameters.split()
        data = self._selected[selector]
        match matching_type:
            case "1":
                data = hashlib.sha256(data).digest()
            case "2":
                data = hashlib.sha512(data).digest()
        return f"{parameters} {data.hex()}"


class Unbound:
    """Answers at `ADDRESS` from `__enter__` to `__exit__`; what `dns` has below `SIGNED` it knows since `publish`."""

    def __init__(self, root: Installation, folder: Path, dns_server: DnsServer) -> None:
        self._command = root.command("unbound", "-d", "-c", str(folder / "unbound.conf"))
        self._folder = folder
        self._dns = dns_server
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._dnskey = dns.dnssec.make_dnskey(
            self._key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257
        )
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        (self._folder / "unbound.conf").write_text(self._configuration())
        self.publish()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def publish(self, *spoilt: Spoilt) -> None:
        """Sign the zone as it is now, and answer from it, with nothing in the cache."""
        self.stop()
        (self._folder / "zone").write_text(self._signed({(one.owner, one.rdtype): one.how for one in spoilt}))
        self.start()

    def start(self) -> None:
        """Answer again; returns when it does."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        log = []
        for line in self._process.stderr:
            log.append(line)
            if "start of service" in line:
                return
        raise AssertionError(log)

    def stop(self) -> None:
        """Nothing answers at `ADDRESS` then."""
        if self._process:
            self._process.terminate()
            self._process.communicate(timeout=20)
            self._process = None

    def _configuration(self) -> str:
        return f"""
server:
    verbosity: 1
    logfile: ""
    use-syslog: no
    chroot: ""
    username: ""
    directory: "{self._folder}"
    pidfile: ""
    interface: {ADDRESS}
    do-ip6: no
    do-not-query-localhost: no
    module-config: "validator iterator"
    trust-anchor: "{SIGNED}. DNSKEY {self._dnskey}"
    local-zone: "test." nodefault
auth-zone:
    name: "{SIGNED}."
    zonefile: "zone"
    for-downstream: no  # Or its records would be believed, not validated.
forward-zone:
    name: "{UNSIGNED}."
    forward-addr: {self._dns.address}@{self._dns.port}
"""

    def _signed(self, spoilt: dict[tuple[str, str], Literal["forged", "expired"]]) -> str:
        """The zone file."""
        origin = dns.name.from_text(SIGNED)
        zone = dns.zone.from_text(_APEX, origin, relativize=False)

        def sign(transaction: dns.transaction.Transaction, rrset: dns.rrset.RRset) -> None:
            owner = rrset.name.to_text(omit_final_dot=True)
            how = spoilt.pop((owner, dns.rdatatype.to_text(rrset.rdtype)), None)
            end = time.time() + (-_DAY if how == "expired" else _DAY)
            key = _FORGER if how == "forged" else self._key
            signature = dns.dnssec.sign(rrset, key, origin, self._dnskey, end - 2 * _DAY, end)
            transaction.add(rrset.name, rrset.ttl, signature)

        with zone.writer() as transaction:
            for rrset in self._dns.below(SIGNED):
                transaction.add(rrset)
            dns.dnssec.sign_zone(zone, transaction, [(self._key, self._dnskey)], rrset_signer=sign)
        assert not spoilt, "there is nothing to spoil"
        return zone.to_text()


_APEX = f"@ 300 SOA ns hostmaster 1 3600 600 86400 60\n@ 300 NS ns\nns 300 A {ADDRESS}\n"
