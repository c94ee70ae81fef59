"""Show what is cached for a domain: as a line of a table, as text, and as JSON.

The JSON of `document` has these members. Times are ISO 8601 in UTC, or null for never. max_age is in seconds.

    domain      "example.com"
    policy      {"mode", "max_age", "mx": […], "record_id", "fetched_at", "expires_at", "live", "file"}, or null
    checked_at  when the record was last looked up
    last_used   when Postfix last asked, accurate to a day
    refresh_at  when an unexpired policy will be fetched again, if Postfix has asked for it within 30 days
    failed      [{"record_id", "count", "at", "stage", "reason", "result_type"}, …]: fetches that failed in a row

Unless it is an item of a list, it also has these:

    note        {"no_policy", "reason", "until"}: why the last lookup led to no policy; null if it led to one
    unread      whether the database could not be read, so that it may have a policy
    withheld    whether Postfix is not told of its enforced policy (reply.enforce = false)
    dane        [{"next_hop", "tlsa": "usable" | "absent" | "failed", "hosts": […], "reason", "seen_at"}, …]
    exception   {"domain", "until", "ends_at", "reason", "level", "dane", "added"}: the exception that holds, or null
    deferred    why mail to it, or to one of its next hops, is deferred, as far as is known, or null
"""

import datetime
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postfix_mtasts.cache.row import parse_failed, parse_row, print_failed
from postfix_mtasts.counting import times
from postfix_mtasts.daemon.explain import parse_exception, print_exception
from postfix_mtasts.log.events import span
from postfix_mtasts.query.output import JSON, WIDTH, Status
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.schedule import refresh_at, renewal_fails, urgent_at

