"""Valkey or Redis, where a fleet of relays shares what it knows: one connection, used by one thread, and one to listen.

Keys, all with the prefix of the configuration:

    d:DOMAIN    what is known of a domain (`cache.shared`), for as long as it holds
    l:DOMAIN    the relay that discovers it just now, for `TURN` seconds
    relays      those that are there, each with when it was last seen
    forgotten   domains that the fleet was made to forget within a day, each with when; for those that were not there
    since       when the first relay came
    news        the channel: {"forget": DOMAIN, "at": TIME} and {"change": DOMAIN}

Only this module and `fleet_bounds` know redis-py, and only a daemon with [fleet] imports them. Each step takes
`TIMEOUT` seconds at most. Nothing is tried a second time: what waits for it goes on without.
"""

import contextlib
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from postfix_mtasts.cache import fleet_bounds
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
from postfix_mtasts.config import UnixEndpoint
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.config_fleet_values import is_loopback

TIMEOUT = 0.2  # Seconds for one step: to connect, to send, to receive.
_GONE_AFTER = 60.0  # Seconds after which a relay that was not seen counts as gone.
_REMEMBERED = 86400.0  # Seconds for which it is remembered that a domain was forgotten.
MAX_RELAYS = 1000
_OF_OTHERS = "of-others"  # A key without our prefix, which always ends in a colon.
_MAX_KEYS = 1_000_000  # Keys that are counted.
_KEYS_AT_ONCE = 1000
_NEWS_RATE = 2**18  # Octets that are listened to in a second: some thousands of messages.
_MAX_REASON = 200  # Characters of what redis-py, or the server, says of a failure.
_LISTEN_AGAIN = 5.0  # Seconds until it is tried again to listen.

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


_Sentinel: Any = Sentinel  # It has no types.


