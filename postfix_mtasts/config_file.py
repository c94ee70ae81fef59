"""Reads the configuration from its file, and the credentials that it names from theirs."""

import os
import pathlib
from dataclasses import dataclass, field

from postfix_mtasts.config import DEFAULT_PATH, Config, ConfigError, Fetch, ProxyUrl, parse
from postfix_mtasts.rights import in_the_way, read_secret

_MAX_CREDENTIALS = 1024  # Octets of the file.
_MAX_EACH = 255  # Octets of a user's name, and of a password (RFC 1929, 2).


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy with the credentials for it. Without a user, it asks for none."""

    url: ProxyUrl
    user: str = ""
    password: str = field(default="", repr=False)


def read_config(path: str | None) -> Config:
    """Read the configuration from a file, or from the default file, which need not exist. Raises ConfigError."""
    file = pathlib.Path(path or DEFAULT_PATH)
    try:
        return parse(file.read_bytes(), str(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path:
            return Config()
        raise ConfigError(f"{file}: {in_the_way(file) or os.strerror(error.errno or 0).lower()}") from error


def read_proxy(fetch: Fetch) -> Proxy | None:
    """The proxy that policies are fetched through, if there is one. Raises ConfigError if its credentials are wrong."""
    if not fetch.proxy:
        return None
    if not fetch.proxy_credentials:
        return Proxy(fetch.proxy)
    path = pathlib.Path(fetch.proxy_credentials)
    try:
        return Proxy(fetch.proxy, *_credentials(path))
    except OSError as error:
        why = in_the_way(path) or os.strerror(error.errno or 0).lower()
    except ValueError as error:
        why = str(error)
    raise ConfigError(f'fetch.proxy_credentials = "{path}": {why}')


def _credentials(path: pathlib.Path) -> tuple[str, str]:
    """User and password in a file. Raises OSError, and ValueError with what is wrong."""
    text = read_secret(path, _MAX_CREDENTIALS).removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
    user, colon, password = text.partition(":")
    sizes = [len(part.encode()) for part in (user, password)]
    if not colon or not text.isprintable() or "\ufffd" in text or not user or max(sizes) > _MAX_EACH:
        raise ValueError(f"must be one line, USER:PASSWORD, with at most {_MAX_EACH} bytes for each")
    return user, password
