"""Files that are written anew as a whole, and found again after a power cut: the old ones or the new ones."""

import contextlib
import os
import pathlib


def replace(path: pathlib.Path, content: bytes) -> None:
    """Have a file hold `content`, for its owner alone. If that fails, it stays as it is. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - the mode
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync(path.parent)


def sync(folder: str | pathlib.Path) -> None:
    """Have what was made, renamed and removed in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
