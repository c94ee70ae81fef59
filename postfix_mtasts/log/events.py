"""Writes the log: one function for each kind of event, and one line for each event, with `key=value` first.

In the journal, each kind of event has its MESSAGE_ID. Events about a domain also have MTASTS_DOMAIN, and the result of
a discovery has MTASTS_RESULT (docs/log.md). Text from other machines is printed in ASCII, so that it can neither break
the line nor control a terminal.
"""

import contextlib
import enum
import logging
import os
from collections.abc import Sequence

from postfix_mtasts.config import Endpoint
from postfix_mtasts.log.behind import Behind
from postfix_mtasts.log.journal import journal_handler
from postfix_mtasts.log.standard import complete
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.sts.decide import HadExpired, Notice, NotRenewed, PolicyChanged
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.policy import Finding, Mode, Policy

_STDERR = 2
# Of what other people list, such as the mx of a policy, which may be thousands of 255 characters.
_MAX_LISTED, _MAX_LENGTH = 10, 250  # Items in a line of the log, and characters of them.
_log = logging.getLogger("postfix_mtasts")


class Event(enum.Enum):
    """The kinds of events. The values are their MESSAGE_ID in the journal, and never change."""

    NOT_STARTED = "36f8f8bb1664488ebdd36e632c32fe0d"
    EVENT_LOOP = "e390f3c653174a279a4647a0d424ae0f"
    READY = "8aa94aa9b0a2420bb1a7f4f7c8ed39c9"
    LISTENER_NOT_PASSED = "89e8e12eda3d42288486316962cdeeb6"
    LISTENER_NOT_CONFIGURED = "189c9cd4923d4b7b99c0642d299964b0"
    OPEN_TO_ALL = "7a1c52c5f0c24b1f9d0e7f1e3b1f2a66"
    REPLY_RULES = "8e5c8d2b0d834b3db06625687be5feb4"
    NO_CONTROL = "c361808b4bc64a6bbf959b06d64b4eda"
    NO_CONTROL_GROUP = "5d0f1d4e7c3b4b5e9a6e2f0c8b7a4d31"
    SHADOW = "b7d9a1f04c5e4f0f9c6a3d21e8f7b560"
    WOULD_BE = "4e2c8f6a1b7d4d53a09e5c3f7b8d6e12"
    SHADOW_TROUBLE = "c3a6e5d8f1b24709b8d4e6f2a1c3957d"
    RELOADED = "0f4d4a192b48499d825875c6c4f9ed70"
    NOT_RELOADED = "d6c5250d8ca940c9b99d2642373ca497"
    WATCHDOG = "a0142fac2321498888c58b6c2c4d19c5"
    STOPPING = "0e5d50bcfb6f4f2194bdf18c6919c311"
    DECIDED = "34c5c6f1a2644ba583b1e06399d21485"
    POLICY_FINDINGS = "dde752ccb3b349fb90f03ee3d1b558d2"
    POLICY_CHANGED = "32c890003ecd48d1ad4a59d3069726dd"
    POLICY_NOT_RENEWED = "b023244078274f20bb8a90abfad83b82"
    POLICY_EXPIRED = "5b2c7e07b6fc410ea7b55e751f217ba5"
    NOT_SOCKETMAP = "5ef5c33a468f4db1a31b9d92a88141d4"
    ROW_IGNORED = "5e6736c49d3a43609b9d61f865abbb7e"
    DATABASE_TROUBLE = "2a395ca7ae104d7fa66971b707dda055"
    INTERNAL_ERROR = "32abc457a2b4439e9be8c2962e6d89c3"


