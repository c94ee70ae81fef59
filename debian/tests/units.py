"""Runs what the units of a package run: by systemd, or where that does not run, as the units say."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from world import run, soon

SYSTEMD = Path("/run/systemd/system").is_dir()
_STATE = "/var/lib"
_SANDBOX = """
user=$1 groups=$2; shift 2
while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done; shift
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /tmp
exec setpriv --reuid="$user" --regid="$user" --groups="$groups" --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


class Unit:
    """A service of a package; `name` is `NAME.service` or `NAME@INSTANCE.service`."""

    def __init__(self, package: str, name: str) -> None:
        self.name = name
        stem, at, rest = name.partition("@")
        self._instance = rest.removesuffix(".service")
        listed = run("dpkg", "-L", package).splitlines()
        (file,) = [path for path in listed if path.endswith(f"/{stem}@.service" if at else f"/{name}")]
        lines = [line.partition("=") for line in Path(file).read_text().splitlines()]
        self._settings = {key: value for key, equals, value in lines if equals}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what a oneshot runs has ended then."""
        if SYSTEMD:
            run("systemctl", "start", self.name)
        else:
            run(*self._command())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have it run, with the configuration as it is now."""
        if SYSTEMD:
            run("systemctl", "restart", self.name)
            yield
            return
        self._process = subprocess.Popen(self._command())
        try:
            yield
        finally:
            self._process.terminate()
            self._process.wait(20)

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        if SYSTEMD:
            run("systemctl", "kill", "--signal=KILL", self.name)
        else:
            assert self._process
            self._process.kill()
            self._process.wait(20)

    @contextlib.contextmanager
    def for_each_connection(self, socket: "Unit") -> Iterator[None]:
        """Have it start for each connection to a socket. systemd does so for the unit that wants it."""
        if SYSTEMD:
            yield
            return
        path = Path(socket._settings["ListenStream"])
        path.parent.mkdir(exist_ok=True)
        command = ["systemd-socket-activate", "--accept", "--inetd", f"--listen={path}", *self._command()]
        process = subprocess.Popen(command)
        try:
            soon(path.is_socket, f"nobody listens on {path}")
            path.chmod(int(socket._settings["SocketMode"], 8))
            shutil.chown(path, socket._settings["SocketUser"])
            yield
        finally:
            process.terminate()
            process.wait(20)
            path.unlink()

    def _command(self) -> list[str]:
        settings = self._settings
        user = settings["User"]
        # Those of the user, as systemd has it, and those of the unit.
        groups = {*run("id", "--groups", "--name", user).split(), *settings.get("SupplementaryGroups", "").split()}
        writable = settings.get("ReadWritePaths", "").split()
        if "StateDirectory" in settings:
            writable.append(f"{_STATE}/{settings['StateDirectory']}")
        if "RuntimeDirectory" in settings:
            writable.append(f"/run/{settings['RuntimeDirectory']}")
            run("install", "--directory", f"--owner={user}", f"--group={user}", writable[-1])
        words = settings["ExecStart"].replace("%i", self._instance).split()
        given = [user, ",".join(sorted(groups)), *writable, "--", *words]
        return ["unshare", "--mount", "sh", "-euc", _SANDBOX, "sandbox", *given]
