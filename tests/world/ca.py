"""A certificate authority of our own, for servers of our own.

    ca = Ca(directory)
    context = ca.issue("mta-sts.example.com").server_context()
    client = ssl.create_default_context(cafile=ca.file)

Names become subject alternative names as they are written: DNS names, wildcards, upper case; IP addresses become IP
names. The common name is the first name, so that a client that falls back to it is found out.
"""

import datetime
import ipaddress
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Kind = (
    Literal["good", "RSA", "expired", "not yet valid", "self-signed", "no alternative names", "unknown CA"]
    | Literal["weak key", "for clients", "of a host", "unknown critical extension"]
)
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_DAY = datetime.timedelta(days=1)
_VALIDITY: dict[Kind, tuple[int, int]] = {"expired": (-30, -1), "not yet valid": (1, 30)}  # In days from now.
_RSA_BITS: dict[Kind, int] = {"RSA": 2048, "weak key": 1024}
_EXTENSIONS: dict[Kind, list[x509.ExtensionType]] = {
    "for clients": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])],
    "unknown critical extension": [x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")],
}


@dataclass(frozen=True)
class Certificate:
    """A private key and its certificate in one PEM file."""

    file: Path

    def server_context(
        self,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> ssl.SSLContext:
        """A server's context; below TLS 1.2 it takes the ciphers and signatures that OpenSSL no longer offers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.1 is what the test is about.
            context.minimum_version = minimum
            context.maximum_version = maximum
        if minimum in {ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1}:
            context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.load_cert_chain(self.file)
        return context


class Ca:
    """Issues certificates into `directory`; `file` is the PEM file that clients are to trust."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self._directory = directory
        self._name = _common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        self.file = directory / "ca.pem"
        authority = x509.BasicConstraints(ca=True, path_length=None)
        self.file.write_bytes(_sign(self._name, self._key, self._name, self._key, (-60, 60), _CA_USAGE, authority))

    def issue(self, *names: str, kind: Kind = "good") -> Certificate:
        """A certificate for `names`, good or spoilt in one way."""
        key: _Key = ec.generate_private_key(ec.SECP256R1())
        if kind in _RSA_BITS:
            key = rsa.generate_private_key(65537, _RSA_BITS[kind])
        subject = _common_name(names[0])
        issuer = self._name
        signer: _Key = self._key
        between = b""
        if kind == "self-signed":
            issuer, signer = subject, key
        elif kind == "unknown CA":
            issuer, signer = _common_name("Unknown CA"), ec.generate_private_key(ec.SECP256R1())
        elif kind == "of a host":
            issuer, signer = _common_name("another.host.test"), ec.generate_private_key(ec.SECP256R1())
            between = _sign(issuer, signer, self._name, self._key, (-30, 30))
        extensions: list[x509.ExtensionType] = [x509.SubjectAlternativeName([_general_name(name) for name in names])]
        if kind == "no alternative names":
            extensions = []
        extensions += _EXTENSIONS.get(kind, [])
        self._issued += 1
        file = self._directory / f"{self._issued}.pem"
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + _sign(subject, key, issuer, signer, _VALIDITY.get(kind, (-30, 30)), *extensions)
            + between
        )
        return Certificate(file)


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _sign(
    subject: x509.Name,
    key: _Key,
    issuer: x509.Name,
    signer: _Key,
    validity: tuple[int, int],
    *extensions: x509.ExtensionType,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + validity[0] * _DAY)
        .not_valid_after(now + validity[1] * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=not isinstance(extension, x509.SubjectAlternativeName))
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # 64 is all that fits.


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
