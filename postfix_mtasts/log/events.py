"""Writes the log: one function for each kind of event, and one line for each event, with `key=value` first.

In the journal, each kind of event has its MESSAGE_ID. Events about a domain also have MTASTS_DOMAIN, and the result of
a discovery has MTASTS_RESULT (docs/log.md). Text from other machines is printed in ASCII, so that it can neither break
the line nor control a terminal.
"""

import logging
from collections.abc import Sequence

from postfix_mtasts.config import Endpoint
from postfix_mtasts.counting import counted
from postfix_mtasts.log.begin import begin as begin
from postfix_mtasts.log.event import Event as Event
from postfix_mtasts.log.event import tell
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.decide import HadExpired, Notice, NotRenewed, PolicyChanged
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.policy import Finding, Mode, Policy

# Of what other people list, such as the mx of a policy, which may be thousands of 255 characters.
_MAX_LISTED, _MAX_LENGTH = 10, 250  # Items in a line of the log, and characters of them.


def not_started(reason: str) -> None:
    """The daemon cannot start."""
    tell(Event.NOT_STARTED, logging.ERROR, "%s", reason)


def listener_not_passed(endpoint: Endpoint) -> None:
    """`server.listen` has an address that is not among the sockets from systemd."""
    text = (
        "%s is in server.listen but not in the socket unit, so connections to it are refused while the daemon "
        "restarts; add it to the socket unit as ListenStream=, or remove it from server.listen"
    )
    tell(Event.LISTENER_NOT_PASSED, logging.WARNING, text, endpoint)


def listener_not_configured(endpoint: Endpoint, setting: str) -> None:
    """The daemon serves a socket from systemd that is not in the setting for it."""
    text = (
        "%s is in the socket unit but not in %s, and is served anyway; name it in %s, or remove it from the socket unit"
    )
    tell(Event.LISTENER_NOT_CONFIGURED, logging.WARNING, text, endpoint, setting, setting)


def open_to_all(endpoint: Endpoint, address: Endpoint) -> None:
    """The daemon listens on all addresses of this machine; other machines use the given one."""
    text = (
        "%s is open: whoever reaches this machine, as at %s, can ask without authentication; if Postfix is on this "
        "machine, listen on 127.0.0.1, otherwise let a firewall admit your mail servers only"
    )
    tell(Event.OPEN_TO_ALL, logging.WARNING, text, endpoint, address)


def not_answered(endpoint: Endpoint, reason: str) -> None:
    """The daemon's test query to itself failed. If this goes on, the watchdog of systemd restarts the daemon."""
    text = "test query on %s failed: %s; if this goes on, systemd restarts the daemon"
    tell(Event.WATCHDOG, logging.ERROR, text, endpoint, reason)


def event_loop(which: str) -> None:
    """The event loop that the daemon runs on."""
    tell(Event.EVENT_LOOP, logging.INFO, "event loop is %s", which)


def reply_rules(chosen: ReplyRules, why_style: str, why_dane: str) -> None:
    """The reply style and the use of DANE from now on. The name of a map may still choose another style."""
    tell(Event.REPLY_RULES, logging.INFO, "reply.style is %s: %s", chosen.style.value, why_style)
    tell(Event.REPLY_RULES, logging.INFO, "reply.dane is %s: %s", chosen.dane.value, why_dane)


def ready(line: str, *, enforce: bool = True) -> None:
    """The daemon answers queries. `line` is the setting for main.cf."""
    nothing = "" if enforce else "; no policy is enforced (reply.enforce = false)"
    tell(Event.READY, logging.INFO, "ready; for main.cf: %s%s", line, nothing)


def shadow(since: str) -> None:
    """Postfix is not told of enforced policies, since that day."""
    text = "no policy is enforced since %s (reply.enforce = false); `postfix-mtasts-query shadow` says what would stop"
    tell(Event.SHADOW, logging.WARNING, text, since)


def shadow_ended(since: str) -> None:
    """Postfix is told of enforced policies again; it was not since that day."""
    tell(Event.SHADOW, logging.INFO, "policies are enforced; they were not since %s (reply.enforce = false)", since)


