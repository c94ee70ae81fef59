"""A mail server that is somebody's, in a root: installed, configured, with a mail in its queue; and its state."""

import hashlib
import re
from typing import NamedTuple

from tests.world.root import Root


class MailServer(NamedTuple):
    """What an administrator answers to debconf, installs, sets, and hands a mail to; what is his then."""

    package: str
    answers: tuple[str, ...]
    setting: str
    queue: str
    sendmail: str


EXIM = MailServer(
    "exim4-daemon-light",
    (
        "exim4-config exim4/dc_eximconfig_configtype select mail sent by smarthost; no local mail",
        "exim4-config exim4/mailname string client.test",
        "exim4-config exim4/dc_smarthost string smarthost.test",
    ),
    "echo 'MAIN_TLS_ENABLE = yes' >/etc/exim4/exim4.conf.localmacros",
    "/var/spool/exim4/input",
    "/usr/sbin/sendmail -odq -i -f me@client.test you@example.com",
)
POSTFIX = MailServer(
    "postfix",
    ("postfix postfix/main_mailer_type select Internet Site", "postfix postfix/mailname string client.test"),
    "postconf -e 'smtp_tls_policy_maps=hash:/etc/postfix/tls_policy' relayhost=smarthost.test && postfix check",
    "/var/spool/postfix/maildrop",
    "/usr/sbin/sendmail -i -f me@client.test you@example.com",
)
# All that such a mail server has on disk, and what debconf knows of both.
PLACES = ("etc/exim4", "etc/postfix", "etc/mailname", "etc/aliases", "var/lib/exim4", "var/lib/postfix", "var/spool")


class State(NamedTuple):
    """What is to be as before."""

    packages: tuple[str, ...]
    debconf: list[str]
    files: dict[str, str]
    sendmail: str


def put(server: MailServer, root: Root) -> None:
    """Install and configure it in a root, and hand it a mail, which waits in its queue."""
    for answer in server.answers:
        root.run("sh", "-c", 'echo "$0" | debconf-set-selections', answer)
    root.run("apt-get", "install", "--yes", "--no-install-recommends", server.package)
    root.run("sh", "-c", server.setting)
    root.run("sh", "-c", f"printf 'Subject: queued\\n\\nhello\\n' | {server.sendmail}")
    assert [path for path in (root.path / server.queue.lstrip("/")).rglob("*") if path.is_file()] != []


def state(root: Root) -> State:
    """All that belongs to mail in a root, and which mail servers are installed."""
    packages = root.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version} ${Provides}\n")
    mail = [line for line in packages.splitlines() if re.search(r" (postfix|exim4\S*) |mail-transport-agent", line)]
    files = {}
    for place in PLACES:
        for path in sorted([root.path / place, *(root.path / place).rglob("*")]):
            about = path.lstat() if path.exists() else None
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            if about:
                files[str(path.relative_to(root.path))] = f"{about.st_mode:o} {about.st_uid} {about.st_gid} {content}"
    debconf = root.run("debconf-show", "postfix", "exim4-config").splitlines()
    return State(tuple(mail), sorted(debconf), files, str((root.path / "usr/sbin/sendmail").resolve()))
