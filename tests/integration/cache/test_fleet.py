"""What relays share on a real server with TLS and ACL, and what becomes of a relay when that server fails."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.cache.fleet import WITHIN, Fleet
from postfix_mtasts.cache.fleet_jobs import FleetError, Job, Seen, Theirs
from postfix_mtasts.cache.fleet_rights import acl_line
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.daemon.together import Others
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import ForgottenElsewhere, KnownElsewhere
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch, NoPolicy, Note
from postfix_mtasts.sts.observation import Failure, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.world.ca import Ca
from tests.world.fleet import HERE, PASSWORD, Shared, valkey

DOMAIN, OTHER = PolicyDomain("example.com"), PolicyDomain("example.net")
POLICY = Policy(Mode.ENFORCE, 86400, (MxPattern("mx.example.com"),))
NOBODY_S = Theirs(None, is_ours=True, is_theirs=False)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module", params=[lambda: HERE, valkey], ids=["of this machine", "Valkey of Debian 13"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ca: Ca) -> Iterator[Shared]:
    with Shared(tmp_path_factory.mktemp("fleet"), ca, program=request.param()) as server:
        yield server


@pytest.fixture
def server(started: Shared) -> Shared:
    if not started.runs:
        started.start()
    with started.admin() as admin:
        admin.flushall()
        admin.acl_log_reset()
    return started


@asynccontextmanager
async def relay(place: FleetPlace, ahead: float = 0.0) -> AsyncIterator[Fleet]:
    fleet = Fleet(FleetServer(place), str(place), lambda: time.time() + ahead)
    await fleet.beat()
    try:
        yield fleet
    finally:
        await fleet.aclose()


def known(fetched_at: float, policy: Policy = POLICY) -> Entry:
    return Entry(CachedPolicy(policy, str(policy), "A", fetched_at), checked_at=fetched_at)


async def looked(fleet: Fleet, domain: PolicyDomain = DOMAIN, token: str = "") -> Theirs:
    """What a look sees; again if this machine was too busy for it, for which a relay would not wait."""
    while not (theirs := await fleet.look(domain, token)):
        await fleet.beat()
    return theirs


async def shared(fleet: Fleet, domain: PolicyDomain, entry: Entry, token: str = "") -> None:
    """Share; again if this machine was too busy for it."""
    while True:
        failures = fleet.status()["failures"]
        if fleet.status()["works"]:
            fleet.share(domain, entry, token)
            if await fleet.look(PolicyDomain("mark.example")) and fleet.status()["failures"] == failures:
                return
        await fleet.beat()


async def seen(fleet: Fleet, domain: PolicyDomain = DOMAIN) -> Entry | None:
    return (await looked(fleet, domain)).entry


async def test_what_one_relay_shares_another_sees(server: Shared) -> None:
    now = time.time()
    failed = FailedFetch("B", 2, now, Failure(Stage.RESPONSE, "status 404"))
    entry = replace(known(now - 10), failed=(failed,), last_used=now, unused_at=now)
    note = Entry(note=Note(NoPolicy("no _mta-sts TXT record"), 600.0), checked_at=now)
    async with relay(server.place) as one, relay(server.place) as other:
        await shared(one, DOMAIN, entry)
        await shared(one, OTHER, note)
        await shared(one, PolicyDomain("nothing.example"), Entry(checked_at=now))
        assert await seen(one)
        assert await seen(other) == replace(entry, last_used=0.0, unused_at=None)
        assert await seen(other, OTHER) == note
        assert (await other.members())["domains"] == 2
    with server.admin() as admin:
        assert 86380_000 < admin.pttl("mtasts:d:example.com") <= 86390_000
        assert 590_000 < admin.pttl("mtasts:d:example.net") <= 600_000
        assert admin.acl_log() == []


async def test_large_values_are_parsed_in_rounds_of_their_own(server: Shared) -> None:
    domains = [PolicyDomain(f"large{number}.example") for number in range(8)]
    policy = replace(POLICY, mx=tuple(MxPattern(f"a{number}.{'b' * 50}.example") for number in range(1000)))
    rounds = 0
    parsed_in: list[int] = []

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def look(domain: PolicyDomain) -> None:
        assert await seen(one, domain)
        parsed_in.append(rounds)

    async with relay(server.place) as one:
        for domain in domains:
            await shared(one, domain, known(time.time(), policy))
        await seen(one, domains[-1])
        counting = asyncio.create_task(count())
        await asyncio.gather(*map(look, domains))
        counting.cancel()
    assert len(set(parsed_in)) == 8


async def test_one_relay_has_the_turn_until_it_shares_what_it_found(server: Shared) -> None:
    async with relay(server.place) as one, relay(server.place) as other:
        turn, others = one.token(), other.token()
        assert await looked(one, DOMAIN, turn) == NOBODY_S
        assert await looked(other, DOMAIN, others) == Theirs(None, is_ours=False, is_theirs=True)
        now = time.time()
        await shared(one, DOMAIN, known(now), turn)
        await seen(one)
        assert await looked(other, DOMAIN, others) == Theirs(known(now), is_ours=True, is_theirs=False)
        other.release(DOMAIN, others)
        await seen(other)
        assert await looked(one, DOMAIN, turn) == Theirs(known(now), is_ours=True, is_theirs=False)


async def test_a_newer_fetch_wins_whichever_is_shared_last(server: Shared) -> None:
    now = time.time()
    older, newer = known(now - 100), known(now - 50, replace(POLICY, mode=Mode.TESTING))
    nothing = Entry(note=Note(NoPolicy("no record"), 600.0), checked_at=now)
    async with relay(server.place) as one:
        for entry, expected in ((newer, newer), (older, newer), (nothing, newer), (known(now - 10), known(now - 10))):
            await shared(one, DOMAIN, entry)
            assert await seen(one) == expected
        with server.admin() as admin:  # Of a clock that is an hour ahead.
            admin.set("mtasts:d:example.com", f"{now + 3600} {now + 3600}\n{{}}")
        await shared(one, DOMAIN, older)
        assert await seen(one) == older


@pytest.mark.parametrize(
    "value", [b"", b"\0\xff", b"1 1\n", b"1 1\n{}", b"1 1\n[[[[", b"x" * 2**20, b"1 1\n" + b"[" * 100_000, None]
)
async def test_garbage_is_unknown_and_is_replaced(server: Shared, value: bytes | None) -> None:
    async with relay(server.place) as one:
        with server.admin() as admin:
            if value is None:
                admin.lpush("mtasts:d:example.com", "a list")
            else:
                admin.set("mtasts:d:example.com", value)
        assert await seen(one) is None
        await shared(one, DOMAIN, known(time.time()))
        assert await seen(one)
        assert one.status()["works"]


async def test_a_value_of_another_domain_or_of_a_later_version_is_unknown(
    server: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    async with relay(server.place) as one:
        await shared(one, DOMAIN, known(time.time()))
        assert await seen(one)
        with server.admin() as admin:
            value = admin.get("mtasts:d:example.com")
            admin.set("mtasts:d:example.net", value)
            head, _, document = value.partition(b"\n")
            admin.set(
                "mtasts:d:example.org", head + b"\n" + json.dumps({**json.loads(document), "version": 2}).encode()
            )
        assert await seen(one, OTHER) is None
        assert await seen(one, PolicyDomain("example.org")) is None
        assert one.status()["not_understood"] == 2
    told = [message for message in caplog.messages if "cannot be understood" in message]
    place = f"rediss://127.0.0.1:{server.port}"
    assert told == [
        f"fleet: {place}: what is shared of example.net cannot be understood, and does not count: about 'example.com'"
    ]


async def without(fleet: Fleet) -> float:
    """Ask a fleet whose server fails, twice: it is not there. The seconds that both took."""
    begun = time.monotonic()
    assert await fleet.look(DOMAIN, fleet.token()) is None
    while fleet.status()["works"]:  # Its thread may be later than this.
        await asyncio.sleep(0.01)
    assert await fleet.look(DOMAIN, fleet.token()) is None
    fleet.share(DOMAIN, known(time.time()))
    return time.monotonic() - begun


async def test_a_server_that_is_killed_or_stopped_costs_one_wait_and_comes_back(server: Shared) -> None:
    async with relay(server.place) as one:
        one.share(DOMAIN, known(time.time()))
        assert await seen(one)
        with server.stopped():
            assert await without(one) < WITHIN + 1
            assert one.status()["trouble"]
        await one.beat()
        assert await seen(one)
        server.kill()
        assert await without(one) < WITHIN + 1
        await one.beat()
        assert not one.status()["works"]
        with pytest.raises(FleetError, match="does not work"):
            await one.forget(DOMAIN)
        server.start()
        await one.beat()
        assert await seen(one) is None  # It was emptied.


@contextmanager
def _answers(*answers: bytes) -> Iterator[FleetPlace]:
    """A server that answers so, one for each time that it is sent something, and then says nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    if not connection.recv(65536):
                        return
                    connection.sendall(answer)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield FleetPlace(("127.0.0.1", listener.getsockname()[1]))
    thread.join()


