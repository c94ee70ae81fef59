"""The life of a published policy: what an event changes, what is to be published then, and what has to be waited for.

    decide(state, event, now) -> Decision(state, publication, waits, warnings, changes)

An administrator asks (`Added`, `ModeAsked`, `MxAsked`, `MaxAgeAsked`, `RemovalAsked`), and a check from outside tells
what senders see (`Looked`). What is to be published follows from the state alone. So the caller first stores the state
and then publishes, and if power fails between the two, it publishes again. All rules stand here:

- The file comes first. A record announces a file only after every address of the policy host was seen to serve it, so
  that no sender reads a new id and caches the old file (RFC 8461, 8.1).
- Every policy that was ever served is remembered until the last copy in a cache has expired. An MX host that one of
  them forbids must not be added to DNS before that, and there is a warning if DNS has it.
- An mx that is not wanted any more stays in the file until it has been gone from DNS for PARTING_AFTER.
- Mode enforce needs a clean check, or a reason. It must not forbid an MX host that DNS had until lately either, because
  resolvers may have it still.
- To leave, mode none is served, until all other policies have expired (RFC 8461, 8.3). Then the record goes, then the
  file, then the right to a certificate.
- A clock that jumps brings no date nearer (`state.Clock`).
"""

from dataclasses import replace

from postfix_mtasts.publish.events import (
    Added,
    Change,
    Decision,
    Event,
    Looked,
    MaxAgeAsked,
    ModeAsked,
    MxAsked,
    RefusedError,
    RemovalAsked,
)
from postfix_mtasts.publish.follows import expiry, follows, forbidden_but_cached
from postfix_mtasts.publish.state import (
    PARTING_AFTER,
    RECORD_GONE_FOR,
    Checked,
    Clock,
    Left,
    Parting,
    Served,
    Stage,
    State,
)
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

_MAX_PROBLEMS = 20  # Of a check, that are kept.
_MAX_CERTIFICATES = 20  # The same.
# Of policies, and of their mx lines, up to which those of somebody else are remembered. A customer may have his own
# policy host serve another one at each check. One that is not remembered can only harm his own mail.
_MAX_SERVED = 20
_MAX_SERVED_MX = 1000
_MAX_LEFT = 100  # MX hosts that DNS had until lately: its owner may have others at each check.


def decide(state: State | None, event: Event, now: float) -> Decision:
    """What follows from an event at the time `now`. `state` is None for a new domain. Raises RefusedError."""
    if isinstance(event, Added):
        after, changes = _added(state, event, now)
        return follows(_serving(after), changes)
    if not state or state.stage is Stage.REMOVED:
        raise RefusedError("is not published here", "postfix-mtasts-publish list")
    state = replace(state, clock=state.clock.advanced(now))
    match event:
        case ModeAsked():
            after, changes = _mode_asked(state, event)
        case MxAsked():
            after, changes = _mx_asked(state, event)
        case MaxAgeAsked():
            after, changes = _max_age_asked(state, event)
        case RemovalAsked():
            after, changes = _removal_asked(state)
        case Looked():
            after, changes = _looked(state, event)
    return follows(_serving(after, since=state), changes)


def _added(state: State | None, event: Added, now: float) -> tuple[State, tuple[Change, ...]]:
    if state and state.stage is not Stage.REMOVED:
        raise RefusedError("is published already", f"postfix-mtasts-publish show {event.domain}")
    clock = state.clock.advanced(now) if state else Clock(0.0, now)
    served = state.served if state else ()
    if event.found:
        served = _open(served, event.found)
    version = state.version if state else 0
    made = State(event.domain, event.policy, clock, served=served, version=version, findable=event.findable)
    if state:
        made = replace(made, hosts=state.hosts, left=state.left)
    made = _with_hosts(made, event.hosts)
    before = f"somebody else's policy in mode {event.found.mode.value}" if event.found else ""
    return made, (Change("added", before, f"mode {event.policy.mode.value}, mx {_names(event.policy.mx)}"),)


