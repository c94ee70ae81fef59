"""What pages show of the sending side: what the running daemon has cached, and what could not be renewed."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from postfix_mtasts.cache.brief import EXPIRED
from postfix_mtasts.cache.row import RowError
from postfix_mtasts.config import Config
from postfix_mtasts.query.output import JSON, QueryError, Status
from postfix_mtasts.query.running.client import NoDaemon, ask
from postfix_mtasts.query.running.render import Known, ago, failures, parse_known, summary
from postfix_mtasts.query.running.shadow import TABLES, ordered
from postfix_mtasts.sts.exception import names_for

MAX_LISTED = 100  # Exceptions, and domains of shadow mode. The daemon lists as many domains of each kind.
_MODES = ("enforce", "testing", "none", EXPIRED)
_TROUBLE = (Status.ERROR, Status.WARNING)
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
    """What the daemon has: how many policies of each mode live, or have expired; of its domains, the first.

    `in_trouble` and `well` are how many there are.
    """

    modes: tuple[tuple[str, int], ...]
    troubled: tuple[Line, ...]
    others: tuple[Line, ...]
    in_trouble: int
    well: int
    exceptions: tuple[Exempt, ...] = ()
    shadow: tuple[Shadowed, ...] | None = None  # None: policies are enforced.

    def is_exempt(self, domain: str) -> bool:
        """Whether a listed exception, for a domain or for all below one, holds in place of its policy."""
        holding = {one.domain for one in self.exceptions if one.holds}
        return not holding.isdisjoint(names_for(domain))


def held(settings: Config) -> Held:
    """Ask the running daemon. Raises QueryError."""
    try:
        counts, *domains = ask(settings.server.control, {"request": "brief"}, _PATIENCE)
        exceptions = list(ask(settings.server.control, {"request": "exceptions"}, _PATIENCE))
        since, *withheld = ask(settings.server.control, {"request": "shadow"}, _PATIENCE)
    except NoDaemon as error:
        raise QueryError(f"the daemon cannot be reached: {error}", error.remedy) from error
    now = time.time()
    return replace(
        arranged(counts, domains, now),
        exceptions=tuple(exempt(one, now) for one in exceptions[:MAX_LISTED]),
        shadow=None if since["since"] is None else shadowed(withheld, now),
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


def arranged(counts: JSON, domains: Iterable[JSON], now: float) -> Held:
    """What a page shows of domains: those that could not be renewed first, the most serious at the top.

    `counts` and `domains` are as the daemon tells them (`brief` in `daemon.control`).
    """
    known = list(_understood(domains))
    troubled = [one for one in known if one.status(now) in _TROUBLE]
    return Held(
        tuple((mode, counts["modes"][mode]) for mode in _MODES if mode in counts["modes"]),
        tuple(_line(one, now) for one in troubled),
        tuple(_line(one, now) for one in known if one.status(now) not in _TROUBLE),
        counts["in_trouble"],
        counts["domains"] - counts["in_trouble"],
    )


def _understood(domains: Iterable[JSON]) -> Iterator[Known]:
    for one in domains:
        with contextlib.suppress(RowError):  # `cache list` says which.
            yield parse_known(one)


def _line(one: Known, now: float) -> Line:
    cached = one.entry.cached
    fetched = ago(cached.fetched_at, now) if cached else "never"
    fetched_at = cached.fetched_at if cached else 0.0
    troubles = tuple(failures(one, now))
    if one.status(now) is Status.ERROR and not one.deferred:
        troubles = ("mail is sent without a policy", *troubles)
    return Line(one.domain, one.status(now), summary(one, now), fetched, fetched_at, troubles)