class _StandardError(logging.Handler):
    """Writes records to standard error without a buffer, which nobody might ever empty."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError):  # Nobody is there to be told.
            while data:
                data = data[os.write(_STDERR, data) :]


class _Formatter(logging.Formatter):
    """Formats a record as `level: message`, with the level in lower case."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def begin(program: str) -> bool:
    """Send all log records, also those of libraries, to journald or else to standard error.

    Return whether they go to journald.
    """
    complete()
    handler = _StandardError()
    handler.setFormatter(_Formatter("%(message)s"))
    journal = journal_handler(program, handler)
    if journal:
        journal.setFormatter(handler.formatter)
    writer = Behind(journal or handler, journal.fileno() if journal else _STDERR)
    logging.basicConfig(handlers=[writer], level=logging.INFO)
    return journal is not None


def _tell(
    event: Event,
    level: int,
    text: str,
    *arguments: object,
    domain: PolicyDomain | None = None,
    result: str = "",
    error: BaseException | None = None,
) -> None:
    fields = {"MESSAGE_ID": event.value}
    if domain:
        fields["MTASTS_DOMAIN"] = str(domain)
        text = "domain=%s, " + text
        arguments = (domain, *arguments)
    if result:
        fields["MTASTS_RESULT"] = result
    _log.log(level, text, *arguments, extra={"journal": fields}, exc_info=error)


def not_started(reason: str) -> None:
    """The daemon cannot start."""
    _tell(Event.NOT_STARTED, logging.ERROR, "%s", reason)


def listener_not_passed(endpoint: Endpoint) -> None:
    """`server.listen` has an address that is not among the sockets from systemd."""
    text = (
        "%s is in server.listen but not in the socket unit, so connections to it are refused while the daemon "
        "restarts; add it to the socket unit as ListenStream=, or remove it from server.listen"
    )
    _tell(Event.LISTENER_NOT_PASSED, logging.WARNING, text, endpoint)


def listener_not_configured(endpoint: Endpoint, setting: str) -> None:
    """The daemon serves a socket from systemd that is not in the setting for it."""
    text = (
        "%s is in the socket unit but not in %s, and is served anyway; name it in %s, or remove it from the socket unit"
    )
    _tell(Event.LISTENER_NOT_CONFIGURED, logging.WARNING, text, endpoint, setting, setting)


def open_to_all(endpoint: Endpoint, address: Endpoint) -> None:
    """The daemon listens on all addresses of this machine; other machines use the given one."""
    text = (
        "%s is open: whoever reaches this machine, as at %s, can ask without authentication; if Postfix is on this "
        "machine, listen on 127.0.0.1, otherwise let a firewall admit your mail servers only"
    )
    _tell(Event.OPEN_TO_ALL, logging.WARNING, text, endpoint, address)


def not_answered(endpoint: Endpoint, reason: str) -> None:
    """The daemon's test query to itself failed. If this goes on, the watchdog of systemd restarts the daemon."""
    text = "test query on %s failed: %s; if this goes on, systemd restarts the daemon"
    _tell(Event.WATCHDOG, logging.ERROR, text, endpoint, reason)


def event_loop(which: str) -> None:
    """The event loop that the daemon runs on."""
    _tell(Event.EVENT_LOOP, logging.INFO, "event loop is %s", which)


def reply_rules(chosen: ReplyRules, why_style: str, why_dane: str) -> None:
    """The reply style and the use of DANE from now on. The name of a map may still choose another style."""
    _tell(Event.REPLY_RULES, logging.INFO, "reply.style is %s: %s", chosen.style.value, why_style)
    _tell(Event.REPLY_RULES, logging.INFO, "reply.dane is %s: %s", chosen.dane.value, why_dane)


def ready(line: str, *, enforce: bool = True) -> None:
    """The daemon answers queries. `line` is the setting for main.cf."""
    nothing = "" if enforce else "; no policy is enforced (reply.enforce = false)"
    _tell(Event.READY, logging.INFO, "ready; in main.cf: %s%s", line, nothing)


def shadow(since: str) -> None:
    """Postfix is not told of enforced policies, since that day."""
    text = "no policy is enforced since %s (reply.enforce = false); `postfix-mtasts-query shadow` says what would stop"
    _tell(Event.SHADOW, logging.WARNING, text, since)


