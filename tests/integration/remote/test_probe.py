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
async def test_a_host_whose_certificate_is_only_shown_does_not_choose_what_the_handshake_costs(tmp_path: Path) -> None:
    """In a finite field of 10,000 bits, each handshake would take a second, in which no query is answered."""
    site = tls(kind="RSA", only=ssl.TLSVersion.TLSv1_2, large_field=True)
    assert site.tls
    trusted, other = (tmp_path / name for name in ("trusted", "other"))
    for folder in (trusted, other):
        folder.mkdir()
    context = mail_tls_context("", "", str(Ca(trusted).file))
    prober = probe.Prober(RESOLVER, context, "client.example")
    with SmtpServer("127.0.1.1", context=site.tls(Ca(other), "mx.example.com")):
        begun = time.thread_time()
        found = await prober.probe("mx.example.com", "127.0.1.1", 25)
        assert time.thread_time() - begun < 0.3
    assert found.problem == "the host sent TLS alert 'handshake failure'"
    assert found.certificate == b""


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
