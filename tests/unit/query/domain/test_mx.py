"""What TLSA records say of a certificate, also where this machine cannot compare them."""

import hashlib

import pytest

from postfix_mtasts.dns.resolver import Tlsa
from postfix_mtasts.query.domain.mx import Rules, probe_report
from postfix_mtasts.remote.probe import Probe

CERTIFICATE = b"no certificate that could be parsed"
DIGEST = hashlib.sha256(CERTIFICATE).digest()
OTHER = bytes(32)
OF_A_CA = "its TLSA records are for a CA, whose certificate Python shows since version 3.13"
NO_KEY = "without the package python3-cryptography, its TLSA records cannot be compared"
NO_MATCH = "no TLSA record matches its certificate"


@pytest.mark.parametrize(
    ("record", "chain", "expected"),
    [
        (Tlsa(3, 0, 1, DIGEST), (), (None, None, True)),
        (Tlsa(3, 0, 0, CERTIFICATE), (), (None, None, True)),
        (Tlsa(3, 0, 1, OTHER), (), (NO_MATCH, None, False)),
        (Tlsa(3, 1, 1, OTHER), (), (None, NO_KEY, None)),
        (Tlsa(2, 0, 1, OTHER), (), (None, OF_A_CA, None)),
        (Tlsa(2, 0, 1, OTHER), (CERTIFICATE,), (NO_MATCH, None, False)),
        (Tlsa(2, 0, 1, DIGEST), (b"the host's", CERTIFICATE), (None, None, True)),
        (Tlsa(3, 0, 1, DIGEST), (b"the host's", CERTIFICATE), (None, None, True)),
    ],
)
def test_tlsa_records(record: Tlsa, chain: tuple[bytes, ...], expected: object) -> None:
    probe = Probe("192.0.2.1", certificate=CERTIFICATE, chain=chain, problem="self-signed certificate")
    found = probe_report("mx.example.com", probe, Rules(None, by_hostname=False), [record])
    assert (found.problem, found.unclear, found.tlsa) == expected
