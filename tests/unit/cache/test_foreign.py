"""How much of a file is searched for what only we write. What becomes of it is tested with the daemon."""

from pathlib import Path

import pytest

from postfix_mtasts.cache import foreign as module
from postfix_mtasts.cache.foreign import foreign

NOT_OURS = "no database of postfix-mtasts"
ROW = b'{"version": 1, "mode": "enforce"'


def large(path: Path, at: int) -> Path:
    """A file that begins with a letter, and has a row of ours somewhere."""
    with path.open("wb") as file:
        file.write(b"x")
        file.seek(at)
        file.write(ROW)
    return path


@pytest.mark.parametrize("at", [1, module._BLOCK - 5, 2 * module._BLOCK - 1, module._MOST - 100])
def test_a_row_of_ours_is_found(tmp_path: Path, at: int) -> None:
    assert foreign(large(tmp_path / "file", at)) == ""


def test_a_file_is_searched_up_to_a_bound(tmp_path: Path) -> None:
    assert foreign(large(tmp_path / "file", module._MOST + 100)) == NOT_OURS


def test_a_row_of_ours_in_the_log_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    assert foreign(tmp_path / "file") == NOT_OURS
    (tmp_path / "file-wal").write_bytes(ROW)
    assert foreign(tmp_path / "file") == ""


@pytest.mark.parametrize("content", [b"", bytes(4096)], ids=["empty", "zeros"])
def test_nothing_that_could_be_lost(tmp_path: Path, content: bytes) -> None:
    assert foreign(tmp_path / "none") == ""
    (tmp_path / "file").write_bytes(content)
    assert foreign(tmp_path / "file") == ""


def test_what_is_no_file_is_left_to_others(tmp_path: Path) -> None:
    assert foreign(tmp_path) == foreign(Path("/dev/zero")) == ""
