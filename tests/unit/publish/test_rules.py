"""Single rules over a published domain, each with the whole of what follows. Time goes on in days from START."""

import hashlib
from dataclasses import replace

import pytest

from postfix_mtasts.publish.events import (
    Added,
    Change,
    Decision,
    Event,
    Forbidden,
    Looked,
    MaxAgeAsked,
    ModeAsked,
    MxAsked,
    Publication,
    RefusedError,
    RemovalAsked,
    Wait,
)
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.state import DAY, GOODBYE, Left, Served, Stage, State, body, record_id
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy, parse

START = 1_800_000_000.0
DOMAIN = PolicyDomain("example.com")
MX1, MX2, WILD = MxPattern("mx1.example.com"), MxPattern("mx2.example.com"), MxPattern("*.example.com")
HOST1, HOST2 = str(MX1), str(MX2)
WEEK = 604_800
TESTING = Policy(Mode.TESTING, WEEK, (MX1,))
ENFORCE = Policy(Mode.ENFORCE, WEEK, (MX1,))
WIDER = Policy(Mode.ENFORCE, WEEK, (MX1, MX2))


class Line:
    """A domain on its time line. `day` is the present day; `decision` is the last one."""

    def __init__(self, policy: Policy = TESTING, **added: object) -> None:
        self.day = 0.0
        self.decision = decide(None, replace(Added(DOMAIN, policy), **added), START)  # type: ignore[arg-type]

    @property
    def state(self) -> State:
        return self.decision.state

    def happens(self, event: Event) -> Decision:
        self.decision = decide(self.state, event, START + self.day * DAY)
        return self.decision

    def looks(self, hosts: tuple[str, ...] | None = (HOST1,), **other: object) -> Decision:
        """All is as it was to be published, unless something is otherwise."""
        was = self.decision.publication
        files = (was.file,) if was.file else ()
        seen = Looked(self.state.version, files, bool(files), was.record, was.record is None, hosts, True)
        return self.happens(replace(seen, **other))  # type: ignore[arg-type]

    def days(self, number: int, hosts: tuple[str, ...] = (HOST1,)) -> Decision:
        """Days on which nothing but the daily check happens."""
        for _ in range(number):
            self.day += 1
            self.looks(hosts)
        return self.decision

    def date(self, day: float) -> float:
        return START + day * DAY


def published(policy: Policy = TESTING) -> Line:
    """A domain of which senders know."""
    line = Line(replace(policy, mode=Mode.TESTING))
    line.looks()
    line.looks()
    if policy.mode is Mode.ENFORCE:
        line.happens(ModeAsked(Mode.ENFORCE))
        line.looks()
        line.looks()
    assert (line.decision.publication.file, line.decision.waits) == (policy, ())
    return line


def test_the_file_has_crlf_and_its_hash_is_the_id() -> None:
    text = b"version: STSv1\r\nmode: testing\r\nmx: mx1.example.com\r\nmax_age: 604800\r\n"
    assert body(TESTING) == text
    assert parse(body(TESTING)) == (TESTING, ())
    assert record_id(TESTING) == hashlib.sha256(text).hexdigest()[:32]
    ids = [record_id(one) for one in (TESTING, ENFORCE, WIDER, GOODBYE, replace(TESTING, max_age=WEEK + 1))]
    assert len(set(ids)) == 5
    assert all(len(one) == 32 and one.isalnum() for one in ids)


