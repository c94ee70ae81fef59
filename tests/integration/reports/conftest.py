"""Senders of reports: their keys in a DNS server, and their signatures."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Protocol

import dkim
import nacl.encoding
import nacl.signing
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.world.dns import DnsServer

RELAXED = (b"relaxed", b"relaxed")


class Zones(Protocol):
    """A DNS server with zones of ours."""

    def remove(self, name: str, /) -> None:
        """Remove all records of a name."""

    def add_txt(self, name: str, /, *strings: bytes) -> object:
        """Add a TXT record."""


class Signer:
    """Signs mails with one RSA key, which any domain may publish."""

    def __init__(self, dns: Zones) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.Encoding.PEM
        self.dns = dns
        self.private = key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public = base64.b64encode(der)

    def publish(self, domain: str, tags: bytes = b"v=DKIM1; k=rsa; s=tlsrpt", public: bytes | None = None) -> None:
        """Publish the key as `key._domainkey`, in place of what stands there."""
        self.dns.remove(f"key._domainkey.{domain}")
        record = tags + b"; p=" + (self.public if public is None else public)
        pieces = [record[start : start + 255] for start in range(0, len(record), 255)]
        self.dns.add_txt(f"key._domainkey.{domain}", *pieces)

    def sign(
        self,
        mail: bytes,
        domain: str,
        *,
        algorithm: bytes = b"rsa-sha256",
        length: bool = False,
        canonicalize: tuple[bytes, bytes] = RELAXED,
    ) -> bytes:
        """The mail with a signature."""
        signature = dkim.DKIM(mail).sign(
            b"key", domain.encode(), self.private, algorithm, canonicalize=canonicalize, length=length
        )
        return bytes(signature) + mail

    def sign_with(self, mail: bytes, domain: str, names: tuple[bytes, ...], **tags: str) -> bytes:
        """The mail with a signature of these headers, and with these tags too."""
        message = dkim.DKIM(mail)
        policy = dkim.CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
        message.hasher = hashlib.sha256
        body = base64.b64encode(hashlib.sha256(policy.canonicalize_body(message.body)).digest())
        fields = [(b"v", b"1"), (b"a", b"rsa-sha256"), (b"c", b"relaxed/relaxed"), (b"d", domain.encode())]
        fields += [(b"s", b"key"), *((name.encode(), value.encode()) for name, value in tags.items())]
        fields += [(b"h", b":".join(names)), (b"bh", body), (b"b", b"0" * 60)]
        key = dkim.parse_pem_private_key(self.private)
        value: bytes = message.gen_header(fields, names, policy, b"DKIM-Signature", key)
        return b"DKIM-Signature: " + value + mail

    def sign_ed25519(self, mail: bytes, domain: str) -> bytes:
        """The mail with a signature of an Ed25519 key of its own, which is published too."""
        key = nacl.signing.SigningKey.generate()
        encoder = nacl.encoding.Base64Encoder
        self.publish(domain, b"v=DKIM1; k=ed25519", key.verify_key.encode(encoder))
        private = key.encode(encoder)
        message = dkim.DKIM(mail)
        signature = message.sign(b"key", domain.encode(), private, b"ed25519-sha256", canonicalize=RELAXED)
        return bytes(signature) + mail


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="module")
def signer(dns: DnsServer) -> Signer:
    return Signer(dns)