@pytest.mark.parametrize(
    "reply",
    [b"$1000\r\n0.0 0.0\n{", b"$-2\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff\xfe", b"*3\r\n$1\r\nx\r\n", b"+OK\r\n"],
)
async def test_a_reply_that_is_cut_or_none_is_not_taken(reply: bytes) -> None:
    now = f"{time.time():.0f}".encode()
    clock = b"*2\r\n$10\r\n" + now + b"\r\n$1\r\n0\r\n"
    with _answers(clock, b"*0\r\n:1\r\n:0\r\n:0\r\n$-1\r\n$14\r\n1700000000.000\r\n*0\r\n", reply) as place:
        async with relay(place) as one:
            assert one.status()["works"], one.status()
            assert await without(one) < WITHIN + 1


async def test_a_server_that_is_full_is_done_without(server: Shared) -> None:
    async with relay(server.place) as one:
        with server.admin() as admin:
            admin.config_set("maxmemory", "1")
        try:
            assert await without(one) < WITHIN + 1
            assert "maxmemory" in one.status()["trouble"]
        finally:
            with server.admin() as admin:
                admin.config_set("maxmemory", "0")


@pytest.mark.parametrize(("ahead", "which"), [(3600.0, "60 minutes ahead of"), (-3600.0, "60 minutes behind")])
async def test_a_relay_with_a_wrong_clock_goes_on_without(server: Shared, ahead: float, which: str) -> None:
    async with relay(server.place, ahead) as one, relay(server.place) as other:
        assert one.status()["trouble"] == f"the clock of this machine is {which} the server's"
        one.share(DOMAIN, known(time.time() + ahead))
        assert await one.look(DOMAIN) is None
        assert await seen(other) is None