def test_the_file_comes_first_and_then_the_record() -> None:
    line = Line()
    added = line.decision
    assert added.publication == Publication(TESTING, None, certificate=False)
    assert (added.waits, added.warnings) == ((Wait("file"),), ())
    assert added.changes == (Change("added", "", "mode testing, mx mx1.example.com"),)
    elsewhere = line.looks(files=(), all_serve=False, points_here=False)
    assert (elsewhere.publication, elsewhere.waits, elsewhere.changes) == (added.publication, (Wait("file"),), ())
    unseen = line.looks(files=(), all_serve=False)
    assert (unseen.publication, unseen.waits) == (Publication(TESTING, None, certificate=True), (Wait("file"),))
    unknown = line.looks(files=(), all_serve=False, points_here=None)
    assert unknown.publication.certificate
    one_address = line.looks(all_serve=False)
    assert (one_address.publication.record, one_address.waits) == (None, (Wait("file"),))
    another = line.looks(files=(ENFORCE,))
    assert (another.publication.record, another.waits) == (None, (Wait("file"),))
    seen = line.looks()
    assert seen.publication == Publication(TESTING, record_id(TESTING), certificate=True)
    assert (seen.waits, seen.changes) == ((Wait("record"),), (Change("record", "", record_id(TESTING)),))
    known = line.looks()
    assert (known.publication, known.waits, known.changes) == (seen.publication, (), ())


def test_a_policy_that_comes_back_has_another_id() -> None:
    """Senders may have fetched what was there in between while DNS had the first id."""
    line = published()
    line.happens(ModeAsked(Mode.ENFORCE))
    back = line.happens(ModeAsked(Mode.TESTING))
    assert (back.publication.file, back.publication.record, back.waits) == (
        TESTING,
        record_id(TESTING),
        (Wait("file"),),
    )
    seen = line.looks()
    second = record_id(TESTING, 3)
    assert seen.changes == (Change("record", record_id(TESTING), second),)
    assert line.looks().waits == ()
    line.happens(ModeAsked(Mode.ENFORCE))
    line.looks()
    line.happens(ModeAsked(Mode.TESTING))
    third = line.looks().publication.record
    assert len({record_id(TESTING), second, third}) == 3


def test_a_look_that_began_before_the_file_changed_says_nothing_of_files() -> None:
    line = published()
    stale = Looked(line.state.version, (TESTING,), True, record_id(TESTING), False, (HOST1,), True)
    line.happens(ModeAsked(Mode.ENFORCE))
    line.looks()
    line.happens(ModeAsked(Mode.TESTING))  # The file is to have what it had at the look.
    after = line.happens(stale)
    assert after.publication.record == record_id(ENFORCE, after.state.version - 1)
    assert Served(ENFORCE) in after.state.served


def test_a_policy_that_somebody_put_there_by_hand_counts_as_served() -> None:
    line = published()
    line.looks(files=(ENFORCE,))
    line.day = 1
    decision = line.looks(hosts=(HOST1, HOST2))
    assert Served(ENFORCE, DAY) in decision.state.served
    assert decision.warnings == (Forbidden(HOST2, line.date(1 + 7 + 1), current=False),)


@pytest.mark.parametrize(
    ("state", "event", "reason", "hint"),
    [
        (None, ModeAsked(Mode.NONE), "is not published here", "list"),
        ("removed", RemovalAsked(), "is not published here", "list"),
        ("testing", Added(DOMAIN, TESTING), "is published already", "show example.com"),
        (
            "testing",
            ModeAsked(Mode.ENFORCE, ("mx1 has no STARTTLS", "more", "and more")),
            "cannot enforce yet: mx1 has no STARTTLS (and 2 more)",
            "--force REASON",
        ),
        ("none", ModeAsked(Mode.ENFORCE), "is in mode none", "mode example.com testing comes first"),
        ("leaving", ModeAsked(Mode.NONE), "is being removed", "mode example.com testing calls that off"),
        ("leaving", ModeAsked(Mode.ENFORCE), "is being removed", "mode example.com testing calls that off"),
        ("leaving", MaxAgeAsked(4 * WEEK), "is being removed", "mode example.com testing calls that off"),
        ("testing", MxAsked((), ()), "needs at least one MX host", ""),
    ],
)
def test_what_is_refused(state: str | None, event: Event, reason: str, hint: str) -> None:
    line = published()
    match state:
        case "removed":
            line.decision = replace(line.decision, state=replace(line.state, stage=Stage.REMOVED))
        case "none":
            line.happens(ModeAsked(Mode.NONE))
        case "leaving":
            line.happens(RemovalAsked())
    with pytest.raises(RefusedError) as caught:
        decide(line.state if state else None, event, START)
    assert str(caught.value) == reason
    assert caught.value.hint.endswith(hint)


