"""Writes policy files where the web server finds them: DIR/mta-sts.DOMAIN/.well-known/mta-sts.txt."""

import contextlib
import os
import pathlib

from postfix_mtasts.durable import sync
from postfix_mtasts.publish.state import body
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.sts import policy as parser
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Policy, PolicyError

_FOLDER, _NAME = ".well-known", "mta-sts.txt"  # RFC 8461, 3.3
_DRAFT = ".mta-sts.txt.new"


class FileError(Exception):
    """A policy file cannot be written. The message says why. The file that was there before is still there."""


def path_of(folder: str, domain: PolicyDomain) -> pathlib.Path:
    """The path of a domain's policy file."""
    return pathlib.Path(folder, domain.policy_host(), _FOLDER, _NAME)


def publish(folder: str, domain: PolicyDomain, policy: Policy | None) -> bool:
    """Let a domain's policy file have this policy, or let there be none. Return whether anything was changed.

    A reader finds the old file or the new one, also after a power cut. Raises FileError.
    """
    path = path_of(folder, domain)
    try:
        return _remove(path) if policy is None else _write(path, policy)
    except (OSError, PolicyError) as error:
        raise FileError(f"{path}: {in_words(error)}") from error


def _write(path: pathlib.Path, policy: Policy) -> bool:
    content = body(policy)
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return False
    _make_folder(path.parent)
    draft = path.with_name(_DRAFT)
    try:
        with draft.open("wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        parsed, findings = parser.parse(draft.read_bytes())
        if parsed != policy or findings:
            raise PolicyError("read back, it is another policy")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return True


def _remove(path: pathlib.Path) -> bool:
    existed = path.exists()
    path.unlink(missing_ok=True)
    path.with_name(_DRAFT).unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        with contextlib.suppress(OSError):  # It does not exist, or the administrator has put something else there.
            folder.rmdir()
    with contextlib.suppress(FileNotFoundError):
        sync(path.parent.parent.parent)
    return existed


def _make_folder(folder: pathlib.Path) -> None:
    """Make a folder and those above it, and let each be found again after a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        one.chmod(0o755)  # The web server is another user, whatever the umask is.
        sync(one.parent)
