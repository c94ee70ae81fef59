"""What the daemon may answer, by what the world has told it. This shares no code with the daemon.

Each fetch of a policy is served with an MX host of its own. So an answer with a policy tells from which fetch it comes,
and everybody who asks later knows that the daemon has this one. Times are in seconds since the epoch.
"""

import math
import re
from dataclasses import dataclass, field

ANSWER_WITHIN = 10.0  # Seconds; later than that, Postfix is told "not found" while the discovery goes on.
GRACE = 15.0  # Seconds from when the world has spoken to when the daemon, on a busy machine, has surely taken it in.
_CHECK_AFTER = 300.0  # A record is looked up again after so many seconds, when the domain is asked for.
_BELIEF = 60.0, 3600.0  # "No policy" is believed for at least and at most so long, whatever the TTL.
_BACK_OFF = 300.0, 1080.0, 4320.0, 25920.0  # After the first, second … failed fetch; with the jitter.
_POLICY = re.compile(r"OK secure match=s(\d+)\.(\S+) servername=hostname")


@dataclass(slots=True)
class Served:
    """A policy that a policy host has served over good TLS, and when an answer first had it."""

    serial: int
    at: float
    mode: str
    max_age: int
    record_id: str
    seen: float = math.inf

    def known_by(self) -> float:
        """When the daemon surely had it."""
        return min(self.seen, self.at + GRACE)


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt to fetch that came to nothing."""

    at: float
    record_id: str


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A query for the record, answered with an id, or with something that means no policy for `ttl` seconds."""

    at: float
    record_id: str | None
    ttl: float = 0.0


@dataclass(slots=True)
class Past:
    """All that the world has told the daemon of a domain, in order. The servers write it before they answer."""

    domain: str
    served: list[Served] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    looked_up: list[LookedUp] = field(default_factory=list)
    overdue: float = math.inf  # Since when the record should have been looked up again.

    def record_id(self) -> str:
        """The id that the daemon has seen last."""
        return next((one.record_id for one in reversed(self.looked_up) if one.record_id), "")


def judge(past: Past, asked: float, answered: float, reply: str) -> tuple[str, str]:
    """The kind of a reply, and what is wrong with it, which is "" if it was allowed at some moment in between."""
    if reply == "NOTFOUND ":
        if answered - asked >= ANSWER_WITHIN:
            return "not found, late", _too_weak(past, asked, answered)
        return "not found", _too_weak(past, asked, answered) or _unfounded(past, asked, answered)
    match = _POLICY.fullmatch(reply)
    if not match:
        return "other", f"neither a policy nor NOTFOUND: {reply}"
    if match[2] != past.domain:
        return "policy", f"the policy of {match[2]}"
    one = next((one for one in past.served if one.serial == int(match[1])), None)
    if one is None or one.mode != "enforce" or one.at > answered:
        return "policy", f"a policy that was never served, {match[1]}"
    one.seen = min(one.seen, answered)
    return "policy", _outlived(past, one, asked) or _not_looked_up(past, one, asked)


def _outlived(past: Past, one: Served, asked: float) -> str:
    if asked > one.known_by() + one.max_age:
        return f"policy {one.serial} had expired"
    newer = next((other for other in past.served if other.serial > one.serial and other.known_by() < asked), None)
    return f"policy {one.serial} had been replaced by {newer.serial}" if newer else ""


def _not_looked_up(past: Past, one: Served, asked: float) -> str:
    """A live policy is answered at once, and its record is looked up behind the answer."""
    last = past.looked_up[-1]
    past.overdue = min(past.overdue, asked) if asked > last.at + GRACE + _CHECK_AFTER else math.inf
    if asked > past.overdue + GRACE:
        return f"the record was last looked up at {last.at:.3f}"
    is_new = last.record_id not in {None, one.record_id} and one.at < last.at < asked - GRACE
    tried = any(other.at > last.at for other in past.served) or any(
        other.at > last.at or other.record_id == last.record_id for other in past.failed
    )
    return f"id {last.record_id} was seen, but no policy was fetched for it" if is_new and not tried else ""


def _too_weak(past: Past, asked: float, answered: float) -> str:
    """The daemon had an enforced policy, and whatever may have replaced it was enforced and alive too."""
    told = [one for one in past.served if one.at <= answered]
    had = max((place for place, one in enumerate(told) if one.known_by() < asked), default=len(told))
    if had == len(told) or not all(one.mode == "enforce" and answered <= one.at + one.max_age for one in told[had:]):
        return ""
    return f"weaker than the live policy {told[had].serial}"


def _unfounded(past: Past, asked: float, answered: float) -> str:
    """Without a policy, there is a reason that is still believed, and that no policy has come after."""
    since = max((one.at for one in past.served if one.mode == "enforce" and one.known_by() < asked), default=0.0)

    def believed(at: float, seconds: float) -> bool:
        return since <= at <= answered and asked <= at + GRACE + seconds

    if any(one.mode != "enforce" and believed(one.at, one.max_age) for one in past.served):
        return ""
    if any(one.record_id is None and believed(one.at, _within(one.ttl)) for one in past.looked_up):
        return ""
    failed = [one for one in past.failed if since <= one.at]
    for place, one in enumerate(failed):
        wait = _BACK_OFF[min(place, len(_BACK_OFF) - 1)]
        is_of_another_id = any(
            other.record_id not in {None, one.record_id} and one.at < other.at < asked - GRACE
            for other in past.looked_up
        )
        if believed(one.at, wait + _BELIEF[0]) and not is_of_another_id:
            return ""
    return "no policy, and no reason for that"


def _within(ttl: float) -> float:
    return min(max(ttl, _BELIEF[0]), _BELIEF[1])