class FleetServer:
    """The server at a place. Each method but `listen` is called in one and the same thread, and raises FleetError."""

    def __init__(self, place: FleetPlace) -> None:
        self._place = place
        self._prefix = place.prefix
        self._client: Any = None

    def do(self, jobs: Sequence[Job]) -> list[Seen]:
        """Do jobs in one round trip; what each `Look` saw, in their order."""
        with self._errors():
            pipe = self._connected().pipeline(transaction=False)
            for job in jobs:
                self._queue(pipe, job)
            replies = iter(pipe.execute(raise_on_error=False))
            return [self._seen(job, replies) for job in jobs if not self._skip(job, replies)]

    def beat(self, name: str, since: float = 0.0) -> Here:
        """Say that we are there; the server's clock, and what was forgotten after a time, the earliest first."""
        with self._errors():
            client = self._connected()
            seconds, micro = client.time()
            now = seconds + micro / 1e6
            pipe = client.pipeline(transaction=False)
            pipe.zadd(self._key("relays"), {name: now})
            pipe.zremrangebyscore(self._key("relays"), "-inf", now - _GONE_AFTER)
            pipe.zremrangebyscore(self._key("forgotten"), "-inf", now - _REMEMBERED)
            pipe.set(self._key("since"), f"{now:.3f}", nx=True)
            pipe.get(self._key("since"))
            pipe.zrangebyscore(self._key("forgotten"), f"({since!r}", "+inf", 0, MAX_FORGOTTEN, withscores=True)
            *_, begun, names = pipe.execute()
            return Here(now, [(name.decode("ascii", "replace"), float(at)) for name, at in names], begun)

    def forget(self, domain: str, now: float) -> int:
        """Delete what is known of a domain, and tell all relays; how many were listening."""
        news = json.dumps({"forget": domain, "at": now})
        with self._errors():
            pipe = self._connected().pipeline(transaction=True)
            pipe.delete(self._key(f"d:{domain}"))
            pipe.zadd(self._key("forgotten"), {domain: now})
            pipe.publish(self._key("news"), news)
            return int(pipe.execute()[-1])

    def tell(self, domain: str) -> int:
        """Tell all relays that a policy has changed; how many were listening."""
        with self._errors():
            return int(self._connected().publish(self._key("news"), json.dumps({"change": domain})))

    def relays(self) -> list[tuple[bytes, float]]:
        """The relays that are there, each with when it was last seen."""
        with self._errors():
            return list(self._connected().zrange(self._key("relays"), 0, MAX_RELAYS - 1, withscores=True))

    def count(self) -> tuple[int, float | None]:
        """How many domains are shared, and since when there is what is shared."""
        with self._errors():
            client = self._connected()
            since = client.get(self._key("since"))
            domains = cursor = keys = 0
            while True:
                cursor, some = client.scan(cursor, match=_glob(self._key("d:")) + "*", count=_KEYS_AT_ONCE)
                domains += len(some)
                keys += _KEYS_AT_ONCE
                if not cursor or keys >= _MAX_KEYS:
                    return domains, float(since) if since else None

    def may_too_much(self) -> bool:
        """Whether this user may read keys of others, too."""
        with self._errors():
            try:
                self._connected().get(_OF_OTHERS)
            except redis.exceptions.NoPermissionError:
                return False
            return True

    def close(self) -> None:
        """Close the connection. The next call makes another one."""
        client, self._client = self._client, None
        if client is not None:
            client.connection_pool.disconnect()

    def listen(self, told: Callable[[bytes], None], stop: threading.Event) -> None:
        """Pass on what relays tell, in the thread that calls this, until `stop`. What is lost meanwhile is lost."""
        while not stop.is_set():
            with contextlib.suppress(FleetError), _errors():
                self._listen(told, stop)
            stop.wait(_LISTEN_AGAIN)

    def _listen(self, told: Callable[[bytes], None], stop: threading.Event) -> None:
        client = self._connect(health_check_interval=10)
        try:
            news = client.pubsub(ignore_subscribe_messages=True)
            news.subscribe(self._key("news"))
            while not stop.is_set():
                news.connection.bounded.begin(fleet_bounds.NEWS_AT_ONCE)
                message = news.get_message(timeout=TIMEOUT)
                if message and isinstance(message["data"], bytes) and len(message["data"]) <= MAX_TOLD:
                    told(message["data"])
                stop.wait(news.connection.bounded.octets / _NEWS_RATE)
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
        value = next(replies)
        if isinstance(value, redis.ResponseError) and str(value).startswith("WRONGTYPE"):
            value = b"\0"  # It is something else, which nobody of us has written.
        value = _raise(value) or None
        if not isinstance(value, bytes | None):
            raise TypeError("a reply to something else than was asked")
        # A turn that never ends is none of ours.
        return Seen(value, is_ours, not is_ours and 0 <= left <= TURN * 1000)

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self, **more: object) -> Any:
        place = self._place
        own: dict[str, Any] = {"db": place.database, **more}
        own |= {"username": place.user or None, "password": place.password or None}
        if isinstance(place.server, UnixEndpoint):
            own["path"] = place.server.path
            pool = redis.ConnectionPool(connection_class=fleet_bounds.Unix, **_options(), **own)
            return redis.Redis(connection_pool=pool)
        tcp: dict[str, Any] = {"socket_connect_timeout": TIMEOUT, "socket_keepalive": True}
        if place.tls:
            tcp |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": place.ca_file or None}
        host, port = place.server or self._master({**_options(), **tcp})
        kind: Any = fleet_bounds.Tls if place.tls else fleet_bounds.Tcp
        pool = redis.ConnectionPool(connection_class=kind, host=host, port=port, **_options(), **tcp, **own)
        return redis.Redis(connection_pool=pool)

    def _master(self, options: dict[str, Any]) -> tuple[str, int]:
        """Where the server is, as a sentinel says. Without TLS it must be on this machine, as the sentinels are."""
        place = self._place
        sentinels: Any = _Sentinel(place.sentinels, sentinel_kwargs={**options, "ssl": place.tls})
        for one in sentinels.sentinels:
            one.connection_pool.connection_class = fleet_bounds.Tls if place.tls else fleet_bounds.Tcp
        try:
            host, port = sentinels.discover_master(place.name)
        finally:
            for one in sentinels.sentinels:
                one.connection_pool.disconnect()
        host = host.decode() if isinstance(host, bytes) else host
        if not place.tls and not is_loopback(host):
            raise FleetError(f"the sentinels name {host}, another machine, and there is no TLS: name them by rediss://")
        return host, port

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with _errors():
                yield
        except FleetError:
            self.close()  # A reply that comes late must not be taken for the next one.
            raise


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what redis-py raises into FleetError. For a reply that is none that may be anything, also RecursionError."""
    try:
        yield
    except Exception as error:
        raise FleetError(ascii(str(error)[:_MAX_REASON])[1:-1] or type(error).__name__) from error


def _raise(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _glob(text: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)


def _options() -> dict[str, Any]:
    """Of every connection. Debian 12's redis-py has neither a newer protocol, nor does it tell the server its name."""
    known = inspect.signature(getattr(redis.connection, "AbstractConnection", redis.Connection).__init__).parameters
    told = "driver_info" if "driver_info" in known else "lib_name"
    newer = {name: value for name, value in {"protocol": 2, told: None}.items() if name in known}
    ours = {"socket_timeout": TIMEOUT, "parser_class": fleet_bounds.PARSER, "retry": Retry(NoBackoff(), 0)}
    return ours | newer  # Without a retry of ours, it would try three times.
