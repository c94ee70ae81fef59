"""What follows from the state of a domain: what is to be published, waited for, and warned of."""

from collections.abc import Iterator

from postfix_mtasts.publish.events import Change, Decision, Forbidden, Publication, Wait
from postfix_mtasts.publish.state import PARTING_AFTER, RECORD_GONE_FOR, Served, Stage, State
from postfix_mtasts.sts.policy import Mode, MxPattern


def follows(state: State, changes: tuple[Change, ...] = ()) -> Decision:
    """What follows from a state, as of its last event."""
    gone = state.stage in (Stage.CLEARED, Stage.REMOVED)
    certificate = state.stage is not Stage.REMOVED and state.points_here
    publication = Publication(state.file(), state.record, certificate)
    warnings = () if gone else tuple(_forbidden(state))
    return Decision(state, publication, tuple(_waits(state)), warnings, changes)


def expiry(state: State) -> float | None:
    """When all policies but those of mode none have expired, by the state's clock; None: one is served still."""
    others = [one for one in state.served if one.policy.mode.checks_hosts]
    if any(one.until is None for one in others):
        return None
    return max((one.expires(state.clock.counted) for one in others), default=state.clock.counted)


def forbidden_but_cached(state: State) -> tuple[str, ...]:
    """The MX hosts that DNS has or had lately, so that resolvers may have them, and that the policy does not allow."""
    file = state.file()
    hosts = (*state.hosts, *(one.host for one in state.left))
    return tuple(host for host in hosts if file and not any(mx.matches(host) for mx in file.mx))


def _forbidden(state: State) -> Iterator[Forbidden]:
    counted = state.clock.counted
    for host in state.hosts:
        until = [one.expires(counted) for one in state.served if one.forbids(host) and counted < one.expires(counted)]
        if until:
            file = state.file()
            current = file is not None and Served(file).forbids(host)
            yield Forbidden(host, state.clock.date(max(until)), current)


def _waits(state: State) -> Iterator[Wait]:
    clock = state.clock
    match state.stage:
        case Stage.PUBLISHED if state.record != state.id():
            yield Wait("file")
        case Stage.PUBLISHED if not state.known:
            yield Wait("record")
        case Stage.LEAVING:
            last = expiry(state)
            yield Wait("file") if last is None else Wait("expiry", clock.date(last))
        case Stage.WITHDRAWN:
            since = state.record_gone_since
            yield Wait("no-record", None if since is None else clock.date(since + RECORD_GONE_FOR))
        case Stage.CLEARED:
            yield Wait("no-file")
    if state.stage is not Stage.PUBLISHED:
        return
    for mx in state.wanted.mx:
        allowed = may_be_in_dns(state, mx)
        if allowed != clock.counted and str(mx) not in state.hosts:
            yield Wait("add-mx", None if allowed is None else clock.date(allowed), str(mx))
    for one in state.parting:
        until = None if one.gone_since is None else clock.date(one.gone_since + PARTING_AFTER)
        yield Wait("drop-mx", until, str(one.mx))


def may_be_in_dns(state: State, mx: MxPattern) -> float | None:
    """From when the MX hosts of a pattern may be in DNS, by the state's clock: now, later, or None if not known yet."""
    others = [one for one in state.served if one.policy.mode is Mode.ENFORCE and mx not in one.policy.mx]
    others = [one for one in others if "*" in str(mx) or one.forbids(str(mx))]
    if any(one.until is None for one in others):
        return None
    counted = state.clock.counted
    return max((one.expires(counted) for one in others if counted < one.expires(counted)), default=counted)
