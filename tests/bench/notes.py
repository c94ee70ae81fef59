"""What was measured: samples by measure, contestant and unit."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict

from tests.bench.load import Result

Samples = dict[str, dict[str, dict[str, list[float]]]]


class Notes:
    """Grow by one sample in each round."""

    def __init__(self) -> None:
        self.samples: Samples = {}

    def note(self, measure: str, who: str, result: Result) -> None:
        """All that one load came to."""
        for unit, value in asdict(result).items():
            self.add(measure, who, unit, value)

    def add(self, measure: str, who: str, unit: str, value: float) -> None:
        """One sample."""
        self.samples.setdefault(measure, {}).setdefault(who, {}).setdefault(unit, []).append(value)

    def of(self, measure: str, who: str, unit: str) -> Sequence[float]:
        """All samples. Raises KeyError if it was not measured."""
        return self.samples[measure][who][unit]

    def medians(self) -> dict[str, dict[str, dict[str, float]]]:
        """The middle of all samples."""
        return {
            measure: {
                who: {unit: statistics.median(values) for unit, values in units.items()}
                for who, units in contestants.items()
            }
            for measure, contestants in self.samples.items()
        }
