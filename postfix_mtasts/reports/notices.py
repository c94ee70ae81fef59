"""Puts what `alerts` decides into words: for a mail, and for the journal, one line each. Pure functions.

What is told of one result type at many domains is told at once: their mail often goes through the same hosts.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from postfix_mtasts.counting import counted
from postfix_mtasts.reports.alerts import LOOK_BACK, OTHER, Kind, News, Notice
from postfix_mtasts.reports.meaning import Severity, meaning
from postfix_mtasts.reports.plain import fill, listed, plain
from postfix_mtasts.reports.viewing import is_hostname
from postfix_mtasts.reports.wording import WORDS, share

_MAX_GROUPS = 20  # In one mail.
_NEWS = {News.NEW: "New", News.STILL: "Still there after a week", News.OVER: "Over"}
_RESULTS = {OTHER: "unknown result types", "": "failures without a type"}


@dataclass(frozen=True, slots=True)
class Group:
    """Notices that are told as one: the same news of the same kind of trouble."""

    notices: tuple[Notice, ...]

    @property
    def first(self) -> Notice:
        """The worst of them."""
        return self.notices[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The domains, or the sources that are silent."""
        return tuple(notice.subject.name or "unknown domain" for notice in self.notices)

    @property
    def severity(self) -> Severity:
        """That of the worst."""
        return max(notice.severity for notice in self.notices)


def groups(notices: Sequence[Notice]) -> tuple[Group, ...]:
    """The notices, in their order, those together that are told as one."""
    of_it: defaultdict[tuple[News, Kind, str], list[Notice]] = defaultdict(list)
    for notice in notices:
        of_it[notice.news, notice.subject.kind, notice.subject.result].append(notice)
    return tuple(Group(tuple(some)) for some in of_it.values())


def title(group: Group) -> str:
    """What is new, still there, or over."""
    return f"{_NEWS[group.first.news]}: {_trouble(group)}"


def subject(told: Sequence[Group]) -> str:
    """The subject of a mail. There is at least one group."""
    more = f", and {len(told) - 1} more" if len(told) > 1 else ""
    first = title(told[0])
    return f"TLS reports: {first[0].lower()}{first[1:]} ({listed(told[0].names, 1)}){more}"


def body(told: Sequence[Group]) -> list[str]:
    """The lines of a mail."""
    lines: list[str] = []
    for group in told[:_MAX_GROUPS]:
        lines += [*fill(f"{title(group)}{_tag(group)}"), *_details(group), ""]
    if len(told) > _MAX_GROUPS:
        lines += [*fill(f"And {len(told) - _MAX_GROUPS} more. All that is reported:"), ""]
    return [*lines, "All results: postfix-mtasts-reports results"]


def line(group: Group) -> str:
    """The line for the journal."""
    first = group.first
    what = f"{title(group)}{_tag(group)}: {listed(group.names)}"
    details = "; ".join(_facts(group))
    command = _command(group)
    return f"{what}: {details}" + (f"; check it: {command}" if command and first.news is not News.OVER else "")


def _trouble(group: Group) -> str:
    if group.first.subject.kind is Kind.SILENCE:
        return "no more reports"
    result = group.first.subject.result
    return _RESULTS.get(result, result)


def _tag(group: Group) -> str:
    return "" if group.first.news is News.OVER else f" [{WORDS[group.severity]}]"


def _details(group: Group) -> Iterator[str]:
    yield from fill(listed(group.names, 10), "  ")
    for fact in _facts(group):
        yield from fill(fact, "  ")
    if group.first.news is News.OVER:
        return
    if group.first.subject.kind is Kind.FAILURES:
        result = group.first.subject.result
        yield from fill(meaning(result or None).text, "  ")
    if command := _command(group):
        yield "  Check it:"
        yield f"  {command}"


def _facts(group: Group) -> Iterator[str]:
    first = group.first
    if first.subject.kind is Kind.SILENCE:
        yield from _silence(first)
        return
    if not first.since:
        yield f"no report has told of it for {LOOK_BACK} days"
        return
    notices = group.notices
    sessions, of = sum(one.sessions for one in notices), sum(one.of for one in notices)
    since, last = min(one.since for one in notices if one.since), max(one.last for one in notices if one.last)
    if first.news is News.OVER:
        yield f"last on {last}; since then, sources that told of it report sessions without it"
        return
    if hosts := dict.fromkeys(one.host for one in notices if one.host):
        more = max(0, max(one.hosts for one in notices) - len(hosts))
        yield f"at {listed(tuple(hosts), 2, more)}"
    # Details may overlap (RFC 8460, 4.4).
    failed = f"{sessions:,} of {counted(of, 'session')} failed ({share(sessions, of)})"
    yield failed if sessions <= of else f"{counted(sessions, 'session')} failed"
    yield f"told by {listed(tuple(dict.fromkeys(source for one in notices for source in one.sources)))}"
    yield f"on {since}" if since == last else f"from {since} to {last}"


def _silence(first: Notice) -> Iterator[str]:
    if first.news is News.OVER:
        yield f"reports again, last about {first.last}"
        return
    yield f"reported daily, last about {first.last}"
    yield "it has had no mail for you, or its reports do not arrive"


def _command(group: Group) -> str:
    """What checks it. Of what a sender wrote, a hostname alone may stand in a command."""
    if group.first.subject.kind is Kind.SILENCE:
        return "postfix-mtasts-reports doctor"
    names = [name for name in group.names if is_hostname(name)]
    return f"postfix-mtasts-query --probe {plain(names[0])}" if names else ""
