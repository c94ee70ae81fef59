"""Begins the log: where its records go to, and in which format."""

import contextlib
import logging
import os

from postfix_mtasts.log.behind import Behind
from postfix_mtasts.log.journal import journal_handler
from postfix_mtasts.log.standard import complete

_STDERR = 2


class _StandardError(logging.Handler):
    """Writes records to standard error without a buffer, which nobody might ever empty."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # Nobody is there to be told.
            while data:
                data = data[os.write(_STDERR, data) :]


class _Formatter(logging.Formatter):
    """Formats a record as `level: message`, with the level in lower case."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def begin(program: str) -> bool:
    """Send all log records, also those of libraries, to journald or else to standard error.

    Return whether they go to journald.
    """
    complete()
    handler = _StandardError()
    handler.setFormatter(_Formatter("%(message)s"))
    journal = journal_handler(program, handler)
    if journal:
        journal.setFormatter(handler.formatter)
    writer = Behind(journal or handler, journal.fileno() if journal else _STDERR)
    logging.basicConfig(handlers=[writer], level=logging.INFO)
    return journal is not None