def would_be(domain: PolicyDomain, next_hop: str, state: str, reason: str) -> None:
    """What would have become of mail to a next hop, had its policy been enforced."""
    words = {"dane": "nothing would change, DANE decides", "unclear": "what would become of mail is unclear"}
    what = words.get(state, f"mail would be {state}") + (f": {reason}" if reason else "")
    level = logging.WARNING if state == "deferred" else logging.INFO
    tell(Event.WOULD_BE, level, "if the policy were enforced for %s, %s", next_hop, what, domain=domain)


def shadow_trouble(reason: str) -> None:
    """What is needed in shadow mode does not work."""
    tell(Event.SHADOW_TROUBLE, logging.WARNING, "shadow mode: %s", reason)


def no_control(reason: str) -> None:
    """The default control socket could not be created, and the daemon runs without it."""
    text = "no control socket, so postfix-mtasts-query cannot reach the daemon: %s"
    tell(Event.NO_CONTROL, logging.INFO, text, reason)


def no_control_group(group: str, reason: str) -> None:
    """The group that may use the control socket could not be set, and the daemon runs without it."""
    text = "server.control_group = %s: %s; only root and the daemon's user can use the control socket"
    tell(Event.NO_CONTROL_GROUP, logging.WARNING, text, group, reason)


def reloaded(restart_for: Sequence[str]) -> None:
    """The configuration was read again. Changes in the tables `restart_for` need a restart."""
    tables = ", ".join(f"[{table}]" for table in restart_for)
    later = f"; restart the daemon to apply the changes in {tables}" if restart_for else ""
    tell(Event.RELOADED, logging.INFO, "configuration reloaded%s", later)


def not_reloaded(reason: str) -> None:
    """The configuration has an error, and the previous one stays in effect."""
    tell(Event.NOT_RELOADED, logging.ERROR, "configuration not reloaded, the previous one stays in effect: %s", reason)


def stopping() -> None:
    """The daemon was told to stop."""
    tell(Event.STOPPING, logging.INFO, "stopping")


def decided(domain: PolicyDomain, answer: Answer) -> None:
    """The result of the discovery for a domain."""
    match answer:
        case Apply(policy):
            text, result = f"fetched: {_policy(policy)}", policy.mode.value
        case NoPolicy(reason):
            text, result = f"no policy: {reason}", "no-policy"
        case YieldToDane(hosts, only):
            others = "; no mail to the other MX hosts, which the enforced policy protects" if only else ""
            text, result = f"DANE takes precedence over MTA-STS: TLSA records of {_some(hosts, ', ')}{others}", "dane"
        case Unavailable(failure, defer):
            kind = f" ({failure.result_type.value})" if failure.result_type else ""
            text = f"{'mail is deferred' if defer else 'policy unavailable'}: {failure}{kind}"
            result = "deferred" if defer else "unavailable"
    level = logging.WARNING if isinstance(answer, Unavailable) else logging.INFO
    tell(Event.DECIDED, level, "%s", text, domain=domain, result=result)


def found_in_policy(domain: PolicyDomain, findings: tuple[Finding, ...]) -> None:
    """A policy is valid, but the domain's owner should correct its file."""
    text = "policy is valid, but its file should be corrected: %s"
    tell(Event.POLICY_FINDINGS, logging.WARNING, text, _some(findings, "; "), domain=domain)


def not_socketmap(peer: str, reason: str) -> None:
    """A client does not speak socketmap, and its connection is closed."""
    tell(Event.NOT_SOCKETMAP, logging.ERROR, "client=%s does not speak socketmap: %s", peer, reason)


def noticed(domain: PolicyDomain, notice: Notice) -> None:
    """A cached policy has changed, could not be renewed, or has expired."""
    match notice:
        case PolicyChanged(old, new):
            weaker = old.mode is Mode.ENFORCE and new.mode is not Mode.ENFORCE
            event, level = Event.POLICY_CHANGED, logging.WARNING if weaker else logging.INFO
            text = f"policy changed: now {_policy(new)}; before {_policy(old)}"
        case NotRenewed(reason, expires_in, urgent):
            event, level = Event.POLICY_NOT_RENEWED, logging.ERROR if urgent else logging.WARNING
            text = f"policy could not be renewed and expires in {span(expires_in)}: {reason}"
        case HadExpired(policy, since):
            event, level = Event.POLICY_EXPIRED, logging.WARNING
            text = f"its policy expired {span(since)} ago: {_policy(policy)}"
    tell(event, level, "%s", text, domain=domain)


