"""Reads files with reports: mails, Maildirs, and reports by themselves, compressed or not."""

from collections.abc import Iterator
from pathlib import Path

MAX_FILE = 20_000_000  # Octets.
_FOLDERS = ("cur", "new")  # Of a Maildir. What is in `tmp` is not complete.


def files(name: str) -> Iterator[str]:
    """Return the names of the mails in a Maildir, or the name itself if it is none.

    A folder that cannot be listed is returned too: whoever reads it gets the error.
    """
    folders = [folder for folder in (Path(name, part) for part in _FOLDERS) if _is_folder(folder)]
    if not folders:
        yield name
    for folder in folders:
        try:
            mails = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_file())
        except OSError:
            mails = [folder]
        yield from map(str, mails)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def reason(error: OSError) -> str:
    """Why a file cannot be read."""
    if isinstance(error, IsADirectoryError):
        return "a folder that is no Maildir: name the files in it"
    return (error.strerror or str(error)).lower()


def content(name: str) -> bytes:
    """Return what is in a file, but at most one octet more than MAX_FILE. Raises OSError."""
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE + 1)
