"""A folder in which only our files are touched, each at once."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postfix_mtasts.reports.folder import LIST, Folder, FolderError
from tests.integration.conftest import filled, small_disk


def write(path: Path, **files: str) -> None:
    with Folder(path) as folder:
        for name, text in files.items():
            folder.put(f"{name}.html", text.encode())


def content(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.name != LIST}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "site"


def test_a_folder_is_made_and_written_anew(place: Path) -> None:
    write(place, a="1", b="1")
    assert content(place) == {"a.html": "1", "b.html": "1"}
    write(place, b="2", c="2")
    assert content(place) == {"b.html": "2", "c.html": "2"}
    assert (place / LIST).read_text() == "b.html\nc.html\n"


def test_an_empty_folder_will_do(place: Path) -> None:
    place.mkdir()
    write(place, a="1")
    assert content(place) == {"a.html": "1"}


def test_files_are_for_whom_the_umask_says(place: Path) -> None:
    before = os.umask(0o027)
    try:
        write(place, a="1")
    finally:
        os.umask(before)
    assert [(place / name).stat().st_mode & 0o777 for name in ("a.html", LIST)] == [0o640, 0o640]


def test_what_has_not_changed_is_not_written(place: Path) -> None:
    write(place, a="1", b="1")
    before = {name: (place / name).stat().st_ino for name in ("a.html", "b.html")}
    os.utime(place / "a.html", (1, 1))
    with (place / "b.html").open() as reader:
        write(place, a="1", b="2")
        assert reader.read() == "1"
    after = {name: (place / name).stat() for name in ("a.html", "b.html")}
    assert (after["a.html"].st_ino, after["a.html"].st_mtime) == (before["a.html"], 1)
    assert after["b.html"].st_ino != before["b.html"]


@pytest.mark.parametrize(
    "text", ["x" * 200_000 + "y", "x" * 200_000, "x" * 65536, "x" * 199_999 + "y", "", "x" * 65535 + "y"]
)
def test_large_files_are_compared_in_whole(place: Path, text: str) -> None:
    write(place, a="x" * 200_000)
    write(place, a=text)
    assert content(place) == {"a.html": text}


def test_a_folder_of_others_is_left_alone(place: Path) -> None:
    place.mkdir()
    (place / "index.html").write_text("my page")
    with pytest.raises(FolderError, match="has other files: name a new or empty folder"):
        write(place, index="1")
    assert content(place) == {"index.html": "my page"}
    assert not (place / LIST).exists()


def test_files_of_others_stay(place: Path) -> None:
    write(place, a="1")
    (place / "notes.html").write_text("mine")
    (place / "robots.txt").write_text("mine")
    write(place, b="1")
    assert content(place) == {"b.html": "1", "notes.html": "mine", "robots.txt": "mine"}
    with pytest.raises(FolderError, match=r"notes\.html was not written by this command: move it away"):
        write(place, c="1", notes="1")
    assert content(place) == {"b.html": "1", "c.html": "1", "notes.html": "mine", "robots.txt": "mine"}


def test_what_fails_removes_nothing(place: Path) -> None:
    write(place, a="1", b="1")
    with pytest.raises(ValueError, match="not_a_name"):
        write(place, a="2", c="2", not_a_name="2")
    assert content(place) == {"a.html": "2", "b.html": "1", "c.html": "2"}
    write(place, a="3")
    assert content(place) == {"a.html": "3"}


def test_a_run_that_was_killed_leaves_nothing_in_the_way(place: Path) -> None:
    write(place, a="1")
    program = (
        "import os, pathlib, sys; from postfix_mtasts.reports.folder import Folder\n"
        "with Folder(pathlib.Path(sys.argv[1])) as folder: folder.put('b.html', b'2'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, place], check=False).returncode == -9
    (place / f"{LIST}.new").write_text("half a p")
    assert content(place) == {"a.html": "1", "b.html": "2", f"{LIST}.new": "half a p"}
    write(place, b="3")
    assert content(place) == {"b.html": "3"}


def test_a_link_is_replaced_and_not_followed(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("1")
    write(place, a="1", b="1")
    for name in ("a.html", "b.html"):
        (place / name).unlink()
        (place / name).symlink_to(target)
    write(place, a="1")
    assert (target.read_text(), (place / "a.html").is_symlink(), content(place)) == ("1", False, {"a.html": "1"})


@pytest.mark.parametrize("name", [LIST, f"{LIST}.new"])
def test_a_link_in_place_of_what_is_ours_alone(place: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("a.html\n")
    write(place, a="1")
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        write(place, a="2")
    assert (target.read_text(), (place / "a.html").read_text()) == ("a.html\n", "1")


def test_the_list_names_nothing_outside(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.html"
    outside.write_text("mine")
    write(place, a="1")
    (place / "robots.txt").write_text("mine")
    with (place / LIST).open("a") as file:
        file.write(f"../outside.html\n{outside}\nrobots.txt\n.\n..\n\x00\n")
    write(place, b="1")
    assert (outside.read_text(), content(place)) == ("mine", {"b.html": "1", "robots.txt": "mine"})


def test_a_full_disk_costs_no_page(namespace: None, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write(disk / "site", a="1")
        with filled(disk), pytest.raises(OSError, match="No space left"):
            write(disk / "site", a="2" * 100_000)
        assert (disk / "site/a.html").read_text() == "1"
        write(disk / "site", a="3")
        assert content(disk / "site") == {"a.html": "3"}


def test_two_at_once(place: Path) -> None:
    write(place, a="1")
    other = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FolderError, match="another run is writing it"):
            write(place, a="2")
    finally:
        os.close(other)
    assert content(place) == {"a.html": "1"}


@pytest.mark.parametrize("name", ["../a.html", "/a.html", ".a.html", "a.txt", "a.html\n", "", "A.html", "a/b.html"])
def test_names_that_are_none_of_ours(place: Path, name: str) -> None:
    with Folder(place) as folder, pytest.raises(ValueError, match=r".*"):
        folder.put(name, b"1")
    assert content(place) == {}


def test_no_descriptor_is_left(place: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        write(place, a="1")
        (place / "x.html").write_text("mine")
        with pytest.raises(FolderError):
            write(place, x="1")
        (place / "x.html").unlink()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
