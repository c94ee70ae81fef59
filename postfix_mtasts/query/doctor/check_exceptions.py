"""The exceptions of the daemon that hold: each keeps a policy from protecting mail."""

import time
from collections.abc import Iterator

from postfix_mtasts.counting import counted
from postfix_mtasts.daemon.exceptions import WARN_WITHIN
from postfix_mtasts.log.events import span
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.client import Running

_LIST = "postfix-mtasts-query except list"


def check_exceptions(daemon: Running, now: float) -> Iterator[Finding]:
    """Those that end first, how many more there are, and whether the file with those added by command works."""
    exceptions = daemon.status["exceptions"]
    shown = exceptions["first_to_end"]
    for one in shown:
        left = one["ends_at"] - now
        what = f"an exception for {one['domain']} holds until {one['until']}: {one['reason']}"
        since = _day(exceptions.get("since", daemon.started_at))
        used = f"it has changed {counted(one['used'], 'answer')} since {since}"
        ends = f"it ends in {span(max(0.0, left))}, and then the policy holds again"
        status = Status.WARNING if left <= WARN_WITHIN else Status.OK
        yield Finding("exception", status, what, f"{used}; {ends}", "run", _LIST)
    if exceptions["holding"] > len(shown):
        what = f"further exceptions that hold: {exceptions['holding'] - len(shown)}"
        yield Finding("exception", Status.OK, what, "they end later", "run", _LIST)
    if exceptions["trouble"]:
        what = f"exceptions that were added by command: {exceptions['trouble']}"
        yield Finding("exception", Status.ERROR, what, "none can be added or removed, and they may not hold")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
