"""Check that the TLS reports of others arrive here. Nothing is changed but that a mail is sent, found and deleted."""

import argparse
import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

from postfix_mtasts.config import DEFAULT_PATH, Config
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import PATH, NoPostfix
from postfix_mtasts.query.doctor.finding import Finding, documents, show
from postfix_mtasts.query.output import Output, Status, worst
from postfix_mtasts.reports.doctor.check_arrival import WAIT, check_arrival
from postfix_mtasts.reports.doctor.check_keeping import (
    check_last,
    check_left_over,
    check_libraries,
    check_rights,
    nothing_yet,
    rights,
)
from postfix_mtasts.reports.doctor.check_record import Published, check_record, look_up
from postfix_mtasts.reports.doctor.transport import Transport, transport
from postfix_mtasts.reports.looking import now
from postfix_mtasts.reports.spool import Spool, folder
from postfix_mtasts.reports.store import NothingYetError, Store, StoreError
from postfix_mtasts.reports.verdict import is_ours
from postfix_mtasts.reports.viewing import is_hostname

_MAX_DOMAINS = 100  # That are looked up.
_MAX_MAILS = 3  # That are sent. Each may take half a minute to arrive.
_SERVICE = "tlsrpt unix - n n - 4 pipe user=_postfix-mtasts-reports argv=/usr/bin/postfix-mtasts-reports receive"
_SEEN = """
SELECT domain FROM reports WHERE verified = 1 AND domain <> '' GROUP BY domain ORDER BY COUNT(*) DESC, domain LIMIT ?
"""


async def run(arguments: argparse.Namespace, settings: Config, output: Output) -> Status:
    """Print all findings, and return the status of the worst."""
    findings = await examine(settings, arguments.domain, now(), mail=not arguments.no_mail)
    status = worst(finding.status for finding in findings)
    if output.json:
        output.document({"status": status.name.lower(), "findings": documents(findings)})
    else:
        show(findings, output)
    return status


async def examine(
    settings: Config, domains: Sequence[str], time: datetime.datetime, *, mail: bool, path: str = PATH
) -> list[Finding]:
    """Check the records of domains, the Postfix found in `path`, and what is kept. The worst findings come first."""
    findings = [*check_libraries(), *_check_settings(settings)]
    database = Path(settings.reports.path)
    spool = Spool(folder(settings.reports.path))
    seen: Sequence[str] = ()
    try:
        seen, found = _check_store(database, time)
        findings += found
    except NothingYetError:
        findings.append(nothing_yet())
    except StoreError as error:
        why = "; ".join(filter(None, ("reports are saved, and not taken in", error.hint)))
        findings.append(Finding("store", Status.ERROR, str(error), why))
    except PermissionError:
        pass  # _check_files says so.
    postfix = await _transport(findings, path)
    findings += _check_files(database, spool, time, postfix.users if postfix else ())
    ours = tuple(domains or settings.reports.domains)
    named = (ours or tuple(seen))[:_MAX_DOMAINS]
    if not named:
        why = "the records of your domains are not checked"
        line = "postfix-mtasts-reports doctor example.com"
        findings.append(Finding("record", Status.WARNING, "no domain of yours is known", why, "run", line))
    resolver = Resolver(settings.dns.nameservers, timeout=settings.dns.timeout)
    records = [await look_up(domain, resolver) for domain in named]
    here = await _here(records, postfix)
    if mail:
        # Not to strangers: another domain's address may be that of a service.
        tried = [one for one in dict.fromkeys(record.first for record in records) if one]
        wanted = [one for one in tried if one in here or (ours and is_ours(one.rpartition("@")[2], ours))]
        for address in wanted[:_MAX_MAILS]:
            findings.append(await _arrival(address, spool, database, path))
            here += [address] if findings[-1].status is Status.OK and address not in here else []
    for published in records:
        findings += check_record(published, here)
    return sorted(dict.fromkeys(findings), key=lambda finding: -finding.status)


def _check_settings(settings: Config) -> Iterator[Finding]:
    if not settings.reports.domains:
        what = "reports.domains is empty: reports about every domain count"
        why = "anybody may send reports about domains that are not yours"
        yield Finding("domains", Status.OK, what, why, f"{DEFAULT_PATH}, [reports]", 'domains = ["example.com"]')
    if not settings.reports.alert_to:
        what = "reports.alert_to is empty: alerts and summaries go to the journal alone"
        line = 'alert_to = ["postmaster@example.com"]'
        why = "nobody is mailed when something breaks"
        yield Finding("alert-to", Status.OK, what, why, f"{DEFAULT_PATH}, [reports]", line)


def _check_store(database: Path, time: datetime.datetime) -> tuple[Sequence[str], list[Finding]]:
    """The domains that reports are about, and what is wrong."""
    if not database.exists():  # Where we may not look, this says so.
        return (), [nothing_yet()]
    with Store(database) as store:
        store.open_to_read()
        seen = [domain for (domain,) in store.select(_SEEN, (_MAX_DOMAINS,)) if is_hostname(domain)]
        return seen, list(check_last(store, time))


def _check_files(database: Path, spool: Spool, time: datetime.datetime, users: Sequence[str]) -> Iterator[Finding]:
    try:
        about = [rights(path) for path in (database.parent, database, folder(str(database)))]
        yield from check_rights(about[0], [one for one in about[1:] if one], users)
        yield from check_left_over(spool, time)
    except PermissionError as error:
        why = "who may read reports, and what is left over, cannot be checked"
        yield Finding(
            "rights",
            Status.ERROR,
            f"{error.filename}: permission denied",
            why,
            "run",
            "sudo postfix-mtasts-reports doctor",
        )


async def _transport(findings: list[Finding], path: str) -> Transport | None:
    try:
        postfix = await transport(path)
    except NoPostfix as none:
        findings.append(
            Finding("transport", Status.WARNING, str(none), "reports have to come in another way than by pipe(8)")
        )
        return None
    if postfix.services:
        names = ", ".join(f"{name} as {user}" for name, user in postfix.services.items())
        what = f"services of master.cf that receive reports: {names}"
        findings.append(Finding("transport", Status.OK, what, "Postfix hands reports to this command"))
    else:
        what = "no service of master.cf runs postfix-mtasts-reports receive"
        why = "Postfix hands no reports to this command"
        findings.append(Finding("transport", Status.ERROR, what, why, "/etc/postfix/master.cf", _SERVICE))
    return postfix


async def _here(records: Sequence[Published], postfix: Transport | None) -> list[str]:
    """The addresses in records that lead to this command."""
    addresses = dict.fromkeys(address for record in records for address in record.addresses)
    found = []
    for address in list(addresses)[:_MAX_DOMAINS]:
        try:
            if postfix and await postfix.leads_here(address):
                found.append(address)
        except NoPostfix:
            return found
    return found


async def _arrival(address: str, spool: Spool, database: Path, path: str) -> Finding:
    try:
        return await check_arrival(address, spool, database, wait=WAIT, path=path)
    except PermissionError as error:
        what, why = f"{error.filename}: permission denied", f"it is unknown if a mail to {address} has arrived"
        return Finding("arrival", Status.ERROR, what, why, "run", "sudo postfix-mtasts-reports doctor")
