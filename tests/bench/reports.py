"""What a database with a million failures costs, also on pages of the dashboard, and how fast mails are imported.

    tests/namespace .venv/bin/python -m tests.bench.reports FOLDER

The mails are signed with a key in a DNS server on this machine. The failures are those of ninety days, from thirty
senders, of four domains with four MX hosts each.
"""

import datetime
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from postfix_mtasts.reports.meaning import RESULTS
from postfix_mtasts.reports.records import Message, write
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.verdict import State
from tests.bench.process import Cost, cost_of
from tests.integration.reports.conftest import Signer
from tests.world.daemon import COMMAND, toml
from tests.world.dashboard import Dashboard, used
from tests.world.dns import DnsServer

REPORTS = COMMAND.with_name("postfix-mtasts-reports")
SENDERS = [f"sender{number}.example" for number in range(30)]
DOMAINS = [f"domain{number}.example" for number in range(4)]
DAYS = 90
MAILS = 2000
FAILURES = 1_000_000
_RANDOM = random.Random(1)


def failure(domain: str) -> Failure:
    host = _RANDOM.randrange(4)
    return Failure(
        result=_RANDOM.choice(RESULTS[:6]),
        sessions=_RANDOM.randrange(1, 50),
        mx=f"mx{host}.{domain}",
        receiving_ip=f"192.0.2.{host}",
        sending_ip=f"198.51.100.{_RANDOM.randrange(256)}",
        code=None,
        information="https://sender.example/explanation?of=what-happened",
    )


def reports(each: int) -> Iterator[tuple[str, Report]]:
    """One report a day from each sender about each domain, with so many failures."""
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for day, sender, domain in itertools.product(range(1, DAYS + 1), SENDERS, DOMAINS):
        start = today - datetime.timedelta(days=day)
        end = start + datetime.timedelta(seconds=86399)
        failures = tuple(failure(domain) for _ in range(each))
        policy = Policy(domain, "sts", "enforce", 5000, sum(one.sessions for one in failures), failures)
        yield sender, Report(sender, f"{start:%Y-%m-%d}_{domain}", start, end, (policy,))


def fill(path: Path, each: int) -> tuple[int, float]:
    """Write reports with a million failures. Return how many, and the seconds that it took."""
    count, begun, now = 0, time.monotonic(), int(time.time())
    store = Store(path)
    store.open()
    for batch in _batched(reports(each)):
        with store.transaction():
            for sender, report in batch:
                dkim = Dkim(DkimState.VERIFIED, sender)
                write(store, Message(f"{now}.{count}", str(count), 0, now, State.STORED, "", dkim, False), report, now)
                count += 1
    store.close()
    return count, time.monotonic() - begun


def _batched(items: Iterator[tuple[str, Report]]) -> Iterator[list[tuple[str, Report]]]:
    while batch := list(itertools.islice(items, 100)):
        yield batch


def text_of(report: Report) -> dict[str, object]:
    """A report as JSON has it."""
    (policy,) = report.policies
    return {
        "organization-name": report.organization,
        "date-range": {"start-datetime": f"{report.start:%FT%TZ}", "end-datetime": f"{report.end:%FT%TZ}"},
        "contact-info": "tlsrpt@sender.example",
        "report-id": report.report_id,
        "policies": [
            {
                "policy": {
                    "policy-type": policy.type,
                    "policy-string": ["version: STSv1", "mode: enforce", "max_age: 86400"],
                    "policy-domain": policy.domain,
                },
                "summary": {
                    "total-successful-session-count": policy.successful,
                    "total-failure-session-count": policy.failed,
                },
                "failure-details": [
                    {
                        "result-type": one.result,
                        "failed-session-count": one.sessions,
                        "receiving-mx-hostname": one.mx,
                        "receiving-ip": one.receiving_ip,
                        "sending-mta-ip": one.sending_ip,
                    }
                    for one in policy.failures
                ],
            }
        ],
    }


def mails(folder: Path, signer: Signer) -> None:
    """A Maildir of signed mails, each with ten failures."""
    (folder / "new").mkdir(parents=True)
    for number, (sender, report) in enumerate(itertools.islice(reports(10), MAILS)):
        headers = f"From: tlsrpt@{sender}\r\nSubject: Report\r\nContent-Type: application/tlsrpt+json\r\n"
        body = json.dumps(text_of(report))
        (folder / f"new/{number}").write_bytes(signer.sign(f"{headers}\r\n{body}\r\n".encode(), sender))


def run(*words: str | Path) -> Cost:
    """Run the command."""
    cost = cost_of(os.devnull, REPORTS, *words)
    assert cost.status == 0, words
    return cost


def pages(folder: Path) -> None:
    """What the pages of the dashboard cost: the medians of some requests."""
    with Dashboard(folder, {"reports": {"path": str(folder / "reports.sqlite")}}) as web, web.client() as client:
        for path in ("/", "/sources?days=90", f"/sources?days=90&source={SENDERS[0]}", "/results?days=90", "/reports"):
            times, octets = [], 0
            for _ in range(5):
                begun, before = time.monotonic(), used(web.pid)
                octets = len(client.get(path).content)
                times.append((time.monotonic() - begun, used(web.pid) - before))
            seconds, processor = sorted(times)[2]
            print(f"{path}: {seconds:.2f} s, {processor:.2f} s of the processor, {octets / 1000:.0f} kB")


def main(folder: Path) -> None:
    folder.mkdir()
    with DnsServer() as dns:
        signer = Signer(dns)
        for sender in SENDERS:
            signer.publish(sender)
        config = folder / "config.toml"
        config.write_text(
            toml(
                {
                    "dns": {"nameservers": [f"{dns.address}:{dns.port}"]},
                    "reports": {"path": str(folder / "a/reports.sqlite")},
                }
            )
        )
        mails(folder / "mails", signer)
        cost = run("import", "--config", config, folder / "mails")
        rates = f"{MAILS / cost.seconds:.0f} mails/s, {MAILS / cost.processor:.0f} per second of the processor"
        print(f"import: {rates}, {cost.octets / 2**20:.0f} MiB")
    each = FAILURES // (DAYS * len(SENDERS) * len(DOMAINS))
    (folder / "b").mkdir()
    count, seconds = fill(folder / "b/reports.sqlite", each + 1)
    size = (folder / "b/reports.sqlite").stat().st_size / 2**20
    print(f"{count} reports with {each + 1} failures: {count / seconds:.0f} reports/s are written; {size:.0f} MiB")
    config.write_text(toml({"reports": {"path": str(folder / "b/reports.sqlite")}}))
    for words in itertools.product(
        ("sources", "results"), ("14", "90"), ([], ["--all"], ["--domain", DOMAINS[0]], ["--json"])
    ):
        name, days, options = words
        cost = sorted(run(name, "--config", config, "--days", days, *options) for _ in range(5))[2]
        times = f"{cost.seconds:.2f} s, {cost.processor:.2f} s of the processor"
        print(f"{name} --days {days} {' '.join(options)}: {times}, {cost.octets / 2**20:.0f} MiB")
    pages(folder / "b")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
