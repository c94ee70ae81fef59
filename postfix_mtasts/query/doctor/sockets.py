"""Whether two sockets are the same, and who has permission to connect to one."""

import grp
import ipaddress
import os
import pathlib
import pwd
import stat
from dataclasses import dataclass

from postfix_mtasts.config import Endpoint, UnixEndpoint


def is_same(listener: Endpoint, endpoint: Endpoint) -> bool:
    """Whether a connection to `endpoint` reaches the program that listens on `listener`."""
    if isinstance(listener, UnixEndpoint) and isinstance(endpoint, UnixEndpoint):
        here, there = pathlib.Path(listener.path), pathlib.Path(endpoint.path)
        # Some administrators bring a socket into a chroot by a bind mount, so the files are compared too.
        return here.resolve() == there.resolve() or (here.exists() and there.exists() and here.samefile(there))
    if isinstance(listener, UnixEndpoint) or isinstance(endpoint, UnixEndpoint):
        return False
    address = ipaddress.ip_address(listener.host)
    named = endpoint.host == "localhost" and address.is_loopback
    return listener.port == endpoint.port and (address.is_unspecified or named or listener.host == endpoint.host)


def is_elsewhere(endpoint: Endpoint) -> bool:
    """Whether a socket may be on another machine."""
    if isinstance(endpoint, UnixEndpoint) or endpoint.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return True


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
