"""A stranger's certificate, in DER, as postfix-mtasts-query shows it. Nothing is declared: what is none gives None."""

import datetime
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from postfix_mtasts.delivery.certificate import parse
from tests.world.ca import Ca

_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def seeds() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        ca = Ca(Path(folder))
        for certificate in (
            ca.issue("mta-sts.example.com"),
            ca.issue("mta-sts.example.com", "*.example.net", "192.0.2.1"),
            ca.issue("a.example", kind="no alternative names"),
        ):
            pem = certificate.file.read_text()
            yield ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])


def run(data: bytes) -> None:
    found = parse(data)
    if found:
        assert found.expiry(_NOW).startswith("expire")
        assert all(isinstance(name, str) for name in (*found.names, found.issuer))
