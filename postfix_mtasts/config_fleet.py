"""Where the server of [fleet] is, with the credentials for it, which may stand in a file of their own."""

import os
import pathlib
import ssl
from dataclasses import dataclass, field
from typing import Any

from postfix_mtasts.config import ConfigError, Fleet, UnixEndpoint
from postfix_mtasts.rights import in_the_way, read_secret

_MAX_CREDENTIALS = 1024  # Octets of the file.


@dataclass(frozen=True, slots=True)
class FleetPlace:
    """A server by its host and port or its socket, or sentinels that know it by a name; and how to speak to it.

    `user` and `password` are what the file `credentials` had at the start, if there is one.
    """

    server: tuple[str, int] | UnixEndpoint | None
    sentinels: tuple[tuple[str, int], ...] = ()
    name: str = ""
    tls: bool = False
    ca_file: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    credentials: str = ""
    prefix: str = "mtasts:"

    def __str__(self) -> str:
        if isinstance(self.server, UnixEndpoint):
            return str(self.server)
        host, port = self.server or (self.name, 0)
        scheme = "rediss" if self.tls else "redis"
        if not port:
            return f"{scheme}://{host} (by sentinels)"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def read_fleet(fleet: Fleet) -> FleetPlace | None:
    """The place that [fleet] names, if there is a fleet. Raises ConfigError."""
    url, sentinels = fleet.url, fleet.sentinels
    if not url and not sentinels:
        return None
    if url and sentinels:
        raise ConfigError("fleet.url and fleet.sentinels: only one of them may be set; sentinels know the server")
    if bool(sentinels) != bool(fleet.name):
        raise ConfigError(f'fleet.name = "{fleet.name}": is the name by which fleet.sentinels know the server')
    schemes = {one.scheme for one in sentinels}
    if len(schemes) > 1:
        raise ConfigError("fleet.sentinels: all of them must have TLS, or none")
    user, password = (url.user, url.password) if url else ("", "")
    if fleet.credentials:
        if user or password:
            raise ConfigError("fleet.credentials: fleet.url has credentials too: remove them there")
        user, password = read_credentials(fleet.credentials)
    if fleet.ca_file:
        _check_ca_file(fleet.ca_file)
    common: dict[str, Any] = {"ca_file": fleet.ca_file, "user": user, "password": password}
    common |= {"credentials": fleet.credentials, "prefix": fleet.prefix}
    if not url:
        places = tuple((one.host, one.port) for one in sentinels)
        return FleetPlace(None, places, fleet.name, schemes == {"rediss"}, **common)
    server = UnixEndpoint(url.path) if url.path else (url.host, url.port)
    return FleetPlace(server, tls=url.scheme == "rediss", database=url.database, **common)


def _check_ca_file(name: str) -> None:
    try:
        ssl.create_default_context(cafile=name)
    except OSError as error:
        is_found = isinstance(error, ssl.SSLError)
        why = "no CA in it" if is_found else in_the_way(pathlib.Path(name)) or os.strerror(error.errno or 0).lower()
        raise ConfigError(f'fleet.ca_file = "{name}": {why}') from error


def read_credentials(name: str) -> tuple[str, str]:
    """The user and the password in a file. Raises ConfigError."""
    path = pathlib.Path(name)
    try:
        text = read_secret(path, _MAX_CREDENTIALS).decode("utf-8").removesuffix("\n")
        user, colon, password = text.partition(":")
        if not colon or not password or not text.isprintable() or len(text.encode()) > _MAX_CREDENTIALS:
            raise ValueError("must be one line, USER:PASSWORD, or :PASSWORD without a user")
    except OSError as error:
        why = in_the_way(path) or os.strerror(error.errno or 0).lower()
    except UnicodeDecodeError:
        why = "must be one line, USER:PASSWORD, or :PASSWORD without a user"
    except ValueError as error:
        why = str(error)
    else:
        return user, password
    raise ConfigError(f'fleet.credentials = "{path}": {why}')
