"""Reads the configuration from its file."""

import os
import pathlib

from postfix_mtasts.config import DEFAULT_PATH, Config, ConfigError, parse
from postfix_mtasts.rights import in_the_way


def read_config(path: str | None) -> Config:
    """Read the configuration from a file, or from the default file, which need not exist. Raises ConfigError."""
    file = pathlib.Path(path or DEFAULT_PATH)
    try:
        return parse(file.read_bytes(), str(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path:
            return Config()
        raise ConfigError(f"{file}: {in_the_way(file) or os.strerror(error.errno or 0).lower()}") from error
