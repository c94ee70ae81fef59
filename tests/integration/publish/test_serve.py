"""Whether a host may have a certificate, asked over HTTP as Caddy does, by good and by bad clients."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from postfix_mtasts.config_file import read_config
from postfix_mtasts.publish import serve
from postfix_mtasts.publish.serve import Answerer, Server
from tests.integration.publish.conftest import PUBLISH, WEB, Place
from tests.world.systemd import Manager

DOMAIN = "example.test"
ASK = 8462


@pytest.fixture
def added(place: Place) -> Place:
    """A domain that is published here, and whose owner has done nothing yet."""
    place.mx(DOMAIN)
    assert place.run("add", DOMAIN).returncode == 0
    place.load_zone()
    return place


class Time:
    now = 0.0


def answerer(place: Place) -> Answerer:
    return Answerer(read_config(str(place.config)), lambda: Time.now)


def lookups(place: Place) -> int:
    return sum(query.name.startswith("mta-sts.") for query in place.dns.queries)


async def test_only_a_domain_that_is_published_here_and_leads_here(added: Place) -> None:
    asked = answerer(added)
    added.dns.queries.clear()
    strangers = ["other.test", DOMAIN, f"www.{DOMAIN}", "mta-sts.other.test", "mta-sts.", "", "mta-sts.*", "\x00", "ü"]
    strangers += ["mta-sts." + "x" * 5000, f"mta-sts.[{DOMAIN}]:25", f"mta-sts.mta-sts.{DOMAIN}"]
    assert [host for host in strangers if await asked.may_have_certificate(host)] == []
    assert lookups(added) == 0
    assert not await asked.may_have_certificate(f"mta-sts.{DOMAIN}")
    looked = lookups(added)
    assert looked > 0
    added.customer(DOMAIN)
    assert not await asked.may_have_certificate(f"mta-sts.{DOMAIN}")  # It was looked up less than a minute ago.
    assert lookups(added) == looked
    Time.now += serve.LOOK_AGAIN_AFTER
    assert await asked.may_have_certificate(f"mta-sts.{DOMAIN}")
    assert await asked.may_have_certificate(f"MTA-STS.{DOMAIN.upper()}")


async def test_many_at_once_cost_one_lookup(added: Place) -> None:
    added.dns.queries.clear()
    asked = answerer(added)
    await asyncio.gather(*(asked.may_have_certificate(f"mta-sts.{DOMAIN}") for _ in range(50)))
    assert lookups(added) <= 4  # CNAME, A and AAAA, and one that is sent again on a busy machine.


async def test_what_a_check_has_seen_costs_no_lookup_until_the_domain_is_removed(added: Place) -> None:
    added.customer(DOMAIN)
    added.run("check")
    asked = answerer(added)
    added.dns.queries.clear()
    assert await asked.may_have_certificate(f"mta-sts.{DOMAIN}")
    assert lookups(added) == 0


async def test_a_cname_elsewhere_gets_none(added: Place) -> None:
    added.dns.add(f"mta-sts.{DOMAIN}", "CNAME", "elsewhere.test.")
    added.dns.add("elsewhere.test", "A", "127.0.2.9")
    assert not await answerer(added).may_have_certificate(f"mta-sts.{DOMAIN}")


async def test_addresses_of_ours_without_a_cname_are_enough(added: Place) -> None:
    added.dns.add(f"mta-sts.{DOMAIN}", "A", WEB)
    assert await answerer(added).may_have_certificate(f"mta-sts.{DOMAIN}")
    added.dns.add(f"mta-sts.{DOMAIN}", "A", "127.0.2.9")  # The CA may ask the other one.
    assert not await answerer(added).may_have_certificate(f"mta-sts.{DOMAIN}")


# HTTP


@asynccontextmanager
async def listening(place: Place) -> AsyncIterator[Server]:
    server = Server(answerer(place))
    async with await asyncio.start_server(server.converse, "127.0.0.1", ASK, limit=serve.MAX_REQUEST):
        yield server


async def said(request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", ASK)
    writer.write(request)
    answer = b""
    with contextlib.suppress(ConnectionResetError):  # What it did not read is still there.
        answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


GOOD = f"GET /?domain=mta-sts.{DOMAIN} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GOOD, b"200"),
        (GOOD.replace(DOMAIN.encode(), b"other.test"), b"403"),
        (GOOD.replace(b"/?domain", b"/a/path?x=y&domain"), b"200"),
        (GOOD.replace(b"GET", b"POST"), b"400"),
        (GOOD.replace(b"?domain", b"?name"), b"400"),
        (GOOD.replace(b" HTTP", b"&domain=other.test HTTP"), b"400"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET /?domain=%ff%00%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n", b"403"),
        (b"GET /?" + b"a=b&" * 500 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (GOOD[:-2] + b"X: y\r\n" * 5000, b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
    ],
)
async def test_requests(added: Place, request_: bytes, status: bytes) -> None:
    added.customer(DOMAIN)
    added.run("check")
    async with listening(added):
        answer = await said(request_)
        assert answer[9:12] == status or (status == b"431" and not answer)
        assert (await said(GOOD))[9:12] == b"200"


async def test_clients_that_say_nothing_hold_up_nobody(added: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "DEADLINE", 0.5)
    added.customer(DOMAIN)
    added.run("check")
    async with listening(added) as server:
        silent = [await asyncio.open_connection("127.0.0.1", ASK) for _ in range(serve.MAX_CONNECTIONS)]
        while server._connections < serve.MAX_CONNECTIONS:
            await asyncio.sleep(0.01)
        assert await said(GOOD) == b""  # It is one too many.
        for reader, writer in silent:
            assert await reader.read() == b""  # The deadline has passed.
            writer.close()
        assert (await said(GOOD))[9:12] == b"200"


@contextmanager
def process(place: Place, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(PUBLISH), "serve", "--config", str(place.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as running:
        assert running.stdout
        assert running.stdout.readline().startswith("ready: answers at ")
        yield running
        running.terminate()


def test_as_a_process(added: Place) -> None:
    added.customer(DOMAIN)
    with process(added) as running:
        connection = http.client.HTTPConnection("127.0.0.1", ASK)
        connection.request("GET", f"/?domain=mta-sts.{DOMAIN}")
        assert connection.getresponse().status == 200
        second = added.run("serve")
        assert (second.returncode, second.stderr.count("\n")) == (69, 1)
        assert 'publish.ask = "inet:127.0.0.1:8462": address already in use' in second.stderr
    assert running.wait() == 0


def test_systemd_is_told_when_it_answers(added: Place) -> None:
    added.customer(DOMAIN)
    with Manager(added.folder) as manager, process(added, NOTIFY_SOCKET=str(manager.path)) as first:
        assert manager.next() == {"READY": "1"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", ASK)) as connection:
            connection.request("GET", f"/?domain=mta-sts.{DOMAIN}")
            assert connection.getresponse().status == 200
        second = subprocess.run(first.args, env=os.environ | {"NOTIFY_SOCKET": str(manager.path)}, capture_output=True)
        assert second.returncode == 69
        assert manager.heard() == []


def test_over_a_unix_socket_also_after_a_crash(added: Place) -> None:
    path = added.folder / "ask"
    added.configure(ask=f"unix:{path}")
    added.customer(DOMAIN)
    with process(added) as running:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert path.exists()
    with process(added):
        assert oct(path.stat().st_mode & 0o777) == "0o660"
        assert f'publish.ask = "unix:{path}": another process is listening there' in added.run("serve").stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(GOOD)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert not path.exists()


def test_a_file_of_somebody_else_in_the_place_of_the_socket_stays(added: Place) -> None:
    path = added.folder / "ask"
    path.write_text("theirs")
    added.configure(ask=f"unix:{path}")
    refused = added.run("serve")
    assert (refused.returncode, path.read_text()) == (69, "theirs")
    assert f'publish.ask = "unix:{path}": a file with this name exists, and is not a socket' in refused.stderr
