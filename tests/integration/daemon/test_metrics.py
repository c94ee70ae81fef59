"""The metrics as Prometheus reads them: what they say, what their listener takes, and what it never does."""

import contextlib
import datetime
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts import __version__
from postfix_mtasts.daemon import scrape
from postfix_mtasts.daemon.metrics import CONTENT_TYPE
from postfix_mtasts.sts.entry import FailedFetch
from postfix_mtasts.sts.observation import Failure, Stage
from tests.integration.conftest import World, fetched, store_entries, wait_until_stored
from tests.world.daemon import COMMAND, Daemon, ask, toml
from tests.world.fleet import Shared
from tests.world.https import Hold
from tests.world.programs import program

METRICS, RUNNING = ("127.0.0.1", 9461), ("127.0.0.1", 9463)
TABLE: dict[str, object] = {"listen": "inet:127.0.0.1:9461"}
# All that there is, with its type. The samples of one metric without any are not in the text.
TYPES = {
    "mtasts_build_info": "gauge",
    "mtasts_queries_total": "counter",
    "mtasts_query_seconds": "histogram",
    "mtasts_discoveries_total": "counter",
    "mtasts_discovery_seconds": "histogram",
    "mtasts_under_way": "gauge",
    "mtasts_answering": "gauge",
    "mtasts_policies": "gauge",
    "mtasts_policies_not_renewed": "gauge",
    "mtasts_policy_earliest_expiry_timestamp_seconds": "gauge",
    "mtasts_database_trouble": "gauge",
    "mtasts_exceptions": "gauge",
    "mtasts_exception_earliest_end_timestamp_seconds": "gauge",
    "mtasts_enforcing": "gauge",
    "mtasts_shadow_start_timestamp_seconds": "gauge",
    "mtasts_fleet_working": "gauge",
    "mtasts_fleet_failures_total": "counter",
    "mtasts_fleet_lookups_total": "counter",
    "mtasts_fleet_shared_total": "counter",
    "mtasts_fleet_trip_seconds": "summary",
    "process_cpu_seconds_total": "counter",
    "process_start_time_seconds": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
SAMPLE = re.compile(r"(\w+)(\{.*\})? (\S+)")


def policy(domain: str, mode: str = "enforce") -> str:
    return f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: 86400\n"


def scraped(address: tuple[str, int] = METRICS) -> dict[str, float]:
    """Each sample by its name with its labels."""
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=20) as response:
        assert response.headers["Content-Type"] == CONTENT_TYPE
        text = response.read().decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def answers(samples: dict[str, float]) -> dict[str, float]:
    """How often each answer was given, without those that were never."""
    return labelled(samples, "mtasts_queries_total")


def labelled(samples: dict[str, float], name: str) -> dict[str, float]:
    """The samples of a metric by the values of their labels, sorted by their names, without zeros."""
    return {
        ",".join(re.findall(r'="(.*?)"', key)): value
        for key, value in samples.items()
        if key.startswith(f"{name}{{") and value
    }


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/socket"


def test_every_query_and_discovery_is_counted_and_no_domain_is_named(
    world: World, tmp_path: Path, socket_path: str
) -> None:
    world.publish("counted.test", policy("counted.test"))
    world.publish("testing.test", policy("testing.test", "testing"))
    world.announce("broken.test", b"v=STSv1; id=!;")
    world.announce("nowhere.test", host="127.0.2.2")
    for _ in range(2):
        world.https.policy("mta-sts.odd.test", "", world.ca.issue("mta-sts.odd.test").server_context())
    world.announce("odd.test")
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE)):
        # The test queries of each scrape, with a key that has no policy, are among them.
        assert answers(scraped()) == {"notfound": 1}
        for _ in range(5):
            assert ask(socket_path, "counted.test").startswith("OK secure ")
        for domain in ("testing.test", "testing.test", "none.test", "broken.test", "nowhere.test", "odd.test"):
            assert ask(socket_path, domain) == "NOTFOUND "
        assert ask(socket_path, "[192.0.2.1]") == "NOTFOUND "
        seen = scraped()
    assert answers(seen) == {"secure": 5, "notfound": 7 + 2}
    assert labelled(seen, "mtasts_discoveries_total") == {
        "enforce,policy": 1,
        "testing,policy": 1,
        "failed,policy": 1,
        "failed,connect": 1,
        "no-policy,record": 1,
        "invalid,record": 1,
    }
    assert seen["mtasts_discovery_seconds_count"] == 6
    assert seen["mtasts_query_seconds_count"] == 6
    assert 0 < seen["mtasts_query_seconds_sum"] < 6 * 20
    assert seen['mtasts_query_seconds_bucket{le="+Inf"}'] == 6
    assert seen["mtasts_under_way"] == 0
    assert seen["mtasts_answering"] == 1
    assert seen["mtasts_enforcing"] == 1
    assert seen["mtasts_exceptions"] == 0
    assert seen["mtasts_database_trouble"] == 0
    assert seen[f'mtasts_build_info{{version="{__version__}"}}'] == 1
    assert not [key for key in seen if ".test" in key]


