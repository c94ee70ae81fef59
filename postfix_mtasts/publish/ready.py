"""Whether a domain may go from mode testing to mode enforce, and whether its enforced policy stops mail.

No standard says when. These conditions must all hold. Each is met, or is said to be met on some day if nothing changes.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from postfix_mtasts.counting import counted
from postfix_mtasts.publish.follows import forbidden_but_cached
from postfix_mtasts.publish.state import DAY, PARTING_AFTER, State
from postfix_mtasts.sts.policy import Mode

UNCHANGED_FOR = 14 * DAY  # Of the present policy. Spans are in seconds.
REPORTERS = 2  # Verified senders that have reported.
DAYS_WITH_REPORTS = 10
SESSIONS = 100  # In reports.
WITHOUT_FAILURE_FOR = 7 * DAY
CHECKED_WITHIN = DAY
# A domain that would need longer than this gets too little mail: nobody should wait for it.
_TOO_LONG = 90 * DAY
_TAKE_IN = "let Postfix hand reports to `postfix-mtasts-reports receive` (docs/reports.md); `import` takes older ones"
_LEARNT_AFTER = 7 * DAY  # Before that, the reports are too few to know how much mail there is.


@dataclass(frozen=True, slots=True)
class Facts:
    """What verified reports say of a domain since its present policy was announced.

    `reporters` are different organizations, `days` are those with a report. `last_failure` is the end of the last day
    with a failure of our making, as a time. `failing` are the organizations that told in the last seven days of one
    for which senders that keep to the policy do not deliver.
    """

    reporters: int = 0
    days: int = 0
    sessions: int = 0
    last_failure: float | None = None
    failing: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition. If it is not `met`, `on` is the time when it will be, if nothing changes; None: nobody can say.

    `text` says how things are, with what is missing.
    """

    name: Literal["unchanged", "reporters", "days", "sessions", "failures", "check"]
    met: bool
    text: str
    on: float | None = None


@dataclass(frozen=True, slots=True)
class Readiness:
    """All conditions. `too_little` says that the domain gets too little mail to qualify in `_TOO_LONG`.

    `hint` is what to do so that all conditions can be known, or empty.
    """

    conditions: tuple[Condition, ...]
    too_little: bool
    hint: str = ""

    @property
    def ready(self) -> bool:
        """Whether all conditions hold."""
        return all(condition.met for condition in self.conditions)

    @property
    def on(self) -> float | None:
        """When all will hold, if nothing changes; None if that cannot be said."""
        dates = [condition.on for condition in self.conditions if not condition.met]
        return None if None in dates else max((date for date in dates if date is not None), default=None)


def as_of(state: State, now: float) -> State:
    """The state at a time at which nothing happens. A check is forgotten if the machine's clock says it is old."""
    checked = state.checked if 0 <= now - state.clock.at <= CHECKED_WITHIN else None
    return replace(state, clock=state.clock.advanced(now), checked=checked)


def readiness(state: State, facts: Facts | None) -> Readiness:
    """Whether a domain is ready, as of the clock of `state`. Without `facts`, what reports would say is unknown."""
    conditions = (_unchanged(state), *_reported(state, facts), _check(state))
    learnt = facts is not None and _age(state) >= _LEARNT_AFTER
    by_volume = [condition for condition in conditions if condition.name in ("days", "sessions") and not condition.met]
    latest = max((math.inf if one.on is None else one.on for one in by_volume), default=0.0)
    return Readiness(conditions, learnt and latest - state.clock.at > _TOO_LONG, _TAKE_IN if facts is None else "")


def stops_mail(state: State, facts: Facts | None) -> str | None:
    """Why an enforced policy stops mail, as two organizations say; None if they do not.

    The mode is never changed for that: otherwise a forged report could weaken the protection.
    """
    if facts is None or state.wanted.mode is not Mode.ENFORCE or facts.failing < REPORTERS:
        return None
    return f"{facts.failing} organizations reported in the last 7 days that they could not deliver under the policy"


def _age(state: State) -> float:
    """For how long the present policy has been announced, in seconds."""
    return state.clock.counted - state.announced_at if _is_announced(state) else 0.0


def _is_announced(state: State) -> bool:
    return state.record is not None and state.record == state.id()


def _unchanged(state: State) -> Condition:
    age = _age(state)
    wanted = f"{UNCHANGED_FOR / DAY:.0f} days of the present policy"
    if not _is_announced(state):
        return Condition("unchanged", False, f"{wanted}: it is not announced yet")
    on = None if age >= UNCHANGED_FOR else state.clock.date(state.announced_at + UNCHANGED_FOR)
    return Condition("unchanged", on is None, f"{wanted}: {age // DAY:.0f} so far", on)


def _reported(state: State, facts: Facts | None) -> tuple[Condition, ...]:
    reporters = f"{REPORTERS} organizations that report, verified by DKIM"
    days, sessions = f"{DAYS_WITH_REPORTS} days with reports", f"{SESSIONS} sessions in reports"
    failures = f"no failure of our making reported for {WITHOUT_FAILURE_FOR / DAY:.0f} days"
    if facts is None:
        unknown = "unknown: no reports are taken in here"
        return (
            Condition("reporters", False, f"{reporters}: {unknown}"),
            Condition("days", False, f"{days}: {unknown}"),
            Condition("sessions", False, f"{sessions}: {unknown}"),
            Condition("failures", False, f"{failures}: {unknown}"),
        )
    on = None
    last = "none"
    if facts.last_failure is not None:
        left = facts.last_failure + WITHOUT_FAILURE_FOR - state.clock.at
        on = state.clock.at + left if left > 0 else None
        age = round(max(0.0, state.clock.at - facts.last_failure) / DAY)
        last = f"the last one {counted(age, 'day')} ago"
    return (
        Condition("reporters", facts.reporters >= REPORTERS, f"{reporters}: {facts.reporters} so far"),
        _volume(state, "days", days, facts.days, DAYS_WITH_REPORTS),
        _volume(state, "sessions", sessions, facts.sessions, SESSIONS),
        Condition("failures", on is None, f"{failures}: {last}", on),
    )


def _volume(state: State, name: Literal["days", "sessions"], what: str, number: int, wanted: int) -> Condition:
    """A number that grows with the mail. It is taken to go on growing as fast as until now."""
    met = number >= wanted
    on = None
    if not met and number and (age := _age(state)) > 0:
        on = state.clock.at + (wanted - number) * age / number
    return Condition(name, met, f"{what}: {number} so far", on)


def _check(state: State) -> Condition:
    wanted = "a check without a problem today"
    checked = state.checked
    if checked is None or state.clock.counted - checked.at > CHECKED_WITHIN:
        return Condition("check", False, f"{wanted}: there was none")
    if checked.problems:
        more = f" (and {len(checked.problems) - 1} more)" if len(checked.problems) > 1 else ""
        return Condition("check", False, f"{wanted}: {checked.problems[0]}{more}")
    if lately := forbidden_but_cached(state):
        since = max((one.since for one in state.left if one.host in lately), default=None)
        on = None if since is None else state.clock.date(since + PARTING_AFTER)
        text = f"the policy forbids the MX host {lately[0]}, which DNS had less than two days ago"
        return Condition("check", False, f"{wanted}: {text}", on)
    return Condition("check", True, f"{wanted}: clean")
