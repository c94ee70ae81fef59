"""Makes room in the database: which rows are deleted for new ones.

What protects nobody goes first, then enforced policies of domains that are not in use; of both, what was used last the
longest ago, to a day. An enforced policy that lives and is in use never goes. A full database takes seconds to be read,
twice, so this is done page by page: domains are read in between.
"""

import collections
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from postfix_mtasts.cache import statements
from postfix_mtasts.cache.row import VERSION
from postfix_mtasts.sts.schedule import unused_since

_PAGE = 100  # Rows that are read, or deleted, at once: some ten milliseconds for the largest.


def steps(do: Callable[..., Any], octets: float, now: float) -> Iterator[None]:
    """Delete rows of so many octets, as far as there are any that may go. `do` executes a statement."""
    found: collections.Counter[int] = collections.Counter()
    for page in _pages(do, now):
        for _, size, rank in page:
            found[rank] += size
        yield
    last, of_last = 0, octets  # The last rank of which rows go, and how many octets of it.
    for last in sorted(found):
        if found[last] >= of_last:
            break
        of_last -= found[last]
    else:
        of_last = math.inf
    for page in _pages(do, now):
        going = []
        for row, size, rank in page:
            if rank < last or (rank == last and of_last > 0):
                going.append(row)
                of_last -= size if rank == last else 0
        do(statements.DELETE, json.dumps(going))
        yield


def _pages(do: Callable[..., Any], now: float) -> Iterator[list[tuple[int, int, int]]]:
    """The rows that may go: their numbers, octets and ranks. The lowest rank goes first."""
    row = -1
    while row is not None:
        row, page = json.loads(do(statements.RANKS, now, VERSION, unused_since(now), row, _PAGE))
        yield page