def test_what_is_stored(world: World, tmp_path: Path, socket_path: str) -> None:
    now = time.time()
    failed = (FailedFetch("1", 3, now, Failure(Stage.CONNECT, "connection refused")),)
    fails = fetched(policy("fails.test"), age=80_000)
    entries = {
        "lives.test": fetched(policy("lives.test")),
        "tries.test": fetched(policy("tries.test", "testing")),
        "none.test": fetched("version: STSv1\nmode: none\nmax_age: 86400\n"),
        "fails.test": type(fails)(fails.cached, failed=failed, checked_at=now, last_used=now),
        "over.test": fetched(policy("over.test"), age=90_000),
    }
    store_entries(tmp_path / "policies.sqlite", entries)
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE)):
        seen = scraped()
        assert labelled(seen, "mtasts_policies") == {"enforce": 2, "testing": 1, "none": 1}
        assert seen["mtasts_policies_not_renewed"] == 1
        assert fails.cached
        assert seen["mtasts_policy_earliest_expiry_timestamp_seconds"] == pytest.approx(fails.cached.expires_at())
        # It is not counted again so soon.
        world.publish("new.test", policy("new.test"))
        assert ask(socket_path, "new.test").startswith("OK secure ")
        wait_until_stored(tmp_path / "policies.sqlite", "new.test")
        assert labelled(scraped(), "mtasts_policies") == {"enforce": 2, "testing": 1, "none": 1}


def day(days: int) -> datetime.date:
    """So many days from today, in the time zone of this machine."""
    return datetime.datetime.now(datetime.UTC).astimezone().date() + datetime.timedelta(days)


def exception(domain: str, days: int) -> str:
    return f'[[exception]]\ndomain = "{domain}"\nuntil = {day(days)}\nreason = "a test"\nlevel = "may"\n'


def test_exceptions(world: World, tmp_path: Path, socket_path: str) -> None:
    world.publish("exempt.test", policy("exempt.test"))
    settings = toml(world.configuration(tmp_path, metrics=TABLE))
    ours = exception("exempt.test", 3) + exception("*.later.test", 30) + exception("over.test", -1)
    with Daemon(tmp_path, settings + ours):
        for _ in range(2):
            assert ask(socket_path, "exempt.test") == "OK may"
        seen = scraped()
    assert seen["mtasts_exceptions"] == 2
    end = datetime.datetime.combine(day(4), datetime.time()).timestamp()
    assert seen["mtasts_exception_earliest_end_timestamp_seconds"] == end
    assert answers(seen) == {"may": 2, "notfound": 1}


def test_shadow_mode(world: World, tmp_path: Path, socket_path: str) -> None:
    world.publish("withheld.test", policy("withheld.test"))
    reply: dict[str, object] = {"style": "plain", "dane": "off"}
    begun = time.time()
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE, reply={"enforce": False})) as daemon:
        for _ in range(2):
            assert ask(socket_path, "withheld.test") == "NOTFOUND "
        seen = scraped()
        assert seen["mtasts_enforcing"] == 0
        assert begun - 1 <= seen["mtasts_shadow_start_timestamp_seconds"] <= time.time()
        assert answers(seen) == {"notfound": 2 + 1}
        assert seen['mtasts_discoveries_total{result="enforce",stage="policy"}'] == 1
        daemon.config.write_text(toml(world.configuration(tmp_path, metrics=TABLE, reply=reply)))
        since = len(daemon.log)
        daemon.hang_up()
        daemon.wait_for("reply.dane is off", since=since)
        assert ask(socket_path, "withheld.test").startswith("OK secure ")
        seen = scraped()
    assert seen["mtasts_enforcing"] == 1
    assert "mtasts_shadow_start_timestamp_seconds" not in seen


