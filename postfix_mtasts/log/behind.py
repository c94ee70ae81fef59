"""Writes the log, and stops no answer when nobody reads it: then records wait for a thread that writes them."""

import atexit
import collections
import logging
import select
import threading

from postfix_mtasts.counting import counted

_MAX_RECORDS = 5000  # That wait to be written. Those beyond are lost, and counted.
_END_WITHIN = 1.0  # Seconds to write what waits when the process ends.


class Behind(logging.Handler):
    """Has records handled by another handler, in their order.

    `descriptor` is a file or socket that takes data at once when the other handler does: a pipe has room for 4 KiB then
    (pipe(7)), and a socket for datagrams has room in its peer's queue.
    """

    def __init__(self, handler: logging.Handler, descriptor: int) -> None:
        super().__init__()
        self._handler = handler
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._waiting: collections.deque[logging.LogRecord] = collections.deque()
        self._added = threading.Semaphore(0)
        self._all_written = threading.Event()
        self._lost = 0
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, at once or when there is room for it."""
        if not (self._waiting or record.exc_info) and self._poll.poll(0):  # A traceback has more than 4 KiB.
            self._handler.emit(record)
        elif len(self._waiting) < _MAX_RECORDS:
            self._waiting.append(record)
            self._all_written.clear()
            self._added.release()
            self._start()
        else:
            self._lost += 1

    def _start(self) -> None:
        if not self._thread:
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
            atexit.register(self._all_written.wait, _END_WITHIN)

    def _write(self) -> None:
        while True:
            self._added.acquire()
            self._poll.poll()  # libsystemd would wait for journald, and with python-systemd all threads for that.
            self._handler.emit(self._waiting[0])
            if self._lost:
                lost, self._lost = self._lost, 0
                text = f"{counted(lost, 'line of the log is', 'lines of the log are')} lost, because nobody read it"
                self._handler.emit(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None))
            self._waiting.popleft()
            if not self._waiting:
                self._all_written.set()
