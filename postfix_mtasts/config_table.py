"""Parses a table of the configuration file into a dataclass.

The metadata of each field has the parser of its value as `parse`, what that allows, in words, as `allowed`, and whether
the key must be there as `required`. A field without metadata is a table in the table.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

from postfix_mtasts import config_values as values

_HIDDEN = '"..."'  # In place of a value that may hold a password.


class ConfigError(ValueError):
    """The configuration has an error. The message is one line for the administrator."""


def key(default: Any, parse: Callable[[Any], Any], allowed: str, *, required: bool = False) -> Any:
    """A field for a key: its default, the parser of its value, and what that allows, in words."""
    metadata = {"parse": parse, "allowed": allowed, "required": required}
    return dataclasses.field(default=default, metadata=metadata)


def parse_table(kind: Any, table_name: str, table: dict[str, Any], source: str, tables: Collection[str] = ()) -> Any:
    """Parse a table into the dataclass `kind`. `source` is the name of the file, which may have `tables`.

    Raises ConfigError.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    parsed = {}
    for key, value in table.items():
        if key not in fields:
            # Somebody has added a line such as `reply.enforce = false` at the end.
            if key in tables and isinstance(value, dict):
                where = f"below the line [{table_name}]: write it below [{key}]"
                raise ConfigError(f"{source}: a key of [{key}] is {where}")
            raise ConfigError(f"{source}: {unknown(key, 'key', fields, f'{table_name}.')}")
        if not fields[key].metadata:
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{source}: {table_name}.{key} = {shown(value)}: must be a table, [{table_name}.{key}]"
                )
            parsed[key] = parse_table(type(fields[key].default), f"{table_name}.{key}", value, source)
            continue
        try:
            parsed[key] = fields[key].metadata["parse"](value)
        except ValueError as error:
            wrong = isinstance(error, values.WrongError)
            why = str(error) if wrong else f"must be {fields[key].metadata['allowed']}"
            hidden = isinstance(error, values.SecretError)
            raise ConfigError(f"{source}: {table_name}.{key} = {_HIDDEN if hidden else shown(value)}: {why}") from None
    for field in fields.values():
        if field.metadata.get("required") and field.name not in parsed:
            raise ConfigError(f"{source}: {table_name}.{field.name} is missing: must be {field.metadata['allowed']}")
    try:
        return kind(**parsed)
    except values.WrongError as error:  # Two keys do not go together.
        raise ConfigError(f"{source}: {table_name}.{error}") from None


def parse_tables(kind: Any, name: str, listed: Any, source: str) -> tuple[Any, ...]:
    """Parse the tables of one name, as TOML has them under [[name]]. Raises ConfigError."""
    if not isinstance(listed, list) or not all(isinstance(table, dict) for table in listed):
        raise ConfigError(f"{source}: {name} = {shown(listed)}: must be tables, each under a line [[{name}]]")
    places = (f"{source}: [[{name}]] number {number}" for number in itertools.count(1))
    return tuple(parse_table(kind, name, table, place) for table, place in zip(listed, places, strict=False))


def unknown(name: str, what: str, known: Iterable[str], prefix: str = "") -> str:
    """Return what to say of a table or a key that there is not."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"allowed are {', '.join(prefix + one for one in known)}"
    return f"unknown {what} {prefix}{name if name.isidentifier() else ascii(name)}: {hint}"


def shown(value: Any) -> str:
    """Return a value as in TOML, or nearly so, for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a very large number"
    return '"' + ascii(value)[1:-1] + '"' if isinstance(value, str) else str(value)
