"""Reads the configuration from its file, which is TOML. All tables and keys in it are optional.

What `config` does not know raises ConfigError: one line with the file, the key, the value and what is allowed.
"""

import dataclasses
import difflib
import os
import pathlib
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from postfix_mtasts.config import DEFAULT_PATH, Config, ConfigError
from postfix_mtasts.config_values import WrongError
from postfix_mtasts.rights import in_the_way

# In TOML, a number must not begin with a zero, and the error of the parser does not say so.
_ZERO_FIRST = re.compile(r"^\s*(?:server\s*\.\s*)?socket_mode\s*=\s*0([0-7]{1,3})\s*(?:#.*)?$", re.MULTILINE)


def read_config(path: str | None) -> Config:
    """Read the configuration from a file, or from the default file, which need not exist. Raises ConfigError."""
    file = pathlib.Path(path or DEFAULT_PATH)
    try:
        return parse(file.read_bytes(), str(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path:
            return Config()
        raise ConfigError(f"{file}: {in_the_way(file) or os.strerror(error.errno or 0).lower()}") from error


def parse(data: bytes, source: str) -> Config:
    """Parse the content of a configuration file. `source` is its name for error messages. Raises ConfigError."""
    text = data.decode("utf-8", "replace")
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8: byte {error.start + 1}") from error
    except (ValueError, RecursionError) as error:  # It is not TOML, has a number that is too long, or is too deep.
        mode = _ZERO_FIRST.search(text)
        hint = f"; write server.socket_mode = 0o{mode[1]}" if mode else ""
        raise ConfigError(f"{source}: not TOML: {error}{hint}") from error
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    parsed = {}
    for name, table in tables.items():
        if name not in kinds:
            raise ConfigError(f"{source}: {_unknown(name, 'table', kinds)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{source}: {name} = {_shown(table)}: must be a table, [{name}]")
        parsed[name] = _table(kinds[name], name, table, source)
    return Config(**parsed)


def _table(kind: Any, table_name: str, table: dict[str, Any], source: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    parsed = {}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"{source}: {_unknown(key, 'key', fields, f'{table_name}.')}")
        try:
            parsed[key] = fields[key].metadata["parse"](value)
        except ValueError as error:
            why = str(error) if isinstance(error, WrongError) else f"must be {fields[key].metadata['allowed']}"
            raise ConfigError(f"{source}: {table_name}.{key} = {_shown(value)}: {why}") from None
    return kind(**parsed)


def _unknown(name: str, what: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed are {', '.join(prefix + one for one in known)}"
    return f"unknown {what} {prefix}{name if name.isidentifier() else ascii(name)}: {hint}"


def _shown(value: Any) -> str:
    """Return a value as in TOML, or nearly so, for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a very large number"
    return '"' + ascii(value)[1:-1] + '"' if isinstance(value, str) else str(value)