_LAST_TIME = 253402300799.0  # The end of the year 9999.
_COLUMNS = ("domain", "mode", "mx", "fetched", "expires")
_DOMAIN = 36  # Columns of a domain.


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a domain. In a list, and in the database, only the entry is known."""

    domain: str
    entry: Entry
    note: JSON | None = None
    unread: bool = False
    dane: Sequence[JSON] = ()
    exception: PolicyException | None = None
    withheld: bool = False
    deferred: str | None = None  # Why mail is deferred.

    def status(self, now: float) -> Status:
        """What this means for mail. ERROR if it is deferred, or if there may be a policy that could not be fetched."""
        if self.deferred:
            return Status.ERROR
        if self.entry.live(now):
            return Status.WARNING if renewal_fails(self.entry, no_record=bool(self.note)) else Status.OK
        is_unknown = self.entry.failed or self.unread or (self.note and not self.note["no_policy"])
        return Status.ERROR if is_unknown else Status.NOTHING

    def is_withheld(self, now: float) -> bool:
        """Whether Postfix is not told of a policy that would count."""
        return self.withheld and self.entry.live(now) is not None

    def is_ending(self, now: float) -> bool:
        """Whether it has a policy that is about to expire and could not be renewed."""
        cached = self.entry.cached
        return cached is not None and cached.is_live(now) and renewal_fails(self.entry) and now >= urgent_at(cached)


def parse_known(document: JSON) -> Known:
    """Parse what the daemon says of a domain (`daemon.control`), in a list or alone. Raises RowError."""
    row = document["row"]
    if row is not None:
        entry = parse_row(row)
    else:
        failed = tuple(parse_failed(one) for one in document["failed"])
        entry = Entry(failed=failed, checked_at=document["checked_at"])
    return Known(
        document["domain"],
        entry,
        document.get("note"),
        document.get("unread", False),
        document.get("dane", ()),
        parse_exception(document["exception"]) if document.get("exception") else None,
        document.get("withheld", False),
        document.get("deferred"),
    )


def table(all_known: Sequence[Known], now: float) -> Iterator[tuple[str, Status | None]]:
    """A heading, and one line per domain with its status, in 80 columns. Failures are in lines of their own."""
    rows = [_COLUMNS, *(_columns(one, now) for one in all_known)]
    # A long domain has a line of its own, rather than to make all others wide.
    widths = [min(_DOMAIN, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row, one in zip(rows, [None, *all_known], strict=True):
        status = one.status(now) if one else None
        domain, *cells = row
        if len(domain) > _DOMAIN:
            yield domain, status
            domain = ""
        cells = [domain, *cells]
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip(), status
        for line in failures(one, now) if one else ():
            for part in textwrap.wrap(line, WIDTH, initial_indent="    ", subsequent_indent="      "):
                yield part, status


def _columns(one: Known, now: float) -> tuple[str, ...]:
    cached = one.entry.cached
    if not cached:
        return one.domain, "-", "-", "-", "-"
    times = (ago(cached.fetched_at, now), ago(cached.expires_at(), now))
    return one.domain, cached.policy.mode.value, str(len(cached.policy.mx)), *times


def failures(one: Known, now: float) -> Iterator[str]:
    """Why mail is deferred, and why a policy could not be fetched or renewed."""
    if one.deferred:
        yield f"mail is deferred: {one.deferred}"
    for failed in one.entry.failed[:1]:
        yield f"failed {times(failed.count)}, last {ago(failed.at, now)}: {failed.failure}"
    if not one.entry.failed and not one.deferred and one.note and not one.note["no_policy"]:
        yield f"policy unavailable: {one.note['reason']}"


def describe(one: Known, now: float) -> Iterator[str]:
    """Everything that is known, line by line: a summary, the details, and the policy file."""
    yield f"{one.domain}: {summary(one, now)}"
    for name, text in _facts(one, now):
        yield f"    {name:<11} {text}"
    if one.entry.cached:
        yield "    policy file"
        for number, line in enumerate(one.entry.cached.text.replace("\r\n", "\n").removesuffix("\n").split("\n"), 1):
            yield f"    {number:>5}  {line}"


def summary(one: Known, now: float) -> str:
    """The policy or the lack of one, in a few words."""
    cached = one.entry.cached
    if cached and cached.is_live(now):
        return f"mode {cached.policy.mode.value}, expires in {span(cached.expires_at() - now)}"
    if cached:
        return f"mode {cached.policy.mode.value}, expired {ago(cached.expires_at(), now)}"
    if one.unread:
        return "unknown: the database cannot be read"
    if one.note:
        return f"{'no policy' if one.note['no_policy'] else 'policy unavailable'}: {one.note['reason']}"
    return "nothing is cached"


def _facts(one: Known, now: float) -> Iterator[tuple[str, str]]:
    entry, cached = one.entry, one.entry.cached
    if one.deferred:
        yield "deferred", one.deferred
    if one.is_withheld(now):
        yield "withheld", 'Postfix is told "not found": no policy is enforced (reply.enforce = false)'
    if cached:
        yield "max_age", f"{cached.policy.max_age} ({span(cached.policy.max_age)})"
        for number, pattern in enumerate(cached.policy.mx):
            yield "" if number else "mx", str(pattern)
        yield "fetched", f"{when(cached.fetched_at, now)}, for record id {cached.record_id}"
        yield "expires", when(cached.expires_at(), now)
        if cached.is_live(now) and entry.unused_at is None:
            yield "refresh", when(refresh_at(entry, cached), now)
        yield "last used", f"{when(entry.last_used, now)}, accurate to a day" if entry.last_used else "never"
    if entry.checked_at:
        yield "checked", when(entry.checked_at, now)
    if one.note and cached:
        yield "", f"{'no policy' if one.note['no_policy'] else 'check failed'}: {one.note['reason']}"
    for failed in entry.failed:
        yield "failed", _failed(failed, now)
    if one.exception:
        yield "exception", exception_words(one.exception, now)
    for dane in one.dane:
        yield "DANE", f"{dane['next_hop']}: {_dane(dane)}, looked up {ago(dane['seen_at'], now)}"


def exception_words(exception: PolicyException, now: float) -> str:
    """An exception in one line."""
    whose = f"for {exception.domain}, " if exception.domain.startswith("*") else ""
    ends = f"until {exception.until} (ends in {span(exception.ends_at - now)})"
    dane = ", also for DANE" if exception.dane else ""
    return f"{whose}{ends}, level {exception.level.value}{dane}: {exception.reason}"


def _failed(failed: FailedFetch, now: float) -> str:
    kind = failed.failure.result_type
    name = f" ({kind.value})" if kind else ""
    last = f"last {when(failed.at, now)}, for record id {failed.record_id}"
    return f"{times(failed.count)}, {last}: {failed.failure}{name}"


def _dane(dane: JSON) -> str:
    match dane["tlsa"]:
        case "usable":
            return f"TLSA records of {', '.join(dane['hosts'])}"
        case "absent":
            return f"no DANE: {dane['reason']}"
        case _:
            return f"unknown: {dane['reason']}"


def document(one: Known, now: float, *, alone: bool) -> JSON:
    """Everything that is known, as JSON. `alone` if it is not an item of a list."""
    entry, cached = one.entry, one.entry.cached
    listed = {
        "domain": one.domain,
        "policy": cached and _policy(cached, now),
        "checked_at": iso(entry.checked_at),
        "last_used": iso(entry.last_used),
        "refresh_at": iso(refresh_at(entry, cached)) if cached and cached.is_live(now) else None,
        "failed": [print_failed(failed) | {"at": iso(failed.at)} for failed in entry.failed],
    }
    if not alone:
        return listed
    note = one.note and {**one.note, "until": iso(one.note["until"])}
    return listed | {
        "note": note,
        "unread": one.unread,
        "withheld": one.is_withheld(now),
        "dane": [{**dane, "seen_at": iso(dane["seen_at"])} for dane in one.dane],
        "exception": one.exception and exception_document(one.exception),
        "deferred": one.deferred,
    }


def exception_document(exception: PolicyException) -> JSON:
    """An exception as JSON."""
    return print_exception(exception) | {"ends_at": iso(exception.ends_at)}


def _policy(cached: CachedPolicy, now: float) -> JSON:
    return {
        "mode": cached.policy.mode.value,
        "max_age": cached.policy.max_age,
        "mx": [str(pattern) for pattern in cached.policy.mx],
        "record_id": cached.record_id,
        "fetched_at": iso(cached.fetched_at),
        "expires_at": iso(cached.expires_at()),
        "live": cached.is_live(now),
        "file": cached.text,
    }


def iso(time: float | None) -> str | None:
    """A time in ISO 8601, in UTC and to the second. The time 0 means never and gives None."""
    if not time:
        return None
    moment = datetime.datetime.fromtimestamp(min(max(time, 0.0), _LAST_TIME), datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def ago(time: float, now: float) -> str:
    """`3 days ago`, `in 5 hours`, or `never` for the time 0."""
    if not time:
        return "never"
    return f"in {span(time - now)}" if time > now else f"{span(now - time)} ago"


def when(time: float, now: float) -> str:
    """A time as `ago` has it, followed by its ISO 8601 form."""
    return f"{ago(time, now)} ({iso(time)})"
