"""Ten thousand domains of our own: what the commands cost that show all of them, and how fast `check` goes."""

from dataclasses import replace
from pathlib import Path

from postfix_mtasts.publish.events import Added
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.state import State
from postfix_mtasts.publish.store import Store
from postfix_mtasts.publish.view import EACH_SECOND
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.bench.contestants import Bench
from tests.bench.load import Load
from tests.bench.notes import Notes
from tests.bench.process import Cost, cost_of
from tests.bench.world import MX, NAMESERVER, names
from tests.world.daemon import COMMAND, toml

DOMAINS = 10_000
CHECKED = 10 * EACH_SECOND  # They take ten seconds, if the bound holds.


def publish(bench: Bench, load: Load, notes: Notes, number: int) -> None:
    """`list`, `zone` and `check` of domains that were announced, and whose policy host serves another policy by now."""
    del load
    folder = bench.folder / "publish"
    if not folder.exists():
        folder.mkdir()
        _fill(folder / "publish.sqlite")
    ours = {"path": str(folder / "publish.sqlite"), "policies": str(folder / "policies"), "zone": "sts.test"}
    (folder / "config.toml").write_text(
        toml(
            {
                "dns": {"nameservers": [NAMESERVER]},
                "fetch": {"ca_file": str(bench.ca), "allow_addresses": ["127.0.0.0/8"]},
                "publish": {**ours, "addresses": ["127.0.0.2"], "reports": ["mailto:tlsrpt@sts.test"]},
            }
        )
    )
    for subcommand, lines in (("list", DOMAINS), ("zone", DOMAINS + 2)):
        _note(notes, folder, f"publish {subcommand}, {DOMAINS} domains", lines, subcommand)
    domains = names("policy", (number + 1) * CHECKED, number * CHECKED)
    measure = f"publish check, {CHECKED} domains"
    cost = _note(notes, folder, measure, CHECKED, "check", "--json", *domains)
    notes.add(measure, "ours", "a second", CHECKED / cost.seconds)


def _note(notes: Notes, folder: Path, measure: str, lines: int, subcommand: str, *words: str) -> Cost:
    """Run the command, which is to print so many lines."""
    output = folder / "output"
    command = COMMAND.with_name("postfix-mtasts-publish")
    cost = cost_of(output, command, subcommand, "--config", folder / "config.toml", *words)
    said = output.read_text()
    if cost.status > Status.ERROR or len(said.splitlines()) != lines:
        raise AssertionError(f"{measure}: status {cost.status}, {len(said.splitlines())} lines: {said[-1000:]}")
    notes.add(measure, "ours", "seconds", cost.seconds)
    notes.add(measure, "ours", "CPU s", cost.processor)
    notes.add(measure, "ours", "MB", cost.octets / 1e6)
    return cost


def _fill(path: Path) -> None:
    policy = Policy(Mode.TESTING, 604_800, tuple(map(MxPattern, MX)))
    store = Store(str(path))
    with store._transaction():  # One by one, each would be synced.
        for name in names("policy", DOMAINS):
            decision = decide(None, Added(PolicyDomain(name), policy), 1_800_000_000.0)
            store._write(replace(follows(_announced(decision.state)), changes=decision.changes), "root", 0.0)
    store.close()


def _announced(state: State) -> State:
    return replace(state, record=state.id(), known=True, findable=True)
