"""What the administrator is told: one function an event, one line each, `key=value` first, then words.

To journald each kind of event goes with its MESSAGE_ID, what is about a domain with MTASTS_DOMAIN, and what became of
a domain with MTASTS_RESULT (docs/log.md). Text that comes from others is printed in ASCII, so that it can neither end
the line nor steer a terminal.
"""

import enum
import logging
import sys
from collections.abc import Sequence

from postfix_mtasts.config import Endpoint
from postfix_mtasts.log.journal import journal_handler
from postfix_mtasts.postfix.reply import ReplyRules
from postfix_mtasts.sts.decide import HadExpired, Notice, NotRenewed, PolicyChanged
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.policy import Finding, Mode, Policy

_log = logging.getLogger("postfix_mtasts")


class Event(enum.Enum):
    """The kinds of events; each has the MESSAGE_ID that journald knows it by, which never changes."""

    NOT_STARTED = "36f8f8bb1664488ebdd36e632c32fe0d"
    EVENT_LOOP = "e390f3c653174a279a4647a0d424ae0f"
    READY = "8aa94aa9b0a2420bb1a7f4f7c8ed39c9"
    LISTENER_NOT_PASSED = "89e8e12eda3d42288486316962cdeeb6"
    LISTENER_NOT_CONFIGURED = "189c9cd4923d4b7b99c0642d299964b0"
    REPLY_RULES = "8e5c8d2b0d834b3db06625687be5feb4"
    NO_CONTROL = "c361808b4bc64a6bbf959b06d64b4eda"
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


class _Formatter(logging.Formatter):
    """`level: message`, in lower case, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def begin(program: str) -> bool:
    """Send all that is logged, by the libraries too, to journald or standard error; whether it is journald."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    journal = journal_handler(program, handler)
    if journal:
        journal.setFormatter(handler.formatter)
    logging.basicConfig(handlers=[journal or handler], level=logging.INFO)
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
    """`server.listen` has an address of its own, beside the sockets that systemd passes."""
    hint = "make it a ListenStream= of the socket unit, or take it out of server.listen"
    text = "server.listen has %s, the socket unit has not: served, but refused while the daemon restarts; %s"
    _tell(Event.LISTENER_NOT_PASSED, logging.WARNING, text, endpoint, hint)


def listener_not_configured(endpoint: Endpoint, setting: str) -> None:
    """A socket that systemd passes is not in a setting of ours."""
    hint = f"name it in {setting}, or take it out of the socket unit"
    text = "the socket unit has %s, %s has not: served all the same; %s"
    _tell(Event.LISTENER_NOT_CONFIGURED, logging.WARNING, text, endpoint, setting, hint)


def not_answered(endpoint: Endpoint, reason: str) -> None:
    """The daemon does not answer its own query; unless it does soon, the watchdog of systemd has it started anew."""
    _tell(Event.WATCHDOG, logging.ERROR, "no answer on %s: %s; the watchdog is not told of life", endpoint, reason)


def event_loop(which: str) -> None:
    """What drives the daemon."""
    _tell(Event.EVENT_LOOP, logging.INFO, "event loop is %s", which)


def reply_rules(chosen: ReplyRules, why_style: str, why_dane: str) -> None:
    """How answers are put from now on, unless the name of a map asks for another style."""
    _tell(Event.REPLY_RULES, logging.INFO, "reply.style is %s: %s", chosen.style.value, why_style)
    _tell(Event.REPLY_RULES, logging.INFO, "reply.dane is %s: %s", chosen.dane.value, why_dane)


def ready(line: str) -> None:
    """The daemon answers. `line` is what main.cf needs."""
    _tell(Event.READY, logging.INFO, "ready; in main.cf: %s", line)


def no_control(reason: str) -> None:
    """There is no control socket where one is by default: the rest goes on without."""
    _tell(Event.NO_CONTROL, logging.INFO, "no control socket: %s", reason)


