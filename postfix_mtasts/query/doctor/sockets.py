"""Who has permission to connect to a Unix socket."""

import grp
import os
import pathlib
import pwd
import stat
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A directory that a user cannot enter or, with `is_socket`, a socket that the user cannot write to.

    `mode` is as in ls(1), followed by owner and group.
    """

    place: pathlib.Path
    mode: str
    is_socket: bool


def obstacle(socket: str, user: str, root: pathlib.Path) -> Obstacle | None:
    """What keeps a user from connecting to a Unix socket. None if nothing does, or if that is unknown.

    Directories above `root`, such as a chroot, do not matter. Access control lists are ignored.
    """
    path = pathlib.Path(socket)
    try:
        account = pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
        for place in (*(folder for folder in reversed(path.parents) if folder.is_relative_to(root)), path):
            status = place.stat()
            needed = stat.S_IWOTH if place == path else stat.S_IXOTH
            shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid in groups else 0
            if not status.st_mode & (needed << shift):
                return Obstacle(place, f"{stat.filemode(status.st_mode)}, {_owners(status)}", place == path)
    except (KeyError, OSError):
        return None
    return None


def _owners(status: os.stat_result) -> str:
    try:
        return f"{pwd.getpwuid(status.st_uid).pw_name}:{grp.getgrgid(status.st_gid).gr_name}"
    except KeyError:
        return f"{status.st_uid}:{status.st_gid}"
