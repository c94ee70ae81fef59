"""doctor, with a real nameserver and commands of Postfix that say what a test wants."""

import asyncio
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from postfix_mtasts.config import Config, Dns, InetEndpoint, Reports
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.reports.doctor import doctor
from postfix_mtasts.reports.doctor.doctor import examine
from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.reports.store import Store
from tests.integration.reports.test_facts import put
from tests.integration.reports.test_telling import GOOGLE, NOW, report
from tests.world.dns import Behaviour, DnsServer

SERVICE = "tlsrpt unix - n n - 4 pipe user=reports:x argv=/usr/bin/postfix-mtasts-reports receive"
COMMANDS = {
    "postconf": f"""#!/bin/sh
case "$1" in
-M) echo 'smtp unix - - y - - smtp'; echo '{SERVICE}' ;;
*) echo 'virtual_alias_maps = inline:{{x=y}}'; echo 'transport_maps = hash:/t' ;;
esac
""",
    # Of each key, the alias or the transport.
    "postmap": """#!/bin/sh
while read key; do
    case "$3 $key" in
    *inline*' tls@'*) printf '%s\\tsink@reports.invalid, other@reports.invalid\\n' "$key" ;;
    *inline*' loop@'*) printf '%s\\t%s\\n' "$key" "$key" ;;
    *hash*' .invalid') printf '%s\\ttlsrpt:\\n' "$key" ;;
    esac
done
""",
    "sendmail": """#!/bin/sh
echo "$5" >>"$(dirname "$0")/sent"
cat >/dev/null
""",
}


class Machine:
    """A machine with a Postfix, of which tests see to whom it sends."""

    def __init__(self, folder: Path, dns: DnsServer) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.dns = dns
        self.database = folder / "reports/reports.sqlite"
        for name, script in COMMANDS.items():
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def publish(self, domain: str, rua: str) -> None:
        self.dns.remove(f"_smtp._tls.{domain}")
        self.dns.add_txt(f"_smtp._tls.{domain}", f"v=TLSRPTv1; rua={rua}".encode())

    def examine(self, *domains: str, named: Sequence[str] = (), mail: bool = False) -> list[Finding]:
        """The findings for domains of the command line, and of the configuration."""
        settings = Config(
            dns=Dns(nameservers=(InetEndpoint(self.dns.address, self.dns.port),), timeout=1),
            reports=Reports(path=str(self.database), domains=tuple(named), alert_to=("a@b.example",)),
        )
        return asyncio.run(examine(settings, domains, NOW, mail=mail, path=str(self.bin)))

    def sent(self) -> list[str]:
        """To whom a mail was sent."""
        return (self.bin / "sent").read_text().split() if (self.bin / "sent").exists() else []


@pytest.fixture
def machine(tmp_path: Path, dns: DnsServer) -> Machine:
    (tmp_path / "reports").mkdir()
    return Machine(tmp_path, dns)


def of(findings: Sequence[Finding], check: str) -> list[tuple[Status, str]]:
    return [(finding.status, finding.what) for finding in findings if finding.check == check]


def test_virtual_aliases_and_transports_are_followed(machine: Machine) -> None:
    machine.publish("one.example", "mailto:tls@one.example")
    machine.publish("two.example", "mailto:loop@two.example")
    findings = machine.examine("one.example", "two.example")
    assert of(findings, "transport") == [(Status.OK, "services of master.cf that receive reports: tlsrpt as reports")]
    unknown = "and that address is not known to lead to this command"
    assert of(findings, "record") == [
        (Status.WARNING, f"_smtp._tls.two.example asks for reports to loop@two.example, {unknown}"),
        (Status.OK, "_smtp._tls.one.example asks for reports to tls@one.example"),
    ]


@pytest.mark.parametrize(
    "rua",
    [
        "mailto:a%0aBcc:b@example.com@one.example",
        "mailto:-oQ@one.example",
        "mailto:%00tls@one.example",
        "mailto:tls",
        "mailto:",
        "https://one.example/tls",
    ],
)
def test_what_is_no_address_is_mailed_to_nobody(machine: Machine, rua: str) -> None:
    machine.publish("one.example", rua)
    findings = machine.examine("one.example", mail=True)
    assert [status for status, _ in of(findings, "record")] == [Status.ERROR]
    assert (of(findings, "arrival"), machine.sent()) == ([], [])


