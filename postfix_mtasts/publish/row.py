"""The state of a domain as a JSON text, in which it is stored. One undoes the other."""

import json
from typing import Any

from postfix_mtasts.publish.state import Checked, Clock, Left, Parting, Served, Stage, State, record_id
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy


class RowError(ValueError):
    """The text is not the state of a domain: it is damaged, or of another version of this program."""


def print_row(state: State) -> str:
    """A state as text."""
    made = {
        "wanted": _print_policy(state.wanted),
        "clock": [state.clock.counted, state.clock.at],
        "stage": state.stage.value,
        "served": [[_print_policy(one.policy), one.until] for one in state.served],
        "parting": [[str(one.mx), one.gone_since] for one in state.parting],
        "record": state.record,
        "announced_at": state.announced_at,
        "known": state.known,
        "findable": state.findable,
        "hosts": list(state.hosts),
        "left": [[one.host, one.since] for one in state.left],
        "points_here": state.points_here,
        "record_gone_since": state.record_gone_since,
        "checked": None if state.checked is None else _print_checked(state.checked),
        "version": state.version,
        "salt": state.salt,
    }
    return json.dumps(made, separators=(",", ":"), allow_nan=False)


def parse_row(domain: PolicyDomain, text: str) -> State:
    """A state from its text, also of a row that lacks `left`, `salt` and `record`. Raises RowError."""
    try:
        row = json.loads(text)
        checked = row["checked"]
        return State(
            domain=domain,
            wanted=_parse_policy(row["wanted"]),
            clock=Clock(float(row["clock"][0]), float(row["clock"][1])),
            stage=Stage(row["stage"]),
            served=tuple(Served(_parse_policy(policy), _number(until)) for policy, until in row["served"]),
            parting=tuple(Parting(MxPattern(mx), _number(since)) for mx, since in row["parting"]),
            record=_parse_record(row),
            announced_at=float(row["announced_at"]),
            known=bool(row["known"]),
            findable=bool(row["findable"]),
            hosts=tuple(map(str, row["hosts"])),
            left=tuple(Left(str(host), float(since)) for host, since in row.get("left", ())),
            points_here=bool(row["points_here"]),
            record_gone_since=_number(row["record_gone_since"]),
            checked=None if checked is None else _parse_checked(checked),
            version=int(row["version"]),
            salt=int(row.get("salt", 0)),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise RowError(f"{type(error).__name__}: {error}") from error


def _parse_record(row: dict[str, Any]) -> str | None:
    if "record" in row:
        return None if row["record"] is None else str(row["record"])
    announced = row["announced"]  # Rows from before have the policy of which the record has the hash.
    return None if announced is None else record_id(_parse_policy(announced))


def _print_checked(checked: Checked) -> list[Any]:
    return [checked.at, list(checked.problems), [list(one) for one in checked.certificates]]


def _parse_checked(value: Any) -> Checked:
    at, problems, *rest = value  # Rows from before have no certificates.
    certificates = tuple((str(host), float(end)) for host, end in (rest[0] if rest else ()))
    return Checked(float(at), tuple(map(str, problems)), certificates)


def _print_policy(policy: Policy) -> list[Any]:
    return [policy.mode.value, policy.max_age, [str(mx) for mx in policy.mx]]


def _parse_policy(value: Any) -> Policy:
    mode, max_age, mx = value
    return Policy(Mode(mode), int(max_age), tuple(map(MxPattern, mx)))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
