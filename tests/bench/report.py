"""The medians as tables for people."""

from collections.abc import Callable
from dataclasses import dataclass

Medians = dict[str, float]
_UNITS = ("per_second", "cpu", "p50", "p99", "p99_9")


@dataclass(frozen=True)
class Target:
    """A ratio, or a figure, that is to be at least or at most so much."""

    what: str
    value: Callable[[Medians], float]
    limit: float
    at_least: bool = True

    def holds(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.limit if self.at_least else value <= self.limit


def _ratio(measure: str, ours: str, theirs: str, unit: str = "per_second") -> Callable[[Medians], float]:
    return lambda medians: medians[f"{measure}, {ours}, {unit}"] / medians[f"{measure}, {theirs}, {unit}"]


def _to_limit(keys: str, kind: str, unit: str) -> Callable[[Medians], float]:
    # The C program does not look at the key.
    hit = f"warm hit, {kind}, 64, C, {unit}"
    return lambda medians: medians[f"warm {keys}, {kind}, 64, ours, {unit}"] / medians[hit]


def _beside(what: str) -> Callable[[Medians], float]:
    ours = "warm hit, tcp, {}, ours, p99"
    return lambda medians: medians[ours.format(f"beside 500 {what}")] / medians[ours.format("before a burst")]


def _start(medians: Medians) -> float:
    return medians["start, 100000 stored, ours, seconds"] / medians["start, 0 stored, ours, seconds"]


_WARM = [
    target
    for keys in ("hit", "negative")
    for target in (
        Target(f"warm {keys}, TCP: of the C program's requests", _to_limit(keys, "tcp", "per_second"), 0.85),
        Target(f"warm {keys}, TCP: of its CPU per request", _to_limit(keys, "tcp", "cpu"), 1.3, at_least=False),
        Target(f"warm {keys}, TCP: of the peer's requests", _ratio(f"warm {keys}, tcp, 64", "ours", "peer"), 2.5),
        Target(f"warm {keys}, Unix: of the C program's requests", _to_limit(keys, "unix", "per_second"), 0.45),
        Target(f"warm {keys}, Unix: of the peer's requests", _ratio(f"warm {keys}, unix, 64", "ours", "peer"), 3),
    )
]
TARGETS = [
    *_WARM,
    Target("warm hit, TCP: of the peer with sqlite", _ratio("warm hit, tcp, 64", "ours", "peer with sqlite"), 20),
    Target("cold policy: of the peer's domains", _ratio("cold policy", "ours", "peer"), 1),
    Target("cold negative: of the peer's domains", _ratio("cold negative", "ours", "peer"), 0.5),
    Target("p99 of warm hits beside 500 new domains: of that without", _beside("other policies"), 5, at_least=False),
    Target("p99 of warm hits beside 500 that hang: of that without", _beside("hanging"), 5, at_least=False),
    Target(
        "MB with 100,000 domains known", lambda medians: medians["memory, 100000 known, ours, MB"], 120, at_least=False
    ),
    Target(
        "seconds to the first answer", lambda medians: medians["start, 0 stored, ours, seconds"], 0.5, at_least=False
    ),
    Target("start with 100,000 policies: of that with none", _start, 1.3, at_least=False),
]


def print_table(medians: Medians) -> None:
    """All medians, a line each measure."""
    loads = sorted({name.rpartition(", ")[0] for name in medians if name.endswith(", per_second")})
    _print(f"\n{'median of the rounds':52} {'per s':>9} {'CPU us':>8} {'p50 us':>8} {'p99 us':>8} {'p99.9 us':>8}")
    for load in loads:
        rate, cpu, *waits = (medians[f"{load}, {unit}"] for unit in _UNITS)
        _print(f"{load:52} {rate:9.0f} {cpu:8.1f} " + " ".join(f"{wait:8.0f}" for wait in waits))
    for name in sorted(medians):
        if name.startswith(("start, ", "memory, ")):
            _print(f"{name:52} {medians[name]:9.3f}")


def print_targets(medians: Medians) -> int:
    """The ratios that count; how many targets are missed."""
    _print(f"\n{'target':62} {'':>8} {'is':>8}")
    missed = 0
    for target in TARGETS:
        value = target.value(medians)
        missed += not target.holds(value)
        sign = ">=" if target.at_least else "<="
        _print(f"{target.what:62} {sign} {target.limit:<5g} {value:8.2f} {'' if target.holds(value) else 'missed'}")
    return missed


def _print(text: str) -> None:
    print(text)  # noqa: T201 - this is its output