def test_a_reason_is_kept_when_enforce_is_forced() -> None:
    forced = published().happens(ModeAsked(Mode.ENFORCE, ("a problem",), force="the MX is behind a firewall"))
    assert forced.publication.file == ENFORCE
    assert forced.changes == (Change("mode", "testing", "enforce", "forced: the MX is behind a firewall"),)


def test_it_is_kept_that_nobody_asked_for_mode_enforce() -> None:
    made = published().happens(ModeAsked(Mode.ENFORCE, auto=True))
    assert made.publication.file == ENFORCE
    assert made.changes == (Change("mode", "testing", "enforce", "auto"),)


def test_the_mode_that_it_has_already_changes_nothing() -> None:
    line = published(ENFORCE)
    before = line.state
    again = line.happens(ModeAsked(Mode.ENFORCE, ("a problem",)))
    assert (again.state, again.changes) == (before, ())


def test_an_mx_is_added_to_the_file_and_waits_for_max_age_before_it_is_in_dns() -> None:
    line = published(ENFORCE)
    line.days(3)
    asked = line.happens(MxAsked((MX1, MX2), (HOST1,)))
    assert asked.publication.file == WIDER
    assert asked.waits == (Wait("file"), Wait("add-mx", None, HOST2))
    assert asked.changes == (Change("mx", HOST1, f"{HOST1} {HOST2}"),)
    line.days(1)
    seen = line.looks()
    assert seen.waits == (Wait("add-mx", line.date(4 + 7 + 1), HOST2),)  # A week, and a day for clocks.
    assert line.days(7).waits == (Wait("add-mx", line.date(12), HOST2),)
    assert line.days(1).waits == ()
    assert line.days(1, (HOST1, HOST2)).warnings == ()


def test_an_mx_that_is_in_dns_first_is_told_of_until_the_last_copy_has_expired() -> None:
    line = published(ENFORCE)
    too_early = line.looks(hosts=(HOST1, HOST2))
    assert too_early.warnings == (Forbidden(HOST2, line.date(8), current=True),)
    asked = line.happens(MxAsked((MX1, MX2), (HOST1, HOST2)))
    assert asked.warnings == (Forbidden(HOST2, line.date(8), current=False),)
    assert asked.waits == (Wait("file"),)
    assert line.days(1, (HOST1, HOST2)).warnings == (Forbidden(HOST2, line.date(9), current=False),)
    assert line.days(7, (HOST1, HOST2)).warnings == (Forbidden(HOST2, line.date(9), current=False),)
    assert line.days(1, (HOST1, HOST2)).warnings == ()


def test_a_wildcard_allows_what_it_matches_and_no_more() -> None:
    line = published(Policy(Mode.ENFORCE, WEEK, (WILD,)))
    assert line.looks(hosts=(HOST1, HOST2)).warnings == ()
    assert [one.host for one in line.looks(hosts=("a.b.example.com",)).warnings] == ["a.b.example.com"]
    assert line.happens(MxAsked((WILD, MX1), (HOST1,))).waits == (Wait("file"),)


def test_a_wildcard_waits_also_if_dns_has_one_of_its_hosts() -> None:
    line = published(ENFORCE)
    line.happens(MxAsked((WILD,), (HOST1,)))
    line.looks()
    assert line.looks().waits == (Wait("add-mx", line.date(8), str(WILD)), Wait("drop-mx", line.date(2), HOST1))


