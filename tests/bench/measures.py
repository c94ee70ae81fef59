"""What is measured. Each function is one group, in one round: it notes one sample of everything, by turns.

Those that are compared run at the same time and are asked one after the other, so that what disturbs the machine
disturbs all of them; the order changes with the round.
"""

import itertools
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeVar

from postfix_mtasts.config import Cache
from tests.bench.contestants import Bench, Contestant, alone, limit, ours, peer
from tests.bench.fleet import fleet
from tests.bench.load import DISCOVERIES, Expected, Load, Result
from tests.bench.notes import Notes
from tests.bench.process import connect, cpu_seconds, resident_megabytes
from tests.bench.published import publish
from tests.bench.stored import database
from tests.bench.world import HANGING, HOSTILE, HOSTILE_HOST, LARGE, NAMELESS, POLICIES, REPLY, names
from tests.hostile.case import Site
from tests.hostile.clients import ask_all, beside
from tests.hostile.tables import COSTLY, named
from tests.world.ca import Ca
from tests.world.daemon import ask
from tests.world.https import HttpsServer

_T = TypeVar("_T")
KINDS = ("tcp", "unix")
LOOPS = {"ours": "uvloop", "ours on asyncio": "asyncio"}
HITS, NEGATIVES = names("policy", 500), names("none", 500)
WARM_SECONDS, WARM_TURNS = 1.0, 2  # In each round; short ones by turns, for the machine is not always the same.
METRICS_TURNS = 8  # A small difference is looked for.
SCRAPE_EVERY = 1.0  # Seconds. Prometheus reads every 15 or 60.
IDLE = 5000  # Connections.
COLD_POLICIES, COLD_NEGATIVES, COLD_CONNECTIONS = 1000, 3000, 32
COLD_ALONE = 1000  # Of the names without a policy, those behind the ones that are asked for in parallel.
BURST_SECONDS = 3.0
STARTS = 3  # In each round.
KNOWN = 100_000
NEW_BESIDE = 200
LARGE_AT_ONCE = 500
ROUNDS_AT_MOST = POLICIES // COLD_POLICIES


def warm(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Domains that are known, asked for on 64 connections."""
    cases: tuple[tuple[str, Sequence[str], Expected], ...] = (
        ("hit", HITS, "ok"),
        ("negative", NEGATIVES, "notfound"),
    )
    with ExitStack() as stack:
        daemons = {who: stack.enter_context(ours(bench, loop=loop)) for who, loop in LOOPS.items()}
        with_sqlite = stack.enter_context(peer(bench, "tcp", "sqlite"))
        for kind in KINDS:
            theirs = stack.enter_context(peer(bench, kind, "internal"))
            for what, domains, expect in cases:
                reply = {} if expect == "ok" else {"reply": "NOTFOUND "}
                servers = {
                    **daemons,
                    "C": stack.enter_context(limit(bench, kind, **reply)),
                    "uvloop alone": stack.enter_context(alone(bench, kind, **reply)),
                    "peer": theirs,
                }
                if kind == "tcp" and what == "hit":
                    servers["peer with sqlite"] = with_sqlite
                for server in servers.values():
                    for _ in range(2):  # The second time from memory.
                        load.ask(server, kind, domains, 64, expect=expect)
                for who, server in _in_turn(servers, number) * WARM_TURNS:
                    result = load.ask(server, kind, domains, 64, WARM_SECONDS, expect)
                    notes.note(f"warm {what}, {kind}, 64 connections", who, result)


def metrics(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Warm hits of a daemon whose metrics are read every second, and of one that has none."""
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(ours(bench, metrics=True)),
            "ours without metrics": stack.enter_context(ours(bench)),
        }
        for server in servers.values():
            _learn(load, server, "tcp")
        stack.enter_context(_scraping(servers["ours"].addresses["metrics"]))
        for who, server in _in_turn(servers, number) * METRICS_TURNS:
            result = load.ask(server, "tcp", HITS, 64, WARM_SECONDS)
            notes.note("warm hit, tcp, beside metrics", who, result)


