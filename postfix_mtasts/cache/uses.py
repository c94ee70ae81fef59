"""The file that says how exceptions were used, and what the log was told of them, beside the database: JSON, written
anew as a whole. Nobody's mail depends on it: where it is not understood, counting begins anew.
"""

import json
import pathlib
import threading
from dataclasses import dataclass, field
from typing import Any

from postfix_mtasts import durable
from postfix_mtasts.cache.row import count_of, list_of, text_of, time_of
from postfix_mtasts.sts.domain import PolicyDomain, next_hop

_MAX_OCTETS = 4 * 1024 * 1024  # Two thousand exceptions with the longest domains take 3 MiB.
_VERSION = 1

Key = tuple[bool, str]  # Whether an exception was added by command, and its domain.


@dataclass(slots=True)
class Use:
    """How often an exception has changed an answer, and what the log was told of it."""

    count: int = 0
    last: float = 0.0  # Seconds since the epoch.
    domains: dict[PolicyDomain, None] = field(default_factory=dict)  # For which it did; the last ones.
    hour: float = -1.0
    day: str = ""
    end: float = 0.0


class Uses:
    """The file at a path. Its methods block."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._writing = threading.Lock()  # At the end, one write may still be under way in another thread.

    def read(self) -> tuple[float, dict[Key, Use]] | None:
        """Since when uses were counted, in seconds since the epoch, and those of each exception. None if unknown."""
        try:
            with self._path.open("rb") as file:
                fields = json.loads(file.read(_MAX_OCTETS))  # What is larger is cut, and not understood.
            if count_of(fields["version"]) != _VERSION:
                return None
            uses = {(one["added"] is True, text_of(one["domain"])): _parse(one) for one in list_of(fields["uses"])}
            return time_of(fields["since"]), uses
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, content: str) -> None:
        """Replace the file with what was `printed`. Raises OSError."""
        with self._writing:
            durable.replace(self._path, content.encode())


def printed(since: float, uses: dict[Key, Use]) -> str:
    """The content of the file."""
    known = [_print(key, use) for key, use in uses.items() if use != Use()]
    return json.dumps({"version": _VERSION, "since": since, "uses": known})


def _print(key: Key, use: Use) -> dict[str, Any]:
    added, name = key
    return {
        "added": added,
        "domain": name,
        "used": use.count,
        "last_used": use.last,
        "domains": [domain.name for domain in use.domains],
        "told_hour": use.hour,
        "told_day": use.day,
        "told_end": use.end,
    }


def _parse(fields: Any) -> Use:
    return Use(
        count_of(fields["used"]),
        time_of(fields["last_used"]),
        dict.fromkeys(next_hop(text_of(name).encode()).domain for name in list_of(fields["domains"])),
        time_of(fields["told_hour"]),
        text_of(fields["told_day"]),
        time_of(fields["told_end"]),
    )
