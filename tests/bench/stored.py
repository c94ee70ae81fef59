"""Caches that a daemon of the benchmark finds when it starts, written as it would have."""

import time
from pathlib import Path

from postfix_mtasts.cache.database import Database, Write
from postfix_mtasts.cache.row import print_row
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.bench.world import MX, names


def fetched(now: float) -> Entry:
    """What is known after a fetch."""
    policy = Policy(Mode.ENFORCE, 604_800, tuple(map(MxPattern, MX)))
    return Entry(CachedPolicy(policy, str(policy), "1", now), checked_at=now, last_used=now)


def database(folder: Path, count: int) -> Path:
    """The file with so many policies; it is written when it is first asked for."""
    file = folder / f"stored-{count}.sqlite"
    if not file.exists():
        now = time.time()
        row = print_row(fetched(now))
        rows = Database(str(file))
        rows.open()
        rows.put([Write(domain, row, now, now) for domain in names("policy", count)])
        rows.close()
    return file
