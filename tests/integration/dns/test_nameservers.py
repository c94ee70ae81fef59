"""Nameservers that misbehave in ways that a whole DNS server does not: forged answers, closed ports, broken TCP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator

import dns.message
import dns.rrset
import pytest
from dns.rdatatype import TXT

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import Query
from postfix_mtasts.dns.nameservers import DnsError, LocalShortageError, Nameservers
from tests.world.dns import Behaviour, DnsServer, bind

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


def reply(query: bytes, flags: int) -> bytes:
    """A reply without records that has these flags too."""
    return query[:2] + (int.from_bytes(query[2:4]) | 0x8000 | flags).to_bytes(2) + query[4:]


TRUNCATED, SERVFAIL = 0x0200, 0x0002


@contextlib.contextmanager
def closed_port() -> Iterator[InetEndpoint]:
    """A port that refuses, and that nobody has by chance: a socket is bound to it that hears none but itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        held.connect(held.getsockname())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # Who sets it too may have the port.
        yield InetEndpoint(*held.getsockname())


def at_closed_port(closed: InetEndpoint) -> socket.socket:
    """A socket that hears what comes to a closed port."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    datagrams.bind((closed.host, closed.port))
    return datagrams


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
async def datagrams(
    replies: Callable[[bytes, Peer], list[bytes]], listener: socket.socket | None = None
) -> AsyncIterator[InetEndpoint]:
    loop = asyncio.get_running_loop()
    address = None if listener else ("127.0.0.1", 0)
    transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(replies), address, sock=listener)
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
    with DnsServer() as server, closed_port() as closed:
        server.add_txt(NAME, b"x")
        # Longer than any test may take.
        assert await asked(closed, at(server), timeout=1000) == ['"x"']


async def test_a_nameserver_that_starts_meanwhile_is_asked_again() -> None:
    refused = asyncio.Event()

    def fails(query: bytes, _: Peer) -> list[bytes]:
        refused.set()  # By the one that is asked before this one.
        return [reply(query, SERVFAIL)]

    with closed_port() as closed:
        async with datagrams(fails) as failing:
            asking = asyncio.create_task(asked(closed, failing, timeout=60))
            await refused.wait()
            assert not asking.done()
            async with datagrams(lambda query, _: [answer(query, '"x"')], at_closed_port(closed)):
                assert await asking == ['"x"']


async def test_only_closed_ports() -> None:
    with closed_port() as first, closed_port() as second:
        with pytest.raises(DnsError) as error:
            await asked(first, second, timeout=2)
        assert str(error.value) == (
            f"127.0.0.1 port {first.port}: connection refused; 127.0.0.1 port {second.port}: connection refused"
        )


async def test_a_nameserver_that_refused_once_is_not_said_to_be_silent() -> None:
    refused = asyncio.Event()

    def fails(query: bytes, _: Peer) -> list[bytes]:
        refused.set()
        return [reply(query, SERVFAIL)]

    with closed_port() as closed:
        async with datagrams(fails) as failing:
            asking = asyncio.create_task(asked(closed, failing, timeout=3))
            await refused.wait()
            async with datagrams(lambda query, _: [], at_closed_port(closed)):
                with pytest.raises(DnsError) as error:
                    await asking
    assert str(error.value) == (
        f"127.0.0.1 port {closed.port}: connection refused; 127.0.0.1 port {failing.port}: SERVFAIL"
    )


async def test_a_nameserver_that_failed_is_not_asked_again() -> None:
    queries = []

    def broken_at_first(query: bytes, _: Peer) -> list[bytes]:
        queries.append(query)
        return [reply(query, TRUNCATED) if len(queries) == 1 else answer(query, '"x"')]

    udp, tcp = bind("127.0.0.1")
    with DnsServer() as failing, tcp:  # Which does not listen.
        failing.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        async with datagrams(broken_at_first, udp) as broken:
            assert await asked(at(failing), broken, timeout=60) == ['"x"']
        assert (len(failing.queries), len(queries)) == (1, 2)


async def test_two_lost_packets_are_no_failure() -> None:
    peers = []

    def third_arrives(query: bytes, peer: Peer) -> list[bytes]:
        peers.append(peer)
        return [answer(query, '"x"')] if len(peers) == 3 else []

    async with datagrams(third_arrives) as server:
        assert await asked(server, timeout=30) == ['"x"']
    assert peers == 3 * peers[:1]  # One port for all, or the answer to an earlier query would not be heard.


async def test_a_late_answer_is_heard_after_another_server_was_asked() -> None:
    both_asked = asyncio.Event()

    async def late(transport: asyncio.DatagramTransport, query: bytes, peer: Peer) -> None:
        await both_asked.wait()
        transport.sendto(answer(query, '"late"'), peer)

    def silent(query: bytes, peer: Peer) -> list[bytes]:
        both_asked.set()
        return []

    class Late(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # As above.
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Peer) -> None:
            self.answering = asyncio.create_task(late(self.transport, data, addr))

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Late, ("127.0.0.1", 0))
    async with datagrams(silent) as other:
        assert await asked(InetEndpoint(*transport.get_extra_info("sockname")), other, timeout=30) == ['"late"']
    transport.close()


async def test_a_silent_nameserver_is_asked_last_for_a_while() -> None:
    asked_silent = []

    def silent(query: bytes, _: Peer) -> list[bytes]:
        asked_silent.append(query)
        return []

    async with datagrams(silent) as dead, datagrams(lambda query, _: [answer(query, '"x"')]) as server:
        nameservers = Nameservers([dead, server], 30)
        for _ in range(20):
            await nameservers.ask(Query(NAME, TXT))
    assert len(asked_silent) == 1


async def test_a_process_that_was_stopped_knows_nothing_of_its_nameservers() -> None:
    async with datagrams(lambda query, _: []) as silent:
        asyncio.get_running_loop().call_later(0.1, time.sleep, 2.5)
        with pytest.raises(LocalShortageError) as error:
            await asked(silent, timeout=0.5)
    assert str(error.value) == "this machine was stopped or overloaded"


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
        return [reply(query, TRUNCATED)]

    udp, tcp = bind("127.0.0.1")
    async with await asyncio.start_server(serve, sock=tcp), datagrams(truncated, udp) as server:
        with pytest.raises(DnsError) as error:
            await asked(server, timeout=2)
    assert str(error.value) == f"127.0.0.1 port {server.port}: {word}"


async def test_of_many_responses_over_tcp_one_is_read_in_a_round() -> None:
    count, rounds, ends = 20, 0, list[int]()
    all_have_asked = asyncio.Barrier(count)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = (await reader.read(512))[2:]
        await all_have_asked.wait()
        response = answer(query, '"x"')
        writer.write(len(response).to_bytes(2) + response)
        writer.close()

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async def ask(nameservers: Nameservers) -> None:
        await nameservers.ask(Query(NAME, TXT))
        ends.append(rounds)

    udp, tcp = bind("127.0.0.1")
    counting = asyncio.create_task(count_rounds())
    async with (
        await asyncio.start_server(serve, sock=tcp),
        datagrams(lambda query, _: [reply(query, TRUNCATED)], udp) as server,
        asyncio.TaskGroup() as tasks,
    ):
        nameservers = Nameservers([server], 60)
        for _ in range(count):
            tasks.create_task(ask(nameservers))
    counting.cancel()
    assert len(set(ends)) == count


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_a_nameserver_without_edns(rcode: str) -> None:
    with DnsServer() as server:
        server.set_behaviour(".", Behaviour(without_edns=rcode))
        server.add_txt(NAME, b"x")
        assert await asked(at(server), timeout=60) == ['"x"']
        assert server.payloads == [1232, 0]


async def test_more_than_512_bytes_where_tcp_is_blocked() -> None:
    """Nobody listens for TCP."""
    texts = [f'"{number}{200 * "x"}"' for number in range(5)]

    def replies(query: bytes, _: Peer) -> list[bytes]:
        asked = dns.message.from_wire(query)
        made = dns.message.make_response(asked)
        made.answer.append(dns.rrset.from_text(f"{NAME}.", 300, "IN", "TXT", *texts))
        octets: bytes = made.to_wire(want_shuffle=False)
        return [octets if len(octets) <= max(asked.payload, 512) else reply(query, TRUNCATED)]

    async with datagrams(replies) as server:
        assert await asked(server, timeout=5) == texts


async def test_a_referral_is_passed_over() -> None:
    async with datagrams(lambda query, _: [reply(query, 0)]) as referring:
        with DnsServer() as server:
            server.add_txt(NAME, b"x")
            assert await asked(referring, at(server), timeout=60) == ['"x"']
            with pytest.raises(DnsError) as error:
                await asked(referring, timeout=60)
    assert str(error.value) == f"127.0.0.1 port {referring.port}: not a resolver: it does not offer recursion"
