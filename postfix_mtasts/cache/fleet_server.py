"""Valkey or Redis, where a fleet of relays shares what it knows: one connection, used by one thread, and one to listen.

Keys, all with the prefix of the configuration:

    d:DOMAIN    what is known of a domain (`cache.shared`), for as long as it holds
    l:DOMAIN    the relay that discovers it just now, for `TURN` seconds
    relays      those that are there, each with when it was last seen
    forgotten   domains that the fleet was made to forget within a day, each with when; for those that were not there
    since       when the first relay came
    news        the channel: {"forget": DOMAIN, "at": TIME} and {"change": DOMAIN}

Only a daemon with [fleet] imports this module, and so redis-py.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from postfix_mtasts.cache import fleet_bounds
from postfix_mtasts.cache.fleet_connection import TIMEOUT, connect, errors
from postfix_mtasts.cache.fleet_jobs import (
    MAX_FORGOTTEN,
    MAX_TOLD,
    TURN,
    FleetError,
    Here,
    Job,
    Look,
    Put,
    Release,
    Seen,
)
from postfix_mtasts.cache.shared import MAX_VALUE
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.sts.elsewhere import MAX_SKEW

_GONE_AFTER = 60.0  # Seconds after which a relay that was not seen counts as gone.
_REMEMBERED = 86400.0  # Seconds for which it is remembered that a domain was forgotten.
MAX_RELAYS = 1000  # That are listed.
_KEYS_AT_ONCE = 1000  # Of those that are counted.
_NEWS_RATE = 2**18  # Octets that are listened to in a second: some thousands of messages.
_LISTEN_AGAIN = 5.0  # Seconds until it is tried again to listen.
_PING_EVERY = 10.0  # Seconds.
_MOST_UNANSWERED = 2  # Pings. Seconds do not count: a process that was stopped for long finds what came meanwhile.

# A value stays if another relay has fetched later, or has seen more of the same fetch. A policy that was fetched before
# the fleet was made to forget the domain is not stored. Then the turn is over.
_PUT = """
local old = redis.pcall('GETRANGE', KEYS[1], 0, 80)
if type(old) ~= 'string' then old = '' end
local fetched, seen = string.match(old, '^(%-?[%d.]+) (%-?[%d.]+)\\n')
fetched, seen = tonumber(fetched), tonumber(seen)
local mine, mine_seen, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local stays = fetched and seen and fetched <= limit and seen <= limit
    and (fetched > mine or (fetched == mine and seen > mine_seen))