def test_an_mx_that_dns_has_stays_in_the_policy_until_two_days_after_it_is_gone() -> None:
    line = published(WIDER)
    line.looks(hosts=(HOST1, HOST2))
    asked = line.happens(MxAsked((MX1,), (HOST1, HOST2)))
    assert (asked.publication.file, asked.waits) == (WIDER, (Wait("drop-mx", None, HOST2),))
    assert line.days(3, (HOST1, HOST2)).publication.file == WIDER
    assert line.days(1).waits == (Wait("drop-mx", line.date(6), HOST2),)
    assert line.days(1, (HOST1, HOST2)).waits == (Wait("drop-mx", None, HOST2),)  # It is back.
    assert line.days(2).publication.file == WIDER
    dropped = line.days(1)
    assert dropped.publication.file == ENFORCE
    assert dropped.changes == (Change("mx", HOST2, "", "not needed for two days"),)


def test_in_mode_enforce_an_mx_stays_also_if_dns_has_lost_it_meanwhile() -> None:
    line = published(WIDER)
    assert line.happens(MxAsked((MX1,), (HOST1,))).publication.file == WIDER


def test_an_mx_that_another_one_stands_for_leaves_the_policy_though_dns_has_its_hosts() -> None:
    line = published(Policy(Mode.ENFORCE, WEEK, (WILD,)))
    asked = line.happens(MxAsked((MX1,), (HOST1,)))
    assert asked.publication.file == Policy(Mode.ENFORCE, WEEK, (MX1, WILD))
    assert line.days(2).publication.file == Policy(Mode.ENFORCE, WEEK, (MX1, WILD))
    dropped = line.days(1)
    assert dropped.publication.file == ENFORCE
    assert dropped.changes == (Change("mx", str(WILD), "", "not needed for two days"),)


def test_mode_enforce_waits_until_no_resolver_has_an_mx_host_that_it_forbids() -> None:
    line = published()
    line.looks(hosts=(HOST2,))
    line.happens(MxAsked((MX2,), (HOST2,)))
    line.looks(hosts=(HOST2,))
    reason = f"the policy forbids the MX host {HOST1}, which DNS had less than two days ago"
    for day in (0.0, 1.9):
        line.day = day
        with pytest.raises(RefusedError) as refused:
            line.happens(ModeAsked(Mode.ENFORCE))
        assert str(refused.value) == f"cannot enforce yet: {reason}"
    line.looks()  # It began before the change.
    with pytest.raises(RefusedError):
        line.happens(ModeAsked(Mode.ENFORCE))
    line.looks(hosts=(HOST2,))
    line.day = 3.9
    line.looks(hosts=(HOST2,))
    assert line.happens(ModeAsked(Mode.ENFORCE)).publication.file == Policy(Mode.ENFORCE, WEEK, (MX2,))


@pytest.mark.parametrize("event", [MxAsked((MX1,), (HOST2,)), MxAsked((MX2,), (HOST2,))])
def test_each_event_that_names_the_mx_hosts_of_dns_is_remembered(event: MxAsked) -> None:
    line = Line(hosts=(HOST1,))
    line.happens(event)
    line.happens(MxAsked((MX2,), (HOST2,)))
    assert line.looks(hosts=(HOST2,)).state.left == (Left(HOST1, 0.0),)


def test_what_a_customer_may_have_us_remember_is_bounded() -> None:
    """He has his own policy host serve other policies, and DNS other MX hosts, at each check."""
    line = published(ENFORCE)
    for number in range(30):
        mx = tuple(MxPattern(f"mx{number}-{line_}.example.com") for line_ in range(100))
        files = (Policy(Mode.ENFORCE, 31_557_600, mx),)
        line.looks(hosts=tuple(f"h{number}-{host}.example.com" for host in range(50)), files=files)
    assert len(line.state.served) <= 20
    assert sum(len(one.policy.mx) for one in line.state.served) <= 1000
    assert len(line.state.left) == 100
    assert Served(ENFORCE) in line.state.served


