"""What this relay finds if it looks at the server of its fleet: its clock, how fast it answers, what its user may do.

Nothing is changed there. Commands are tried in a transaction that never runs: the server says of each whether the user
may use it, and then the connection is closed.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import redis

from postfix_mtasts.cache.fleet_connection import TIMEOUT, ask_sentinel, connect, errors
from postfix_mtasts.cache.fleet_jobs import FleetError
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.config_fleet_values import is_loopback

_PATIENCE = 3.0  # Seconds for a step: more than the daemon has, so that slow is told from dead.
_PINGS = 10  # The fastest of them counts, and one that is fast enough is the last.
# Commands that the daemon uses, each with a key or a channel of ours.
_NEEDED: Sequence[tuple[str, ...]] = (
    ("get", "since"),
    ("getrange", "d:", "0", "1"),
    ("set", "d:", ""),
    ("del", "d:"),
    ("pttl", "l:"),
    ("eval", "return 1", "1", "d:"),
    ("publish", "news", ""),
    ("subscribe", "news"),
    ("zadd", "relays", "1", ""),
    ("zrange", "relays", "0", "0"),
    ("zrangebyscore", "relays", "0", "0"),
    ("zscore", "forgotten", ""),
    ("zremrangebyscore", "relays", "0", "0"),
)
_OF_NOBODY = (("ping",), ("time",), ("scan", "0"))  # Those without either.
_ALSO_NEEDED = ("unsubscribe", "select", "multi", "exec")
# What nobody needs: a key and a channel of others, and commands by which a user gets further.
_OTHER = "of-others"  # Without our prefix, which always ends in a colon.
_TOO_MUCH = {
    "read keys of others": ("get", _OTHER),
    "write keys of others": ("set", _OTHER, ""),
    "publish to others": ("publish", _OTHER, ""),
    "list all keys": ("keys", "*"),
    "configure the server": ("config", "get", "port"),
    "see its users": ("acl", "users"),
}


def acl_line(place: FleetPlace) -> str:
    """The user as it should be, with HASH for that of its password, as in contrib/valkey/users.acl."""
    commands = [*_OF_NOBODY, *_NEEDED, *((one,) for one in _ALSO_NEEDED)]
    rights = " ".join(f"+{words[0]}" for words in commands)
    where = f"resetkeys ~{place.prefix}* resetchannels &{place.prefix}*"
    return f"user {place.user or 'mtasts'} on #HASH {where} -@all {rights}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found: the server's clock in seconds since the epoch; the seconds for the fastest of some requests.

    Commands that the user needs and may not use; what he may do beyond that; sentinels on other machines that ask for
    no password.
    """

    clock: float | None
    seconds: float
    lacking: tuple[str, ...]
    too_much: tuple[str, ...]
    open_sentinels: tuple[str, ...]


def inspect(place: FleetPlace) -> Inspection:
    """Look at the server. Raises FleetError."""
    with errors(), closing(_Client(connect(place, _PATIENCE))) as client:
        took = math.inf
        for _ in range(_PINGS):
            took = min(took, _timed(client.ping))
            if took < TIMEOUT:
                break
        clock = client.clock()
        lacking = {words[0] for words in client.forbidden(_needed(place))}
        forbidden = _TOO_MUCH.values() if "multi" in lacking else client.forbidden(_TOO_MUCH.values())
        too_much = [what for what, words in _TOO_MUCH.items() if words not in forbidden]
        return Inspection(clock, took, tuple(sorted(lacking)), tuple(too_much), _open(place))


def _needed(place: FleetPlace) -> list[tuple[str, ...]]:
    ours = []
    for command, *words in _NEEDED:
        at = 2 if command == "eval" else 0
        ours.append((command, *words[:at], f"{place.prefix}{words[at]}", *words[at + 1 :]))
    return [*ours, *_OF_NOBODY, *([("select", str(place.database))] if place.database else [])]


def _open(place: FleetPlace) -> tuple[str, ...]:
    """The sentinels beyond this machine that tell anybody where the server is, so anybody can tell them, too."""
    found = []
    for at in place.sentinels:
        if is_loopback(at[0]):
            continue
        try:
            ask_sentinel(place, at, _PATIENCE, alone=True)
        except (redis.RedisError, OSError, ValueError):
            continue  # It asks for a password, or does not work.
        found.append(at[0])
    return tuple(found)


class _Client:
    """One connection, whose replies are not looked into."""

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._client: Any = redis.Redis(connection_pool=self._pool, single_connection_client=True)
        self._client.response_callbacks.clear()

    def close(self) -> None:
        self._pool.disconnect()

    def ping(self) -> None:
        """Have the server answer, and be it with a refusal."""
        self._may("ping")

    def clock(self) -> float | None:
        """The time of the server; None if it may not be asked."""
        try:
            seconds, micro = self._client.execute_command("time")
        except redis.exceptions.NoPermissionError:
            return None
        return int(seconds) + int(micro) / 1e6

    def forbidden(self, commands: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Those that the user may not use, with `multi` and `exec`. Raises redis.RedisError, FleetError."""
        if not self._may("multi"):
            return [("multi",)]
        if self._wrong():  # So nothing of it is ever done.
            raise FleetError("the server takes a command that is none")
        found = [words for words in commands if not self._may(*words)]
        try:
            self._client.execute_command("exec")
        except redis.exceptions.ExecAbortError:
            return found
        except redis.exceptions.NoPermissionError:
            self._client.connection.disconnect()  # That ends the transaction, too.
            return [*found, ("exec",)]
        raise FleetError("the server runs a transaction that has an error")

    def _wrong(self) -> bool:
        """Whether a command without its arguments is taken."""
        try:
            self._client.execute_command("get")
        except redis.ResponseError:
            return False
        return True

    def _may(self, *words: str) -> bool:
        try:
            self._client.execute_command(*words)
        except redis.exceptions.NoPermissionError:
            return False
        return True


def _timed(do: Callable[[], None]) -> float:
    begun = time.monotonic()
    do()
    return time.monotonic() - begun
