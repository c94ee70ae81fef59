"""Nameservers that misbehave in ways that a whole DNS server does not: forged answers, closed ports, broken TCP."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import dns.message
import dns.rrset
import pytest
from dns.rdatatype import TXT

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import Query
from postfix_mtasts.dns.nameservers import DnsError, Nameservers
from tests.world.dns import Behaviour, DnsServer

NAME = "_mta-sts.example.com"
Peer = tuple[str, int]


def at(server: DnsServer) -> InetEndpoint:
    return InetEndpoint(server.address, server.port)


def answer(query: bytes, text: str) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(query))
    made.answer.append(dns.rrset.from_text(f"{NAME}.", 300, "IN", "TXT", text))
    octets: bytes = made.to_wire()
    return octets


async def asked(*servers: InetEndpoint, timeout: float = 10) -> list[str]:
    found = await Nameservers(servers, timeout).ask(Query(NAME, TXT))
    return [rdata.to_text() for rdata in found.records]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Datagrams(asyncio.DatagramProtocol):
    """A nameserver that sends all that `replies` makes of a query."""

    def __init__(self, replies: Callable[[bytes, Peer], list[bytes]]) -> None:
        self._replies = replies

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # As documented.
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        for reply in self._replies(data, addr):
            self._transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def datagrams(replies: Callable[[bytes, Peer], list[bytes]], port: int = 0) -> AsyncIterator[InetEndpoint]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(replies), ("127.0.0.1", port))
    try:
        yield InetEndpoint(*transport.get_extra_info("sockname"))
    finally:
        transport.close()


async def test_what_is_no_answer_to_the_query_is_passed_over() -> None:
    def replies(query: bytes, peer: Peer) -> list[bytes]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(answer(query, '"from elsewhere"'), peer)
        other_id, other_name = bytes([query[0] ^ 1]) + query[1:], query.replace(b"\7example", b"\7exbmple")
        forged = [answer(other, '"forged"') for other in (other_id, other_name)]
        return [b"", b"x", query, *forged, answer(query, '"true"')]

    async with datagrams(replies) as server:
        assert await asked(server) == ['"true"']


async def test_two_ports_of_one_address() -> None:
    with DnsServer() as first, DnsServer() as second:
        first.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        second.add_txt(NAME, b"x")
        assert await asked(at(first), at(second)) == ['"x"']


async def test_a_closed_port_is_noticed_at_once() -> None:
    with DnsServer() as server:
        server.add_txt(NAME, b"x")
        async with asyncio.timeout(10):
            assert await asked(InetEndpoint("127.0.0.1", free_port()), at(server), timeout=60) == ['"x"']


async def test_a_nameserver_that_starts_meanwhile_is_asked_again() -> None:
    port = free_port()
    asking = asyncio.create_task(asked(InetEndpoint("127.0.0.1", port)))
    await asyncio.sleep(0.05)
    assert not asking.done()
    with DnsServer(port=port) as server:
        server.add_txt(NAME, b"x")
        assert await asking == ['"x"']


async def test_only_closed_ports() -> None:
    ports = [free_port(), free_port()]
    with pytest.raises(DnsError) as error:
        await asked(*(InetEndpoint("127.0.0.1", port) for port in ports), timeout=0.3)
    assert str(error.value) == "; ".join(f"127.0.0.1 port {port}: connection refused" for port in dict.fromkeys(ports))


async def test_a_nameserver_that_failed_is_not_asked_again() -> None:
    with DnsServer() as failing, DnsServer("127.0.0.2") as silent:
        failing.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        silent.set_behaviour(".", Behaviour(silent=True))
        with pytest.raises(DnsError):
            await asked(at(failing), at(silent), timeout=1)
        assert len(failing.queries) == 1
        assert len(silent.queries) > 1


# What a nameserver sends over TCP before it hangs up, and how that is said.
BROKEN: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "closed the TCP connection"),
    ("half of an answer", b"\1\0half", "closed the TCP connection"),
    ("something else", b"\0\4what", "not a response to our query"),
]


@pytest.mark.parametrize(("octets", "word"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
async def test_broken_tcp(octets: bytes, word: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(512)
        writer.write(octets)
        writer.close()
        await writer.wait_closed()

    def truncated(query: bytes, _: Peer) -> list[bytes]:
        return [query[:2] + bytes([query[2] | 0x82]) + query[3:]]

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as tcp:
        port = tcp.sockets[0].getsockname()[1]
        async with datagrams(truncated, port) as server:
            with pytest.raises(DnsError) as error:
                await asked(server, timeout=0.5)
    assert str(error.value) == f"127.0.0.1 port {port}: {word}"
