"""Keeps the raw mails: a Maildir, so that other programs can read it too.

A mail is in `new` until what it says is in the database, and then in `cur`. It is complete in either, and survives a
power cut. The name of a mail begins with the time at which it came, and that of a file ends with its own name.
"""

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from postfix_mtasts.durable import sync
from postfix_mtasts.reports.files import MAX_FILE
from postfix_mtasts.rights import give_to_owner

_PIECE = 2**16  # Octets that are read at once.
_KEPT_OF_LARGER = 2**18  # Octets that are kept of a mail larger than MAX_FILE, which is not read in any case.
_ABANDONED = 86400  # Seconds after which a file in `tmp` is not being written any more.
_MAX_LABEL = 200  # Characters of a file's own name that are kept.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9!._@-]")
_FOLDERS = ("tmp", "new", "cur")


class Spool:
    """The Maildir at a path. The methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        """Make the folders, for their owner alone."""
        for path in (self._path.parent, self._path, *(self._path / name for name in _FOLDERS)):
            try:
                path.mkdir(mode=0o750 if path == self._path.parent else 0o700)
            except FileExistsError:
                if not path.is_dir():
                    raise
            else:
                give_to_owner(path.parent, path)
                sync(path.parent)

    def save(self, source: IO[bytes], now: int, label: str = "") -> str:
        """Save a mail, or a file with a name, and return its name here.

        When this returns, a mail survives a power cut. Of a file, whoever imports it has another copy. All of `source`
        is read. Of a mail that is too large, the beginning is kept, with an octet more than may be.
        """
        self.open()
        name = f"{now}.{secrets.token_hex(8)}"
        if label:
            name += f".{_NOT_PLAIN.sub('_', label)[-_MAX_LABEL:]}"
        draft, final = self._path / "tmp" / name, self._path / "new" / name
        try:
            with open(draft, "xb", opener=_for_owner) as file:
                self._copy(source, file)
                file.flush()
                if not label:
                    os.fsync(file.fileno())
            draft.rename(final)
            if not label:
                sync(final.parent)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return name

    def _copy(self, source: IO[bytes], file: IO[bytes]) -> None:
        octets = 0
        while piece := source.read(_PIECE):
            octets += len(piece)
            if octets <= MAX_FILE + _PIECE:
                file.write(piece)
        if octets > MAX_FILE:
            file.truncate(_KEPT_OF_LARGER)
            os.ftruncate(file.fileno(), MAX_FILE + 1)  # A hole, which takes no room on the disk.

    def read(self, name: str) -> bytes:
        """The mail of a name, but at most one octet more than MAX_FILE. Raises FileNotFoundError if it is gone."""
        for folder in ("cur", "new"):
            with contextlib.suppress(FileNotFoundError), (self._path / folder / name).open("rb") as file:
                return file.read(MAX_FILE + 1)
        raise FileNotFoundError(name)

    def path(self, name: str) -> Path:
        """Where a mail is whose report has been read."""
        return self._path / "cur" / name

    def new(self, older: int, most: int) -> list[str]:
        """At most so many names of mails in `new` that came before a time, the first ones first."""
        return sorted(name for name in self._names("new") if received(name) < older)[:most]

    def all(self) -> list[str]:
        """The names of all mails, the first ones first."""
        return sorted({*self._names("new"), *self._names("cur")}, key=lambda name: (received(name), name))

    def done(self, name: str) -> None:
        """What the mail says is in the database."""
        with contextlib.suppress(FileNotFoundError):  # Another process has done it.
            (self._path / "new" / name).rename(self._path / "cur" / name)

    def remove(self, name: str) -> None:
        """Delete a mail."""
        for folder in ("new", "cur"):
            (self._path / folder / name).unlink(missing_ok=True)

    def clean(self, now: float) -> None:
        """Delete what was begun and never completed."""
        for path in (self._path / "tmp").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < now - _ABANDONED:
                    path.unlink()

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process is in here. It ends with the process, however that ends."""
        with open(self._path / "lock", "ab", opener=_for_owner) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _names(self, folder: str) -> Iterator[str]:
        try:
            entries = os.scandir(self._path / folder)
        except FileNotFoundError:
            return
        with entries:
            # A mail program may have moved mails, and added its flags to their names.
            yield from (entry.name for entry in entries if entry.name[:1] != ".")


def folder(database: str) -> Path:
    """Where the mails of a database are."""
    return Path(database).parent / "mails"


def received(name: str) -> int:
    """When a mail came, in seconds since 1970, by its name; now if the name does not say."""
    seconds = name.partition(".")[0]
    return int(seconds) if seconds.isdecimal() and len(seconds) < 12 else int(time.time())


def _for_owner(path: str, flags: int) -> int:
    file = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    give_to_owner(Path(path).parent, file)
    return file