def test_a_database_in_trouble(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE)):
        (tmp_path / "policies.sqlite").unlink()  # While it is open.
        assert scraped()["mtasts_database_trouble"] == 1


def test_a_fleet(world: World, tmp_path: Path) -> None:
    results = ("found", "not-understood", "unanswered")
    lookups = {f'mtasts_fleet_lookups_total{{result="{one}"}}': 0.0 for one in results}
    before = lookups | {
        "mtasts_fleet_working": 1.0,
        "mtasts_fleet_failures_total": 0.0,
        "mtasts_fleet_shared_total": 1.0,
    }
    after = before | {
        'mtasts_fleet_lookups_total{result="unanswered"}': 1.0,
        "mtasts_fleet_working": 0.0,
        "mtasts_fleet_failures_total": 1.0,
    }
    for attempt in range(5):  # A busy machine may be too late for the server.
        folder = tmp_path / str(attempt)
        folder.mkdir()
        seen = fleet_before_and_after(world, folder, f"{attempt}.test")
        if seen == (before, after):
            return
    raise AssertionError(seen)


def fleet_before_and_after(world: World, folder: Path, domain: str) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of a fleet when a domain was shared, and when its server was killed and another was asked for."""
    for name in ("measured", "alone"):
        world.publish(f"{name}.{domain}", policy(f"{name}.{domain}"))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Shared(folder / "server", world.ca))
        settings = world.configuration(folder, fleet=server.config, metrics=TABLE)
        stack.enter_context(Daemon(folder, settings)).wait_for("fleet: policies are shared", timeout=90)
        assert ask(f"unix:{folder}/socket", f"measured.{domain}").startswith("OK secure ")
        before = of_fleet()
        while not before["mtasts_fleet_shared_total"] and not before["mtasts_fleet_failures_total"]:
            before = of_fleet()  # It is shared behind the answer.
        server.kill()
        assert ask(f"unix:{folder}/socket", f"alone.{domain}").startswith("OK secure ")
        after = of_fleet()
    for seen in (before, after):
        # The server is asked once or twice for each domain.
        assert seen.pop('mtasts_fleet_lookups_total{result="nothing"}') in (0, 1, 2)
        assert (seen.pop("mtasts_fleet_trip_seconds_count") > 0) == (seen.pop("mtasts_fleet_trip_seconds_sum") > 0)
    return before, after


def of_fleet() -> dict[str, float]:
    return {key: value for key, value in scraped().items() if key.startswith("mtasts_fleet_")}


def test_types_names_and_help(world: World, tmp_path: Path) -> None:
    promtool = program("promtool")
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE)):
        text = urllib.request.urlopen("http://127.0.0.1:9461/metrics", timeout=20).read()
    assert dict(re.findall(r"^# TYPE (\w+) (\w+)$", text.decode(), re.MULTILINE)) == TYPES
    assert set(re.findall(r"^# HELP (\w+) \S.*\.$", text.decode(), re.MULTILINE)) == set(TYPES)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_query_that_is_under_way(world: World, tmp_path: Path, socket_path: str) -> None:
    hold = Hold()
    world.announce("waits.test")
    world.https.site("mta-sts.waits.test", None, hold)
    with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE, server={"answer_within": 1})):
        asking = threading.Thread(target=ask, args=(socket_path, "waits.test"))
        asking.start()
        assert hold.reached.wait(20)
        assert scraped()["mtasts_under_way"] == 1
        hold.release()
        asking.join()


def said(request: bytes, address: tuple[str, int] = RUNNING) -> bytes:
    """All that is answered to some octets, of a client that then sends no more."""
    with socket.create_connection(address, 20) as client:
        with contextlib.suppress(OSError):  # It may have closed already.
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                answer += data
    return answer


REQUESTS = {
    "another path": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "a longer path": (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "the way up": (b"GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "a query": (b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    "HTTP/1.0": (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
    "POST": (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    "HEAD": (b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "DELETE": (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "no host": (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
    "a query of Postfix": (b"12:postfix a.test,", None),
    "nothing": (b"", None),
    "half a request": (b"GET /metrics HTTP/1.1\r\n", None),
    "octets": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n", 400),
    "a long line": (b"GET /" + b"a" * 100_000, None),
    "many headers": (b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", None),
}


@pytest.fixture(scope="module")
def running(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("running")
    with Daemon(folder, world.configuration(folder, metrics={"listen": "inet:127.0.0.1:9463"})) as daemon:
        yield daemon


@pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)
def test_get_metrics_and_nothing_else(running: Daemon, request_: bytes, status: int | None) -> None:
    answer = said(request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    got = int(answer.split()[1]) if answer else None
    assert got == status or (status is None and got in (400, 431))
    if got == 200:
        assert body.startswith(b"# HELP mtasts_build_info ")
    else:
        assert body == b""
    if got == 405:
        assert b"\r\nAllow: GET" in head
    assert not [line for line in running.log if "internal error" in line]


def test_one_request_a_connection(running: Daemon) -> None:
    answer = said(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert re.search(rb"(?i)\r\nConnection: close\r\n", answer)


def test_connections_and_their_time_are_bounded(running: Daemon) -> None:
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(RUNNING, 20)) for _ in range(scrape.MAX_CONNECTIONS)]
        for client in slow:
            client.sendall(b"GET /metrics")
        while said(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):  # Until those before it are counted.
            assert time.monotonic() < begun + 5
        assert ask(f"unix:{running.config.parent}/socket", "beside.test") == "NOTFOUND "
        for client in slow:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert time.monotonic() - begun >= scrape.DEADLINE - 1
    assert answers(scraped(RUNNING))


def test_a_unix_socket(world: World, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    configuration = world.configuration(tmp_path, metrics={"listen": f"unix:{path}"})
    with Daemon(tmp_path, configuration), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 \r\n"
    assert not path.exists()


def test_a_socket_from_systemd(world: World, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 9462)) as listener:
        with Daemon(tmp_path, world.configuration(tmp_path), passed=[(listener, "metrics")]):
            assert scraped(("127.0.0.1", 9462))["mtasts_answering"] == 1
        with Daemon(tmp_path, world.configuration(tmp_path, metrics=TABLE), passed=[(listener, "metrics")]) as daemon:
            assert scraped(("127.0.0.1", 9462))["mtasts_answering"] == 1
            unit = "inet:127.0.0.1:9462 is in the socket unit but not in metrics.listen, and is served anyway"
            assert [line for line in daemon.log if unit in line]


def test_without_metrics_nothing_listens_and_the_library_is_not_loaded(world: World, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path)), pytest.raises(ConnectionRefusedError):
        socket.create_connection(METRICS, 20)
    loaded = "import postfix_mtasts.daemon.command, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


def test_without_the_library_the_daemon_says_so_and_does_not_start(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path, metrics=TABLE)))
    without = (
        "import sys, importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'prometheus_client' else find(name, *rest); "
        "from postfix_mtasts.daemon.main import main; main()"
    )
    why = "Python has no module prometheus_client: install python3-prometheus-client, or turn metrics off"
    line = f'postfix-mtasts-daemon: error: metrics.listen = "inet:127.0.0.1:9461": {why}\n'
    for option in ([], ["--check"]):
        done = subprocess.run(
            [sys.executable, "-c", without, "--config", config, *option], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, line)


def test_an_address_that_is_taken(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(toml(world.configuration(tmp_path, metrics=TABLE)))
    with socket.create_server(METRICS):
        done = subprocess.run([COMMAND, "--config", config], capture_output=True, text=True, check=False)
    line = 'postfix-mtasts-daemon: error: metrics.listen = "inet:127.0.0.1:9461": address already in use\n'
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (1, line)