def _mode_asked(state: State, event: ModeAsked) -> tuple[State, tuple[Change, ...]]:
    before = state.wanted.mode
    if state.stage is not Stage.PUBLISHED and event.mode is not Mode.TESTING:
        raise RefusedError(*_removing(state))
    if event.mode is before and state.stage is Stage.PUBLISHED:
        return state, ()
    if event.mode is Mode.ENFORCE:
        if before is not Mode.TESTING:  # In mode none nobody judges the MX hosts.
            raise RefusedError("is in mode none", f"postfix-mtasts-publish mode {state.domain} testing comes first")
        problems = event.problems or tuple(map(_still_cached, forbidden_but_cached(state)))
        if problems and not event.force:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            hint = f"mend that, or postfix-mtasts-publish mode {state.domain} enforce --force REASON"
            raise RefusedError(f"cannot enforce yet: {problems[0]}{more}", hint)
    was = before.value if state.stage is Stage.PUBLISHED else f"{before.value}, {state.stage.value}"
    why = f"forced: {event.force}" if event.force else "auto" if event.auto else ""
    wanted = replace(state.wanted, mode=event.mode)
    return replace(state, wanted=wanted, stage=Stage.PUBLISHED), (Change("mode", was, event.mode.value, why),)


def _mx_asked(state: State, event: MxAsked) -> tuple[State, tuple[Change, ...]]:
    if not event.mx:
        raise RefusedError("needs at least one MX host")
    had = (*state.wanted.mx, *(one.mx for one in state.parting))
    if event.mx == state.wanted.mx:
        return _with_hosts(state, event.hosts), ()
    enforced = state.wanted.mode is Mode.ENFORCE or event.hosts is None
    hosts = (*state.hosts, *(event.hosts or ()))
    known = {one.mx: one for one in state.parting}
    parting = tuple(
        known.get(mx, Parting(mx))
        for mx in dict.fromkeys(had)
        if mx not in event.mx and (enforced or mx in known or any(mx.matches(host) for host in hosts))
    )
    wanted = replace(state.wanted, mx=event.mx)
    change = Change("mx", _names(state.wanted.mx), _names(event.mx))
    return replace(_with_hosts(state, event.hosts), wanted=wanted, parting=parting), (change,)


def _max_age_asked(state: State, event: MaxAgeAsked) -> tuple[State, tuple[Change, ...]]:
    """Senders that have the policy of before keep it for as long as that said, so it stays among those served."""
    if state.stage is not Stage.PUBLISHED:
        raise RefusedError(*_removing(state))
    before = state.wanted.max_age
    if event.max_age == before:
        return state, ()
    change = Change("max_age", str(before), str(event.max_age))
    return replace(state, wanted=replace(state.wanted, max_age=event.max_age)), (change,)


def _removal_asked(state: State) -> tuple[State, tuple[Change, ...]]:
    if state.stage is not Stage.PUBLISHED:
        return state, ()
    if state.findable:
        return _to(state, Stage.LEAVING)
    return _to(replace(state, served=()), Stage.CLEARED)  # No sender has anything.


def _looked(state: State, event: Looked) -> tuple[State, tuple[Change, ...]]:
    counted = state.clock.counted
    problems = tuple(problem for problem in event.problems[:_MAX_PROBLEMS])
    here = state.points_here if event.points_here is None else event.points_here
    findable = state.findable or not event.no_record
    checked = Checked(counted, problems, event.certificates[:_MAX_CERTIFICATES])
    state = replace(state, checked=checked, points_here=here, findable=findable)
    changes: tuple[Change, ...] = ()
    if event.version == state.version:
        state, changes = _files_seen(state, event)
    state = replace(state, known=state.record is not None and event.record == state.record)
    if event.hosts is not None:
        state, dropped = _hosts_seen(state, event.hosts)
        changes += dropped
    state, stages = _next_stage(state, event)
    return state, changes + stages


def _next_stage(state: State, event: Looked) -> tuple[State, tuple[Change, ...]]:
    """The next stage of a removal, if it is time."""
    counted = state.clock.counted
    match state.stage:
        case Stage.LEAVING:
            last = expiry(state)
            if last is not None and last <= counted:
                return _to(replace(state, record=None, known=False, record_gone_since=None), Stage.WITHDRAWN)
        case Stage.WITHDRAWN:
            since = counted if state.record_gone_since is None else state.record_gone_since
            is_gone = event.no_record or (event.points_here is False and state.file() not in event.files)
            if is_gone and since + RECORD_GONE_FOR <= counted:
                return _to(state, Stage.CLEARED)
            return replace(state, record_gone_since=since if is_gone else None), ()
        case Stage.CLEARED if not event.files or event.points_here is False:
            return _to(state, Stage.REMOVED)
    return state, ()


