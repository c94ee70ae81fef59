"""Sends log records with fields to journald (systemd.journal-fields(7)) if standard error is connected to it.

The fields of a record are in its attribute `journal`. Records that cannot be sent are written to standard error.
"""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable

_SOCKET = "/run/systemd/journal/socket"
_FACILITY = 2  # mail (syslog(3)).
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class JournalHandler(logging.Handler):
    """Sends records to journald. `identifier` is the syslog identifier; `other` handles records that cannot be sent."""

    def __init__(self, identifier: str, other: logging.Handler, send: Callable[..., None]) -> None:
        super().__init__()
        self._fields = {"SYSLOG_IDENTIFIER": identifier, "SYSLOG_FACILITY": str(_FACILITY)}
        self._other = other
        self._send = send
        # The socket of libsystemd is its own. This one, through which nothing is sent, has room when that has.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            self._socket.connect(_SOCKET)

    def fileno(self) -> int:
        """A descriptor that can be written to when journald takes a record at once."""
        return self._socket.fileno()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record to journald, or else to the other handler."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        fields = {"MESSAGE": self.format(record), "PRIORITY": str(priority)} | self._fields
        fields |= getattr(record, "journal", {})
        try:
            os.stat(_SOCKET)  # noqa: PTH116 - without it, sd_journal_sendv(3) drops the record and reports success
            self._send(*(f"{name}={value}" for name, value in fields.items()))
        except OSError:
            self._other.emit(record)


def journal_handler(identifier: str, other: logging.Handler) -> JournalHandler | None:
    """Return a handler for journald, or None if standard error is not connected to it or python3-systemd is missing."""
    if not stderr_is_journal():
        return None
    try:
        from systemd.journal import sendv
    except ImportError:
        return None
    return JournalHandler(identifier, other, sendv)


def stderr_is_journal() -> bool:
    """Whether $JOURNAL_STREAM is about the file that standard error is (systemd.exec(5))."""
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        found = os.fstat(sys.stderr.fileno())
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"
