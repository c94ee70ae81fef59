"""Reads files with reports: mails, Maildirs, and reports by themselves, compressed or not."""

from collections.abc import Iterator
from pathlib import Path

MAX_FILE = 20_000_000  # Octets.
_FOLDERS = ("cur", "new")  # Of a Maildir. What is in `tmp` is not complete.


def files(name: str) -> Iterator[str]:
    """Return the names of the mails in a Maildir, or the name itself if it is none."""
    folders = [Path(name, folder) for folder in _FOLDERS]
    if not any(folder.is_dir() for folder in folders):
        yield name
        return
    for folder in folders:
        if folder.is_dir():
            yield from (str(path) for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_file())


def content(name: str) -> bytes:
    """Return what is in a file, but at most one octet more than MAX_FILE. Raises OSError."""
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE + 1)
