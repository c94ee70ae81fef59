"""What work costs, in a process of its own."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from postfix_mtasts.reports.report import ReportError


class Cost(NamedTuple):
    """Why the work was refused, or empty; seconds of the processor, and by how many KiB the memory grew at its peak."""

    reason: str
    seconds: float
    kilobytes: int


def cost(make: Callable[[], bytes], work: Callable[[bytes], object]) -> Cost:
    """Do some work on data that is made before."""
    forked = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[Cost] = forked.SimpleQueue()
    process = forked.Process(target=_measure, args=(make, work, results))
    process.start()
    found = results.get()
    process.join()
    return found


def _measure(
    make: Callable[[], bytes], work: Callable[[bytes], object], results: "multiprocessing.SimpleQueue[Cost]"
) -> None:
    data = make()
    Path("/proc/self/clear_refs").write_text("5")  # The peak is counted from here (proc(5)).
    before, begun, reason = _peak(), time.process_time(), ""
    try:
        work(data)
    except ReportError as refused:
        reason = str(refused)
    results.put(Cost(reason, time.process_time() - begun, _peak() - before))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