def reloaded(restart_for: Sequence[str]) -> None:
    """The configuration was read again; changes of these tables take a restart."""
    later = f", but a change of {', '.join(restart_for)} takes a restart" if restart_for else ""
    _tell(Event.RELOADED, logging.INFO, "configuration reloaded%s", later)


def not_reloaded(reason: str) -> None:
    """The configuration is wrong: what was read before goes on holding."""
    _tell(Event.NOT_RELOADED, logging.ERROR, "configuration not reloaded: %s", reason)


def stopping() -> None:
    """The daemon was told to stop."""
    _tell(Event.STOPPING, logging.INFO, "stopping")


def decided(domain: PolicyDomain, answer: Answer) -> None:
    """What was found out about a domain."""
    match answer:
        case Apply(policy):
            text, result = f"fetched: {_policy(policy)}", policy.mode.value
        case NoPolicy(reason):
            text, result = f"no policy: {reason}", "no-policy"
        case YieldToDane(hosts):
            text, result = f"DANE goes before MTA-STS: TLSA records of {', '.join(hosts)}", "dane"
        case Unavailable(failure, defer):
            kind = f" ({failure.result_type.value})" if failure.result_type else ""
            text = f"{'mail must wait' if defer else 'no policy can be had'}: {failure}{kind}"
            result = "deferred" if defer else "unavailable"
    level = logging.WARNING if isinstance(answer, Unavailable) else logging.INFO
    _tell(Event.DECIDED, level, "%s", text, domain=domain, result=result)


def found_in_policy(domain: PolicyDomain, findings: tuple[Finding, ...]) -> None:
    """A policy holds, but its owner should mend it."""
    text = "its policy file is not in order: %s"
    _tell(Event.POLICY_FINDINGS, logging.WARNING, text, "; ".join(map(str, findings)), domain=domain)


def not_socketmap(peer: str, reason: str) -> None:
    """A client speaks something else than socketmap; its connection is closed."""
    _tell(Event.NOT_SOCKETMAP, logging.ERROR, "client=%s does not speak socketmap: %s", peer, reason)


def noticed(domain: PolicyDomain, notice: Notice) -> None:
    """Something about a cached policy that the administrator should know."""
    match notice:
        case PolicyChanged(old, new):
            weaker = old.mode is Mode.ENFORCE and new.mode is not Mode.ENFORCE
            event, level = Event.POLICY_CHANGED, logging.WARNING if weaker else logging.INFO
            text = f"policy changed: now {_policy(new)}; before {_policy(old)}"
        case NotRenewed(reason, expires_in, urgent):
            event, level = Event.POLICY_NOT_RENEWED, logging.ERROR if urgent else logging.WARNING
            text = f"policy cannot be renewed, and ends in {span(expires_in)}: {reason}"
        case HadExpired(policy, since):
            event, level = Event.POLICY_EXPIRED, logging.WARNING
            text = f"its policy has ended {span(since)} ago: {_policy(policy)}"
    _tell(event, level, "%s", text, domain=domain)


def row_ignored(domain: PolicyDomain, reason: str) -> None:
    """What is stored of a domain cannot be understood, and will be written over."""
    _tell(Event.ROW_IGNORED, logging.WARNING, "cache.path: its row is ignored: %s", reason, domain=domain)


def database_trouble(reason: str) -> None:
    """The database cannot be read or written; answers go on without it."""
    text = "cache.path: %s; answers go on, and writes are tried again"
    _tell(Event.DATABASE_TROUBLE, logging.ERROR, text, reason)


def internal_error(error: BaseException) -> None:
    """A defect of this program; a query got TEMP, and who asks for more of control gets no end of the reply."""
    _tell(Event.INTERNAL_ERROR, logging.ERROR, "internal error", error=error)


def _policy(policy: Policy) -> str:
    words = f"mode={policy.mode.value}, max_age={policy.max_age}"
    return f"{words}, mx={':'.join(map(str, policy.mx))}" if policy.mx else words


def span(seconds: float) -> str:
    """`3 days`, `5 hours`, `10 minutes`: one unit is enough."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
