"""Deletes what has been kept long enough, or is too much. Each call does a part of it, so that none takes long."""

from dataclasses import dataclass

from postfix_mtasts import config
from postfix_mtasts.reports.records import forget_details, remove
from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.reports.store import Store


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept, and how much one call deletes."""

    mails: int = 2 * 2**30  # Octets of raw mails. A report has some kilobytes.
    anybody: int = 5000  # Messages that anybody may have sent, forged or again, of which the last ones stay.
    messages: int = 2_000_000
    failures: int = 5_000_000  # Rows. What the views sum is kept apart from them.
    database: int = 4 * 2**30  # Octets that are in use. Usual reports take less, with as many rows as there may be.
    at_once: int = 100  # Messages that one call deletes for one reason.
    failures_at_once: int = 10_000  # Or a few more: all of a report.


_DAY = 86400

_OLD_MAILS = "SELECT name FROM messages WHERE octets > 0 AND received < ? ORDER BY received LIMIT ?"
_OCTETS = "SELECT TOTAL(octets) FROM messages WHERE octets > 0"
# The mails of verified senders are deleted last, and the largest first: anybody can verify mails of his own domain, and
# a hundred of 20 MB would take the room of all others.
_ANY_MAILS = "SELECT name FROM messages WHERE octets > 0 ORDER BY dkim = 'verified', octets DESC, received LIMIT ?"
_OLD_MESSAGES = "SELECT name FROM messages WHERE received < ? ORDER BY received LIMIT ?"
_OF_ANYBODY = (
    "FROM messages WHERE dkim IN ('none', 'other-domain', 'invalid', 'unknown')",
    "FROM messages WHERE state = 'duplicate'",
)
# Without its mail, a message waits in vain for a key.
_WITHOUT_MAIL = """
UPDATE messages SET octets = 0, state = CASE state WHEN 'waiting' THEN 'stored' ELSE state END WHERE name = ?
"""
# What anybody may have sent is deleted first.
_ANY_MESSAGES = "SELECT name FROM messages ORDER BY dkim = 'verified', id LIMIT ?"
_USED = """
SELECT (p.page_count - f.freelist_count) * s.page_size
FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s
"""
# Not less than the number of rows, and much faster than to count them.
_SPAN = "SELECT COALESCE(MAX(id) - MIN(id) + 1, 0) FROM"
# The reports with the oldest failures.
_DETAILED = """
SELECT DISTINCT p.report FROM (SELECT policy FROM failures ORDER BY id LIMIT ?) f JOIN policies p ON p.id = f.policy
"""


def tidy(spool: Spool, store: Store, settings: config.Reports, now: int, bounds: Bounds = Bounds()) -> None:
    """Delete a part of what has to go. Raises StoreError and OSError."""
    at_once = bounds.at_once
    spool.clean(now)
    mails = _names(store, _OLD_MAILS, now - settings.keep_mails * _DAY, at_once)
    if _number(store, _OCTETS) > bounds.mails:
        mails += _names(store, _ANY_MAILS, at_once)
    messages = _names(store, _OLD_MESSAGES, now - settings.keep_facts * _DAY, at_once)
    # A mail in quarantine is nothing without its text.
    messages += [
        name for name in mails if store.one("SELECT 1 FROM messages WHERE name = ? AND state = 'quarantined'", (name,))
    ]
    for of_kind in _OF_ANYBODY:
        too_many = _number(store, f"SELECT COUNT(*) {of_kind}") - bounds.anybody
        messages += _names(store, f"SELECT name {of_kind} ORDER BY received LIMIT ?", min(max(too_many, 0), at_once))
    too_many = _count(store, "messages", bounds.messages) - bounds.messages
    messages += _names(store, "SELECT name FROM messages ORDER BY id LIMIT ?", min(max(too_many, 0), at_once))
    with store.transaction():
        for name in mails:
            store.execute(_WITHOUT_MAIL, (name,))
        for name in messages:
            remove(store, name)
        if _count(store, "failures", bounds.failures) > bounds.failures:
            for (report,) in store.select(_DETAILED, (bounds.failures_at_once,)):
                forget_details(store, report)
        messages += _shrink(store, bounds)
    for name in {*mails, *messages}:
        spool.remove(name)


def _shrink(store: Store, bounds: Bounds) -> list[str]:
    """Delete messages until the database is no larger than it may be. Return their names."""
    deleted: list[str] = []
    if _number(store, _USED) > bounds.database:
        for name in _names(store, _ANY_MESSAGES, bounds.at_once):
            remove(store, name)
            deleted.append(name)
            if _number(store, _USED) <= bounds.database:
                break
    return deleted


def _count(store: Store, table: str, most: int) -> float:
    """How many rows a table has. They are counted only if there may be more than `most`.

    What anybody has sent is deleted soon, and leaves gaps, however far what is to stay goes back.
    """
    span = _number(store, f"{_SPAN} {table}")
    return span if span <= most else _number(store, f"SELECT COUNT(*) FROM {table}")  # noqa: S608 - ours


def _number(store: Store, statement: str) -> float:
    row = store.one(statement)
    return float(row[0]) if row else 0.0


def _names(store: Store, statement: str, *values: object) -> list[str]:
    return [name for (name,) in store.select(statement, values)]
