"""Two relays that discover the same domain at the same time, while its policy host takes as long as a test wants."""

import asyncio
import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postfix_mtasts.cache import fleet_server
from postfix_mtasts.cache.fleet import WITHIN
from postfix_mtasts.daemon import together
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Apply
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.fleet import Shared
from tests.world.https import Hold, HttpsServer, Step, answer
from tests.world.relay import Relay, Relays

# Python leaves a socket open if it is reset between connect() and the handshake, which a killed server may do.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
DOMAIN = PolicyDomain("example.com")
POLICY = Policy(Mode.ENFORCE, 604800, (MxPattern("mx.example.com"),))
DAY = 86400.0


class Slow(HttpsServer):
    """The policy host. The next one who fetches is held if there is a `hold`, and nobody after him."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context
        self.hold: Hold | None = None

    def site_of(self, host: str | None) -> tuple[ssl.SSLContext | None, Sequence[Step]] | None:
        hold, self.hold = self.hold, None
        return self._context, [hold, answer(str(POLICY))] if hold else [answer(str(POLICY))]


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as dns:
        dns.add_txt(DOMAIN.record_name(), b"v=STSv1; id=1;")
        dns.add(DOMAIN.policy_host(), "A", "127.0.0.1")
        yield dns


@pytest.fixture
def https(ca: Ca) -> Iterator[Slow]:
    with Slow(ca.issue(DOMAIN.policy_host()).server_context()) as https:
        yield https


@pytest.fixture
def server(ca: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    """With turns that end when a relay ends them: whoever waits for the end of one waits for ever."""
    for module in (fleet_server, together):
        monkeypatch.setattr(module, "TURN", 3600.0)
    with Shared(tmp_path / "server", ca) as server:
        yield server


async def held(hold: Hold) -> None:
    """Return when whoever has the turn fetches the policy."""
    await asyncio.to_thread(hold.reached.wait)


@pytest.mark.parametrize("fails", [False, True])
async def test_postfix_waits_for_no_other_relay(
    fails: bool, server: Shared, dns: DnsServer, https: Slow, ca: Ca, tmp_path: Path
) -> None:
    one, other = relays = Relays(
        Relay(server.place, dns, https, ca, tmp_path / f"{name}.sqlite", time.time, patient=not fails) for name in "ab"
    )
    try:
        await relays.start()
        https.hold = hold = Hold()
        first = asyncio.create_task(one.ask(DOMAIN))
        await held(hold)
        second = asyncio.create_task(other.ask(DOMAIN))
        if fails:
            await asyncio.sleep(0)
            server.kill()
        assert await second == Apply(POLICY, fetched=True)
        assert not first.done()
        assert len(https.requests) == 2
        hold.release()
        assert await first == Apply(POLICY, fetched=True)
    finally:
        await relays.aclose()


async def test_a_policy_that_is_at_hand_is_renewed_by_one_relay(
    server: Shared, dns: DnsServer, https: Slow, ca: Ca, tmp_path: Path
) -> None:
    later = 0.0
    one, other = relays = Relays(
        Relay(server.place, dns, https, ca, tmp_path / f"{name}.sqlite", lambda: time.time() + later) for name in "ab"
    )
    try:
        await relays.start()
        await one.ask(DOMAIN)
        await relays.rest()
        await other.ask(DOMAIN)
        await relays.rest()
        assert len(https.requests) == 1
        later = 2 * DAY
        https.hold = hold = Hold()
        first = asyncio.create_task(one.lookup.renew(DOMAIN))
        await held(hold)
        second = asyncio.create_task(other.lookup.renew(DOMAIN))
        while not other.lookup.under_way:
            await asyncio.sleep(0)
        await asyncio.wait([second], timeout=2 * WITHIN)
        hold.release()
        await asyncio.gather(first, second)
        assert len(https.requests) == 2
        fetched = [entry.cached.fetched_at for relay in relays if (entry := relay.memory.get(DOMAIN)) and entry.cached]
        assert len(fetched) == 2
        assert min(fetched) > time.time() + DAY
    finally:
        await relays.aclose()
