"""What was measured as tables for people."""

from tests.bench.notes import Notes
from tests.bench.targets import TARGETS

_UNITS = {"per_second": 0, "cpu": 1, "p50": 0, "p99": 0, "p99_9": 0, "max": 0}  # With so many decimals.


def print_medians(notes: Notes) -> None:
    """A line for each contestant in each measure; microseconds, but for what has units of its own."""
    _print(f"\n{'medians':62} {'per s':>8} {'CPU us':>8} {'p50 us':>8} {'p99 us':>8} {'p99.9 us':>8} {'max us':>8}")
    for measure, contestants in notes.medians().items():
        for who, units in contestants.items():
            if units.keys() == _UNITS.keys():
                values = " ".join(f"{units[unit]:8.{digits}f}" for unit, digits in _UNITS.items())
            else:
                values = ", ".join(f"{value:8.3f} {unit}" for unit, value in units.items())
            _print(f"{f'{measure}: {who}':62} {values}")


def print_targets(notes: Notes) -> list[dict[str, object]]:
    """A line for each target of which something was measured; and the same for programs."""
    _print(f"\n{'targets: medians of the ratios in each round':62} {'target':>8} {'is':>8}")
    rows: list[dict[str, object]] = []
    for target in TARGETS:
        value = target.median(notes)
        if value is None:
            continue
        sign = ">=" if target.at_least else "<="
        holds = target.holds(value)
        _print(f"{target.what:62} {sign} {target.limit:5g} {value:8.2f} {'holds' if holds else 'MISSED'}")
        rows.append({"what": target.what, "target": f"{sign} {target.limit:g}", "is": value, "holds": holds})
    return rows


def _print(text: str) -> None:
    print(text)  # noqa: T201 - this is its output
