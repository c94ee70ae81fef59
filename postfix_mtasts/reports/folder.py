"""A folder with files of ours: each is replaced at once, and no file is touched that we did not write.

A list in the folder has the names of our files. A name is added before its file is written, so that after a power cut
no file of ours is taken for another's.
"""

import contextlib
import fcntl
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

LIST = ".postfix-mtasts-reports"
_NEW = ".postfix-mtasts-reports.new"  # What is being written. Only we use the name, and one of us at a time.
_MAX_LIST = 4 * 1024 * 1024  # Octets. 20,000 names have one megabyte.
_BLOCK = 64 * 1024  # Octets that are compared at once.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\.(html|json)")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderError(Exception):
    """The folder cannot be written to. The message says why, and what to do."""


class Folder:
    """A folder that is written anew, as a context manager. It is made if it is missing.

    At the end of the block, our files that were not put are removed. If the block fails, they stay.
    Raises FolderError, and OSError if the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        with contextlib.suppress(FileExistsError):
            self._path.mkdir()
        self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock()
            self._ours = self._read_list()
            self._put: set[str] = set()
            self._list = self._open(LIST, _WRITE | os.O_APPEND)
        except BaseException:
            os.close(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._remove_old()
        finally:
            os.close(self._list)
            os.close(self._folder)

    def put(self, name: str, data: bytes) -> None:
        """Write a file, unless it has these octets already."""
        if not _NAME.fullmatch(name):
            raise ValueError(name)
        self._claim(name)
        if not self._has(name, data):
            self._replace(name, data)
        self._put.add(name)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderError(f"{self._path}: another run is writing it") from error

    def _read_list(self) -> set[str]:
        try:
            listed = self._open(LIST, _READ)
        except FileNotFoundError:
            if self._has_files():
                raise FolderError(f"{self._path} has other files: name a new or empty folder") from None
            return set()
        with os.fdopen(listed, "rb") as file:
            names = file.read(_MAX_LIST).decode("ascii", "replace").splitlines()
        return {name for name in names if _NAME.fullmatch(name)}

    def _has_files(self) -> bool:
        with os.scandir(self._folder) as entries:
            return any(entries)

    def _claim(self, name: str) -> None:
        if name in self._ours:
            return
        if self._exists(name):
            raise FolderError(f"{self._path / name} was not written by this command: move it away")
        os.write(self._list, f"{name}\n".encode())
        self._ours.add(name)

    def _exists(self, name: str) -> bool:
        try:
            os.lstat(name, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        return True

    def _has(self, name: str, data: bytes) -> bool:
        try:
            with os.fdopen(self._open(name, _READ), "rb") as file:
                blocks = (data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK))
                return all(file.read(_BLOCK) == block for block in blocks) and not file.read(1)
        except OSError:  # It is missing, or something else by now.
            return False

    def _replace(self, name: str, data: bytes) -> None:
        with os.fdopen(self._open(_NEW, _WRITE | os.O_TRUNC), "wb") as file:
            file.write(data)
        os.replace(_NEW, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _remove_old(self) -> None:
        for name in self._ours - self._put:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
        self._replace(LIST, "".join(f"{name}\n" for name in sorted(self._put)).encode())

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o666, dir_fd=self._folder)
