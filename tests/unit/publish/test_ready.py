"""When mode enforce is safe, condition by condition."""

from dataclasses import replace

import pytest

from postfix_mtasts.publish.ready import Condition, Facts, as_of, readiness, stops_mail
from postfix_mtasts.publish.state import DAY, Checked, Clock, State, record_id
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOW = 1_800_000_000.0
POLICY = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))
AGE = 100 * DAY
# Announced 20 days ago, and checked an hour ago.
STATE = State(
    PolicyDomain("example.com"),
    POLICY,
    Clock(AGE, NOW),
    record=record_id(POLICY),
    announced_at=AGE - 20 * DAY,
    known=True,
    checked=Checked(AGE - 3600),
)
FACTS = Facts(reporters=2, days=10, sessions=100)
REPORTERS = "2 organizations that report, verified by DKIM"
FAILURES = "no failure of our making reported for 7 days"


def conditions(state: State = STATE, facts: Facts | None = FACTS) -> dict[str, Condition]:
    return {one.name: one for one in readiness(state, facts).conditions}


def test_all_conditions_hold() -> None:
    found = readiness(STATE, FACTS)
    assert found.conditions == (
        Condition("unchanged", True, "14 days of the present policy: 20 so far"),
        Condition("reporters", True, f"{REPORTERS}: 2 so far"),
        Condition("days", True, "10 days with reports: 10 so far"),
        Condition("sessions", True, "100 sessions in reports: 100 so far"),
        Condition("failures", True, f"{FAILURES}: none"),
        Condition("check", True, "a check without a problem today: clean"),
    )
    assert (found.ready, found.on, found.too_little) == (True, None, False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"announced_at": AGE - 13.5 * DAY},
            Condition("unchanged", False, "14 days of the present policy: 13 so far", NOW + DAY / 2),
        ),
        ({"announced_at": AGE - 14 * DAY}, Condition("unchanged", True, "14 days of the present policy: 14 so far")),
        ({"record": None}, Condition("unchanged", False, "14 days of the present policy: it is not announced yet")),
        (
            {"record": record_id(replace(POLICY, max_age=1))},
            Condition("unchanged", False, "14 days of the present policy: it is not announced yet"),
        ),
        ({"checked": None}, Condition("check", False, "a check without a problem today: there was none")),
        (
            {"checked": Checked(AGE - DAY - 1)},
            Condition("check", False, "a check without a problem today: there was none"),
        ),
        ({"checked": Checked(AGE - DAY)}, Condition("check", True, "a check without a problem today: clean")),
        (
            {"checked": Checked(AGE, ("mx1 is down", "so is mx2"))},
            Condition("check", False, "a check without a problem today: mx1 is down (and 1 more)"),
        ),
    ],
)
def test_what_the_state_says(changes: dict[str, object], expected: Condition) -> None:
    state = replace(STATE, **changes)  # type: ignore[arg-type]
    found = readiness(state, FACTS)
    assert conditions(state)[expected.name] == expected
    assert found.ready == expected.met
    assert found.on == expected.on


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reporters": 1}, Condition("reporters", False, f"{REPORTERS}: 1 so far")),
        ({"days": 8}, Condition("days", False, "10 days with reports: 8 so far", NOW + 5 * DAY)),
        ({"days": 0}, Condition("days", False, "10 days with reports: 0 so far")),
        ({"sessions": 80}, Condition("sessions", False, "100 sessions in reports: 80 so far", NOW + 5 * DAY)),
        (
            {"last_failure": NOW - 3 * DAY},
            Condition("failures", False, f"{FAILURES}: the last one 3 days ago", NOW + 4 * DAY),
        ),
        ({"last_failure": NOW - 7 * DAY}, Condition("failures", True, f"{FAILURES}: the last one 7 days ago")),
        (
            {"last_failure": NOW + DAY / 2},  # Today, whose end is to come.
            Condition("failures", False, f"{FAILURES}: the last one 0 days ago", NOW + 7.5 * DAY),
        ),
    ],
)
def test_what_reports_say(changes: dict[str, object], expected: Condition) -> None:
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    found = readiness(STATE, facts)
    assert conditions(facts=facts)[expected.name] == expected
    assert found.ready == expected.met
    assert found.on == expected.on


def test_the_latest_date_of_all_is_that_of_the_whole() -> None:
    state = replace(STATE, announced_at=AGE - 10 * DAY)
    assert readiness(state, replace(FACTS, sessions=50)).on == NOW + 10 * DAY
    assert readiness(state, replace(FACTS, reporters=1)).on is None


def test_a_domain_with_too_little_mail_is_told_so() -> None:
    assert readiness(STATE, replace(FACTS, sessions=19)).too_little is False  # It takes 85 days more.
    assert readiness(STATE, replace(FACTS, sessions=18)).too_little is True  # And that 91.
    assert readiness(STATE, replace(FACTS, days=0)).too_little is True
    young = replace(STATE, announced_at=AGE - 6 * DAY)
    assert readiness(young, Facts()).too_little is False


def test_without_reports_nothing_is_known_of_them() -> None:
    found = readiness(STATE, None)
    unknown = [one.name for one in found.conditions if one.text.endswith("unknown: no reports are taken in here")]
    assert unknown == ["reporters", "days", "sessions", "failures"]
    assert (found.ready, found.on, found.too_little) == (False, None, False)
    assert found.hint.startswith("let Postfix hand reports to `postfix-mtasts-reports receive`")
    assert readiness(STATE, Facts()).hint == ""


def test_two_organizations_that_cannot_deliver_are_an_alarm_in_mode_enforce_only() -> None:
    enforced = replace(STATE, wanted=replace(POLICY, mode=Mode.ENFORCE))
    told = replace(FACTS, failing=2)
    said = "2 organizations reported in the last 7 days that they could not deliver under the policy"
    assert stops_mail(enforced, told) == said
    assert stops_mail(enforced, replace(FACTS, failing=1)) is None
    assert stops_mail(STATE, told) is None
    assert stops_mail(enforced, None) is None


@pytest.mark.parametrize(
    ("later", "counted", "is_known"),
    [(0, 0, True), (DAY - 3600, DAY - 3600, True), (DAY + 1, DAY + 1, False), (30 * DAY, 0, False), (-60, 0, False)],
)
def test_time_goes_on_without_an_event(later: float, counted: float, is_known: bool) -> None:
    found = as_of(STATE, NOW + later)
    assert found == replace(STATE, clock=Clock(AGE + counted, NOW + later), checked=STATE.checked if is_known else None)
    assert conditions(found)["check"].met == is_known