def test_in_mode_testing_an_mx_that_dns_never_had_goes_at_once() -> None:
    line = published(replace(WIDER, mode=Mode.TESTING))
    assert line.happens(MxAsked((MX1,), (HOST1,))).publication.file == TESTING
    unknown = published(replace(WIDER, mode=Mode.TESTING)).happens(MxAsked((MX1,), None))
    assert unknown.publication.file == replace(WIDER, mode=Mode.TESTING)


def test_an_mx_that_is_wanted_again_parts_no_more() -> None:
    line = published(WIDER)
    line.happens(MxAsked((MX1,), (HOST1, HOST2)))
    again = line.happens(MxAsked((MX2, MX1), (HOST1, HOST2)))
    assert (again.publication.file, again.state.parting) == (replace(WIDER, mx=(MX2, MX1)), ())


def test_leaving_serves_none_until_the_largest_expiry_and_then_takes_one_thing_after_the_other() -> None:
    line = published(replace(ENFORCE, max_age=4 * WEEK))
    line.days(2)
    asked = line.happens(RemovalAsked())
    assert asked.publication.file == GOODBYE
    assert (asked.waits, asked.changes) == ((Wait("file"),), (Change("stage", "published", "leaving"),))
    seen = line.looks()
    assert seen.publication == Publication(GOODBYE, seen.state.id(), certificate=True)
    assert seen.waits == (Wait("expiry", line.date(2 + 28 + 1)),)
    assert line.days(28).state.stage is Stage.LEAVING
    expired = line.days(1)
    assert expired.publication == Publication(GOODBYE, None, certificate=True)
    assert (expired.waits, expired.changes) == ((Wait("no-record"),), (Change("stage", "leaving", "withdrawn"),))
    cached = line.looks(record=seen.state.id(), no_record=False)
    assert (cached.state.stage, cached.waits) == (Stage.WITHDRAWN, (Wait("no-record"),))
    gone = line.looks()
    assert gone.waits == (Wait("no-record", line.date(31 + 1 / 24)),)
    line.day += 1 / 24
    cleared = line.looks()
    assert (cleared.publication, cleared.waits) == (Publication(None, None, certificate=True), (Wait("no-file"),))
    assert line.looks(files=(GOODBYE,)).state.stage is Stage.CLEARED
    removed = line.looks()
    assert (removed.publication, removed.waits) == (Publication(None, None, certificate=False), ())
    assert removed.changes == (Change("stage", "cleared", "removed"),)


def test_the_largest_expiry_is_that_of_any_policy_ever_served() -> None:
    line = published(replace(ENFORCE, max_age=8 * WEEK))
    line.days(1)
    line.decision = replace(
        line.decision, state=replace(line.state, wanted=replace(line.state.wanted, max_age=WEEK), version=9)
    )
    line.happens(ModeAsked(Mode.TESTING))
    line.days(3)
    line.happens(RemovalAsked())
    assert line.looks().waits == (Wait("expiry", line.date(2 + 56 + 1)),)


def test_a_policy_that_is_served_again_lives_from_then_on() -> None:
    line = published(ENFORCE)
    line.happens(ModeAsked(Mode.TESTING))
    line.days(1)
    line.happens(ModeAsked(Mode.ENFORCE))
    line.days(5)
    line.happens(ModeAsked(Mode.TESTING))
    line.days(1)
    assert Served(ENFORCE, 7 * DAY) in line.state.served


def test_a_max_age_that_is_lowered_shortens_no_wait_before_the_copies_of_before_have_expired() -> None:
    line = published(replace(ENFORCE, max_age=4 * WEEK))
    line.days(2)
    record = line.state.record
    lowered = line.happens(MaxAgeAsked(WEEK))
    assert lowered.publication == Publication(ENFORCE, record, certificate=True)
    assert (lowered.waits, lowered.changes) == ((Wait("file"),), (Change("max_age", str(4 * WEEK), str(WEEK)),))
    assert line.happens(MaxAgeAsked(WEEK)).changes == ()
    line.looks()
    asked = line.happens(MxAsked((MX1, MX2), (HOST1,)))
    assert asked.waits == (Wait("file"), Wait("add-mx", None, HOST2))
    assert line.looks().waits == (Wait("record"), Wait("add-mx", line.date(2 + 28 + 1), HOST2))
    line.days(29)
    line.happens(RemovalAsked())
    assert line.looks().waits == (Wait("expiry", line.date(31 + 7 + 1)),)


