"""What a mail server needs around it, on its own loopback device: DNS, HTTPS and mail servers, with a CA of their own.

world.py setup COUNT    make certificates and a unit of systemd, test-world.service, which runs now and from boot on
world.py run            what the unit does

good.test and wrong.test enforce MTA-STS; the MX host of wrong.test has another's certificate. The record of tcp.test
is had over TCP only. d0.test … d(COUNT-1).test enforce it as well, and their MX host is that of good.test.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.world.ca import Ca, Certificate
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HttpsServer
from tests.world.smtp import SmtpServer

FOLDER = Path("/etc/test-world")
POLICY_HOST = "11.0.0.1"
UNIT = f"""\
[Unit]
Description=DNS, HTTPS and mail servers for tests
After=network.target
# As unbound and named say it.
Before=nss-lookup.target
Wants=nss-lookup.target
[Service]
Type=notify
NotifyAccess=all
Environment=PYTHONPATH=/root/source
ExecStartPre=/usr/sbin/ip address replace {POLICY_HOST}/32 dev lo
ExecStart=/usr/bin/python3 {Path(__file__).resolve()} run
[Install]
WantedBy=multi-user.target
"""
CHUNK = 100


def setup(count: int) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    ca = Ca(FOLDER)
    names = {
        "mx.good.test": ca.issue("mx.good.test"),
        "mx.wrong.test": ca.issue("mx.elsewhere.test"),
        **{f"mta-sts.{name}.test": ca.issue(f"mta-sts.{name}.test") for name in ("good", "wrong", "tcp")},
    }
    for first in range(0, count, CHUNK):
        hosts = [f"mta-sts.d{number}.test" for number in range(first, min(first + CHUNK, count))]
        names |= dict.fromkeys(hosts, ca.issue(*hosts))
    (FOLDER / "names.json").write_text(json.dumps({name: str(one.file) for name, one in names.items()}))
    shutil.copy(ca.file, "/usr/local/share/ca-certificates/test-world.crt")
    subprocess.run(["update-ca-certificates"], check=True)
    Path("/etc/systemd/system/test-world.service").write_text(UNIT)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--now", "test-world"], check=True)


def run() -> None:
    names: dict[str, str] = json.loads((FOLDER / "names.json").read_text())
    contexts = {file: Certificate(Path(file)).server_context() for file in set(names.values())}
    dns, https = DnsServer("127.0.0.1", 53), HttpsServer(POLICY_HOST, 443)
    for host, file in names.items():
        if not host.startswith("mta-sts."):
            continue
        domain = host.removeprefix("mta-sts.")
        mx = f"mx.{domain}" if f"mx.{domain}" in names else "mx.good.test"
        dns.add(domain, "MX", f"10 {mx}.")
        dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
        dns.add(host, "A", POLICY_HOST)
        https.policy(host, f"version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 604800\n", contexts[file])
    dns.set_behaviour("_mta-sts.tcp.test", Behaviour(truncate=True))
    dns.add("mx.good.test", "A", "127.0.2.1")
    dns.add("mx.wrong.test", "A", "127.0.2.2")
    good = SmtpServer("127.0.2.1", context=contexts[names["mx.good.test"]])
    wrong = SmtpServer("127.0.2.2", context=contexts[names["mx.wrong.test"]])
    with dns, https, good, wrong:
        subprocess.run(["systemd-notify", "--ready"], check=True)
        while True:
            time.sleep(60)


if sys.argv[1] == "setup":
    setup(int(sys.argv[2]))
else:
    run()
