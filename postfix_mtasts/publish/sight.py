"""What a check from outside means for a domain that we publish: what is ours to mend, beside what anybody remarks."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.config import Publish
from postfix_mtasts.publish.events import Looked
from postfix_mtasts.publish.records import host_name, leads_here, record_name, reports_name
from postfix_mtasts.publish.state import Stage, State, body
from postfix_mtasts.query.domain.remark import Remark, error, warning
from postfix_mtasts.query.domain.report import Report
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.observation import DnsFailed, RecordAbsent, RecordFound, RecordInvalid, RecordObservation
from postfix_mtasts.sts.policy import Policy, PolicyError, parse

_RENEWAL = datetime.timedelta(days=21)  # A certificate of 90 days is renewed 30 days before its end.


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a domain.

    `report` is that of `postfix-mtasts-query --probe`, but with a policy whatever the record. `policies` are the
    different ones that the addresses of the policy host serve. `record` is the record in DNS. `aliases` has the target
    of the CNAME record of each name that should have one, "" if it has none, None if it could not be looked up.
    `addresses` are those of the policy host; None if unknown.
    """

    report: Report
    policies: tuple[Policy, ...]
    record: RecordObservation
    aliases: dict[str, str | None]
    addresses: tuple[str, ...] | None


def looked(state: State, sight: Sight, settings: Publish, remarks: tuple[Remark, ...]) -> Looked:
    """The event that a check is for the rules. `remarks` are all that were made on it."""
    report, host = sight.report, sight.report.policy_host
    policy = _policy(report)
    answered = [one for one in host.tried if not one.untried] if host else []
    return Looked(
        version=state.version,
        files=sight.policies,
        all_serve=policy is not None and not any(one.problem for one in answered),
        record=sight.record.record.id if isinstance(sight.record, RecordFound) else None,
        no_record=isinstance(sight.record, RecordAbsent),
        hosts=None if report.mx_problem or not report.exists else tuple(mx.host.lower() for mx in report.mx),
        points_here=_points_here(state, sight, settings, policy),
        problems=tuple(one.text for one in remarks if one.status in (Status.WARNING, Status.ERROR)),
        certificates=tuple(_certificates(report)),
    )


def all_remarks(
    state: State, sight: Sight, anybody: tuple[Remark, ...], settings: Publish, now: datetime.datetime
) -> tuple[Remark, ...]:
    """What anybody would remark, and what else is wrong with what we publish, or with what the domain's owner does.

    When the record is taken out of DNS, nothing has to be right any more.
    """
    if state.stage not in (Stage.PUBLISHED, Stage.LEAVING):
        return ()
    return (
        *anybody,
        *_file(state, sight),
        *_record(state, sight, settings),
        *_aliases(state, sight, settings),
        *_certificate(sight, anybody, now),
        *_reports(state, sight, settings),
    )


def _certificates(report: Report) -> Iterator[tuple[str, float]]:
    """Whose certificates were seen, and when they end: of a host with several, that which ends first."""
    if report.policy_host and report.policy_host.certificate:
        yield report.policy_host.name, report.policy_host.certificate.not_after.timestamp()
    for mx in report.mx:
        ends = [probe.certificate.not_after.timestamp() for probe in mx.probes if probe.certificate]
        if ends:
            yield mx.host.lower(), min(ends)


def _policy(report: Report) -> Policy | None:
    """The policy that the policy host serves, if it is valid."""
    if not report.policy or report.policy.problem:
        return None
    try:
        return parse(report.policy.file.encode())[0]
    except PolicyError:
        return None


def _points_here(state: State, sight: Sight, settings: Publish, policy: Policy | None) -> bool | None:
    leads = leads_here(state.domain, sight.aliases.get(state.domain.policy_host()), sight.addresses, settings)
    if settings.zone and leads is not None:  # A customer may have a copy of our file served elsewhere.
        return leads
    return True if policy is not None and policy == state.file() else leads


def _file(state: State, sight: Sight) -> Iterator[Remark]:
    wanted, report = state.file(), sight.report
    if wanted is None or not report.policy or report.policy.problem:
        return  # That the policy could not be fetched, or is not valid, is remarked on already.
    if report.policy.file.encode() != body(wanted):
        served = _policy(report)
        what = "another policy" if served != wanted else "the policy with other line ends or fields"
        yield error(f"{report.domain}: the policy host serves {what} than the file that we publish", "host")


def _record(state: State, sight: Sight, settings: Publish) -> Iterator[Remark]:
    name = state.domain.record_name()
    wanted = state.record
    match sight.record:
        case DnsFailed(failure):
            yield error(f"the TXT lookup for {name} failed: {failure.reason}", "record")
        case RecordInvalid(reason):
            yield error(f"the TXT record {name} is not valid: {reason.removesuffix(';')}", "record")
        case RecordAbsent() if wanted:
            place = record_name(state.domain, settings)
            yield error(
                f"there is no TXT record {name}: senders see no policy; {place} must have the id {wanted}", "record"
            )
        case RecordFound(record) if wanted is None:
            yield warning(f"the TXT record {name} has the id {record.id}, which is not ours", "record")
        case RecordFound(record) if record.id != wanted:
            text = f"the TXT record {name} has the id {record.id}, and the id of our policy is {wanted}"
            yield error(f"{text}: senders with a cached copy do not fetch the new one", "record")


def _aliases(state: State, sight: Sight, settings: Publish) -> Iterator[Remark]:
    """Whether the customer's three CNAME records lead to us."""
    if not settings.zone:
        return
    targets = {
        state.domain.record_name(): record_name(state.domain, settings),
        state.domain.policy_host(): host_name(state.domain, settings),
    }
    for name, target in targets.items():
        alias = sight.aliases.get(name)
        if alias == "":
            yield error(f"there is no CNAME record {name}: it must lead to {target}", "record")
        elif alias not in (None, target):
            yield error(f"the CNAME record {name} leads to {alias}, and must lead to {target}", "record")


def _certificate(sight: Sight, anybody: tuple[Remark, ...], now: datetime.datetime) -> Iterator[Remark]:
    """Whether the certificate was not renewed in time. Anybody remarks on it only later."""
    host = sight.report.policy_host
    if any(remark.check == "host" for remark in anybody):
        return
    if host and host.certificate and now < host.certificate.not_after < now + _RENEWAL:
        yield warning(
            f"the certificate of {host.name} {host.certificate.expiry(now)}: it should be renewed by now", "host"
        )


def _reports(state: State, sight: Sight, settings: Publish) -> Iterator[Remark]:
    """Whether TLS reports are asked for, and come to us."""
    found = sight.report.tlsrpt
    if not settings.reports or not found or found.failed or found.problem:
        return
    missing = [uri for uri in settings.reports if uri not in found.rua]
    if not found.rua:
        target = reports_name(state.domain, settings)
        lead = f"; a CNAME record must lead to {target}" if target != found.name else ""
        yield warning(f"there is no TXT record {found.name}: senders send no TLS reports{lead}", "tlsrpt")
    elif missing:
        yield warning(f"the TXT record {found.name} does not name {missing[0]}: no reports come to us", "tlsrpt")


def names_with_aliases(state: State, settings: Publish) -> tuple[str, ...]:
    """The names whose CNAME records are to be looked up."""
    if not settings.zone:
        return ()
    return (state.domain.record_name(), state.domain.policy_host())