async def test_wrong_credentials_and_an_unknown_ca_are_trouble(server: Shared, tmp_path: Path) -> None:
    async with relay(replace(server.place, password="wrong")) as one:
        assert "WRONGPASS" in one.status()["trouble"] or "invalid username-password" in one.status()["trouble"]
    async with relay(replace(server.place, ca_file=str(Ca(tmp_path).file))) as one:
        assert "certificate verify failed" in one.status()["trouble"].lower()
    async with relay(replace(server.place, server=("localhost.localdomain", server.port))) as one:
        assert not one.status()["works"]


async def test_credentials_that_are_changed_while_a_relay_runs(server: Shared, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    place = replace(server.place, user="changes", password="first", credentials=str(file))
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "changes", "on", ">first", *acl_line(place).split()[4:])
        async with relay(place) as one:  # Where the file cannot be read, what it had at the start counts.
            await seen(one)
            file.write_text("changes:second\n")
            file.chmod(0o600)
            admin.execute_command("ACL", "SETUSER", "changes", "resetpass", ">second")
            admin.client_kill_filter(user="changes")
            await seen(one)
            assert one.status()["works"]


async def test_domains_that_cannot_be_counted_are_shared_on(server: Shared) -> None:
    long = "x" * 10_000
    async with relay(server.place) as one:
        with server.admin() as admin:
            admin.mset({f"mtasts:d:{number}.{long}": "" for number in range(1000)})
        while True:
            await seen(one)
            with pytest.raises(FleetError) as caught:
                await one.members()
            if "too long" in str(caught.value):
                break  # Otherwise this machine was too busy.
        assert one.status()["works"]


