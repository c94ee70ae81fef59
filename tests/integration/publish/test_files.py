"""Policy files on a real disk, also a full one, and one whose power fails at any moment."""

import os
import stat
from pathlib import Path

import pytest

from postfix_mtasts.publish.files import FileError, path_of, publish
from postfix_mtasts.sts import policy as parser
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.conftest import filled, read_only, small_disk

DOMAIN = PolicyDomain("example.com")
OLD = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"), MxPattern("*.example.net")))
NEW = Policy(Mode.ENFORCE, 604_800, (MxPattern("mx1.example.com"),))
TEXT = b"version: STSv1\r\nmode: testing\r\nmx: mx1.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"
in_namespace = pytest.mark.skipif(
    not os.environ.get("POSTFIX_MTASTS_NAMESPACE"), reason="needs a namespace to mount in: tests/namespace"
)


def test_the_file_is_where_web_servers_look_and_lines_end_in_crlf(tmp_path: Path) -> None:
    os.umask(umask := os.umask(0o077))
    os.umask(0o077)
    try:
        assert publish(str(tmp_path / "policies"), DOMAIN, OLD)
    finally:
        os.umask(umask)
    path = tmp_path / "policies/mta-sts.example.com/.well-known/mta-sts.txt"
    assert path_of(str(tmp_path / "policies"), DOMAIN) == path
    assert path.read_bytes() == TEXT
    assert parser.parse(TEXT) == (OLD, ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    folders = [path.parent, path.parent.parent, tmp_path / "policies"]
    assert [stat.S_IMODE(one.stat().st_mode) for one in folders] == [0o755, 0o755, 0o755]
    assert [one.name for one in path.parent.iterdir()] == ["mta-sts.txt"]


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    publish(str(tmp_path), DOMAIN, OLD)
    before = path_of(str(tmp_path), DOMAIN).stat().st_ino
    assert not publish(str(tmp_path), DOMAIN, OLD)
    assert path_of(str(tmp_path), DOMAIN).stat().st_ino == before
    assert publish(str(tmp_path), DOMAIN, NEW)
    assert path_of(str(tmp_path), DOMAIN).stat().st_ino != before  # Replaced, never written over.


def test_a_file_is_deleted_with_its_folders_but_not_with_what_others_put_there(tmp_path: Path) -> None:
    other = PolicyDomain("example.net")
    for domain in (DOMAIN, other):
        publish(str(tmp_path), domain, OLD)
    kept = path_of(str(tmp_path), other).with_name("security.txt")
    kept.write_text("x")
    for domain in (DOMAIN, other):
        assert publish(str(tmp_path), domain, None)
        assert not publish(str(tmp_path), domain, None)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "mta-sts.example.net", kept.parent, kept]


def test_a_draft_that_a_power_cut_left_does_no_harm(tmp_path: Path) -> None:
    publish(str(tmp_path), DOMAIN, OLD)
    draft = path_of(str(tmp_path), DOMAIN).with_name(".mta-sts.txt.new")
    draft.write_bytes(b"version: ST")
    assert publish(str(tmp_path), DOMAIN, NEW)
    assert not draft.exists()


@in_namespace
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        publish(str(folder), DOMAIN, OLD)
        path = path_of(str(folder), DOMAIN)
        with filled(folder), pytest.raises(FileError) as caught:
            publish(str(folder), DOMAIN, NEW)
        assert str(caught.value) == f"{path}: no space left on device"
        assert path.read_bytes() == TEXT
        assert [one.name for one in path.parent.iterdir()] == ["mta-sts.txt"]
        assert publish(str(folder), DOMAIN, NEW)


@in_namespace
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    with read_only(folder), pytest.raises(FileError) as caught:
        publish(str(folder), DOMAIN, OLD)
    assert str(caught.value) == f"{path_of(str(folder), DOMAIN)}: read-only file system"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text("x")
    with pytest.raises(FileError) as caught:
        publish(str(tmp_path / "policies"), DOMAIN, OLD)
    assert str(caught.value) == f"{path_of(str(tmp_path / 'policies'), DOMAIN)}: not a directory"
