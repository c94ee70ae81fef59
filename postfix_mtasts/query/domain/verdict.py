"""The verdict on a domain in one sentence: what becomes of mail to it now."""

from collections.abc import Sequence

from postfix_mtasts.delivery.fate import Judged, fate_of, faults
from postfix_mtasts.delivery.mx import NOT_ALLOWED, OUT_OF_DATE
from postfix_mtasts.log.events import span
from postfix_mtasts.query.domain.asked import Outcome
from postfix_mtasts.query.domain.now import short
from postfix_mtasts.query.domain.remark import Remark, error, note, warning
from postfix_mtasts.query.domain.report import ExceptionReport, ExemptReport, Report
from postfix_mtasts.query.output import Status, worst
from postfix_mtasts.sts.entry import Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.policy import Mode


def verdict(report: Report, outcome: Outcome, judged: Judged, remarks: Sequence[Remark]) -> Remark:
    """The verdict, and the status of the whole report.

    `outcome` is the one without the daemon's own exception, and with the policy if that is withheld.
    """
    found = _verdict(report, outcome, judged)
    if report.running.exempt and not report.running.exception and not report.running.silent:
        return _exempt(report.running.exempt, report.running.reply, report.next_hop, found)
    if report.running.withheld:  # Whatever is wrong with the domain stops no mail.
        return found
    status = worst([found.status, *(remark.status for remark in remarks)])
    text = found.text
    if found.status is Status.OK and status in (Status.WARNING, Status.ERROR):
        serious = sum(remark.status in (Status.WARNING, Status.ERROR) for remark in remarks)
        what = "problem" if status is Status.ERROR else "warning"
        text += f"; but see {f'the {what}' if serious == 1 else f'{serious} {what}s'} below"
    return Remark(status, text)


def _verdict(report: Report, outcome: Outcome, judged: Judged) -> Remark:
    mail = f"mail to {report.next_hop}"
    if not report.resolver_works:
        return error(f"{mail} is deferred: this machine's resolver answers for no name; that is not the domain's fault")
    if not report.exists:
        return Remark(Status.NOTHING, f"{report.domain} does not exist in DNS (NXDOMAIN)")
    if report.null_mx:
        return note(f"{report.domain} accepts no mail: it has a null MX record")
    if report.mx_problem:
        return error(f"{mail} is deferred: its MX records cannot be looked up: {report.mx_problem}")
    if report.running.exception:
        return _exception(report.running.exception, str(report.next_hop))
    if report.running.silent:
        what = "`postfix-mtasts-query doctor` says what to do"
        return error(f"all mail is deferred: {report.running.silent}, and Postfix asks the daemon there; {what}")
    exempt = report.running.exempt
    reply = exempt.without if exempt else report.running.reply
    if reply.startswith("TEMP"):
        return error(f"{mail} is deferred: {reply.removeprefix('TEMP ')}")
    if outcome.late:
        return _late(report, outcome)
    found = _of_answer(report, outcome, judged, mail)
    if report.running.withheld:
        return warning(f"{mail} is sent without its policy (reply.enforce = false); if it were enforced: {found.text}")
    return found


def _of_answer(report: Report, outcome: Outcome, judged: Judged, mail: str) -> Remark:
    match outcome.answer:
        case YieldToDane(hosts, only):
            return _dane(mail, hosts, judged, only=only)
        case Unavailable(failure):
            again = report.policy and report.policy.mode
            cause = f"the daemon does not fetch it again yet after a failure ({failure})" if again else failure
            return error(f"{mail} is sent without a policy: {cause}")
        case NoPolicy():
            return _no_policy(report, mail, waits=outcome.waits)
        case Apply(policy) if policy.mode is Mode.ENFORCE:
            return _enforced(report, judged)
        case Apply(policy) if policy.mode is Mode.TESTING:
            return note("fine: mode testing: mail is delivered whatever the MX hosts do, and senders report failures")
        case _:
            return note("fine: mode none: mail is sent without a policy, as the domain asks")


def _exception(found: ExceptionReport, next_hop: str) -> Remark:
    where = f"{found.table} has {found.value!a} for {next_hop}"
    return warning(f"an exception of this machine decides: {where}, and Postfix does not ask the daemon")


def _exempt(found: ExemptReport, reply: str, next_hop: str, without: Remark) -> Remark:
    """The verdict under an exception of the daemon, which is a warning whatever is wrong with the domain.

    But DANE is not overruled: where it is unknown whether DANE decides, mail is deferred.
    """
    whose = f" for {found.domain}" if found.domain.startswith("*") else ""
    if reply.startswith("TEMP"):
        why = reply.removeprefix("TEMP ")
        text = f"mail to {next_hop} is deferred in spite of an exception{whose} until {found.until}: {why}"
        return error(f"{text}; without it: {without.text}")
    policy = f"mail to {next_hop} is sent without its policy: an exception{whose} decides until {found.until}"
    return warning(f"{policy} ({found.reason}); without it: {without.text}")