def test_a_max_age_that_is_raised_counts_from_the_first_file_that_has_it() -> None:
    line = published(ENFORCE)
    line.happens(MaxAgeAsked(4 * WEEK))
    line.happens(RemovalAsked())  # Nobody has looked, but the file was there.
    assert line.looks().waits == (Wait("expiry", line.date(28 + 1)),)


def test_a_removal_can_be_called_off_at_any_stage() -> None:
    line = published()
    line.happens(RemovalAsked())
    line.days(9)
    line.looks()
    assert line.state.stage is Stage.WITHDRAWN
    back = line.happens(ModeAsked(Mode.TESTING))
    assert (back.publication, back.waits) == (Publication(TESTING, None, certificate=True), (Wait("file"),))
    assert back.changes == (Change("mode", "testing, withdrawn", "testing"),)


def test_a_domain_that_no_sender_ever_found_is_removed_at_once() -> None:
    line = Line()
    line.looks(files=(), all_serve=False)
    asked = line.happens(RemovalAsked())
    assert asked.publication == Publication(None, None, certificate=True)
    assert line.looks().state.stage is Stage.REMOVED


@pytest.mark.parametrize(
    "line", [Line(found=ENFORCE, findable=True), Line(findable=True), Line()], ids=["policy", "record", "never-seen"]
)
def test_a_domain_that_a_sender_may_have_found_is_not_removed_at_once(line: Line) -> None:
    if not line.state.findable:
        line.looks(record="else", no_record=False, files=(), all_serve=False)
    assert line.happens(RemovalAsked()).state.stage is Stage.LEAVING


def test_who_has_taken_the_policy_host_away_need_not_wait_to_be_seen() -> None:
    line = published()
    line.happens(RemovalAsked())
    away = line.looks(files=(), all_serve=False, points_here=False)
    assert away.waits == (Wait("expiry", line.date(8)),)
    unknown = published()
    unknown.happens(RemovalAsked())
    assert unknown.looks(files=(), all_serve=False, points_here=None).waits == (Wait("file"),)


def test_the_policy_of_somebody_else_is_waited_for() -> None:
    line = Line(found=replace(ENFORCE, mx=(MX2,)), findable=True)
    assert line.decision.changes == (
        Change("added", "somebody else's policy in mode enforce", "mode testing, mx mx1.example.com"),
    )
    assert line.looks().warnings == (Forbidden(HOST1, line.date(8), current=False),)
    assert line.days(9).warnings == ()


@pytest.mark.parametrize("jump", [-400 * DAY, -3600.0, 4 * DAY, 3650 * DAY])
def test_a_clock_that_jumps_brings_no_date_nearer(jump: float) -> None:
    line = published(ENFORCE)
    line.happens(RemovalAsked())
    line.looks()
    line.day += jump / DAY
    after = line.looks()
    assert after.state.stage is Stage.LEAVING
    assert after.waits == (Wait("expiry", line.date(line.day + 8)),)
    assert line.days(7).state.stage is Stage.LEAVING
    assert line.days(1).state.stage is Stage.WITHDRAWN


def test_a_removed_domain_can_be_added_again_and_forgets_nothing() -> None:
    line = published(ENFORCE)
    line.decision = replace(line.decision, state=replace(line.state, stage=Stage.REMOVED))
    again = line.happens(Added(DOMAIN, replace(TESTING, mx=(MX2,))))
    assert Served(ENFORCE) in again.state.served
    assert again.state.version > 0
