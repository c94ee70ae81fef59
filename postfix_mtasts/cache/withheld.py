"""What shadow mode gathers: for which next hops an enforced policy was withheld, and what would become of their mail.

It is bounded, since whoever has mail sent to as many domains of his as he likes chooses how much there is to gather. It
is kept as JSON in a file beside the database, and forgotten when shadow mode ends. Times are seconds since the epoch.
"""

import base64
import hashlib
import heapq
import json
import os
import pathlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, get_args

from postfix_mtasts import durable
from postfix_mtasts.delivery.fate import State
from postfix_mtasts.postfix.reply import Style
from postfix_mtasts.sts.domain import NextHop, PolicyDomain, next_hop
from postfix_mtasts.sts.schedule import UNUSED_AFTER

MAX_HOPS = 10_000  # Next hops with an enforced policy; beyond that, those with the fewest queries make room.
MAX_ASKED = 100_000  # Domains that are counted; of more is only known that there are more.
MAX_REASON = 300  # Characters.
MAX_FILE = 2**24  # Octets. All of the above take half of it at most.
_ROOM = 1 / 8  # Of the next hops, which is freed at once.
_DAY = 86400.0
_VERSION = 1
_HASH = 8  # Octets that stand for a domain which is only counted.

# What is raised where the file is not as it was written.
WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class WithheldError(Exception):
    """The file cannot be read or written; says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What would have become of mail at a time, and why."""

    state: State
    reason: str
    at: float


@dataclass(slots=True)
class Withheld:
    """How many queries of a next hop were told "not found" in place of its policy, and what came of its last probe.

    The last of them wanted the policy in this style, by which its MX hosts are judged.
    """

    style: Style
    queries: int
    asked_at: float
    result: Result | None = None

    def is_due(self, now: float) -> bool:
        """Whether it was not probed within a day. A result from the future is of a clock that was wrong."""
        return self.result is None or not 0 <= now - self.result.at < _DAY


class Gathered:
    """What was gathered since shadow mode began."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.hops: dict[NextHop, Withheld] = {}
        self.asked: set[bytes] = set()
        self.with_policy: set[bytes] = set()  # Of those, in any mode.
        self.is_full = False  # More domains were asked for than are counted.

    def note_asked(self, domain: PolicyDomain, *, has_policy: bool) -> None:
        """Count a domain, once."""
        mark = hashlib.blake2b(domain.name.encode(), digest_size=_HASH).digest()
        if mark not in self.asked:
            if len(self.asked) >= MAX_ASKED:
                self.is_full = True
                return
            self.asked.add(mark)
        (self.with_policy.add if has_policy else self.with_policy.discard)(mark)

    def note_withheld(self, hop: NextHop, style: Style, now: float) -> Withheld:
        """Count a query that was told "not found" in place of an enforced policy."""
        known = self.hops.get(hop)
        if not known:
            if len(self.hops) >= MAX_HOPS:
                self._make_room(now)
            known = self.hops[hop] = Withheld(style, 0, now)
        known.style = style
        known.queries += 1
        known.asked_at = now
        return known

    def forget(self, hop: NextHop) -> None:
        """Its policy is not withheld any more: it has another one, or none."""
        self.hops.pop(hop, None)

    def forget_unused(self, now: float) -> None:
        """Drop next hops that nobody asks for."""
        for hop in [hop for hop, known in self.hops.items() if now - known.asked_at > UNUSED_AFTER]:
            del self.hops[hop]

    def copy(self) -> "Gathered":
        """What another thread may print while more is gathered."""
        copied = Gathered(self.since)
        copied.hops, copied.is_full = self.hops.copy(), self.is_full
        copied.asked, copied.with_policy = self.asked.copy(), self.with_policy.copy()
        return copied

    def counts(self) -> dict[str, int]:
        """How many next hops there are in each state, and `unprobed`."""
        found = Counter(known.result.state if known.result else "unprobed" for known in self.hops.values())
        return {state: found[state] for state in (*get_args(State), "unprobed")}

    def _make_room(self, now: float) -> None:
        self.forget_unused(now)
        excess = len(self.hops) - int(MAX_HOPS * (1 - _ROOM))
        fewest = heapq.nsmallest(excess, self.hops, key=lambda hop: (self.hops[hop].queries, self.hops[hop].asked_at))
        for hop in fewest:
            del self.hops[hop]


def result(state: State, reason: str, at: float) -> Result:
    """A result whose reason, in which other people have words, is short and in printable ASCII."""
    return Result(state, "".join(c if " " <= c <= "~" else "?" for c in reason[:MAX_REASON]), at)


def read(path: pathlib.Path) -> Gathered | None:
    """What stands in a file, or None if there is none. Raises WithheldError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WithheldError(os.strerror(error.errno or 0).lower()) from error
    if len(data) > MAX_FILE:
        raise WithheldError(f"larger than {MAX_FILE // 2**20} MiB")
    try:
        return _parse(json.loads(data))
    except WRONG as error:
        raise WithheldError(f"not understood: {ascii(str(error)[:100])[1:-1]}") from error


def write(path: pathlib.Path, gathered: Gathered) -> None:
    """Replace a file as a whole with what was gathered. Raises WithheldError."""
    try:
        durable.replace(path, json.dumps(fields_of(gathered)).encode())
    except OSError as error:
        raise WithheldError(os.strerror(error.errno or 0).lower()) from error


def remove(path: pathlib.Path) -> None:
    """Remove a file, if there is one. Raises WithheldError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WithheldError(os.strerror(error.errno or 0).lower()) from error


def fields_of(gathered: Gathered) -> dict[str, Any]:
    """What is gathered, as it stands in the file."""
    return {
        "version": _VERSION,
        "since": gathered.since,
        "is_full": gathered.is_full,
        "asked": _joined(gathered.asked),
        "with_policy": _joined(gathered.with_policy),
        "hops": [
            [
                str(hop),
                known.style.value,
                known.queries,
                known.asked_at,
                *((one.state, one.reason, one.at) if one else ()),
            ]
            for hop, known in gathered.hops.items()
            for one in [known.result]
        ],
    }


def _parse(fields: Any) -> Gathered:
    if fields["version"] != _VERSION:
        raise ValueError(f"version {fields['version']}")
    gathered = Gathered(float(fields["since"]))
    gathered.is_full = bool(fields["is_full"])
    gathered.asked, gathered.with_policy = _split(fields["asked"]), _split(fields["with_policy"])
    for name, style, queries, asked_at, *one in fields["hops"][:MAX_HOPS]:
        known = Withheld(Style(style), int(queries), float(asked_at))
        if one:
            state, reason, at = one
            if state not in get_args(State):
                raise ValueError(f"state {state}")
            known.result = result(state, str(reason), float(at))
        gathered.hops[next_hop(name.encode())] = known
    return gathered


def _joined(marks: set[bytes]) -> str:
    return base64.b64encode(b"".join(marks)).decode()


def _split(text: str) -> set[bytes]:
    joined = base64.b64decode(text, validate=True)
    return {joined[at : at + _HASH] for at in range(0, min(len(joined), MAX_ASKED * _HASH), _HASH)}