local forgotten = redis.pcall('ZSCORE', KEYS[4], ARGV[8])
forgotten = type(forgotten) == 'string' and tonumber(forgotten)
stays = stays or (forgotten and forgotten <= limit and mine >= 0 and mine < forgotten)
if not stays then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[5]) end
if ARGV[6] ~= '' and redis.pcall('GET', KEYS[2]) == ARGV[6] then redis.call('DEL', KEYS[2]) end
if ARGV[7] ~= '' and not stays then redis.call('PUBLISH', KEYS[3], ARGV[7]) end
return stays and 0 or 1
"""
_RELEASE = "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class FleetServer:
    """The server at a place. Each method but `listen` is called in one and the same thread, and raises FleetError.

    Each step may take `timeout` seconds.
    """

    def __init__(self, place: FleetPlace, timeout: float = TIMEOUT) -> None:
        self._place = place
        self._timeout = timeout
        self._prefix = place.prefix
        self._client: Any = None
        self._beaten_at = 0.0  # By the server's clock.
        self._endless: set[str] = set()  # Keys of turns that never end, which are none of ours.

    def do(self, jobs: Sequence[Job]) -> list[Seen]:
        """Do jobs in one round trip; what each `Look` saw, in their order."""
        with self._errors():
            pipe = self._connected().pipeline(transaction=False)
            for job in jobs:
                self._queue(pipe, job)
            replies = iter(pipe.execute(raise_on_error=False))
            seen = [self._seen(job, replies) for job in jobs if not self._skip(job, replies)]
            endless, self._endless = self._endless, set()
            if endless:
                self._connected().delete(*endless)
            return seen

    def beat(self, name: str, since: float = 0.0) -> Here:
        """Say that we are there; the server's clock, and what was forgotten after a time, the earliest first."""
        with self._mending():
            client = self._connected()
            seconds, micro = client.time()
            now = seconds + micro / 1e6
            pipe = client.pipeline(transaction=False)
            pipe.zrange(self._key("relays"), -1, -1, withscores=True)
            pipe.zadd(self._key("relays"), {name: now})
            pipe.zremrangebyscore(self._key("relays"), "-inf", now - _GONE_AFTER)
            pipe.zremrangebyscore(self._key("forgotten"), "-inf", now - _REMEMBERED)
            pipe.set(self._key("since"), f"{now:.3f}", nx=True)
            pipe.get(self._key("since"))
            pipe.zrangebyscore(self._key("forgotten"), f"({since!r}", "+inf", 0, MAX_FORGOTTEN, withscores=True)
            latest, *_, begun, names = pipe.execute()
            if _time(begun) is None:
                client.delete(self._key("since"))  # The next beat sets it.
            for key, scored in (("relays", latest), ("forgotten", names)):
                if scored and scored[-1][1] > now + MAX_SKEW:  # It would stay for ever.
                    client.zremrangebyscore(self._key(key), now + MAX_SKEW, "+inf")
            # Whoever was seen last, it was not before our last beat.
            remembered = float(latest[0][1]) if latest else 0.0
            restored = remembered if remembered < self._beaten_at else None
            self._beaten_at = now
            return Here(now, [(name.decode("ascii", "replace"), float(at)) for name, at in names], begun, restored)

    def forget(self, domain: str, now: float) -> int:
        """Delete what is known of a domain, and tell all relays; how many were listening."""
        news = json.dumps({"forget": domain, "at": now})
        with self._mending():
            pipe = self._connected().pipeline(transaction=True)
            pipe.delete(self._key(f"d:{domain}"))
            pipe.zadd(self._key("forgotten"), {domain: now})
            pipe.publish(self._key("news"), news)
            return int(pipe.execute()[-1])

    def tell(self, domain: str) -> int:
        """Tell all relays that a policy has changed; how many were listening."""
        with self._errors():
            return int(self._connected().publish(self._key("news"), json.dumps({"change": domain})))

    def relays(self) -> tuple[list[tuple[bytes, float]], float | None]:
        """The relays that are there, each with when it was last seen; and since when there is what is shared."""
        with self._mending():
            client = self._connected()
            since = client.get(self._key("since"))
            relays = client.zrange(self._key("relays"), 0, MAX_RELAYS - 1, withscores=True)
            return list(relays), _time(since)

    def count(self, cursor: int) -> tuple[int, int]:
        """From a cursor on, at first 0: the next one, 0 at the end, and how many domains are shared up to there."""
        with self._errors():
            pattern = _glob(self._key("d:")) + "*"
            cursor, some = self._connected().scan(cursor, match=pattern, count=_KEYS_AT_ONCE)
            return int(cursor), len(some)

    def close(self) -> None:
        """Close the connection. The next call makes another one."""
        client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()

    def listen(self, told: Callable[[bytes], None], stop: threading.Event) -> None:
        """Pass on what relays tell, in the thread that calls this, until `stop`. What is lost meanwhile is lost."""
        while not stop.is_set():
            with contextlib.suppress(FleetError), errors():
                self._listen(told, stop)
            stop.wait(_LISTEN_AGAIN)

    def _listen(self, told: Callable[[bytes], None], stop: threading.Event) -> None:
        client = connect(self._place, self._timeout)
        try:
            news = client.pubsub(ignore_subscribe_messages=True)
            news.subscribe(self._key("news"))
            pinged_at, unanswered = time.monotonic(), 0
            while not stop.is_set():
                news.connection.bounded.begin(fleet_bounds.NEWS_AT_ONCE)
                if message := news.get_message(timeout=TIMEOUT):
                    unanswered = 0
                    if isinstance(message["data"], bytes) and len(message["data"]) <= MAX_TOLD:
                        told(message["data"])
                stop.wait(news.connection.bounded.octets / _NEWS_RATE)
                if time.monotonic() - pinged_at > _PING_EVERY:
                    if unanswered >= _MOST_UNANSWERED:  # There may be another server by now.
                        return
                    pinged_at, unanswered = time.monotonic(), unanswered + 1
                    news.ping()
        finally:
            client.connection_pool.disconnect()

    def _queue(self, pipe: Any, job: Job) -> None:
        value, turn = self._key(f"d:{job.domain}"), self._key(f"l:{job.domain}")
        match job:
            case Look(token=token):
                if token:  # First the turn, then the value: whoever had the turn has shared his result before it ended.
                    pipe.set(turn, token, nx=True, px=round(TURN * 1000))
                    pipe.pttl(turn)
                pipe.getrange(value, 0, MAX_VALUE)
            case Put(value=put, token=token):
                news = json.dumps({"change": job.domain}) if job.is_news else ""
                times = (repr(put.fetched_at), repr(put.seen_at), repr(put.until), max(1, round(put.lasts * 1000)))
                keys = (value, turn, self._key("news"), self._key("forgotten"))
                pipe.eval(_PUT, len(keys), *keys, put.text, *times, token, news, job.domain)
            case Release(token=token):
                pipe.eval(_RELEASE, 1, turn, token)

    def _skip(self, job: Job, replies: Iterator[Any]) -> bool:
        if isinstance(job, Look):
            return False
        _raise(next(replies))
        return True

    def _seen(self, job: Job, replies: Iterator[Any]) -> Seen:
        is_ours, left = False, -1
        if isinstance(job, Look) and job.token:
            taken, left = _raise(next(replies)), _raise(next(replies))
            is_ours = bool(taken)
            if left == -1 or left > TURN * 1000:
                self._endless.add(self._key(f"l:{job.domain}"))
        value = next(replies)
        if isinstance(value, redis.ResponseError) and str(value).startswith("WRONGTYPE"):
            value = b"\0"  # It is something else, which nobody of us has written.
        value = _raise(value) or None
        if not isinstance(value, bytes | None):
            raise TypeError("a reply to something else than was asked")
        return Seen(value, is_ours, not is_ours and 0 <= left <= TURN * 1000)

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _connected(self) -> Any:
        if self._client is None:
            self._client = connect(self._place, self._timeout)
        return self._client

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """If somebody else has written to a key that is no domain's, delete all of these, and raise FleetError once."""
        with self._errors():
            try:
                yield
            except (redis.ResponseError, fleet_bounds.TooLongError) as error:
                if isinstance(error, redis.ResponseError) and "WRONGTYPE" not in str(error):
                    raise
                self.close()
                keys = [self._key(name) for name in ("relays", "forgotten", "since")]
                self._connected().delete(*keys)
                raise FleetError(f"somebody else has written to {' or '.join(keys)}, which were deleted") from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with errors():
                yield
        except FleetError:
            self.close()  # A reply that comes late must not be taken for the next one.
            raise


def _time(text: bytes | None) -> float | None:
    """A time as `beat` stores it, in seconds since the epoch; None if it is none."""
    return float(text) if text and re.fullmatch(rb"[0-9]{1,12}\.[0-9]{3}", text) else None


def _raise(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _glob(text: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
