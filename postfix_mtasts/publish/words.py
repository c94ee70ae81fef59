"""What follows from a state, in words for administrators."""

import time
from collections.abc import Iterator

from postfix_mtasts.config import Publish
from postfix_mtasts.publish.events import Change, Forbidden, Wait
from postfix_mtasts.publish.records import record_name
from postfix_mtasts.publish.state import PARTING_AFTER, State
from postfix_mtasts.sts.policy import Mode


def date(at: float | None) -> str | None:
    """A time as in JSON: ISO 8601 in UTC."""
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def day(at: float) -> str:
    """A time to the minute, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def waiting(wait: Wait, state: State, settings: Publish) -> str:
    """What is waited for, until when, and what is to be done meanwhile."""
    until = None if wait.until is None else day(wait.until)
    match wait.kind:
        case "file":
            url = f"https://{state.domain.policy_host()}/.well-known/mta-sts.txt"
            return f"the policy file must be seen at {url}; `check` looks for it"
        case "record":
            return f"DNS must show the TXT record {record_name(state.domain, settings)} with the id {state.record}"
        case "add-mx":
            when = f"before {until}" if until else "yet: the date is known once the policy file is seen"
            return f"do not add the MX host {wait.host} to DNS {when}; senders with an older policy would refuse it"
        case "drop-mx":
            gone = (
                f"until {until}" if until else f"until it has been gone from DNS for {PARTING_AFTER / 86_400:.0f} days"
            )
            return f"{wait.host} stays in the policy {gone}"
        case "expiry":
            return f"mode none is served until {until}, when the last other policy in a sender's cache has expired"
        case "no-record":
            left = f", until {until}" if until else ""
            return f"the TXT record {state.domain.record_name()} must be gone from DNS{left}; then the file is deleted"
        case "no-file":
            return f"the policy file is deleted; {state.domain.policy_host()} must not serve it any more"


def forbidden(warning: Forbidden) -> str:
    """A warning of an MX host that some senders refuse."""
    if warning.current:
        return f"the MX host {warning.host} is in DNS, but not in the policy: senders deliver nothing to it"
    text = f"the MX host {warning.host} was added to DNS too early"
    return f"{text}: senders with an older policy deliver nothing to it until {day(warning.until)} at the latest"


def change(made: Change) -> str:
    """An entry of the history."""
    what = {"stage": "removal"}.get(made.what, made.what)
    arrow = f"{made.before} -> {made.after}" if made.before and made.after else made.after or f"without {made.before}"
    return f"{what}: {arrow}{f' ({made.why})' if made.why else ''}"


def next_steps(state: State, settings: Publish) -> Iterator[str]:
    """What the administrator does next after a domain was added."""
    command = "postfix-mtasts-publish"
    if settings.zone:
        yield f"`{command} records {state.domain}` prints what the owner of the domain puts into its zone"
    else:
        yield f"`{command} records {state.domain}` prints the records"
    yield f"`{command} check {state.domain}` looks whether all is there, and goes on"
    if state.wanted.mode is Mode.TESTING:
        yield f"`{command} ready {state.domain}` says when mode enforce is safe"
