"""What must hold in whatever order things happen, also if power fails between two steps and the clock jumps.

The world here shares no code with the rules: a file that is served, a record in DNS, MX hosts, and senders of all kinds
at once. What any sender can have in its cache is known from when each policy could last be fetched, in true time.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from postfix_mtasts.publish.events import (
    Added,
    Decision,
    Event,
    Looked,
    MaxAgeAsked,
    ModeAsked,
    MxAsked,
    RefusedError,
    RemovalAsked,
)
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.state import Stage, State, body
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

HOUR, DAY = 3600.0, 86_400.0
DOMAIN = PolicyDomain("example.com")
HOSTS = ["mx1.example.com", "mx2.example.com", "mx3.example.net"]
MX = [MxPattern(host) for host in [*HOSTS, "*.example.com"]]
# The machine's clock is wrong by one of these. They differ by more than rules.MAX_GAP: a smaller jump is not noticed.
WRONG = [0.0, -400 * DAY, 10 * DAY, 3650 * DAY]
SLIPS = DAY - HOUR  # Seconds by which small corrections may set the clock forward, in sum: less than state.MARGIN.

some_mx = st.lists(st.sampled_from(MX), min_size=1, max_size=3, unique=True).map(tuple)
some_hosts = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2, unique=True)
ages = st.sampled_from([0, 3600, 604_800, 2_592_000])


class World(RuleBasedStateMachine):
    """One domain, from outside and from inside."""

    @initialize(
        obedient=st.booleans(),
        mx=some_mx,
        age=ages,
        hosts=some_hosts,
        found=st.none() | ages,
        mode=st.none() | st.sampled_from([Mode.TESTING, Mode.ENFORCE]),
        leaves=st.booleans(),
    )
    def begin(
        self,
        obedient: bool,
        mx: tuple[MxPattern, ...],
        age: int,
        hosts: list[str],
        found: int | None,
        mode: Mode | None,
        leaves: bool,
    ) -> None:
        """The domain is added. Much happens only to one that has come far, so it may have come far already."""
        self.time, self.wrong, self.slipped = 1_700_000_000.0, 0.0, 0.0
        self.obedient = obedient  # The administrator changes MX records only when nothing says to wait.
        self.hosts, self.left = set(hosts), dict[str, float]()
        self.file: Policy | None = None  # What the policy host serves.
        self.record: str | None = None  # The id in DNS.
        self.record_gone_at = self.time
        self.points, self.up, self.well = True, True, True
        self.fetched: dict[Policy, float] = {}  # When each policy could be fetched for the last time.
        self.may_enforce = self.forced = False
        self.under: dict[tuple[Policy, str], float] = {}  # The same, with the id that DNS had.
        self.ids: dict[str, bytes] = {}
        self.seen: set[Policy] = set()  # The files that a look has seen.
        self.looks: list[Looked] = []
        self.told_of = set(hosts)  # The MX hosts that an event has named, for what nobody has seen cannot be known.
        self.state: State | None = None
        elsewhere = None
        if found is not None:
            elsewhere = Policy(Mode.ENFORCE, found, tuple(MxPattern(host) for host in hosts))
            self.fetched[elsewhere] = self.time
        policy = Policy(Mode.TESTING, age, mx)
        self._decide(Added(DOMAIN, policy, elsewhere, findable=bool(elsewhere), hosts=tuple(sorted(hosts))))
        if mode:
            self.days_pass_as_usual(1)
        if mode is Mode.ENFORCE:
            self.ask_mode(mode, "")
            self.days_pass_as_usual(1)
        if mode and leaves:
            self.ask_removal()

    def _now(self) -> float:
        return self.time + self.wrong + self.slipped

    def _decide(self, event: Event) -> Decision:
        before = follows(self.state).publication if self.state else None
        decision = decide(self.state, event, self._now())
        self.state = decision.state
        after = decision.publication
        assert follows(self.state) == Decision(self.state, after, decision.waits, decision.warnings), (
            "what follows is not a matter of the state alone"
        )
        if before and after.record and after.record != before.record:
            assert self.file is not None
            assert self.file in self.seen, "a record announces a file that nobody has seen"
            text = body(self.file)
            assert self.ids.setdefault(after.record, text) == text, "an id announces another file than before"
        if before and ((before.record and not after.record) or (before.file and not after.file)):
            late = [one for one, at in self.fetched.items() if one.mode is not Mode.NONE and self._is_live(one, at)]
            assert late == [], "removed before the largest expiry"
        return decision

    def _served(self) -> bool:
        return self.file is not None and self.points and self.up

    def _is_live(self, policy: Policy, at: float) -> bool:
        return self.time <= at + policy.max_age

    def _cached(self) -> list[Policy]:
        return [policy for policy, at in self.fetched.items() if self._is_live(policy, at)]

    def _cached_enforce(self) -> bool:
        return any(policy.mode is Mode.ENFORCE for policy in self._cached())

    def _fetch(self) -> None:
        if self._served() and self.record and self.file:
            self.fetched[self.file] = self.under[self.file, self.record] = self.time

    def _write_file(self) -> None:
        assert self.state
        wanted = follows(self.state).publication.file
        if wanted != self.file:
            self._fetch()
            self.file = wanted
        self._fetch()

    def _problems(self) -> tuple[str, ...]:
        assert self.state
        policy = self.state.file()
        mx = policy.mx if policy else ()
        uncovered = [host for host in sorted(self.hosts) if not any(one.matches(host) for one in mx)]
        return (*uncovered, *(() if self.well else ("certificate has expired",)))

    def _look(self) -> Looked:
        assert self.state
        files = (self.file,) if self._served() and self.file else ()
        self.seen.update(files)
        return Looked(
            self.state.version,
            files,
            bool(files),
            self.record,
            self.record is None,
            tuple(sorted(self.hosts)),
            self.points,
            self._problems(),
        )

    def _looked(self, event: Looked) -> None:
        assert self.state
        if self.state.stage is Stage.REMOVED:
            return
        decision = self._decide(event)
        self.told_of |= set(event.hosts or ())
        warned = {one.host for one in decision.warnings}
        for policy in self._cached():
            if policy.mode is Mode.ENFORCE:
                refused = {host for host in event.hosts or () if not any(mx.matches(host) for mx in policy.mx)}
                assert refused <= warned, "senders deliver nothing to a host, and there is no warning"

    # What the administrator does. Nothing is published by these: power fails after each.

    @rule(mode=st.sampled_from(Mode), force=st.sampled_from(["", "", "it is fine"]))
    def ask_mode(self, mode: Mode, force: str) -> None:
        assert self.state
        if self.state.stage is Stage.REMOVED:
            return
        problems = self._problems()
        was = self.state.wanted.mode
        try:
            decision = self._decide(ModeAsked(mode, problems, force))
        except RefusedError:
            assert mode is not Mode.TESTING
            return
        if mode is Mode.ENFORCE and was is not Mode.ENFORCE:
            assert not problems or any(change.why == f"forced: {force}" for change in decision.changes)
            self.may_enforce = not problems or bool(force)
            self.forced |= bool(force)
        if mode is not Mode.ENFORCE:
            self.may_enforce = False

    @rule(mx=some_mx, knows=st.booleans())
    def ask_mx(self, mx: tuple[MxPattern, ...], knows: bool) -> None:
        if self.state and self.state.stage is not Stage.REMOVED:
            self._decide(MxAsked(mx, tuple(sorted(self.hosts)) if knows else None))
            self.told_of |= self.hosts if knows else set()

    @rule(age=ages)
    def ask_max_age(self, age: int) -> None:
        if self.state and self.state.stage is Stage.PUBLISHED:
            self._decide(MaxAgeAsked(age))

    @rule()
    def ask_removal(self) -> None:
        if self.state and self.state.stage is not Stage.REMOVED:
            self._decide(RemovalAsked())

    @precondition(lambda self: self.state and self.state.stage is Stage.REMOVED)
    @rule(mx=some_mx, age=ages)
    def add_again(self, mx: tuple[MxPattern, ...], age: int) -> None:
        self.may_enforce = False
        self._decide(Added(DOMAIN, Policy(Mode.TESTING, age, mx), hosts=tuple(sorted(self.hosts))))
        self.told_of |= self.hosts

    @rule(host=st.sampled_from(HOSTS))
    def add_to_dns(self, host: str) -> None:
        assert self.state
        waits = {wait.host for wait in follows(self.state).waits if wait.kind == "add-mx"}
        allowed = [mx for mx in self.state.wanted.mx if mx.matches(host) and str(mx) not in waits]
        if not self.obedient or (self.state.stage is Stage.PUBLISHED and allowed):
            if host not in self.hosts:
                self.told_of.discard(host)
            self.hosts.add(host)
            self.left.pop(host, None)

    @rule(host=st.sampled_from(HOSTS))
    def take_out_of_dns(self, host: str) -> None:
        assert self.state
        if len(self.hosts) > 1 and host in self.hosts:
            self.hosts.remove(host)
            if host in self.told_of:
                self.left[host] = self.time

    @precondition(lambda self: self.state and self.state.stage is Stage.PUBLISHED)
    @rule(host=st.sampled_from(HOSTS))
    def mail_moves_before_the_policy_enforces(self, host: str) -> None:
        """All on one day, and in the order that comes to mind first."""
        assert self.state
        if self.state.wanted.mode is not Mode.TESTING or self._cached_enforce():
            return
        self.look()
        self.add_to_dns(host)
        for other in self.hosts - {host}:
            self.take_out_of_dns(other)
        self.look()
        self.ask_mx((MxPattern(host),), knows=True)
        self.look()
        self.ask_mode(Mode.ENFORCE, "")
        for _ in range(2):
            self.look()
            self.publish()

    # What is done for him.

    @rule()
    def publish(self) -> None:
        assert self.state
        self._write_file()
        wanted = follows(self.state).publication
        if wanted.record is None and self.record is not None:
            self.record_gone_at = self.time
        self.record = wanted.record
        self._fetch()

    @rule()
    def look(self) -> None:
        self._write_file()
        self._looked(self._look())

    @rule()
    def begin_to_look(self) -> None:
        self._write_file()
        self.looks.append(self._look())

    @precondition(lambda self: self.looks)
    @rule()
    def end_of_a_look(self) -> None:
        self._looked(self.looks.pop())

    @rule(days=st.integers(1, 40))
    def days_pass_as_usual(self, days: int) -> None:
        for _ in range(days):
            self.publish()
            self.look()
            self.publish()
            self._pass(DAY)

    # What happens to all.

    @rule(span=st.sampled_from([60.0, HOUR, 5 * HOUR, DAY, 2 * DAY, 8 * DAY, 40 * DAY]))
    def time_passes(self, span: float) -> None:
        self._pass(span)

    def _pass(self, span: float) -> None:
        self._fetch()
        self.time += span
        self._fetch()

    @rule(wrong=st.sampled_from(WRONG))
    def the_clock_jumps(self, wrong: float) -> None:
        self.wrong = wrong

    @rule(by=st.sampled_from([-5 * HOUR, HOUR, 12 * HOUR]))
    def the_clock_is_corrected(self, by: float) -> None:
        if by < 0 or self.slipped + by <= SLIPS:
            self.slipped += max(by, 0.0)

    @rule(up=st.booleans(), points=st.booleans(), well=st.booleans())
    def something_breaks(self, up: bool, points: bool, well: bool) -> None:
        self._fetch()
        self.up, self.points, self.well = up, points, well
        self._fetch()

    @invariant()
    def mode_enforce_has_a_reason(self) -> None:
        policy = self.state.file() if self.state else None
        if policy and policy.mode is Mode.ENFORCE:
            assert self.may_enforce, "enforce without a clean check or a forced reason"

    @invariant()
    def the_file_outlives_the_record(self) -> None:
        if self.state and self.state.stage in (Stage.CLEARED, Stage.REMOVED) and self.points:
            assert self.record is None or self.state.record is None

    @invariant()
    def senders_learn_of_each_change(self) -> None:
        """Once a record announces the file, who has another one sees another id."""
        if self.state and self.record and self.record == self.state.id() and self.file == self.state.file():
            for (policy, record), at in self.under.items():
                learns = record != self.record or policy == self.file
                assert learns or not self._is_live(policy, at), "a sender sees the id that it has, of another file"

    @invariant()
    def senders_refuse_no_good_mail(self) -> None:
        if self.state and self.obedient and not self.forced:
            lately = {host for host, at in self.left.items() if self.time <= at + DAY}
            for policy in self._cached():
                for host in self.hosts | lately:
                    fine = policy.mode is not Mode.ENFORCE or any(mx.matches(host) for mx in policy.mx)
                    assert fine, f"mail to {host} is refused"


def test_whatever_happens_in_any_order() -> None:
    run_state_machine_as_test(
        World, settings=settings(max_examples=2 * settings().max_examples, stateful_step_count=50)
    )
