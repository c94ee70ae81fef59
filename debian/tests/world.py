"""What the tests of the package need around it: DNS, HTTPS and mail servers, and Postfix as Debian has it.

Postfix takes part with the main.cf that its installation makes, and listens on 127.0.0.1 and ::1 only. The daemon takes
part with no configuration at all: the nameserver is that of /etc/resolv.conf, the CA is one of the system's, the policy
hosts have addresses of the Internet.
"""

import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

sys.path.append(str(Path(__file__).parents[2]))  # Behind the installed package, of which it has a copy.

from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer
from tests.world.smtp import SmtpServer

T = TypeVar("T")

# Seconds, which an emulated machine on a busy one may take.
COMMAND = 600
EVENT = 240
POLICY_HOST = "11.0.0.1"  # On our loopback device only.
MAP = "socketmap:inet:127.0.0.1:8461:postfix"
SERVICE = str(Path(__file__).with_name("service"))
AUTHORITY = Path("/usr/local/share/ca-certificates/postfix-mtasts-test.crt")


def run(*command: str, stdin: str = "") -> str:
    """The output of a command that succeeds."""
    print("+", *command, flush=True)
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True, timeout=COMMAND).stdout


def soon(look: Callable[[], T], what: str) -> T:
    """What `look` gives as soon as that is something."""
    end = time.monotonic() + EVENT
    while not (seen := look()):
        assert time.monotonic() < end, f"{what}; the queue: {run('postqueue', '-j')}"
        time.sleep(0.1)
    return seen


class World:
    """Domains `NAME.test`, each with a policy in mode enforce that allows its one MX host, `mx.NAME.test`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._ca = Ca(folder)
        self._stack = stack
        self.dns = stack.enter_context(DnsServer("127.0.0.1", 53))
        self.https = stack.enter_context(HttpsServer(POLICY_HOST, 443))
        self._hosts = 0
        shutil.copy(self._ca.file, AUTHORITY)
        run("update-ca-certificates")
        Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        if shutil.which("postconf"):
            # Other addresses of the loopback device are for the servers here. An Internet site listens on all of them.
            run("postconf", "inet_interfaces=loopback-only")
            run("service", "postfix", "restart")

    def add(self, domain: str, *, certificate_for: str, host: str = "", port: int = 25) -> SmtpServer:
        """A domain whose MX host shows a certificate for this name; the MX host may have another name and port."""
        self._hosts += 1
        address = f"127.0.1.{self._hosts}"
        host = host or f"mx.{domain}"
        self.dns.add(domain, "MX", f"10 {host}.")
        self.dns.add(host, "A", address)
        self.dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
        self.dns.add(f"mta-sts.{domain}", "A", POLICY_HOST)
        policy = f"version: STSv1\nmode: enforce\nmx: {host}\nmax_age: 604800\n"
        self.https.policy(f"mta-sts.{domain}", policy, self._ca.issue(f"mta-sts.{domain}").server_context())
        return self._stack.enter_context(SmtpServer(address, port, self.context(certificate_for)))

    def context(self, name: str) -> ssl.SSLContext:
        """What a server needs to show a certificate for this name."""
        return self._ca.issue(name).server_context()


@contextmanager
def world() -> Iterator[World]:
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "replace", f"{POLICY_HOST}/32", "dev", "lo")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield World(Path(folder), stack)


def log() -> list[str]:
    """What the daemon has logged since it was started."""
    if not Path("/run/systemd/system").is_dir():
        return Path("/run/postfix-mtasts.log").read_text().splitlines()
    run_of = run("systemctl", "show", "--property=InvocationID", "--value", "postfix-mtasts.service").strip()
    return run("journalctl", "--no-pager", "--output=cat", f"_SYSTEMD_INVOCATION_ID={run_of}").splitlines()


def send(recipient: str) -> None:
    """Hand a message to Postfix."""
    run("sendmail", "-i", "-f", "sender@client.test", recipient, stdin="Subject: test\n\nhello\n")


def reason(recipient: str) -> str:
    """Why Postfix holds mail to this recipient back; nothing if it has not tried, or there is none."""
    for line in run("postqueue", "-j").splitlines():
        for one in json.loads(line)["recipients"]:
            if one["address"] == recipient and "delay_reason" in one:
                return str(one["delay_reason"])
    return ""
