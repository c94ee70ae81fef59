"""`make demo-web`: the dashboard on made data, in an Internet of its own: each screen has something to show.

A daemon holds policies, one of which it could not renew; three domains are published, of which one is ready for mode
enforce and one is broken; reports of ninety days have come, and some mails are in quarantine. Nothing of this machine
is touched.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.state import DAY, Clock
from postfix_mtasts.publish.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
from tests.integration.publish.conftest import NAMESERVER, WEB, ZONE, FileServer, Place
from tests.integration.reports.mails import REPORTS, mail, report
from tests.integration.web.conftest import recent, tables
from tests.world.ca import Ca
from tests.world.daemon import Daemon, ask
from tests.world.dashboard import Dashboard, fill
from tests.world.dns import DnsServer

PUBLISHED = ("example.com", "shop.test", "broken.test")
HELD = {"partner.test": "enforce", "bank.test": "enforce", "news.test": "testing"}
PORT, SOCKET, READY = 8463, "dashboard", "ready\n"
QUERY = Path(sys.executable).with_name("postfix-mtasts-query")
FOREIGN = ("example.net", "example.org", "shop.example")
QUARANTINED = (*(mail(report(1, domain)) for domain in FOREIGN), mail(b"no report"), b"From: a@b.example\r\n\r\nnone")


@contextmanager
def shown(folder: Path, socket_path: Path | None = None) -> Iterator[Dashboard]:
    """The dashboard on made data, on a port of the namespace or on a Unix socket."""
    with ExitStack() as stack:
        ca = Ca(folder)
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        web = stack.enter_context(FileServer(WEB, folder / "policies", ca))
        place = Place(folder, ca, dns, web, stack)
        place.configure()
        _publish(place)
        fill(folder / "reports.sqlite", recent())
        ours = tables(folder)
        ours["reports"]["domains"] = ["example.com"]
        ours["cache"] = {"path": str(folder / "policies.sqlite")}
        ours["publish"] |= {"addresses": [WEB], "zone": ZONE, "ca": "ca.test"}
        ours["dns"] = {"nameservers": [NAMESERVER], "timeout": 5.0}
        ours["fetch"] = {"ca_file": str(ca.file), "allow_addresses": ["127.0.0.0/8"]}
        daemon = stack.enter_context(Daemon(folder, ours))
        _hold(place, daemon, f"unix:{folder / 'socket'}")
        _quarantine(daemon, folder / "mails-of-others")
        yield stack.enter_context(Dashboard(folder, ours, socket_path=socket_path))


def _publish(place: Place) -> None:
    for domain in PUBLISHED:
        place.mx(domain)
        place.run("add", domain)
        place.customer(domain)
    for _ in range(2):
        place.load_zone()
        place.run("check")
    _age(place, "example.com", 20)
    place.run("mode", "broken.test", "enforce")
    place.dns.remove("mx1.broken.test")
    place.load_zone()
    place.run("check")


def _age(place: Place, domain: str, days: float) -> None:
    """A domain was announced so many days earlier."""
    store = Store(str(place.folder / "publish.sqlite"))
    state = store.get(PolicyDomain(domain))
    assert state
    clock = Clock(state.clock.counted + days * DAY, state.clock.at)
    store.save(follows(replace(state, clock=clock)), "the demo", time.time())
    store.close()


def _hold(place: Place, daemon: Daemon, endpoint: str) -> None:
    """What the daemon has fetched for mail, and one policy that it cannot renew; and an exception."""
    for domain, mode in HELD.items():
        file = place.folder / f"policies/mta-sts.{domain}/.well-known/mta-sts.txt"
        file.parent.mkdir(parents=True)
        file.write_text(f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: 604800\n")
        place.dns.add(f"_mta-sts.{domain}", "TXT", '"v=STSv1; id=1;"')
        place.dns.add(f"mta-sts.{domain}", "A", WEB)
        ask(endpoint, domain)
    place.dns.remove("mta-sts.bank.test")
    until = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 30 * DAY))
    for words in (
        ("cache", "refresh", "bank.test"),
        ("except", "add", "partner.test", "--until", until, "--reason", "they renew their certificate"),
    ):
        subprocess.run([QUERY, *words, "--config", daemon.config], capture_output=True, check=False)


def _quarantine(daemon: Daemon, folder: Path) -> None:
    """Mails about domains of others, and one without a report."""
    folder.mkdir()
    for number, content in enumerate(QUARANTINED):
        (folder / f"{number}.eml").write_bytes(content)
    subprocess.run(
        [REPORTS, "import", "--config", daemon.config, *sorted(folder.iterdir())], capture_output=True, check=False
    )


def main() -> None:
    """Show it until Ctrl-C: the world in a namespace, and a port outside that leads to its Unix socket."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("making domains, and ninety days of reports, within a minute …", flush=True)  # noqa: T201 - this is its output
    with tempfile.TemporaryDirectory() as temporary:
        command = ["tests/namespace", sys.executable, "-m", "tests.demo_web", temporary]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as world:
            assert world.stdout
            try:
                if world.stdout.readline() != READY:
                    sys.exit("make demo-web: they could not be made; what is above says why")
                with contextlib.suppress(KeyboardInterrupt):
                    asyncio.run(_lead_to(Path(temporary, SOCKET)))
            finally:
                world.terminate()
                world.kill()  # unshare(1) ignores other signals, and what it has started ends with it.


async def _lead_to(path: Path) -> None:
    """A port that leads to a Unix socket."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(path))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", PORT)
    print(f"open http://127.0.0.1:{PORT}/ in a browser; Ctrl-C ends it", flush=True)  # noqa: T201 - this is its output
    await server.serve_forever()


def serve(folder: Path) -> None:
    """The world and the dashboard, until the process is ended."""
    with shown(folder, folder / SOCKET):
        print(READY, end="", flush=True)  # noqa: T201 - who has started it waits for this
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    serve(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
