"""What a probe costs, whatever the MX host sends."""

import time

import pytest

from postfix_mtasts.remote import probe
from tests.fuzz.received import RESOLVER, TLS, Host, ToHost


async def test_a_reply_octet_by_octet_costs_no_more_than_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Network", ToHost)
    monkeypatch.setattr(Host, "pieces", [b"2", b"2", b"0", b"-", b"\n"] * 2001)
    prober = probe.Prober(RESOLVER, TLS, "client.example")
    begun = time.process_time()
    found = await prober.probe("mx.example.com", "192.0.2.1", 25)
    assert time.process_time() - begun < 0.7  # A tenth of a second; to look at all of it each time takes eleven.
    assert found.unclear == "its greeting is longer than 10000 bytes"
