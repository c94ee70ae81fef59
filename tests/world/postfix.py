"""A real Postfix, this machine's or another Debian's, run in a place of its own, with a log that tests can wait for.

Configuration, queue, data and log lie under one folder, so that /etc/postfix and /var/spool/postfix stay as they are.
Postfix's processes drop their privileges: the user `postfix` must be able to reach that folder. It lies in `TMP`, which
is the one place that all installations of Postfix share.
"""

import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

NAMESPACE = "POSTFIX_MTASTS_NAMESPACE"
ROOTS = Path(os.environ.get("POSTFIX_MTASTS_ROOTS", "/var/cache/postfix-mtasts/roots"))
TMP = Path("/tmp")


def unfit(target: str = "test") -> str | None:
    """Why this process can neither mount nor be several users, as a target of make needs it; None if it can."""
    users = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    if os.geteuid() != 0 or users < 65536:  # In tests/namespace without root, only one user exists.
        return f"needs root: run `sudo make {target}`"
    return None if NAMESPACE in os.environ else "needs a namespace: run through tests/namespace"


@dataclass(frozen=True)
class Installation:
    """Where a Postfix is: on this machine, or in the root of another Debian that tests/roots made."""

    name: str
    root: Path

    def missing(self) -> str | None:
        """What a test with this Postfix needs and does not have here, in words for `pytest.skip`."""
        if why := unfit():
            return why
        if self.master_cf.exists():
            return None
        if self is HERE:
            return "needs Postfix on this machine; other tests take that of a root"
        return f"needs a root of {self.name}: run `sudo make roots`"

    @property
    def master_cf(self) -> Path:
        """The services as Debian ships them."""
        return self.root / "usr/share/postfix/master.cf.dist"

    @property
    def version(self) -> tuple[int, int, int]:
        """Postfix's version, `(3, 10, 13)`."""
        command = self.command("postconf", "-d", "-h", "mail_version")
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        major, minor, patch = re.findall(r"\d+", found)
        return int(major), int(minor), int(patch)

    def command(self, *words: str) -> list[str]:
        """What runs this command there."""
        return list(words) if self is HERE else ["chroot", str(self.root), *words]

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Make the root fit to run Postfix in, by mounts that only our namespace sees.

        `TMP` and the nameserver are those of this machine. The root itself is read-only: the next run of the tests is
        to find it as it was made.
        """
        if self is HERE:
            yield
            return
        assert NAMESPACE in os.environ
        subprocess.run(["mount", "--bind", "-o", "ro", self.root, self.root], check=True)
        try:
            for path in (Path("/proc"), Path("/dev"), TMP, _RESOLV_CONF):
                place = self.root / path.relative_to("/")
                subprocess.run(["mount", "--bind", path.resolve(), place], check=True)
            yield
        finally:
            # Lazily: a process of Postfix may outlive `postfix stop` for a moment.
            subprocess.run(["umount", "--recursive", "--lazy", self.root], check=True)


HERE = Installation("here", Path("/"))
INSTALLATIONS = (HERE, *(Installation(suite, ROOTS / suite) for suite in ("bookworm", "trixie", "forky")))

_RESOLV_CONF = Path("/etc/resolv.conf")


@contextmanager
def nameserver(address: str, folder: Path) -> Iterator[None]:
    """Let `address` be the only nameserver in /etc/resolv.conf, by a mount over it that only our namespace sees."""
    assert NAMESPACE in os.environ
    ours = folder / "resolv.conf"
    ours.write_text(f"nameserver {address}\n")
    theirs = _RESOLV_CONF.resolve()
    subprocess.run(["mount", "--bind", ours, theirs], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", theirs], check=True)


@dataclass(frozen=True)
class Delivery:
    """The end of one delivery attempt."""

    status: str  # sent, deferred, bounced
    dsn: str
    relay: str
    text: str  # What stands in brackets behind the status.
    tls: str | None  # Verified, Trusted, Untrusted or Anonymous: how Postfix calls the connection; None: no TLS.
    mistrust: str | None  # Why the certificate was refused.
    lines: tuple[str, ...]  # What the delivering process logged.


class Postfix:
    """`with installation.mounted(), Postfix(installation, folder, {"smtp_tls_policy_maps": …}) as postfix: …`

    The settings add to those of `_main_cf`, the services are more lines for master.cf.
    """

    def __init__(
        self, installation: Installation, folder: Path, settings: Mapping[str, str], services: Iterable[str] = ()
    ) -> None:
        self.installation = installation
        self.version = installation.version
        self.folder = folder
        self.config = folder / "etc"
        self.queue = folder / "queue"
        self.maillog = folder / "maillog"
        self._messages = itertools.count(1)
        for place in (self.config, self.queue):
            place.mkdir()
        self.config.joinpath("main.cf").write_text(self._main_cf(settings))
        self.config.joinpath("master.cf").write_text(_master_cf(installation.master_cf.read_text(), services))
        for file in self.config.iterdir():
            os.utime(file, (0, 0))  # Postfix waits until a file that is new has stayed the same for a second.

    def __enter__(self) -> Self:
        self.run("postfix", "start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("postfix", "stop")

    def run(self, command: str, *arguments: str) -> str:
        """Run one of Postfix's commands with our configuration; its standard output."""
        return self._ask(command, *arguments).stdout

    def send(self, recipient: str, sender: str = "sender@client.test", header: str = "") -> str:
        """Hand in a message, with one more line in its header or none; its queue id."""
        message_id = f"<{next(self._messages)}@client.test>"
        command = self.installation.command("sendmail", "-C", str(self.config), "-i", "-f", sender, recipient)
        lines = [f"Message-ID: {message_id}", *([header] if header else []), "", "hello", ""]
        subprocess.run(command, input="\n".join(lines), text=True, check=True, timeout=20)
        return self._wait(rf"/cleanup\[\d+\]: (\w+): message-id={re.escape(message_id)}")[1][1]

    def wait_for(self, queue_id: str, attempt: int = 1) -> Delivery:
        """How an attempt to deliver a message to its one recipient ends: the first, the second, …"""
        index, found = self._wait(_STATUS.replace("ID", queue_id), attempt=attempt)
        process, relay, dsn, status, text = found.groups()
        lines = [line for line in self.log()[: index + 1] if f"[{process}]: " in line]
        begin = max((i for i, line in enumerate(lines[:-1], 1) if ", status=" in line), default=0)
        tls = _last(r": (\w+) TLS connection established", lines[begin:])
        mistrust = _last(r"certificate verification failed for \S+ (?:num=\d+:)?(.*)", lines[begin:])
        return Delivery(status, dsn, relay, text, tls, mistrust, tuple(lines[begin:]))

    def deliver(self, recipient: str, sender: str = "sender@client.test", header: str = "") -> Delivery:
        """Send a message, and see how the first attempt to deliver it ends."""
        return self.wait_for(self.send(recipient, sender, header))

    def flush(self) -> None:
        """Let the whole queue be tried again."""
        self.wait_until_idle()
        self.run("postqueue", "-f")

    def reload(self) -> None:
        """Have it read its configuration and certificates again, and see those that answer with the old ones end."""
        old = self._smtpd()
        self.run("postfix", "reload")
        self._soon(lambda: not old & self._smtpd(), "end of the old smtpd(8)")

    def _smtpd(self) -> set[str]:
        """The processes that answer on port 25."""
        master = (self.queue / "pid/master.pid").read_text().strip()
        found = set()
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # Another process has ended.
                number, name, _, parent, *_ = file.read_text().split()
                if (name, parent) == ("(smtpd)", master):
                    found.add(number)
        return found

    def forget_all(self) -> None:
        """Delete what is in the queue."""
        self.wait_until_idle()
        self.run("postsuper", "-d", "ALL")

    def postmap_q(self, table: str, key: str) -> str | None:
        """What `postmap -q key table` prints; None when the key is not found. An error of the table raises."""
        result = self._ask("postmap", "-q", key, table, check=False)
        if result.returncode and result.stderr:
            raise LookupError(result.stderr.strip())
        return None if result.returncode else result.stdout.removesuffix("\n")

    def log(self) -> list[str]:
        """The complete lines of the log so far."""
        return self.maillog.read_text().split("\n")[:-1] if self.maillog.exists() else []

    def wait_for_line(self, pattern: str) -> str:
        """The first line of the log that matches, now or soon."""
        return self._wait(pattern)[1].string

    def _ask(self, command: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        line = self.installation.command(command, "-c", str(self.config), *arguments)
        return subprocess.run(line, check=check, capture_output=True, text=True, timeout=60)

    def _wait(self, pattern: str, attempt: int = 1) -> tuple[int, re.Match[str]]:
        """The log line that matches, the second that does, …, and its index: now or soon."""

        def look() -> list[tuple[int, re.Match[str]]]:
            found = [(i, match) for i, line in enumerate(self.log()) if (match := re.search(pattern, line))]
            return found[attempt - 1 :]

        return self._soon(look, f"line {attempt} that matches {pattern!r}")[0]

    def wait_until_idle(self) -> None:
        """Until the queue manager has put away what it logged the end of; it skips that when told to try again."""
        self._soon(lambda: not any((self.queue / "active").iterdir()), "end of all deliveries")

    def _soon(self, look: Callable[[], T], what: str, timeout: float = 30) -> T:
        """What `look` gives as soon as that is something."""
        pause = threading.Event()
        deadline = time.monotonic() + timeout
        while not (seen := look()):
            assert time.monotonic() < deadline, "\n".join([f"no {what} in", *self.log()[-50:]])
            pause.wait(0.02)
        return seen

    def _main_cf(self, settings: Mapping[str, str]) -> str:
        ours = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.folder / "data"),
            "maillog_file": str(self.maillog),
            "maillog_file_prefixes": str(self.folder),
            "myhostname": "client.test",
            "mydestination": "",
            "alias_maps": "",
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "notify_classes": "",
            "enable_long_queue_ids": "yes",  # The short ones can come again.
            "smtp_tls_loglevel": "1",
            "smtp_connection_cache_on_demand": "no",
            # A message is tried when it comes and when a test asks for it, whatever happened to others before.
            "minimal_backoff_time": "1h",
            "queue_run_delay": "1h",
            "default_destination_concurrency_failed_cohort_limit": "0",
        }
        return "".join(f"{name} = {value}\n" for name, value in (ours | dict(settings)).items())


_STATUS = r"\[(\d+)\]: ID: to=<.*>, relay=(\S+), .*, dsn=([\d.]+), status=(\w+) \((.*)\)$"


def _last(pattern: str, lines: Iterable[str]) -> str | None:
    found = [match[1] for line in lines if (match := re.search(pattern, line))]
    return found[-1] if found else None


def _master_cf(packaged: str, services: Iterable[str]) -> str:
    """Debian's services without the SMTP server and none of them in a chroot, and ours."""
    entries: list[str] = []
    for line in packaged.splitlines():
        fields = line.split()
        if not fields or line.startswith("#") or fields[:2] == ["smtp", "inet"]:
            continue
        if not line[0].isspace():
            fields[4] = "n"
            line = " ".join(fields)
        entries.append(line)
    return "\n".join([*entries, *services]) + "\n"
