"""What a probe costs, whatever the MX host sends."""

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from postfix_mtasts.remote import probe
from postfix_mtasts.remote.network import mail_tls_context
from tests.fuzz.received import RESOLVER, TLS, Host, ToHost
from tests.hostile.sites import tls
from tests.world.ca import Ca
from tests.world.smtp import SmtpServer


async def test_a_reply_octet_by_octet_costs_no_more_than_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Network", ToHost)
    monkeypatch.setattr(Host, "pieces", [b"2", b"2", b"0", b"-", b"\n"] * 2001)
    prober = probe.Prober(RESOLVER, TLS, "client.example")
    begun = time.process_time()
    found = await prober.probe("mx.example.com", "192.0.2.1", 25)
    assert time.process_time() - begun < 0.7  # A tenth of a second; to look at all of it each time takes eleven.
    assert found.unclear == "its greeting is longer than 10000 bytes"


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("bits", [2048, 4096, 4104, 10_000])
async def test_key_exchange_in_a_finite_field(tmp_path: Path, bits: int, known: bool) -> None:
    """The host chooses it. In one of 10,000 bits, a handshake would take a second, in which no query is answered.

    Whether the CA is known or the certificate is only shown, Postfix connects to all of them.
    """
    site = tls(kind="RSA", only=ssl.TLSVersion.TLSv1_2, field=bits)
    assert site.tls
    trusted, other = (tmp_path / name for name in ("trusted", "other"))
    for folder in (trusted, other):
        folder.mkdir()
    ours = Ca(trusted)
    prober = probe.Prober(RESOLVER, mail_tls_context("", "", str(ours.file)), "client.example")
    with SmtpServer("127.0.1.1", context=site.tls(ours if known else Ca(other), "mx.example.com")):
        begun = time.thread_time()
        found = await prober.probe("mx.example.com", "127.0.1.1", 25)
        assert time.thread_time() - begun < 0.3
    if bits > 4096:
        assert found.unclear == f"the host wants a finite field of {bits} bits for the key exchange (DHE)"
        assert (found.problem, found.certificate, found.tls) == (None, b"", "")
    else:
        assert (found.unclear, bool(found.problem), bool(found.certificate)) == (None, not known, True)
        assert found.tls == ("TLSv1.2 DHE-RSA-AES256-GCM-SHA384" if known else "")


async def test_no_more_connections_are_open_at_once_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owners of domains that are looked at together list as many addresses as they like."""
    monkeypatch.setattr(probe, "MAX_AT_ONCE", 3)
    now, most, full = 0, 0, asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.05)  # Time for one too many.
        now -= 1
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        prober = probe.Prober(RESOLVER, TLS, "client.example")
        found = await asyncio.gather(*(prober.probe("mx.example.com", "127.0.0.1", port) for _ in range(9)))
    assert (most, len(found)) == (3, 9)
