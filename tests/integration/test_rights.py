"""Root goes on as whoever owns a folder."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.postfix import unfit

SHOW = """
import os, pathlib, sys
from postfix_mtasts.rights import become_owner
become_owner(pathlib.Path(sys.argv[1]))
print(os.getuid(), os.geteuid(), os.getgid(), os.getegid(), sorted(os.getgroups()))
"""


def become(folder: Path) -> str:
    """User and group, real and effective, and the other groups."""
    done = subprocess.run([sys.executable, "-c", SHOW, folder], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if why := unfit():
        pytest.skip(why)
    return tmp_path


def test_of_a_user(folder: Path) -> None:
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    groups = sorted(os.getgrouplist("nobody", user.pw_gid))
    assert become(folder) == f"{user.pw_uid} {user.pw_uid} {user.pw_gid} {user.pw_gid} {groups}"


def test_of_a_user_without_a_name(folder: Path) -> None:
    os.chown(folder, 54321, 54322)
    assert become(folder) == "54321 54321 54322 54322 [54322]"


def test_of_root_or_of_nothing(folder: Path) -> None:
    groups = sorted(os.getgroups())
    assert [become(folder), become(folder / "none")] == [f"0 0 0 0 {groups}"] * 2
