"""Entries in SQLite, through sqlitedict: one JSON row a domain, that a restart or a power cut does not lose.

WAL with synchronous=NORMAL: after a crash of the machine a row is the old one or the new one, never half. sqlitedict
turns synchronous off; here it is turned on again. All calls are made in a thread of their own, off the event loop.
"""

import asyncio
import json
import logging
import math
import os
import pathlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlitedict

from postfix_mtasts.decide import Entry
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy

ROW_VERSION = 1
# As bytes, in one row at any rate: sqlitedict's thread dies, and its caller waits for ever, if a row cannot be decoded.
_GET = "SELECT (SELECT ifnull(CAST(value AS BLOB), x'') FROM policies WHERE key = ?)"
_CREATE = "CREATE TABLE IF NOT EXISTS policies (key TEXT PRIMARY KEY, value BLOB)"


class StoreError(Exception):
    """The database or a row of it could not be used; says why."""


class Store:
    """The database at a path, which is made if its folder is there. Raises StoreError if it cannot be written to."""

    def __init__(self, path: str) -> None:
        _probe(pathlib.Path(path))
        # sqlitedict logs each error with a stack, and raises it as well.
        logging.getLogger("sqlitedict").setLevel(logging.CRITICAL + 1)
        # With autocommit, each statement is a transaction of its own. Without, sqlitedict's thread dies if a commit
        # fails, and its caller waits for ever.
        self._rows = sqlitedict.SqliteDict(
            path, tablename="policies", autocommit=True, journal_mode="WAL", encode=str, decode=str, outer_stack=False
        )
        self._rows.conn.select_one("PRAGMA synchronous = NORMAL")
        # A lock must not hold up those who only want to read what others wait to write.
        self._rows.conn.select_one("PRAGMA busy_timeout = 200")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def get(self, domain: PolicyDomain) -> Entry | None:
        """What is stored of a domain. Raises StoreError, also for a row that cannot be understood."""
        (row,) = await self._run(self._rows.conn.select_one, _GET, (domain.name,))
        return None if row is None else parse_row(row)

    async def put(self, domain: PolicyDomain, entry: Entry) -> None:
        """Store what is known of a domain; it is on disk when this returns. Raises StoreError."""
        await self._run(self._rows.__setitem__, domain.name, print_row(entry))

    async def aclose(self) -> None:
        """Close the database."""
        await self._run(self._rows.close)
        self._thread.shutdown()

    async def _run(self, call: Callable[..., Any], *args: object) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


def _probe(path: pathlib.Path) -> None:
    """Open and write to the database once, where errors can be seen: sqlitedict would print them from its thread."""
    try:
        if not path.parent.is_dir():
            raise StoreError(f"there is no folder {path.parent}")
    except OSError as error:
        raise StoreError(os.strerror(error.errno or 0).lower()) from error
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_CREATE)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("REPLACE INTO policies (key, value) VALUES ('', '')")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def print_row(entry: Entry) -> str:
    """An entry as it is stored."""
    return json.dumps(
        {
            "version": ROW_VERSION,
            "mode": entry.policy.mode.value,
            "max_age": entry.policy.max_age,
            "mx": [pattern.text for pattern in entry.policy.mx],
            "text": entry.text,
            "record_id": entry.record_id,
            "fetched_at": entry.fetched_at,
        }
    )


def parse_row(row: str | bytes) -> Entry:
    """The entry in a stored row. Raises StoreError."""
    try:
        return _entry(json.loads(row))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise StoreError(f"a row that is no entry: {error!a}") from error


def _entry(fields: Any) -> Entry:
    version = fields["version"]
    if type(version) is not int or version != ROW_VERSION:
        raise StoreError(f"a row of version {version!a}, not {ROW_VERSION}")
    mode, max_age, mx = Mode(fields["mode"]), fields["max_age"], fields["mx"]
    if not isinstance(mx, list) or type(max_age) is not int or not 0 <= max_age <= MAX_AGE_LIMIT:
        raise TypeError("no policy")
    policy = Policy(mode, max_age, tuple(MxPattern(_text(pattern)) for pattern in mx))
    if not policy.mx and policy.mode is not Mode.NONE:
        raise ValueError("no mx")
    return Entry(policy, _text(fields["text"]), _text(fields["record_id"]), _time(fields["fetched_at"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!a} is no text")
    return value


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!a} is no time")
    return float(value)