def _files_seen(state: State, event: Looked) -> tuple[State, tuple[Change, ...]]:
    """What follows from the files that the policy host serves."""
    counted, file = state.clock.counted, state.file()
    served = state.served
    for policy in event.files:  # One that is not ours was put there by hand. Senders may have it all the same.
        known = any(one.policy == policy for one in served)
        lines = sum(len(one.policy.mx) for one in served) + len(policy.mx)
        if known or (len(served) < _MAX_SERVED and lines <= _MAX_SERVED_MX):
            served = _open(served, policy)
    right = event.files == (file,) and event.all_serve
    # Who leaves may have taken the policy host away from us already. Then nothing of ours is served any more.
    if right or (state.stage is Stage.LEAVING and event.points_here is False):
        served = tuple(replace(one, until=counted) if one.until is None else one for one in served)
    state = replace(state, served=tuple(one for one in served if one.until is None or counted < one.expires(counted)))
    if not right or file is None or state.record == state.id() or state.stage is Stage.WITHDRAWN:
        return state, ()
    change = Change("record", state.record or "", state.id() or "")
    return replace(state, record=state.id(), announced_at=counted, findable=True), (change,)


def _hosts_seen(state: State, hosts: tuple[str, ...]) -> tuple[State, tuple[Change, ...]]:
    """What follows from the MX hosts in DNS: an mx that has been gone for long enough leaves the policy.

    A host for which another mx stands does not need it.
    """
    counted = state.clock.counted
    others = [host for host in hosts if not any(mx.matches(host) for mx in state.wanted.mx)]
    parting: list[Parting] = []
    gone: list[MxPattern] = []
    for one in state.parting:
        if any(one.mx.matches(host) for host in others):
            parting.append(replace(one, gone_since=None))
        elif one.gone_since is None or counted < one.gone_since + PARTING_AFTER:
            parting.append(replace(one, gone_since=counted if one.gone_since is None else one.gone_since))
        else:
            gone.append(one.mx)
    changes = (Change("mx", _names(tuple(gone)), "", "not needed for two days"),) if gone else ()
    return replace(_with_hosts(state, hosts), parting=tuple(parting)), changes


def _with_hosts(state: State, hosts: tuple[str, ...] | None) -> State:
    """The same, with the MX hosts that DNS has now, if they are known, and those that it had until lately."""
    if hosts is None:
        return state
    counted = state.clock.counted
    since = {one.host: one.since for one in state.left} | dict.fromkeys(set(state.hosts), counted)
    left = (Left(host, at) for host, at in since.items() if host not in hosts and counted < at + PARTING_AFTER)
    return replace(state, hosts=hosts, left=tuple(sorted(left, key=lambda one: (one.since, one.host))[-_MAX_LEFT:]))


def _to(state: State, stage: Stage) -> tuple[State, tuple[Change, ...]]:
    return replace(state, stage=stage), (Change("stage", state.stage.value, stage.value),)


def _serving(after: State, since: State | None = None) -> State:
    """The same, with the file among what senders may have. It is there before the file is written."""
    file = after.file()
    if since is None or file != since.file():
        version = after.version + 1
        after = replace(after, version=version, salt=version if after.served else 0)
    return after if file is None else replace(after, served=_open(after.served, file))


def _open(served: tuple[Served, ...], policy: Policy) -> tuple[Served, ...]:
    """The same, with a policy that may be served from now on."""
    return (*(one for one in served if one.policy != policy), Served(policy))


def _removing(state: State) -> tuple[str, str]:
    return "is being removed", f"postfix-mtasts-publish mode {state.domain} testing calls that off"


def _still_cached(host: str) -> str:
    return f"the policy forbids the MX host {host}, which DNS had less than two days ago"


def _names(mx: tuple[MxPattern, ...]) -> str:
    return " ".join(map(str, mx))
