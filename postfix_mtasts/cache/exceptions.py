"""The file with the exceptions that were added by command, beside the database: JSON, written anew as a whole.

It is written to another name, synced and renamed. So after a crash it is the old one or the new one, and where the disk
is full it stays as it is. A file that cannot be understood is never overwritten.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Sequence

from postfix_mtasts.config import ConfigError, ExceptionSetting
from postfix_mtasts.config_table import parse_table
from postfix_mtasts.config_values import Day

MAX_EXCEPTIONS = 1000  # Each is looked for by name, so they cost memory only. Nobody can keep an eye on more.
_MAX_OCTETS = 2 * 1024 * 1024  # A thousand of them with the longest domains and reasons take 1.3 MiB.
_VERSION = 1


class ExceptionsError(Exception):
    """The file cannot be read or written; says why. What was in it stays."""


def path_beside(database: str) -> pathlib.Path:
    """The path of the file, beside a database."""
    return pathlib.Path(f"{database}-exceptions.json")


def read(path: pathlib.Path) -> tuple[ExceptionSetting, ...]:
    """The exceptions in the file; none if there is no file. Raises ExceptionsError."""
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_OCTETS + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ExceptionsError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    try:
        if len(octets) > _MAX_OCTETS:
            raise ValueError(f"larger than {_MAX_OCTETS >> 20} MiB")
        document = json.loads(octets)
        if document["version"] != _VERSION:
            raise ValueError("written by a later version")
        return tuple(parsed(one, str(path)) for one in document["exceptions"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ExceptionsError(f"{path} cannot be understood: {error}; correct it, or move it away") from error


def write(path: pathlib.Path, exceptions: Sequence[ExceptionSetting]) -> None:
    """Replace the file. When this returns, it survives a power cut. Raises ExceptionsError."""
    document = {"version": _VERSION, "exceptions": [printed(one) for one in exceptions]}
    new = path.with_name(f"{path.name}.new")
    try:
        try:
            with new.open("wb") as file:
                file.write(json.dumps(document, ensure_ascii=False, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise ExceptionsError(f"{path} cannot be written: {os.strerror(error.errno or 0).lower()}") from error


def parsed(fields: object, source: str) -> ExceptionSetting:
    """An exception from its JSON, by the rules of the configuration. Raises ConfigError."""
    if not isinstance(fields, dict):
        raise ConfigError(f"{source}: an exception must be an object")
    until = fields.get("until")
    try:
        day = Day.fromisoformat(until) if isinstance(until, str) else until
    except ValueError:
        day = until
    if isinstance(day, Day) and day.isoformat() != until:  # There are other ways to write it, as by weeks.
        day = until
    setting: ExceptionSetting = parse_table(ExceptionSetting, "exception", fields | {"until": day}, source)
    return setting


def printed(exception: ExceptionSetting) -> dict[str, object]:
    """An exception as JSON."""
    return {
        "domain": exception.domain,
        "until": exception.until.isoformat(),
        "reason": exception.reason,
        "level": exception.level.value,
        "dane": exception.dane,
    }


def _sync_folder(folder: pathlib.Path) -> None:
    """Have a renaming survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
