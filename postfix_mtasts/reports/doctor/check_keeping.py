"""What is wrong with where reports are kept: who may read them, when the last one came, and what is left over."""

import contextlib
import datetime
import grp
import importlib.util
import pwd
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from postfix_mtasts.counting import noun
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.reports.store import Store

# The packages of Debian for modules, what is missing without one, and how bad that is.
_LIBRARIES = {
    "dkim": ("python3-dkim", "mails are saved and not taken in", Status.ERROR),
    "publicsuffix2": ("python3-publicsuffix2", "mails are saved and not taken in", Status.ERROR),
    "nacl": ("python3-nacl", "reports that are signed with Ed25519 do not count", Status.WARNING),
    "jinja2": ("python3-jinja2", "html writes no pages", Status.WARNING),
}
_SILENT = datetime.timedelta(days=3)
_LEFT_OVER = 3600  # Seconds after which a mail that is not taken in has been left over.
_MAX_LEFT_OVER = 1000  # That are counted.
_LAST = """
SELECT received, signer FROM messages WHERE dkim = 'verified' AND state IN ('stored', 'duplicate')
ORDER BY received DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """Who owns a file or folder, and who may do what with it."""

    path: Path
    owner: str
    group: str
    members: tuple[str, ...]  # Of the group.
    mode: int

    @property
    def readers(self) -> str:
        """Who may read it, besides root."""
        group = f" and the group {self.group} ({', '.join(self.members) or 'no members'})" if self.mode & 0o040 else ""
        return f"everybody on this machine: mode {self.mode:04o}" if self.mode & 0o004 else f"{self.owner}{group}"


def rights(path: Path) -> Rights | None:
    """The rights of a file or folder, or None if it does not exist. Raises OSError."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    owner, group, members = str(about.st_uid), str(about.st_gid), []
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(about.st_uid).pw_name
    with contextlib.suppress(KeyError):
        entry = grp.getgrgid(about.st_gid)
        group, members = entry.gr_name, entry.gr_mem
    return Rights(path, owner, group, tuple(members), stat.S_IMODE(about.st_mode))


def check_libraries() -> Iterator[Finding]:
    """The libraries that are not needed by the daemon."""
    for module, (package, why, status) in _LIBRARIES.items():
        if not importlib.util.find_spec(module):
            yield Finding("library", status, f"{package} is not installed", why, "run", f"apt install {package}")


def check_rights(folder: Rights | None, kept: Sequence[Rights], users: Sequence[str]) -> Iterator[Finding]:
    """Who may read what is kept. `users` are those as whom Postfix runs the command."""
    if not folder:
        return
    for user in users:
        foreign = [one for one in (folder, *kept) if one.owner != user]
        if foreign:
            what = f"{foreign[0].path} belongs to {foreign[0].owner}, and Postfix receives reports as {user}"
            fix = f"chown -R {shlex.quote(user)} {shlex.quote(str(folder.path))}"
            yield Finding("rights", Status.ERROR, what, "reports are deferred, or not taken in", "run", fix)
    for one in kept:
        everybody = bool(one.mode & 0o007)
        what = f"{one.path} may be read by {one.readers}"
        place, line = ("run", f"chmod o-rwx {shlex.quote(str(one.path))}") if everybody else ("", "")
        why = "reports say who has mail for you, and from which hosts it comes"
        yield Finding("rights", Status.WARNING if everybody else Status.OK, what, why, place, line)


def check_last(store: Store, now: datetime.datetime) -> Iterator[Finding]:
    """When the last report of a verified sender came. Raises StoreError."""
    found = store.one(_LAST)
    if not found:
        yield Finding("last-report", Status.WARNING, *_NONE)
        return
    came = datetime.datetime.fromtimestamp(found[0], datetime.UTC)
    what = f"the last report came on {came:%Y-%m-%d at %H:%M} UTC, from {found[1]}"
    if now - came > _SILENT:
        why = "senders send one a day, about mail that they had for you: so this machine may not get them any more"
        yield Finding("last-report", Status.WARNING, what, why)
    else:
        yield Finding("last-report", Status.OK, what, "reports arrive")


_NONE = (
    "no report of a verified sender has come yet",
    "senders send the first one a day or two after the record is published, if they have had mail for you",
)


def check_left_over(spool: Spool, now: datetime.datetime) -> Iterator[Finding]:
    """Mails that were saved and not taken in. Raises OSError."""
    count = len(spool.new(int(now.timestamp()) - _LEFT_OVER, _MAX_LEFT_OVER))
    if count:
        more = " or more" if count == _MAX_LEFT_OVER else ""
        what = f"{count}{more} {noun(count, 'mail is', 'mails are')} saved and not taken in"
        why = "what it reports is not counted" if count == 1 else "what they report is not counted"
        yield Finding("left-over", Status.WARNING, what, why, "run", "postfix-mtasts-reports replay")


def nothing_yet() -> Finding:
    """There is no database."""
    return Finding("last-report", Status.WARNING, *_NONE)
