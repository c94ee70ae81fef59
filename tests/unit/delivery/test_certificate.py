"""What is read of a certificate, and when it expires, in words."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postfix_mtasts.delivery.certificate import Certificate, parse
from tests.world.ca import Ca

NOW = datetime(2026, 11, 25, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("not_after", "expiry"),
    [
        pytest.param(datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC), "expired on 2026-11-23", id="days ago"),
        pytest.param(datetime(2026, 11, 25, 22, 29, 59, tzinfo=UTC), "expired on 2026-11-25", id="a second ago"),
        pytest.param(datetime(2026, 11, 25, 22, 30, 0, tzinfo=UTC), "expires today (2026-11-25)", id="now"),
        pytest.param(datetime(2026, 11, 25, 23, 59, 59, tzinfo=UTC), "expires today (2026-11-25)", id="in an hour"),
        pytest.param(datetime(2026, 11, 26, 0, 0, 0, tzinfo=UTC), "expires tomorrow (2026-11-26)", id="after midnight"),
        pytest.param(datetime(2026, 11, 27, 0, 0, 0, tzinfo=UTC), "expires in 2 days (2026-11-27)", id="in two days"),
        pytest.param(datetime(2026, 12, 24, 12, 0, 0, tzinfo=UTC), "expires in 29 days (2026-12-24)", id="in weeks"),
    ],
)
def test_expiry(not_after: datetime, expiry: str) -> None:
    assert Certificate((), "Test CA", datetime(2026, 1, 1, tzinfo=UTC), not_after).expiry(NOW) == expiry


def test_what_is_no_certificate_is_none(tmp_path: Path) -> None:
    """A host may send anything; for some of it, cryptography has exceptions of its own."""
    pem = Ca(tmp_path).issue("a.example", "b.example").file.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
    found = parse(der)
    assert found
    assert (found.names, found.issuer) == (("a.example", "b.example"), "Test CA")
    version = b"\xa0\x03\x02\x01"
    assert version + b"\2" in der
    names, authority_key_identifier = b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x23"
    broken = {
        "nothing": b"",
        "half of it": der[: len(der) // 2],
        "version 66": der.replace(version + b"\2", version + b"A"),
        "an extension twice": der.replace(authority_key_identifier, names),
        "a name that is no ASCII": der.replace(b"a.example", b"\xff.example"),
        "an issuer that is no UTF-8": der.replace(b"Test CA", b"\xffest CA"),
    }
    assert {what: parse(octets) for what, octets in broken.items()} == dict.fromkeys(broken)
