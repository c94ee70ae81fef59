"""All hostile domains of the tables, asked for as Postfix does: what is answered and told, and what it costs.

Beside them, two clients ask for what is sound. How long they wait is printed; what is asserted leaves room for a busy
machine. `make bench` measures it on an idle one.
"""

import os
import string
from collections.abc import Iterator, Sequence

import pytest

from tests.hostile.case import FETCH_TIMEOUT, KIB, SECURE, Case
from tests.hostile.clients import Waits, ask_all, beside
from tests.hostile.internet import Cost, Internet, cpu_seconds, endpoint, internet
from tests.hostile.tables import AT_ONCE, COSTLY, TABLES, named
from tests.world.daemon import Daemon
from tests.world.postfix import NAMESPACE

READY = "ready.sound.test"
NEW = 400  # New domains that can be asked for beside each table.
IN_FLIGHT = 128 * KIB  # Octets of one connection that the kernel has taken, and the daemon has not.
MAX_LINE = 1000  # Octets in the log.
PRINTABLE = set(string.printable) - set("\t\r\n\v\f") | {"…"}  # That is a word of ours.
# Seconds, which a busy machine may take. The targets are 0.1 and 1.
READY_WITHIN, NEW_WITHIN = 5.0, 15.0
PER_SOUND_DOMAIN, REST = 0.05, 1.0  # Seconds of CPU: a new domain, and what is neither here nor there.


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    if NAMESPACE not in os.environ:
        pytest.skip("needs a namespace: run through tests/namespace")
    with internet(tmp_path_factory.mktemp("hostile")) as found:
        found.add_sound([READY])
        yield found


@pytest.fixture(scope="module")
def daemon(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Its limits are short, so that whoever hangs ends soon."""
    folder = tmp_path_factory.mktemp("daemon")
    with Daemon(folder, net.configuration(folder, FETCH_TIMEOUT)) as running:
        yield running


@pytest.fixture(scope="module")
def patient(net: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It gives hosts all the time that they may have, since here they have much to do."""
    folder = tmp_path_factory.mktemp("patient")
    with Daemon(folder, net.configuration(folder, 90)) as running:
        yield running


def test_tables_are_as_large_as_they_are_said_to_be() -> None:
    assert len(TABLES["hosts"]) + len(TABLES["responses"]) + len(TABLES["policies"]) >= 150
    assert len(TABLES["nameservers"]) >= 80
    for table in TABLES.values():
        names = [(case.stage, case.name) for case in table]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("table", TABLES)
def test_table(net: Internet, daemon: Daemon, table: str) -> None:
    """Each of its domains, all at once."""
    check(net, daemon, table, {f"{table}-{number}.hostile.test": case for number, case in enumerate(TABLES[table])})


@pytest.mark.parametrize("kind", COSTLY)
def test_many_of_a_costly_kind(net: Internet, patient: Daemon, kind: str) -> None:
    """Twenty of them, all at once."""
    case = named(kind)
    name = f"costly-{COSTLY.index(kind)}"
    check(net, patient, name, {f"{name}-{number}.hostile.test": case for number in range(AT_ONCE)})


def check(net: Internet, daemon: Daemon, name: str, domains: dict[str, Case]) -> None:
    """Ask for all of them at once, beside the two clients, and hold what comes of it against the bounds."""
    for domain, case in domains.items():
        net.add(domain, case)
    new = [f"{name}-{number}.new.test" for number in range(NEW)]
    net.add_sound(new)
    since, before = len(daemon.log), cpu_seconds(daemon.pid)
    at = endpoint(daemon.config.parent)
    with beside(at, SECURE, READY, new) as waits:
        replies = ask_all(at, list(domains))
    cpu = cpu_seconds(daemon.pid) - before
    daemon.about(READY, at, since)  # Then all has been read of what it has logged.
    lines = daemon.log[since:]
    told = {domain: [line for line in lines if f"domain={domain}, " in line] for domain in domains}
    costs = net.costs()
    report(name, waits, cpu, lines)
    faults = [
        f"{domain}, {case.name}: {fault}"
        for domain, case in domains.items()
        for fault in wrong(case, costs[domain], replies[domain], told[domain])
    ]
    assert not faults, "\n".join(faults)
    assert [line for line in lines if len(line) > MAX_LINE or not set(line) <= PRINTABLE] == []
    assert [line for line in lines if not line.startswith(("info: domain=", "warning: domain="))] == []
    assert [server.connections for server in net.inside] == [0, 0]
    assert waits.wrong == []
    assert max(waits.ready, default=0) <= READY_WITHIN
    assert max(waits.new, default=0) <= NEW_WITHIN
    assert cpu <= sum(case.cpu for case in domains.values()) + PER_SOUND_DOMAIN * len(waits.new) + REST


def wrong(case: Case, cost: Cost, reply: str, told: Sequence[str]) -> list[str]:
    """What is not as the table has it."""
    found = []
    if not case.is_answered_by(reply):
        found.append(f"answered {reply[:300]!r}, not as {case.stage}: {case.cause}")
    words = [line.partition(", ")[2] for line in told]
    if len([one for one in words if case.is_told_by(one)]) != 1 or len(words) > 2:
        found.append(f"told {[one[:300] for one in words]}, not as {case.stage}: {case.cause}")
    if cost.connections > case.connections or cost.requests > case.connections:
        found.append(f"{cost.connections} connections and {cost.requests} requests")
    if cost.octets > case.octets + IN_FLIGHT:
        found.append(f"{cost.octets} octets")
    if cost.queries > case.queries:
        found.append(f"{cost.queries} queries")
    return found


def report(name: str, waits: Waits, cpu: float, lines: Sequence[str]) -> None:
    """Print what was measured; pytest shows it with -s, and when a test fails."""
    longest = max(len(line) for line in lines)
    print(  # noqa: T201
        f"{name}: ready replies waited {max(waits.ready, default=0):.3f} s at most ({len(waits.ready)}), new domains "
        f"{max(waits.new, default=0):.3f} s ({len(waits.new)}), {cpu:.2f} s of CPU, longest line {longest} octets"
    )
