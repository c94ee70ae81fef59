"""Why this process cannot read or make a file: a folder or a right is missing. As whom it goes on, and who connects."""

import contextlib
import os
import pathlib
import pwd
import socket
import stat
import struct

_UCRED = struct.Struct("iII")  # Process, user and group (unix(7)).


def in_the_way(path: pathlib.Path, *, write: bool = False, create: bool = False) -> str:
    """Return why this process cannot read the file at a path, or an empty string if nothing is known to be in the way.

    With `write`, the file is to be written, or created if it is missing. With `create`, it is always to be created.
    """
    for folder in reversed(path.parents):
        if not folder.is_dir():
            return f"there is no folder {folder}"
        if not os.access(folder, os.X_OK):
            return f"{this_user()} may not enter the folder {folder}"
    if create or (write and not path.exists()):
        return _forbidden("write in the folder", path.parent, os.W_OK)
    if not path.exists():
        return "there is no such file"
    if path.is_dir():
        return "it is a folder"
    return _forbidden("write to", path, os.W_OK) if write else _forbidden("read", path, os.R_OK)


def _forbidden(what: str, path: pathlib.Path, right: int) -> str:
    if os.access(path, right):
        return ""
    if right == os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is read-only for this process, by its mount or by ProtectSystem= in its unit"
    return f"{this_user()} may not {what} {path}"


def this_user() -> str:
    """Return the user of this process, as in `user anna`."""
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"


def read_secret(path: pathlib.Path, most: int) -> bytes:
    """What is in a file with a secret, but at most one octet more than `most`.

    Raises OSError, and ValueError if every user of this machine may read it or write to it.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IRWXO:
            raise ValueError(f"every user of this machine may read it or write to it; run: chmod o= {path}")
        return file.read(most + 1)


def give_to_owner(folder: pathlib.Path, made: pathlib.Path | int) -> None:
    """As root, give a file or folder that this process has made in a folder to the owner of that folder.

    Whoever works there at other times could not use what is root's. He may also put a link in the way: none is
    followed, and of open files only those that are new are given away. Raises OSError.
    """
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    if isinstance(made, pathlib.Path):
        os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return
    file = os.fstat(made)
    if stat.S_ISREG(file.st_mode) and file.st_nlink == 1 and file.st_size == 0:
        os.chown(made, owner.st_uid, owner.st_gid)


def make_for_group(path: pathlib.Path) -> None:
    """Make an empty file that its group may read, whatever the umask, unless there is one. Raises OSError.

    SQLite would make a database for everybody. A file that is there is not opened: to close it would give up the locks
    of other connections of this process.
    """
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o640)
            give_to_owner(path.parent, file)
        finally:
            os.close(file)


def become_owner(folder: pathlib.Path) -> None:
    """As root, go on as the owner of a folder, with his groups, for good. Raises OSError.

    What is made there is his then, and no link that he puts in the way leads root astray. If there is no folder,
    nothing is done.
    """
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # He has no name.
        os.setgroups([owner.st_gid])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def user_of(connection: socket.socket) -> int:
    """The user who has made a connection to a Unix socket, as the kernel says."""
    _, user, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(user)