def row_ignored(domain: PolicyDomain, reason: str) -> None:
    """The stored data of a domain cannot be parsed. It is ignored, and overwritten by the next policy."""
    tell(Event.ROW_IGNORED, logging.WARNING, "its row in cache.path cannot be understood: %s", reason, domain=domain)


def database_trouble(reason: str) -> None:
    """The database cannot be read or written. The daemon answers queries without it."""
    text = "cache.path: %s; queries are still answered, and writes are tried again"
    tell(Event.DATABASE_TROUBLE, logging.ERROR, text, reason)


def excepted(domain: PolicyDomain, exception: PolicyException, told: Reply, without: Reply) -> None:
    """An exception has changed what Postfix is told, for the first time in this hour."""
    text = "an exception%s until %s: Postfix is answered %s instead of %s: %s"
    whose = "" if exception.domain == domain.name else f" for {exception.domain}"
    words = (whose, exception.until, _reply(told), _reply(without), exception.reason)
    tell(Event.EXCEPTION_USED, logging.INFO, text, *words, domain=domain)


def exception_ends(exception: PolicyException, within: float) -> None:
    """An exception ends in so many seconds, a few days at most."""
    text = "the exception for %s ends in %s, with %s, and then the policy holds again: %s"
    words = (exception.domain, span(within), exception.until, exception.reason)
    tell(Event.EXCEPTION_ENDS, logging.WARNING, text, *words)


def exception_ended(exception: PolicyException) -> None:
    """An exception has ended."""
    text = "the exception for %s has ended with %s, and the policy holds again: %s%s"
    rest = "" if exception.added else "; remove it from the configuration"
    words = (exception.domain, exception.until, exception.reason, rest)
    tell(Event.EXCEPTION_ENDED, logging.WARNING, text, *words)


def exception_added(exception: PolicyException) -> None:
    """An administrator has added an exception by command."""
    text = "exception added for %s, until %s, level %s: %s"
    words = (exception.domain, exception.until, exception.level.value, exception.reason)
    tell(Event.EXCEPTION_CHANGED, logging.INFO, text, *words)


def exception_removed(exception: PolicyException) -> None:
    """An administrator has removed an exception by command."""
    text = "exception removed for %s, which was until %s: %s"
    tell(Event.EXCEPTION_CHANGED, logging.INFO, text, exception.domain, exception.until, exception.reason)


def exceptions_trouble(reason: str) -> None:
    """The file with the exceptions that were added by command cannot be used."""
    text = "exceptions that were added by command: %s; those that are known hold, and no others"
    tell(Event.EXCEPTION_TROUBLE, logging.ERROR, text, reason)


def fleet_works(place: str) -> None:
    """What is known of domains is shared with other relays from now on."""
    tell(Event.FLEET_WORKS, logging.INFO, "fleet: policies are shared on %s", place)


def fleet_trouble(place: str, reason: str) -> None:
    """The fleet's server, or something on it, cannot be used. The daemon does without."""
    tell(Event.FLEET_TROUBLE, logging.WARNING, "fleet: %s: %s", place, reason)


def internal_error(error: BaseException) -> None:
    """A bug in this program. Postfix was told to defer the mail, or a control client gets an incomplete reply."""
    tell(Event.INTERNAL_ERROR, logging.ERROR, "internal error", error=error)


def _reply(reply: Reply) -> str:
    """A reply in a line of the log: the level without its attributes, or why mail is deferred."""
    words = reply.text.split(" ")[0] if reply.status is Status.OK else reply.text
    return f'"{reply.status.value} {words}'.rstrip() + '"'


def _policy(policy: Policy) -> str:
    words = f"mode={policy.mode.value}, max_age={policy.max_age}"
    return f"{words}, mx={_some(policy.mx, ':')}" if policy.mx else words


def _some(items: Sequence[object], between: str) -> str:
    """Return the first item, as many others as fit in a line of the log, and how many more there are."""
    texts = [str(item) for item in items[:_MAX_LISTED]]
    while len(texts) > 1 and len(between.join(texts)) > _MAX_LENGTH:
        texts.pop()
    more = len(items) - len(texts)
    return between.join(texts) + (f" and {more} more" if more else "")


def span(seconds: float) -> str:
    """Return a time span in words, rounded to one unit: `3 days`, `5 hours`, `10 minutes`, `90 seconds`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return counted(round(seconds / length), unit)
    return counted(round(seconds), "second")
