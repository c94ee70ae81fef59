"""What a host that sends without end gets of the event loop, counted: octets, and rounds in between."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from postfix_mtasts.dns.resolver import Pinned
from postfix_mtasts.remote.network import Network, tls_context
from postfix_mtasts.remote.probe import EVERYWHERE
from postfix_mtasts.remote.stream import MAX_RECEIVED, RETRY, Records
from postfix_mtasts.sts.observation import Failure, FetchFailed, Stage
from tests.integration.remote.test_fetcher import DOMAIN, HOST, TEXT, World, ca, failed, fetched, world
from tests.world.ca import Ca
from tests.world.https import HANG, Flood, Hold, Sealed, answer
from tests.world.tls13 import KEY_UPDATE, PADDING

__all__ = ["ca", "world"]  # Fixtures.
SMALLEST = 4096  # Octets that are taken at once.


@contextlib.asynccontextmanager
async def counted_rounds() -> AsyncIterator[list[int]]:
    """How many rounds the event loop has made since the beginning, in a list of one."""
    rounds = [0]

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            rounds[0] += 1

    counting = asyncio.create_task(count())
    yield rounds
    counting.cancel()


@pytest.mark.parametrize(
    ("records", "octets", "reason"),
    [
        pytest.param([KEY_UPDATE] * 20_000, 1000 * 27, "1000 records of TLS", id="each costs OpenSSL new keys"),
        pytest.param([PADDING] * 100, MAX_RECEIVED, "512 KiB", id="full, without content"),
    ],
)
async def test_records_without_end(
    world: World, tmp_path: Path, records: list[bytes], octets: int, reason: str
) -> None:
    """OpenSSL gets them in small slices, and not without end."""
    context = world.ca.issue(HOST).server_context()
    context.num_tickets = 0
    context.keylog_filename = str(tmp_path / "keys")
    world.https.site(HOST, context, Sealed(records))
    async with counted_rounds() as rounds:
        observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == failed(Stage.RESPONSE, f"the host sent more than {reason} without an end")
    assert rounds[0] >= octets // SMALLEST


async def test_of_many_hosts_that_answer_at_once_one_is_worked_on_in_a_round(world: World) -> None:
    hold, response = Hold(), answer(TEXT)
    world.serve(hold, response)
    fetcher, ends = world.fetcher(), list[int]()
    async with counted_rounds() as rounds:
        fetches = [asyncio.create_task(fetcher.fetch(DOMAIN, "1")) for _ in range(20)]
        for fetch in fetches:
            fetch.add_done_callback(lambda _: ends.append(rounds[0]))
        while len(world.https.requests) < len(fetches):
            await asyncio.sleep(0.01)
        hold.release()
        while world.https.sent[HOST] < len(fetches) * len(response):
            time.sleep(0.01)  # The loop hears of all at once.
        assert await asyncio.gather(*fetches) == [fetched()] * len(fetches)
    assert len(set(ends)) == len(fetches)


def test_what_looks_like_many_retries_costs_as_much_as_one() -> None:
    """A host may fill its certificates with what makes a ServerHello a HelloRetryRequest."""
    content = RETRY * (16_000 // len(RETRY))
    sent = (b"\x16\x03\x03" + len(content).to_bytes(2) + content) * (MAX_RECEIVED // len(content))
    records = Records()
    begin = time.process_time()
    for at in range(0, len(sent), SMALLEST):
        records.take(sent[at : at + SMALLEST])
        assert not records.refused
    assert records.count == len(sent) // (5 + len(content))
    assert time.process_time() - begin < 2  # Some milliseconds; each with each would be many seconds.


async def test_a_handshake_without_end(world: World) -> None:
    world.https.site(HOST, None, bytes.fromhex("16 0303 4000") + bytes(0x4000), Flood(10_000_000))
    observation = await world.fetcher().fetch(DOMAIN, "1")
    assert observation == failed(Stage.TLS, "the answer is not valid TLS")


async def test_a_process_that_was_stopped_is_connected_nevertheless() -> None:
    """When it sees that the time for one address has passed, the kernel has made the connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        waiting = [stack.enter_context(socket.socket()) for _ in range(2)]
        for connection in waiting:  # They fill the queue, so that the next one is not taken.
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())

        def stop() -> None:
            for _ in waiting:
                listener.accept()[0].close()
            time.sleep(5)  # The kernel has sent the next SYN after one second.

        asyncio.get_running_loop().call_later(0.2, stop)
        network = Network(Pinned("127.0.0.1"), EVERYWHERE)
        await network.connect(HOST, listener.getsockname()[1])
        network.abort()
    assert network.trace.address == "127.0.0.1"


async def test_a_host_gets_no_second_handshake(ca: Ca) -> None:
    """In TLS 1.2 a host may ask for one after the other, and each costs as much as the first."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(ca.issue(HOST).file), "-tls1_2", "-msg"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    network = Network(Pinned("127.0.0.1"), EVERYWHERE)
    try:
        while not (line := await process.stdout.readline()).startswith(b"ACCEPT 127.0.0.1:"):
            assert line
        stream = await network.connect(HOST, int(line.rpartition(b":")[2]))
        await network.start_tls(stream, HOST, tls_context(str(ca.file)))
        process.stdin.write(b"R\n")  # It asks for another handshake.
        with pytest.raises(ssl.SSLError):
            await stream.read(1)
    finally:
        network.abort()
        process.kill()
    output, _ = await process.communicate()
    assert b"HelloRequest" in output
    assert b"ClientHello" not in output.partition(b"HelloRequest")[2]


async def test_a_process_that_was_stopped_does_not_blame_the_host(world: World) -> None:
    """The deadline has passed long ago when it is seen, and the host had no chance to answer."""
    world.serve(HANG)
    fetching = asyncio.create_task(world.fetcher(timeout=1.0).fetch(DOMAIN, "1"))
    while not world.https.requests:
        await asyncio.sleep(0.01)
    time.sleep(7)  # As SIGSTOP does; longer than any busy machine takes for a round of the loop.
    observation = await fetching
    failure = Failure(Stage.RESPONSE, "this machine was stopped meanwhile", is_local=True)
    assert observation == FetchFailed(failure, "1")
