"""Parses values of the configuration that say who reaches the dashboard. Each function returns the value, or raises
ValueError.
"""

import ipaddress
import re
from typing import Any

from postfix_mtasts import config_values as values

_HOST = re.compile(rf"(?=.{{1,253}}$){values.LABEL}(?:\.{values.LABEL})*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


def listener(value: Any) -> values.Endpoint | None:
    """A socket to listen on, or none."""
    return None if value == "" else values.listen([value])[0]


def safe_listener(endpoint: values.InetEndpoint, *, known: bool, twice: bool) -> None:
    """Raise WrongError if a port would be open to those who do not belong. `known` is whether it says who asks."""
    if not known:
        raise values.WrongError(
            f'listen = "{endpoint}": set token_file or user_header too, or anybody who reaches the port gets in'
        )
    if not twice and not ipaddress.ip_address(endpoint.host).is_loopback:
        raise values.WrongError(
            f'listen = "{endpoint}": is not on this machine alone; if that is meant, set beyond_loopback = true'
        )


def hosts(value: Any) -> tuple[str, ...]:
    """Names of hosts, and IP addresses, in lower case."""
    names = tuple(name.lower() for name in values.strings(value))
    if not names or not all(map(_host, names)):
        raise ValueError
    return names


def _host(name: str) -> bool:
    try:
        return str(ipaddress.ip_address(name)) == name
    except ValueError:
        return bool(_HOST.fullmatch(name))


def header(value: Any) -> str:
    """The name of a header, or an empty text."""
    if not isinstance(value, str) or (value and not _HEADER.fullmatch(value)):
        raise ValueError
    return value