def connections(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Warm hits on few and many connections, and beside 5,000 idle ones."""
    with ExitStack() as stack:
        daemon = stack.enter_context(ours(bench))
        _learn(load, daemon, "tcp")
        for kind in KINDS:
            servers = {
                "ours": daemon,
                "C": stack.enter_context(limit(bench, kind)),
                "peer": stack.enter_context(peer(bench, kind, "internal")),
            }
            _learn(load, servers["peer"], kind)
            for count in (1, 8, 256):
                for who, server in _in_turn(servers, number):
                    result = load.ask(server, kind, HITS, count, WARM_SECONDS)
                    notes.note(f"warm hit, {kind}, {count} connections", who, result)
            with _idle(daemon, kind):
                measure = f"warm hit, {kind}, 64 connections beside {IDLE} idle"
                notes.note(measure, "ours", load.ask(daemon, kind, HITS, 64, WARM_SECONDS))
                notes.add(f"memory, {kind}, {IDLE} idle connections", "ours", "MB", resident_megabytes(daemon.process))


def cold(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Domains that nobody has asked for, 32 in parallel and one after the other."""
    policies = names("policy", (number + 1) * COLD_POLICIES, number * COLD_POLICIES)
    negatives = names("none", (number + 1) * COLD_NEGATIVES, number * COLD_NEGATIVES)
    first = ROUNDS_AT_MOST * COLD_NEGATIVES + number * COLD_ALONE
    lonely = names("none", first + COLD_ALONE, first)
    with ExitStack() as stack:
        servers = {
            **{who: stack.enter_context(ours(bench, loop=loop)) for who, loop in LOOPS.items()},
            "peer": stack.enter_context(peer(bench, "tcp", "internal")),
        }
        for who, server in _in_turn(servers, number):
            notes.note("cold policy, 32 in parallel", who, load.ask(server, "tcp", policies, COLD_CONNECTIONS))
        for who, server in _in_turn(servers, number):
            result = load.ask(server, "tcp", negatives, COLD_CONNECTIONS, expect="notfound")
            notes.note("cold negative, 32 in parallel", who, result)
        for who, server in _in_turn(servers, number):
            notes.note("cold negative, one by one", who, load.ask(server, "tcp", lonely, 1, expect="notfound"))


def burst(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Warm hits without, and with 500 discoveries under way: of new domains, and of domains that hang."""
    discoveries = {
        "new domains": names("policy", POLICIES, len(HITS)),
        "policy hosts that hang": names("hanging", HANGING),
        "records that hang": names("silent", HANGING),
    }
    for what, domains in _in_turn(discoveries, number):
        with ours(bench) as server:
            _learn(load, server, "tcp")
            without = load.ask(server, "tcp", HITS, 64, BURST_SECONDS)
            beside = load.ask_beside(server, HITS, 64, BURST_SECONDS, domains)
        notes.note(f"warm hit, tcp, before the {DISCOVERIES} {what}", "ours", without)
        notes.note(f"warm hit, tcp, beside {DISCOVERIES} {what}", "ours", beside)


def start(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """From the start to the first answer with so many policies stored; the memory of the process then.

    The first answer is about a domain that is not stored, so that it is the same work with all of them.
    """
    del load
    stored = {"0": 0, "10000": 10_000, "100000": 100_000}
    for _ in range(STARTS):
        for name, count in _in_turn(stored, number):
            cache = database(bench.folder, count)
            begin = time.monotonic()
            with ours(bench, cache=cache) as server:
                endpoint = f"unix:{server.addresses['unix']}"
                reply = ask(endpoint, names("none", 1)[0])
                notes.add(f"start, {name} stored", "ours", "seconds", time.monotonic() - begin)
                notes.add(f"memory, {name} stored", "ours", "MB", resident_megabytes(server.process))
                replies = [reply, *(ask(endpoint, domain) for domain in names("policy", count, max(0, count - 1)))]
            expected = ["NOTFOUND ", *[REPLY] * bool(count)]
            if replies != expected:
                raise AssertionError(f"{replies}, not {expected}")


def hostile(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Twenty hosts of a costly kind at once, kind by kind, on each loop: the longest waits beside. In one round."""
    del load
    if number:
        return
    folder = bench.folder / "hostile"
    folder.mkdir()
    ca, trusted = Ca(folder), folder / "both.pem"
    trusted.write_bytes(bench.ca.read_bytes() + ca.file.read_bytes())
    domains, new = names("hostile", HOSTILE), iter(names("policy", POLICIES, len(HITS)))
    worst = dict.fromkeys(itertools.product(LOOPS, ("ready", "new")), 0.0)
    with HttpsServer(HOSTILE_HOST, 443) as server:
        for kind in COSTLY:
            site = named(kind).does
            if not isinstance(site, Site):
                continue  # unbound is the nameserver here.
            for host in (f"mta-sts.{domain}" for domain in domains):
                server.site(host, site.tls(ca, host) if site.tls else None, *site.steps)
            for who, loop in LOOPS.items():
                with ours(replace(bench, ca=trusted), loop=loop) as daemon:
                    at = f"unix:{daemon.addresses['unix']}"
                    before = cpu_seconds(daemon.process)
                    with beside(at, REPLY, HITS[0], list(itertools.islice(new, NEW_BESIDE))) as waits:
                        ask_all(at, domains)
                    if waits.wrong:
                        raise AssertionError(waits.wrong)
                    measure = f"{HOSTILE} hosts: {kind}"
                    notes.add(measure, who, "CPU s", cpu_seconds(daemon.process) - before)
                    for what in ("ready", "new"):
                        longest = max(getattr(waits, what), default=0.0)
                        notes.add(measure, who, f"s {what}", longest)
                        worst[who, what] = max(worst[who, what], longest)
    for (who, what), longest in worst.items():
        notes.add(f"{HOSTILE} hosts of the worst kind, {what}", who, "seconds", longest)


def memory_hostile(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """The memory of the process with 10,000 names without a certificate, and with as many large policies. In one round.

    The latter is what it has beyond `cache.memory`. It is given up when it is far too much.
    """
    if number:
        return
    with ours(bench) as server:
        load.ask(server, "tcp", names("nameless", NAMELESS), 64, expect="notfound")
        notes.add(f"memory, {NAMELESS} names without a certificate", "ours", "MB", resident_megabytes(server.process))
    cache = Cache().memory / 1e6
    with ours(bench) as server:
        for begin in range(0, LARGE, LARGE_AT_ONCE):
            load.ask(server, "tcp", names("large", begin + LARGE_AT_ONCE, begin), 64)
            if resident_megabytes(server.process) > 4 * cache:
                break
        beyond = resident_megabytes(server.process) - cache
        notes.add(f"memory, {LARGE} policies of 64 KiB", "ours", "MB beyond cache.memory", beyond)


def memory(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """The memory of the process with 100,000 domains known, one in a hundred with a policy. In one round."""
    if number:
        return
    policies = names("policy", KNOWN // 100)
    with ours(bench) as server:
        load.ask(server, "tcp", names("none", KNOWN - len(policies)), 64, expect="notfound")
        load.ask(server, "tcp", policies, 64)
        load.ask(server, "tcp", policies, 64)
        notes.add("memory, 100000 known", "ours", "MB", resident_megabytes(server.process))


GROUPS = {
    function.__name__: function
    for function in (warm, metrics, connections, cold, burst, start, memory, hostile, memory_hostile, publish, fleet)
}


def _learn(load: Load, server: Contestant, kind: str) -> Result:
    load.ask(server, kind, HITS, 64)
    return load.ask(server, kind, HITS, 64)


def _in_turn(contestants: dict[str, _T], number: int) -> list[tuple[str, _T]]:
    items = list(contestants.items())
    first = number % len(items)
    return items[first:] + items[:first]


@contextmanager
def _scraping(address: str) -> Iterator[None]:
    """Read metrics again and again."""
    ended = threading.Event()
    read = []

    def scrape() -> None:
        while not ended.wait(SCRAPE_EVERY):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
                read.append(len(response.read()))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if not read:
        raise AssertionError("no metrics were read")


@contextmanager
def _idle(server: Contestant, kind: str) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connect(server.addresses[kind]))
        yield