async def test_the_user_may_use_no_other_keys(server: Shared) -> None:
    for user, password, prefix in (("mtasts", PASSWORD, "other:"), ("mtasts", PASSWORD, "mtasts-other:")):
        with pytest.raises(FleetError):
            FleetServer(replace(server.place, user=user, password=password, prefix=prefix)).beat("x")


async def test_what_was_forgotten_is_told_to_those_who_were_not_there(server: Shared) -> None:
    async with relay(server.place) as one:
        await shared(one, DOMAIN, known(time.time()))
        assert await one.forget(DOMAIN) == 0  # Nobody listened.
        assert await seen(one) is None
    late = FleetServer(server.place)
    here = late.beat("late")
    [(name, at)] = here.forgotten
    assert name == "example.com"
    assert list(late.beat("late", at).forgotten) == []
    late.close()


async def test_what_was_fetched_before_it_was_forgotten_is_not_shared_again(server: Shared) -> None:
    now = time.time()
    note = Entry(note=Note(NoPolicy("no record"), 600.0), checked_at=now)
    async with relay(server.place) as one:
        await one.forget(DOMAIN)
        for entry, expected in ((known(now - 10), None), (note, note), (known(now + 10), known(now + 10))):
            await shared(one, DOMAIN, entry)
            assert await seen(one) == expected


async def test_news_is_heard(server: Shared) -> None:
    heard: asyncio.Queue[tuple[str, float | None]] = asyncio.Queue()
    async with relay(server.place) as one, relay(server.place) as other:

        async def changed(domain: PolicyDomain) -> None:
            heard.put_nowait((domain.name, None))

        async def forgotten(domain: PolicyDomain, at: float) -> None:
            heard.put_nowait((domain.name, at))

        async def anew(since: float) -> bool:
            return True

        other.on_changed, other.on_forgotten, other.on_anew = changed, forgotten, anew
        work = asyncio.create_task(other.run())
        while not await one.tell(DOMAIN):
            await asyncio.sleep(0.01)
        assert await heard.get() == ("example.com", None)
        one.share(OTHER, known(time.time()), is_news=True)
        assert await heard.get() == ("example.net", None)
        with server.admin() as admin:
            for message in ("x", "{}", "[" * 900, '{"change": "EXAMPLE.com"}', '{"change": "a"}', "y" * 5000):
                admin.publish("mtasts:news", message)
        assert await one.forget(DOMAIN) == 1
        name, at = await heard.get()
        assert (name, at is not None and abs(at - time.time()) < 60) == ("example.com", True)
        work.cancel()


class Late(FleetServer):
    """A server, or a machine, that takes longer than a domain may wait for it."""

    def do(self, jobs: Sequence[Job]) -> list[Seen]:
        time.sleep(2 * WITHIN)
        return super().do(jobs)


async def test_news_is_looked_at_though_the_server_is_late(server: Shared) -> None:
    learned = []

    async def learn(domain: PolicyDomain, told: KnownElsewhere | ForgottenElsewhere) -> None:
        learned.append((domain, told))

    fleet = Fleet(Late(server.place), str(server.place))
    Others(fleet).follow(learn, list)
    try:
        async with relay(server.place) as other:
            await shared(other, DOMAIN, entry := known(time.time()))
        while not learned:
            await fleet.beat()  # Again if this machine was too busy for the server.
            failures = fleet.status()["failures"]
            await fleet.on_changed(DOMAIN)
            assert learned or fleet.status()["failures"] > failures
        assert learned == [(DOMAIN, KnownElsewhere(entry))]
    finally:
        await fleet.aclose()
