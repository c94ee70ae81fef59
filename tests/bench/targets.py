"""What is wanted: figures, and ratios of figures that were measured in the same round."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.notes import Notes

Figure = Callable[[Notes], Sequence[float]]


@dataclass(frozen=True)
class Target:
    """The median of a figure is to be at least or at most so much."""

    what: str
    figure: Figure
    limit: float
    at_least: bool = True

    def median(self, notes: Notes) -> float | None:
        """What was measured, if it was."""
        try:
            return statistics.median(self.figure(notes))
        except KeyError:
            return None

    def holds(self, value: float) -> bool:
        """Whether the target is met."""
        return value >= self.limit if self.at_least else value <= self.limit


def _is(measure: str, unit: str, who: str = "ours") -> Figure:
    return lambda notes: notes.of(measure, who, unit)


def _ratio(measure: str, unit: str, to: str, who: str = "ours") -> Figure:
    """What is ours in one measure, to that of another, or of another contestant; round by round."""

    def ratios(notes: Notes) -> list[float]:
        pairs = zip(notes.of(measure, "ours", unit), notes.of(to, who, unit), strict=True)
        return [mine / other for mine, other in pairs]

    return ratios


def _warm(what: str, kind: str, of_limit: float, of_peer: float) -> list[Target]:
    measure = f"warm {what}, {kind}, 64 connections"
    cpu = Target(f"{measure}: CPU of C's", _ratio(measure, "cpu", measure, "C"), 1.3, at_least=False)
    return [
        Target(f"{measure}: per second of C's", _ratio(measure, "per_second", measure, "C"), of_limit),
        *([cpu] if kind == "tcp" else []),
        Target(f"{measure}: of the peer's", _ratio(measure, "per_second", measure, "peer"), of_peer),
    ]


def _cold(what: str, of_peer: float) -> Target:
    measure = f"cold {what}, 32 in parallel"
    return Target(f"{measure}: of the peer's", _ratio(measure, "per_second", measure, "peer"), of_peer)


def _burst(what: str) -> Target:
    beside, before = f"warm hit, tcp, beside 500 {what}", f"warm hit, tcp, before the 500 {what}"
    return Target(f"p99 beside 500 {what}: of that before", _ratio(beside, "p99", before), 5, at_least=False)


_WARM_HIT = "warm hit, tcp, 64 connections"
TARGETS = [
    *_warm("hit", "tcp", 0.85, 2.5),
    *_warm("negative", "tcp", 0.85, 2.5),
    *_warm("hit", "unix", 0.45, 3),
    *_warm("negative", "unix", 0.45, 3),
    Target(
        f"{_WARM_HIT}: of the peer's with sqlite", _ratio(_WARM_HIT, "per_second", _WARM_HIT, "peer with sqlite"), 20
    ),
    Target(
        "warm hit, tcp, beside metrics: CPU of that without metrics",
        _ratio("warm hit, tcp, beside metrics", "cpu", "warm hit, tcp, beside metrics", "ours without metrics"),
        1.03,
        at_least=False,
    ),
    Target(
        "warm hit, tcp, with a fleet: CPU of that without one",
        _ratio("warm hit, tcp, with a fleet", "cpu", "warm hit, tcp, with a fleet", "ours without a fleet"),
        1.03,
        at_least=False,
    ),
    Target("fleet of 16: % of domains discovered twice", _is("fleet of 16, discoveries", "% twice"), 1, at_least=False),
    _cold("policy", 0.5),
    _cold("negative", 0.5),
    Target(
        "cold negative, one by one: p50 in microseconds", _is("cold negative, one by one", "p50"), 500, at_least=False
    ),
    *map(_burst, ("new domains", "policy hosts that hang", "records that hang")),
    Target("MB with 100,000 domains known", _is("memory, 100000 known", "MB"), 120, at_least=False),
    Target(
        "MB with 10,000 names without a certificate",
        _is("memory, 10000 names without a certificate", "MB"),
        120,
        at_least=False,
    ),
    Target(
        "MB beyond cache.memory with 10,000 policies of 64 KiB",
        _is("memory, 10000 policies of 64 KiB", "MB beyond cache.memory"),
        60,
        at_least=False,
    ),
    *(
        Target(
            f"seconds that {what} wait beside 20 hostile hosts: {who}",
            _is(f"20 hosts of the worst kind, {unit}", "seconds", who),
            limit,
            at_least=False,
        )
        for who in ("ours", "ours on asyncio")
        for what, unit, limit in (("ready replies", "ready", 0.1), ("new domains", "new", 1))
    ),
    *(
        Target(
            f"publish {name}, 10,000 domains: {unit}",
            _is(f"publish {name}, 10000 domains", unit),
            limit,
            at_least=False,
        )
        for name, unit, limit in (
            ("list", "seconds", 1),
            ("zone", "seconds", 2),
            ("list", "MB", 60),
            ("zone", "MB", 60),
        )
    ),
    # 10,000 take less than a day, and no name server is asked about more than five domains a second.
    Target("publish check: domains a second", _is("publish check, 50 domains", "a second"), 10_000 / 86_400),
    Target("publish check: domains a second", _is("publish check, 50 domains", "a second"), 5.5, at_least=False),
    Target("seconds to the first answer", _is("start, 0 stored", "seconds"), 0.5, at_least=False),
    Target(
        "with 100,000 policies stored: of that with none",
        _ratio("start, 100000 stored", "seconds", "start, 0 stored"),
        1.3,
        at_least=False,
    ),
]