def _late(report: Report, outcome: Outcome) -> Remark:
    if outcome.next is None:
        when = f"after {report.seconds:.0f} s there is none yet (--patient waits for it)"
    elif isinstance(outcome.next, Apply):
        when = f"it came only after {report.seconds:.0f} s"
    else:
        when = f"there was none after {report.seconds:.0f} s"
    return error(f"too late: the first mail to {report.next_hop} goes out without a policy: {when}")


def _no_policy(report: Report, mail: str, *, waits: bool) -> Remark:
    record = report.record
    if not waits and report.policy and report.policy.mode:
        return warning(f"{mail} is sent without a policy: the daemon has not seen yet that there is one")
    name = record.names[0]
    if record.problem:
        return error(f"{mail} is sent without a policy: the TXT record {name} is broken: {record.problem}")
    if record.slips:
        return error(f"{mail} is sent without a policy: the TXT record {name} is broken: {record.slips[0].problem}")
    if len(record.names) > 1 and not record.exists:
        return error(f"{mail} is sent without a policy: the CNAME record {name} leads to nowhere: {record.names[-1]}")
    return Remark(Status.NOTHING, f"{report.domain} has no policy: mail to it is sent without MTA-STS")


def _dane(mail: str, hosts: tuple[str, ...], judged: Judged, *, only: bool) -> Remark:
    refused = [(host, one) for host, one in judged if host in hosts and one.state == "refused" and one.reason]
    tlsa = [(host, one) for host, one in refused if "TLSA" in one.reason or "STARTTLS" in one.reason]
    if tlsa and len(tlsa) == len(hosts):
        return error(f"{mail} is deferred: {faults(tlsa)}")
    if only and len(hosts) < len(judged):
        which = f"those of its MX hosts that have TLSA records ({len(hosts)} of {len(judged)})"
        return note(f"fine: DANE decides: mail goes only to {which}: {short(list(hosts))}")
    return note(
        f"fine: DANE decides: {_hosts(len(hosts), len(judged))} TLSA records, which take precedence over MTA-STS"
    )


def _enforced(report: Report, judged: Judged) -> Remark:
    mail = f"mail to {report.next_hop}"
    refused = [(host, one) for host, one in judged if one.state == "refused"]
    unclear = [(host, one) for host, one in judged if one.state == "unclear"]
    fine = [host for host, one in judged if one.state in ("fine", "unprobed")]
    fate = fate_of(judged)
    if fate.state == "returned":
        return error(f"{mail} is returned to its senders: {fate.reason}")
    if fate.state == "deferred" and not unclear:
        if all(one.reason.startswith(NOT_ALLOWED) for _, one in refused) and len(refused) > 1:
            policy = refused[0][1].reason.removeprefix(NOT_ALLOWED).removesuffix(OUT_OF_DATE)
            return error(f"{mail} is deferred: {policy} allows none of its {len(refused)} MX hosts")
        return error(f"{mail} is deferred: {fate.reason}")
    if refused:
        rest = f"its {_others(len(judged) - len(refused))}" if len(judged) > 1 else ""
        return error(f"{mail} goes to {rest} {'at best' if unclear else 'only'}: {faults(refused)}")
    if unclear and not fine:
        return warning(f"enforced, but none of its MX hosts could be judged from here: {faults(unclear)}")
    if unclear:
        return warning(f"enforced, but not all MX hosts could be judged from here: {faults(unclear)}")
    probed = all(one.state == "fine" for _, one in judged)
    are = "is" if len(judged) == 1 else "are"
    what = "verified" if probed else f"{are} allowed by the policy (--probe verifies certificates)"
    live = report.running.expires_in
    if not report.running.waits and live is not None and (report.policy is None or not report.policy.mode):
        return warning(f"enforced from the cache for {span(live)} more: {_fresh_fault(report)}")
    return note(f"fine: enforced, {_all(len(judged))} {what}")


def _fresh_fault(report: Report) -> str:
    """Why there would be no policy, if none were cached."""
    if report.record.failed:
        return "its TXT record cannot be looked up"
    if not report.record.id:
        return "its TXT record is broken" if report.record.problem or report.record.slips else "its TXT record is gone"
    host = report.policy_host
    if host and host.problem:
        return f"its policy host fails: {host.problem}"
    return "its policy file is not valid"


def _all(count: int) -> str:
    return "its MX host" if count == 1 else f"all {count} MX hosts"


def _others(count: int) -> str:
    return "other MX host" if count == 1 else f"{count} other MX hosts"


def _hosts(count: int, total: int) -> str:
    one = "its MX host has" if total == 1 else "one MX host has"
    return one if count == 1 else f"{count} MX hosts have"
