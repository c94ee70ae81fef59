"""What pages show of the sending side: what the running daemon has cached, and what could not be renewed."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from postfix_mtasts.cache.row import RowError
from postfix_mtasts.config import Config
from postfix_mtasts.query.output import JSON, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.render import Known, ago, failures, parse_known, summary
from postfix_mtasts.query.running.shadow import TABLES, ordered
from postfix_mtasts.sts.exception import names_for

MAX_READ = 20_000  # Domains that the daemon is asked for. All that is known of them is in memory for a moment.
MAX_LISTED = 100
_PATIENCE = 5.0  # Seconds, for an answer from memory.


@dataclass(frozen=True, slots=True)
class Line:
    """A domain: what is cached, and why it could not be renewed. `fetched_at` is 0 if it never was."""

    domain: str
    status: Status
    summary: str
    fetched: str
    fetched_at: float
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exempt:
    """An exception: a domain whose policy does not count until the end of a day. `holds` is false if it has ended."""

    domain: str
    until: str
    reason: str
    level: str
    added: bool
    holds: bool
    used: int
    last_used: str


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What would happen to mail to a domain whose policy is not enforced, if it were."""

    domain: str
    state: str
    queries: int
    probed: str
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon has. `modes` are how many policies are in each mode. `more` are domains that are not listed."""

    modes: tuple[tuple[str, int], ...]
    troubled: tuple[Line, ...]
    others: tuple[Line, ...]
    more: int
    all_read: bool
    exceptions: tuple[Exempt, ...] = ()
    shadow: tuple[Shadowed, ...] | None = None  # None: policies are enforced.

    def is_exempt(self, domain: str) -> bool:
        """Whether a listed exception, for a domain or for all below one, holds in place of its policy."""
        holding = {one.domain for one in self.exceptions if one.holds}
        return not holding.isdisjoint(names_for(domain))


def held(settings: Config) -> Held:
    """Ask the running daemon. Raises QueryError."""
    try:
        documents = ask(settings.server.control, {"request": "list"}, _PATIENCE)
        known, all_read = _read(documents)
        exceptions = list(ask(settings.server.control, {"request": "exceptions"}, _PATIENCE))
        counts, *domains = ask(settings.server.control, {"request": "shadow"}, _PATIENCE)
    except NoDaemon as error:
        raise QueryError(f"the daemon cannot be reached: {error}", error.remedy) from error
    now = time.time()
    found = arranged(known, now, all_read=all_read)
    return replace(
        found,
        exceptions=tuple(exempt(one, now) for one in exceptions[:MAX_LISTED]),
        shadow=None if counts["since"] is None else shadowed(domains, now),
    )


def shadowed(domains: Sequence[JSON], now: float) -> tuple[Shadowed, ...]:
    """The domains that would not just be delivered to, those with the most queries first (`daemon.control`)."""
    concerned = [one for one in ordered(domains) if one["state"] in TABLES]
    return tuple(
        Shadowed(one["domain"], TABLES[one["state"]], one["queries"], ago(one["probed_at"], now), one["reason"])
        for one in concerned[:MAX_LISTED]
    )


def exempt(document: JSON, now: float) -> Exempt:
    """An exception as the daemon tells it (`daemon.control`)."""
    return Exempt(
        document["domain"],
        document["until"],
        document["reason"],
        document["level"],
        bool(document["added"]),
        not document["over"] and not document["overruled"],
        document["used"],
        ago(document["last_used"] or 0.0, now),
    )


def _read(documents: Iterable[JSON]) -> tuple[list[Known], bool]:
    known: list[Known] = []
    for number, one in enumerate(documents):
        if number == MAX_READ:
            return known, False
        try:
            known.append(parse_known(one))
        except RowError:
            continue  # `cache list` says which.
    return known, True


def arranged(known: Iterable[Known], now: float, *, all_read: bool = True) -> Held:
    """What a page shows of domains: those that could not be renewed first, the most serious at the top."""
    found = sorted(known, key=lambda one: one.domain)
    modes = Counter(one.entry.cached.policy.mode.value for one in found if one.entry.cached)
    troubled = [one for one in found if one.status(now) in (Status.ERROR, Status.WARNING)]
    troubled.sort(key=lambda one: one.status(now) is not Status.ERROR)
    others = [one for one in found if one.status(now) not in (Status.ERROR, Status.WARNING)]
    shown = [*troubled[:MAX_LISTED], *others[:MAX_LISTED]]
    return Held(
        tuple(sorted(modes.items())),
        tuple(_line(one, now) for one in troubled[:MAX_LISTED]),
        tuple(_line(one, now) for one in others[:MAX_LISTED]),
        len(found) - len(shown),
        all_read,
    )


def _line(one: Known, now: float) -> Line:
    cached = one.entry.cached
    fetched = ago(cached.fetched_at, now) if cached else "never"
    fetched_at = cached.fetched_at if cached else 0.0
    return Line(one.domain, one.status(now), summary(one, now), fetched, fetched_at, tuple(failures(one, now)))
