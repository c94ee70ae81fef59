"""Fleets on one machine: mail comes to all relays for the same domains, by Zipf's law, and one server is between them.

What is counted is counted by others: by the nameserver, the policy host, and the server itself.
"""

import itertools
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from postfix_mtasts.cache.fleet_jobs import Look, Put
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.cache.shared import print_shared
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry, NoPolicy, Note
from tests.bench.contestants import Bench, ours
from tests.bench.load import Load, Result
from tests.bench.notes import Notes
from tests.bench.stored import fetched
from tests.bench.world import COUNTING_NAMESERVER, counting, names
from tests.world.ca import Ca
from tests.world.fleet import Shared

SIZES = (1, 4, 16)  # Relays.
DOMAINS = 20_000
POLICIES = names("policy", DOMAINS // 10)
# Of each relay, in twelve seconds: so few that sixteen relays leave time on two processors, for answers that wait for a
# processor tell nothing of a fleet.
QUERIES, RATE = 480, 40.0
TIMES = 500  # What costs little is done so often.
WARM_SECONDS, WARM_TURNS = 1.0, 6
_AT_ONCE = 100  # Jobs in one round trip, as the daemon does it.
_TXT = re.compile(r" _mta-sts\.(\S+)\. TXT IN$", re.MULTILINE)


class _Server(NamedTuple):
    """What the server has done since its start, by its own count."""

    cpu: float  # Seconds.
    octets_in: float  # Without those of TLS and TCP.
    octets_out: float
    looks: float  # By which a relay may take the turn to discover a domain, and finds what others know.
    puts: float
    resident: float  # Octets.

    def since(self, before: "_Server") -> "_Server":
        return _Server(*(new - old for new, old in zip(self, before, strict=True)))


def fleet(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Fleets of some sizes, what each step costs, the memory for all domains, and warm hits beside a fleet."""
    for size in SIZES:
        _simulate(bench, load, notes, size, random.Random(1000 * number + size))
    with _shared(bench) as (server, admin):
        _costs(server, admin, notes)
        _memory(server, admin, notes)
    _warm(bench, load, notes, number)


def _simulate(bench: Bench, load: Load, notes: Notes, size: int, chance: random.Random) -> None:
    """So many relays with empty caches, asked at the same time; beside a fleet of one, a daemon that has none."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, DOMAINS + 1)))
    own = [chance.choices(_ranked(), cum_weights=weights, k=QUERIES) for _ in range(size)]
    fetches = bench.folder / "fetches"
    fetched_before = fetches.stat().st_size
    with ExitStack() as stack:
        server, admin = stack.enter_context(_shared(bench))
        log = stack.enter_context(counting(bench.folder, POLICIES))
        empty = _counted(admin)
        daemons = [stack.enter_context(ours(bench, fleet=server.config, nameserver=COUNTING_NAMESERVER)) for _ in own]
        begun = _counted(admin)
        without = [stack.enter_context(ours(bench))] if size == 1 else []
        results = load.ask_steadily([*daemons, *without], own + own[: len(without)], RATE, set(POLICIES))
        done = _counted(admin).since(begun)
    for result in results[size:]:
        _note_answers(notes, "without a fleet", [result])
    _note_answers(notes, f"fleet of {size}", results[:size])
    asked = Counter(domain.lower() for domain in _TXT.findall(log.read_text()))
    with fetches.open() as file:
        file.seek(fetched_before)
        served = Counter(host.strip().removeprefix("mta-sts.") for host in file)
    _note_discoveries(notes, f"fleet of {size}, discoveries", own, asked, served)
    questions = sum(len(set(domains)) for domains in own)
    _note_server(notes, f"fleet of {size}, the server, for a question", done, questions)
    _note_server(notes, f"fleet of {size}, the server, for a relay that comes", begun.since(empty), size)


def _ranked() -> list[str]:
    """The domains, the most wanted first. Every tenth has a policy."""
    policies, others = iter(POLICIES), iter(names("none", DOMAINS - len(POLICIES)))
    return [next(others if rank % 10 else policies) for rank in range(DOMAINS)]


def _note_answers(notes: Notes, measure: str, results: Sequence[Result]) -> None:
    """The median of what the relays' clients saw, but the longest wait of all."""
    for unit in ("p50", "p99"):
        middle = statistics.median(getattr(result, unit) for result in results)
        notes.add(f"{measure}, answers", "ours", f"ms {unit}", middle / 1000)
    notes.add(f"{measure}, answers", "ours", "ms at most", max(result.max for result in results) / 1000)
    cpu = statistics.mean(result.cpu for result in results)
    notes.add(f"{measure}, answers", "ours", "us of a relay's CPU", cpu)


def _note_discoveries(
    notes: Notes, measure: str, own: Sequence[Sequence[str]], asked: Counter[str], served: Counter[str]
) -> None:
    domains = set().union(*own)
    policies = domains & set(POLICIES)
    if asked.keys() != domains or served.keys() != policies:
        raise AssertionError(f"{len(asked)} of {len(domains)} domains, {len(served)} of {len(policies)} policies")
    notes.add(measure, "ours", "domains", len(domains))
    notes.add(measure, "ours", "questions of relays", sum(len(set(one)) for one in own))
    notes.add(measure, "ours", "lookups a domain", asked.total() / len(domains))
    notes.add(measure, "ours", "fetches a policy", served.total() / len(policies))
    notes.add(measure, "ours", "% twice", 100 * sum(max(asked[one], served[one]) > 1 for one in domains) / len(domains))


def _note_server(notes: Notes, measure: str, done: _Server, count: int) -> None:
    notes.add(measure, "ours", "us of its CPU", done.cpu / count * 1e6)
    notes.add(measure, "ours", "octets in", done.octets_in / count)
    notes.add(measure, "ours", "octets out", done.octets_out / count)
    notes.add(measure, "ours", "looks", done.looks / count)
    notes.add(measure, "ours", "puts", done.puts / count)
    notes.add(measure, "ours", "KB resident", done.resident / count / 1000)


def _costs(server: Shared, admin: Any, notes: Notes) -> None:
    """What a relay costs the server, step by step: a discovery, what is known to others, and a beat."""
    now, relay = time.time(), FleetServer(server.place)
    relay.beat("relay")  # It connects.

    def discover(number: int) -> None:
        name, token = f"d{number}.costs.test", f"0123456789abcdef/{number}"
        value = print_shared(PolicyDomain(name), _without(now), now)
        assert value
        for job in Look(name), Look(name, token), Put(name, value, token):
            relay.do([job])

    steps: dict[str, Callable[[int], object]] = {
        "for a discovery": discover,
        "for what others have discovered": lambda number: relay.do([Look(f"d{number}.costs.test")]),
        "for a beat": lambda number: relay.beat("relay"),
    }
    for what, step in steps.items():
        before = _counted(admin)
        for number in range(TIMES):
            step(number)
        _note_server(notes, f"fleet, the server, {what}", _counted(admin).since(before), TIMES)
    relay.close()


def _memory(server: Shared, admin: Any, notes: Notes) -> None:
    """What the server needs for all domains, of which one in ten has a policy."""
    now = time.time()
    entries = dict.fromkeys(_ranked(), _without(now)) | dict.fromkeys(POLICIES, fetched(now))
    values = {name: print_shared(PolicyDomain(name), entry, now) for name, entry in entries.items()}
    jobs = iter([Put(name, value) for name, value in values.items() if value])
    relay = FleetServer(server.place)
    used, keys = admin.info("memory"), admin.dbsize()
    while batch := list(itertools.islice(jobs, _AT_ONCE)):
        relay.do(batch)
    if admin.dbsize() - keys != DOMAINS:
        raise AssertionError(f"{admin.dbsize() - keys} of {DOMAINS} domains are stored")
    filled, measure = admin.info("memory"), f"fleet, memory of the server, {DOMAINS} domains"
    notes.add(measure, "ours", "MB", (filled["used_memory"] - used["used_memory"]) / 1e6)
    notes.add(measure, "ours", "MB resident, all of it", filled["used_memory_rss"] / 1e6)
    relay.close()


def _without(now: float) -> Entry:
    """What is known of a domain without a record."""
    return Entry(note=Note(NoPolicy("no _mta-sts TXT record"), 3600.0), checked_at=now)


def _warm(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """Warm hits of a daemon that has a fleet, and of one that has none. They ask the server nothing."""
    hits = names("policy", 500)
    with ExitStack() as stack:
        server, admin = stack.enter_context(_shared(bench))
        servers = [
            ("ours", stack.enter_context(ours(bench, fleet=server.config))),
            ("ours without a fleet", stack.enter_context(ours(bench))),
        ]
        for _, one in servers * 2:  # The second time from memory.
            load.ask(one, "tcp", hits, 64)
        looks = _counted(admin).looks
        if looks < len(hits) / 2:  # Some may not have waited for it, on a busy machine.
            raise AssertionError(f"the fleet was asked only {looks:g} times")
        for who, one in (servers[::-1] if number % 2 else servers) * WARM_TURNS:
            notes.note("warm hit, tcp, with a fleet", who, load.ask(one, "tcp", hits, 64, WARM_SECONDS))
        if _counted(admin).looks != looks:
            raise AssertionError("the fleet was asked for answers that lay ready")


@contextmanager
def _shared(bench: Bench) -> Iterator[tuple[Shared, Any]]:
    """A server, and a client that may do everything there."""
    with TemporaryDirectory(dir=bench.folder) as name:
        folder = Path(name)
        with Shared(folder / "server", Ca(folder)) as server, server.admin() as admin:
            yield server, admin


def _counted(admin: Any) -> _Server:
    cpu, stats = admin.info("cpu"), admin.info("stats")
    commands, memory = admin.info("commandstats"), admin.info("memory")
    return _Server(
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
        stats["total_net_input_bytes"],
        stats["total_net_output_bytes"],
        commands.get("cmdstat_pttl", {"calls": 0})["calls"],
        commands.get("cmdstat_eval", {"calls": 0})["calls"],
        memory["used_memory_rss"],
    )
