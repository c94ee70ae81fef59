"""Bars by day, as paths of SVG. Pure functions.

A chart is as many units wide as it has days, and HEIGHT units high. Its SVG is stretched to the width that there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from postfix_mtasts.reports.views import Day

HEIGHT = 100
_WIDTH = 0.8  # Of a bar; the rest of its day is the gap to the next one.
_LOWEST = 4  # A bar of one session in a million is seen too.


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of days. `failed` has a scale of its own: few failures would not be seen beside many successes.

    The paths are empty where there is nothing to draw. `silent` marks the days without a session.
    """

    days: tuple[Day, ...]
    successful: str
    failed: str
    silent: str
    most_successful: int  # On a day: the upper end of the scale.
    most_failed: int


def chart(days: Sequence[Day]) -> Chart:
    """The bars of days that follow each other."""
    successful = [day.successful for day in days]
    failed = [day.failed for day in days]
    silent = [not day.successful and not day.failed for day in days]
    return Chart(
        days=tuple(days),
        successful=_path(successful),
        failed=_path(failed),
        silent="".join(_bar(number, 2) for number, is_silent in enumerate(silent) if is_silent),
        most_successful=max(successful, default=0),
        most_failed=max(failed, default=0),
    )


def _path(counts: Sequence[int]) -> str:
    most = max(counts, default=0)
    return "".join(
        _bar(number, max(_LOWEST, round(HEIGHT * count / most))) for number, count in enumerate(counts) if count
    )


def _bar(number: int, height: int) -> str:
    """A bar above the lower edge."""
    return f"M{number + (1 - _WIDTH) / 2:g} {HEIGHT}v-{height}h{_WIDTH:g}v{height}z"
