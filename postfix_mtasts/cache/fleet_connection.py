"""Connections to a Valkey or a Redis: at its host, at its socket, or where sentinels say that it is.

Each step takes `timeout` seconds at most. Nothing is tried a second time: what waits for it goes on without.
"""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from postfix_mtasts.cache import fleet_bounds
from postfix_mtasts.cache.fleet_jobs import FleetError
from postfix_mtasts.config import ConfigError, UnixEndpoint
from postfix_mtasts.config_fleet import FleetPlace, read_credentials
from postfix_mtasts.config_fleet_values import is_loopback

TIMEOUT = 0.2  # Seconds for one step of the daemon: to connect, to send, to receive.
_MAX_PORT = 65535
_MAX_REASON = 200  # Characters of what redis-py, or a server, says of a failure.

At = tuple[str, int]  # A host and a port.


@contextmanager
def errors() -> Iterator[None]:
    """Turn what redis-py raises into FleetError. For a reply that is none that may be anything, also RecursionError."""
    try:
        yield
    except FleetError:
        raise
    except Exception as error:
        raise FleetError(ascii(str(error)[:_MAX_REASON])[1:-1].rstrip(".") or type(error).__name__) from error


def connect(place: FleetPlace, timeout: float = TIMEOUT) -> Any:
    """A client, whose connection is made when it is used, and made anew if the server has closed it."""
    own: dict[str, Any] = {"db": place.database, **_credentials(place)}
    if isinstance(place.server, UnixEndpoint):
        own |= {"path": place.server.path, **_options(timeout)}
        pool = redis.ConnectionPool(connection_class=fleet_bounds.Unix, **own)
        return redis.Redis(connection_pool=pool)
    if place.server:
        return _client(_kind(place), place, place.server, timeout, own)
    return _client(_found_by_sentinels(place, timeout), place, ("", 0), timeout, own)


def ask_sentinel(place: FleetPlace, at: At, timeout: float = TIMEOUT, *, alone: bool = False) -> At | None:
    """Where a sentinel says that the server is; None if it does not know. Raises what `errors` turns.

    With `alone`, no password is given, also where it asks for one.
    """
    try:
        return _asked(place, at, timeout, {})
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
        if alone or not place.password:
            raise
        return _asked(place, at, timeout, _credentials(place))


def _asked(place: FleetPlace, at: At, timeout: float, own: dict[str, Any]) -> At | None:
    client = _client(_kind(place), place, at, timeout, own)
    try:
        match client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", place.name):
            case [bytes(host), bytes(port)] if re.fullmatch(rb"[0-9]{1,5}", port) and int(port) <= _MAX_PORT:
                return host.decode("ascii"), int(port)
            case None:
                return None
        raise ValueError("what it says is no host and port")
    finally:
        client.connection_pool.disconnect()


def _master(place: FleetPlace, timeout: float) -> At:
    """Where the server is, by the first sentinel that knows it. Without TLS it must be on this machine, as they are."""
    troubles = []
    for at in place.sentinels:
        try:
            with errors():
                found = ask_sentinel(place, at, timeout)
        except FleetError as error:
            troubles.append(f"sentinel {at[0]}: {error}")
            continue
        if not found:
            troubles.append(f"sentinel {at[0]} knows no server by the name {place.name}")
        elif not place.tls and not is_loopback(found[0]):
            what = f"sentinel {at[0]} names {found[0][:80]!a}, another machine, and there is no TLS"
            raise FleetError(f"{what}: name the sentinels by rediss://")
        else:
            return found
    raise FleetError("; ".join(dict.fromkeys(troubles))[: 3 * _MAX_REASON])


def _kind(place: FleetPlace) -> Any:
    return fleet_bounds.Tls if place.tls else fleet_bounds.Tcp


def _found_by_sentinels(place: FleetPlace, timeout: float) -> Any:
    """A class of connections. A server that another one has replaced closes them, and may answer as long as it runs."""
    kind = _kind(place)

    def find_and_connect(connection: Any) -> Any:
        connection.host, connection.port = _master(place, timeout)
        return kind._connect(connection)

    return type("AtMaster", (kind,), {"_connect": find_and_connect})


def _client(kind: Any, place: FleetPlace, at: At, timeout: float, own: dict[str, Any]) -> Any:
    tcp: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_keepalive": True, **_options(timeout), **own}
    if place.tls:
        tcp |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": place.ca_file or None}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, host=at[0], port=at[1], **tcp))


def _credentials(place: FleetPlace) -> dict[str, Any]:
    """As the file has them now: they may be changed while the daemon runs."""
    user, password = place.user, place.password
    if place.credentials:
        with suppress(ConfigError):
            user, password = read_credentials(place.credentials)
    return {"username": user or None, "password": password or None}


def _options(timeout: float) -> dict[str, Any]:
    """Of every connection. Debian 12's redis-py has no newer protocol, and tells the server neither name nor version.

    Others must be kept from telling that: a relay's user may not, and the server would note it in its ACL log.
    """
    known = inspect.signature(getattr(redis.connection, "AbstractConnection", redis.Connection).__init__).parameters
    told = ("driver_info",) if "driver_info" in known else ("lib_name", "lib_version")
    newer = {name: value for name, value in {"protocol": 2, **dict.fromkeys(told)}.items() if name in known}
    ours = {"socket_timeout": timeout, "parser_class": fleet_bounds.PARSER, "retry": Retry(NoBackoff(), 0)}
    return ours | newer  # Without a retry of ours, it would try three times.