def test_few_mails_are_sent_and_none_to_strangers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WAIT", 0.1)
    domains = [f"d{number}.example" for number in range(6)]
    for domain in domains:
        machine.publish(domain, f"mailto:x@{domain}")
    findings = machine.examine(*domains, mail=True)
    assert machine.sent() == [f"x@{domain}" for domain in domains[:3]]
    assert [status for status, _ in of(findings, "arrival")] == [Status.ERROR] * 3
    # What a report is about is chosen by who sent it, and so is the address.
    with Store(machine.database) as store:
        store.open()
        put(store, "1", GOOGLE, report(1, domain="d5.example"))
    findings = machine.examine(mail=True)
    assert [what.split()[0] for _, what in of(findings, "record")] == ["_smtp._tls.d5.example"]
    assert len(machine.sent()) == 3


def test_few_domains_are_looked_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MAX_DOMAINS", 2)
    findings = machine.examine(named=[f"d{number}.example" for number in range(5)])
    assert len(of(findings, "record")) == 2


def test_without_postfix_and_without_an_answer_of_dns(machine: Machine) -> None:
    for name in COMMANDS:
        (machine.bin / name).unlink()
    machine.dns.set_behaviour("_smtp._tls.broken.example", Behaviour(rcode="SERVFAIL"))
    findings = machine.examine("broken.example")
    assert [(one.check, one.status, one.what.split(":")[0]) for one in findings] == [
        ("record", Status.ERROR, "the TXT lookup for _smtp._tls.broken.example failed"),
        ("last-report", Status.WARNING, "no report of a verified sender has come yet"),
        ("transport", Status.WARNING, "there is no postconf command on this machine"),
        ("domains", Status.OK, "reports.domains is empty"),
    ]


def test_without_a_domain(machine: Machine) -> None:
    assert of(machine.examine(), "record") == [(Status.WARNING, "no domain of yours is known")]


def test_no_service(machine: Machine) -> None:
    (machine.bin / "postconf").write_text("#!/bin/sh\necho 'smtp unix - - y - - smtp'\n")
    (finding,) = [one for one in machine.examine("one.example") if one.check == "transport"]
    assert (finding.status, finding.place) == (Status.ERROR, "/etc/postfix/master.cf")
    example = Path(__file__).parents[3] / "contrib/postfix/master.cf.tls-reports"
    assert finding.line in " ".join(example.read_text().split())


@pytest.mark.parametrize(("hours", "status"), [(71, Status.OK), (73, Status.WARNING)])
def test_when_the_last_report_came(machine: Machine, hours: int, status: Status) -> None:
    came = NOW - datetime.timedelta(hours=hours)
    with Store(machine.database) as store:
        store.open()
        put(store, "1", GOOGLE, report(1))
        store.execute("UPDATE messages SET received = ?", (int(came.timestamp()),))
    what = f"the last report came on {came:%Y-%m-%d at %H:%M} UTC, from google.com"
    assert of(machine.examine("one.example"), "last-report") == [(status, what)]


def test_mails_that_are_left_over(machine: Machine) -> None:
    spool = Spool(machine.database.parent / "mails")
    for seconds in (3500, 3700, 90_000):
        with (machine.bin / "postmap").open("rb") as mail:
            spool.save(mail, int(NOW.timestamp()) - seconds)
    findings = machine.examine("one.example")
    assert of(findings, "left-over") == [(Status.WARNING, "2 mails are saved and not taken in")]


def test_a_damaged_database(machine: Machine) -> None:
    machine.database.write_bytes(b"no database" * 1000)
    (finding,) = [one for one in machine.examine("one.example") if one.check == "store"]
    assert (finding.status, finding.what) == (Status.ERROR, f"{machine.database}: file is not a database")
    assert finding.why == (
        "reports are saved, and not taken in; move it away, with its -wal and -shm; then `replay` takes in the mails"
        " that are still there"
    )
    assert (finding.place, finding.line) == ("", "")  # It is not a command.


def test_a_database_that_was_made_and_not_written_to(machine: Machine) -> None:
    machine.database.write_bytes(b"")
    findings = machine.examine("one.example")
    assert of(findings, "store") == []
    assert of(findings, "last-report") == [(Status.WARNING, "no report of a verified sender has come yet")]


@pytest.mark.parametrize(
    ("module", "status"),
    [("dkim", Status.ERROR), ("publicsuffix2", Status.ERROR), ("nacl", Status.WARNING), ("jinja2", Status.WARNING)],
)
def test_a_missing_library(machine: Machine, monkeypatch: pytest.MonkeyPatch, module: str, status: Status) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (finding,) = [one for one in machine.examine("one.example") if one.check == "library"]
    assert (finding.status, finding.what, finding.line) == (
        status,
        f"python3-{module} is not installed",
        f"apt install python3-{module}",
    )
