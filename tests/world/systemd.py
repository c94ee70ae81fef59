"""What systemd is to a service, on a small scale: it holds sockets and passes them, hears states, takes the journal."""

import array
import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ACTIVATE = Path(__file__).with_name("activate.py")
JOURNAL = Path("/run/systemd/journal/socket")
_WITHIN = 20.0  # Seconds.


def passing(sockets: Mapping[int, str]) -> list[str]:
    """What to put before a command to pass it sockets, by file descriptor and with their names."""
    return [sys.executable, str(ACTIVATE), *(f"{descriptor}:{name}" for descriptor, name in sockets.items()), "--"]


class Manager:
    """Hears what a service says of itself (sd_notify(3)); NOTIFY_SOCKET is its `path`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def next(self) -> dict[str, str]:
        """The states of the next message."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def heard(self) -> list[dict[str, str]]:
        """What has been said and not been asked for; waits for nothing."""
        found = []
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.next())
        self._socket.settimeout(_WITHIN)
        return found


class Journal:
    """Takes records as journald does, at its own place; for a mount namespace with a /run of its own."""

    def __init__(self) -> None:
        JOURNAL.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(JOURNAL))
        self._socket.settimeout(_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        JOURNAL.unlink(missing_ok=True)

    def close(self) -> None:
        """Take no more; the file stays, as after a crash."""
        self._socket.close()

    def next(self) -> dict[str, str]:
        """The fields of the next record."""
        data, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, descriptors in ancillary:  # A record that is too large for a datagram comes as a file.
            (descriptor,) = array.array("i", descriptors)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - it has no path
                file.seek(0)
                data = file.read()
        return dict(_fields(data))


def _fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Journald's native protocol: NAME=VALUE, or NAME, the length in 8 octets, and a VALUE of several lines."""
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        yield name.decode(), value.decode()


def stream_of(descriptor: int) -> str:
    """JOURNAL_STREAM for a file that is to be taken for the journal."""
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


@contextlib.contextmanager
def accepting(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Hand each connection to a Unix socket over, one after the other, until the end of the block: Accept=yes."""

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if ended.is_set():
                    return
                serve(connection)

    ended = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()
