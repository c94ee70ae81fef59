"""Hands mails to sendmail(1), which every mail server has."""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

from postfix_mtasts.postfix.installation import PATH
from postfix_mtasts.reports.plain import plain
from postfix_mtasts.reports.viewing import is_hostname

_DEADLINE = 60.0  # Seconds.
_MAX_REASON = 2000  # Octets of what it prints.
_MAILNAME = pathlib.Path("/etc/mailname")  # The domain of mail from this machine (Debian Policy, 11.6).
_MAX_MAILNAME = 1000  # Octets that are read of it.


class SendmailError(Exception):
    """The mail was not taken. The message says why."""


def send(mail: bytes, sender: str, recipients: Sequence[str], path: str = PATH) -> None:
    """Send a mail by the first sendmail in `path`. Raises SendmailError."""
    command = shutil.which("sendmail", path=path)
    if not command:
        raise SendmailError("there is no sendmail command on this machine")
    # Files, since a pipe would have us wait for whatever else the command has started.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(mail)
        given.seek(0)
        words = [command, "-i", "-f", sender, "--", *recipients]
        try:
            process = subprocess.Popen(words, stdin=given, stdout=said, stderr=said, start_new_session=True)  # noqa: S603
        except OSError as error:
            raise SendmailError(f"{command} cannot be run: {(error.strerror or str(error)).lower()}") from error
        try:
            status = process.wait(_DEADLINE)
        except subprocess.TimeoutExpired as error:
            raise SendmailError(f"{command} was not done within {_DEADLINE:g} s: {_reason(said)}") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status:
            raise SendmailError(f"{command} failed with status {status}: {_reason(said)}")


def _reason(said: IO[bytes]) -> str:
    """The last line of what a command printed."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _MAX_REASON))
    lines = said.read(_MAX_REASON).decode("utf-8", "replace").split("\n")
    return next((plain(line) for line in reversed(lines) if line.strip()), "no reason given")


def own_address(mailname: pathlib.Path = _MAILNAME) -> str:
    """The address of the user who runs this, at the domain of this machine's mail."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = f"uid-{os.geteuid()}"
    return f"{user}@{_domain(mailname)}"


def _domain(mailname: pathlib.Path) -> str:
    name = os.uname().nodename
    with contextlib.suppress(OSError), mailname.open("rb") as file:
        lines = file.read(_MAX_MAILNAME).decode("ascii", "replace").split("\n")
        name = lines[0].strip() or name
    return name.lower() if is_hostname(name.lower()) else "localhost.localdomain"
