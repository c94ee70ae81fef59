"""Writes messages and what they report into the database, each in one transaction of the caller.

What the views sum is written along with a report, and stays when its failures are deleted.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from postfix_mtasts.reports import hiding
from postfix_mtasts.reports.parse import MAX_FAILURES
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.views import day_of

_MAX_GROUPS = 200  # Of failures of a report, that the sums tell apart. Its policy domains share them,
_MIN_GROUPS = 4  # and each has so many.
_MAX_CODE = 100  # Characters of a code that the sums tell apart.
# Failures that are stored of a report whose sender is not verified. A tenth of all that `upkeep` keeps may be such.
_MAX_UNVERIFIED = 100
_MAX_INTEGER = 2**63 - 1  # In SQLite.
_KEY = 20  # Hex digits of a report's key: nobody can make a report that has the key of another's.


@dataclass(frozen=True, slots=True)
class Message:
    """A message, as it is to be stored."""

    name: str  # In the spool.
    digest: str
    octets: int
    received: int  # Seconds since 1970.
    state: State
    reason: str
    dkim: Dkim
    accepted: bool


class _Group(NamedTuple):
    """What the failures of a group have in common. The text is empty if the report gives none."""

    result: str
    mx: str = ""
    receiving_ip: str = ""
    code: str = ""


_NOT_SAID = _Group("")


def write(store: Store, message: Message, report: Report | None, now: int) -> tuple[State, list[str]]:
    """Store a message with what it reports, in place of what was stored of it before. It keeps its number.

    Return its state and the keys of the reports that are new. Those that are known from another message are left out,
    and if all of them are, its state is DUPLICATE.
    """
    identifier = store.execute(
        "INSERT INTO messages (id, name, digest, octets, received, tried, state, reason, dkim, signer, dkim_reason,"
        " accepted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            remove(store, message.name),
            message.name,
            message.digest,
            message.octets,
            message.received,
            now,
            message.state.value,
            message.reason,
            message.dkim.state.value,
            message.dkim.domain,
            message.dkim.reason,
            message.accepted,
        ),
    )
    if not report or message.state is State.QUARANTINED:
        return message.state, []
    keys = list(_write_report(store, identifier, message.dkim, report))
    if keys and message.dkim.state is DkimState.VERIFIED:
        hiding.reported(store, message.dkim.domain or "", report, _day(report))
    if keys or message.state is not State.STORED:
        return message.state, keys
    store.execute("UPDATE messages SET state = ? WHERE id = ?", (State.DUPLICATE.value, identifier))
    return State.DUPLICATE, []


def remove(store: Store, name: str) -> int | None:
    """Forget a message and what it reports. Return its number, if it was known."""
    found = store.one("SELECT id FROM messages WHERE name = ?", (name,))
    if found:
        for (report,) in store.select("SELECT id FROM reports WHERE message = ?", found):
            _remove_report(store, report)
        store.execute("DELETE FROM messages WHERE id = ?", found)
    return int(found[0]) if found else None


def forget_details(store: Store, report: int) -> int:
    """Delete the failures of a report, of which the sums stay. Return how many there were."""
    of_it = "IN (SELECT id FROM policies WHERE report = ?)"
    (count,) = store.one(f"SELECT COUNT(*) FROM failures WHERE policy {of_it}", (report,)) or (0,)  # noqa: S608 - ours
    store.execute(f"DELETE FROM failures WHERE policy {of_it}", (report,))  # noqa: S608 - ours
    return int(count)


def _write_report(store: Store, message: int, dkim: Dkim, report: Report) -> Iterator[str]:
    verified = dkim.state is DkimState.VERIFIED
    sender = dkim.domain or ""
    start, end = (int(time.timestamp()) for time in (report.start, report.end))
    identity = report.report_id or f"{start}-{end}"
    day = _day(report)
    of_domain = _of_domains(report)
    room = max(_MIN_GROUPS, _MAX_GROUPS // len(of_domain))
    most = MAX_FAILURES if verified else _MAX_UNVERIFIED // len(of_domain)
    for domain, policies in of_domain.items():
        words = "\0".join((str(int(verified)), sender, identity, domain))
        key = hashlib.sha256(words.encode()).hexdigest()[:_KEY]
        if store.one("SELECT 1 FROM reports WHERE key = ?", (key,)):
            continue
        identifier = store.execute(
            "INSERT INTO reports (key, message, verified, sender, identity, domain, day, start, [end], organization,"
            " report_id, problems) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                message,
                verified,
                sender,
                identity,
                domain,
                day,
                start,
                end,
                report.organization,
                report.report_id,
                "\n".join(report.problems),
            ),
        )
        groups = _write_policies(store, identifier, policies, room, most)
        for group, (sessions, example) in groups.items():
            kind = _kind(store, (int(verified), sender, domain, *group))
            store.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?)", (kind, day, identifier, sessions, example))
        yield key


def _of_domains(report: Report) -> Mapping[str, Sequence[Policy]]:
    """The policies of each policy domain. A report without policies is known by its time alone."""
    of_domain: defaultdict[str, list[Policy]] = defaultdict(list)
    for policy in report.policies:
        of_domain[policy.domain or ""].append(policy)
    return of_domain or {"": []}


def _day(report: Report) -> str:
    return day_of(report.start, report.end).isoformat()


def _write_policies(
    store: Store, report: int, policies: Sequence[Policy], room: int, most: int
) -> Mapping[_Group, tuple[int, int | None]]:
    """Write policies, and at most so many failures. Return the sessions of each group of failures, and one's id.

    `room` groups are told apart, as many again by their results alone, and the others are one.
    """
    sums: dict[_Group, int] = {}
    examples: dict[_Group, tuple[int, int]] = {}
    for policy in policies:
        identifier = store.execute(
            "INSERT INTO policies (report, type, mode, successful, failed) VALUES (?, ?, ?, ?, ?)",
            (report, policy.type, policy.mode, policy.successful, policy.failed),
        )
        if policy.failed and not policy.failures:
            sums[_NOT_SAID] = min(sums.get(_NOT_SAID, 0) + policy.failed, _MAX_INTEGER)
        for failure in policy.failures:
            group = _group(failure, sums, room)
            sums[group] = min(sums.get(group, 0) + failure.sessions, _MAX_INTEGER)
            if most:
                most -= 1
                row = _write_failure(store, identifier, failure)
                examples[group] = max(examples.get(group, (-1, 0)), (failure.sessions, row))
    return {group: (sessions, examples[group][1] if group in examples else None) for group, sessions in sums.items()}


def _write_failure(store: Store, policy: int, failure: Failure) -> int:
    return store.execute(
        "INSERT INTO failures (policy, result, sessions, mx, receiving_ip, sending_ip, code, information)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            policy,
            failure.result,
            failure.sessions,
            failure.mx,
            failure.receiving_ip,
            failure.sending_ip,
            failure.code,
            failure.information,
        ),
    )


def _group(failure: Failure, known: Collection[_Group], room: int) -> _Group:
    """The group of a failure. If there are too many groups already, a larger one."""
    result = failure.result or ""
    code = (failure.code or "")[:_MAX_CODE]
    group = _Group(result, failure.mx or "", failure.receiving_ip or "", code)
    if group in known or len(known) < room:
        return group
    group = _Group(result)
    return group if group in known or len(known) < 2 * room else _NOT_SAID


def _kind(store: Store, values: Sequence[object]) -> int:
    """The id of a kind of failures, which may be new."""
    columns = ("verified", "sender", "domain", "result", "mx", "receiving_ip", "code")
    found = store.one(f"SELECT id FROM kinds WHERE ({', '.join(columns)}) = (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
    if found:
        return int(found[0])
    return store.execute(f"INSERT INTO kinds ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608


def _remove_report(store: Store, report: int) -> None:
    forget_details(store, report)
    kinds = store.select("SELECT kind FROM groups WHERE report = ?", (report,))
    store.execute("DELETE FROM groups WHERE report = ?", (report,))
    for (kind,) in kinds:
        unused = "NOT EXISTS (SELECT 1 FROM groups WHERE kind = kinds.id)"
        store.execute(f"DELETE FROM kinds WHERE id = ? AND {unused}", (kind,))  # noqa: S608 - all of it is ours
    store.execute("DELETE FROM policies WHERE report = ?", (report,))
    store.execute("DELETE FROM reports WHERE id = ?", (report,))