def shadow_ended(since: str) -> None:
    """Postfix is told of enforced policies again; it was not since that day."""
    _tell(Event.SHADOW, logging.INFO, "policies are enforced; they were not since %s (reply.enforce = false)", since)


def would_be(domain: PolicyDomain, next_hop: str, state: str, reason: str) -> None:
    """What would have become of mail to a next hop, had its policy been enforced."""
    words = {"dane": "nothing would change, DANE decides", "unclear": "what would become of mail is unclear"}
    what = words.get(state, f"mail would be {state}") + (f": {reason}" if reason else "")
    level = logging.WARNING if state == "deferred" else logging.INFO
    _tell(Event.WOULD_BE, level, "if the policy were enforced for %s, %s", next_hop, what, domain=domain)


def shadow_trouble(reason: str) -> None:
    """What is needed in shadow mode does not work."""
    _tell(Event.SHADOW_TROUBLE, logging.WARNING, "shadow mode: %s", reason)


def no_control(reason: str) -> None:
    """The default control socket could not be created, and the daemon runs without it."""
    text = "no control socket, so postfix-mtasts-query cannot reach the daemon: %s"
    _tell(Event.NO_CONTROL, logging.INFO, text, reason)


def no_control_group(group: str, reason: str) -> None:
    """The group that may use the control socket could not be set, and the daemon runs without it."""
    text = "server.control_group = %s: %s; only root and the daemon's user can use the control socket"
    _tell(Event.NO_CONTROL_GROUP, logging.WARNING, text, group, reason)


def reloaded(restart_for: Sequence[str]) -> None:
    """The configuration was read again. Changes in the tables `restart_for` need a restart."""
    tables = ", ".join(f"[{table}]" for table in restart_for)
    later = f"; restart the daemon to apply the changes in {tables}" if restart_for else ""
    _tell(Event.RELOADED, logging.INFO, "configuration reloaded%s", later)


def not_reloaded(reason: str) -> None:
    """The configuration has an error, and the previous one stays in effect."""
    _tell(Event.NOT_RELOADED, logging.ERROR, "configuration not reloaded, the previous one stays in effect: %s", reason)


def stopping() -> None:
    """The daemon was told to stop."""
    _tell(Event.STOPPING, logging.INFO, "stopping")


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
    _tell(Event.DECIDED, level, "%s", text, domain=domain, result=result)


def found_in_policy(domain: PolicyDomain, findings: tuple[Finding, ...]) -> None:
    """A policy is valid, but the domain's owner should correct its file."""
    text = "policy is valid, but its file should be corrected: %s"
    _tell(Event.POLICY_FINDINGS, logging.WARNING, text, _some(findings, "; "), domain=domain)


def not_socketmap(peer: str, reason: str) -> None:
    """A client does not speak socketmap, and its connection is closed."""
    _tell(Event.NOT_SOCKETMAP, logging.ERROR, "client=%s does not speak socketmap: %s", peer, reason)


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
    _tell(event, level, "%s", text, domain=domain)


def row_ignored(domain: PolicyDomain, reason: str) -> None:
    """The stored data of a domain cannot be parsed. It is ignored, and overwritten by the next policy."""
    _tell(Event.ROW_IGNORED, logging.WARNING, "its row in cache.path cannot be understood: %s", reason, domain=domain)


def database_trouble(reason: str) -> None:
    """The database cannot be read or written. The daemon answers queries without it."""
    text = "cache.path: %s; queries are still answered, and writes are tried again"
    _tell(Event.DATABASE_TROUBLE, logging.ERROR, text, reason)


def internal_error(error: BaseException) -> None:
    """A bug in this program. Postfix was told to defer the mail, or a control client gets an incomplete reply."""
    _tell(Event.INTERNAL_ERROR, logging.ERROR, "internal error", error=error)


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
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
