"""What the administrator is told: one function an event, one line each, `key=value` first, then words.

Text that comes from others is printed in ASCII, so that it can neither end the line nor steer a terminal.
"""

import logging
import sys
from collections.abc import Sequence

from postfix_mtasts.decide import HadExpired, Notice, NotRenewed, PolicyChanged
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.policy import Finding, Mode, Policy
from postfix_mtasts.reply import Manner

_log = logging.getLogger("postfix_mtasts")


class _Formatter(logging.Formatter):
    """`level: message`, in lower case, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def to_stderr() -> None:
    """Send all that is logged, by the libraries too, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)


def event_loop(which: str) -> None:
    """What drives the daemon."""
    _log.info("event loop is %s", which)


def manner(chosen: Manner, why_style: str, why_dane: str) -> None:
    """How answers are put from now on, unless the name of a map asks for another style."""
    _log.info("reply.style is %s: %s", chosen.style.value, why_style)
    _log.info("reply.dane is %s: %s", chosen.dane.value, why_dane)


def ready(line: str) -> None:
    """The daemon answers. `line` is what main.cf needs."""
    _log.info("ready; in main.cf: %s", line)


def no_control(reason: str) -> None:
    """There is no control socket where one is by default: the rest goes on without."""
    _log.info("no control socket: %s", reason)


def reloaded(restart_for: Sequence[str]) -> None:
    """The configuration was read again; changes of these tables take a restart."""
    later = f", but a change of {', '.join(restart_for)} takes a restart" if restart_for else ""
    _log.info("configuration reloaded%s", later)


def not_reloaded(reason: str) -> None:
    """The configuration is wrong: what was read before goes on holding."""
    _log.error("configuration not reloaded: %s", reason)


def stopping() -> None:
    """The daemon was told to stop."""
    _log.info("stopping")


def decided(domain: PolicyDomain, answer: Answer) -> None:
    """What was found out about a domain."""
    match answer:
        case Apply(policy, fetched):
            source = "fetch" if fetched else "cache"
            _log.info("domain=%s, source=%s, %s", domain, source, _policy(policy))
        case NoPolicy(reason):
            _log.info("domain=%s, no policy: %s", domain, reason)
        case YieldToDane(hosts):
            _log.info("domain=%s, DANE goes before MTA-STS: TLSA records of %s", domain, ", ".join(hosts))
        case Unavailable(failure, defer):
            kind = f" ({failure.result_type.value})" if failure.result_type else ""
            what = "mail must wait" if defer else "no policy can be had"
            _log.warning("domain=%s, %s: %s%s", domain, what, failure, kind)


def found_in_policy(domain: PolicyDomain, findings: tuple[Finding, ...]) -> None:
    """A policy holds, but its owner should mend it."""
    _log.warning("domain=%s, its policy file is not in order: %s", domain, "; ".join(map(str, findings)))


def not_socketmap(peer: str, reason: str) -> None:
    """A client speaks something else than socketmap; its connection is closed."""
    _log.error("client=%s does not speak socketmap: %s", peer, reason)


def noticed(domain: PolicyDomain, notice: Notice) -> None:
    """Something about a cached policy that the administrator should know."""
    match notice:
        case PolicyChanged(old, new):
            weaker = old.mode is Mode.ENFORCE and new.mode is not Mode.ENFORCE
            _log.log(
                logging.WARNING if weaker else logging.INFO,
                "domain=%s, policy changed: now %s; before %s",
                *(domain, _policy(new), _policy(old)),
            )
        case NotRenewed(reason, expires_in, urgent):
            _log.log(
                logging.ERROR if urgent else logging.WARNING,
                "domain=%s, policy cannot be renewed, and ends in %s: %s",
                *(domain, span(expires_in), reason),
            )
        case HadExpired(policy, since):
            _log.warning("domain=%s, its policy has ended %s ago: %s", domain, span(since), _policy(policy))


def row_ignored(domain: PolicyDomain, reason: str) -> None:
    """What is stored of a domain cannot be understood, and will be written over."""
    _log.warning("domain=%s, cache.path: its row is ignored: %s", domain, reason)


def database_trouble(reason: str) -> None:
    """The database cannot be read or written; answers go on without it."""
    _log.error("cache.path: %s; answers go on, and writes are tried again", reason)


def internal_error(error: BaseException) -> None:
    """A defect of this program; a query got TEMP, and who asks for more of control gets no end of the reply."""
    _log.error("internal error", exc_info=error)


def _policy(policy: Policy) -> str:
    words = f"mode={policy.mode.value}, max_age={policy.max_age}"
    return f"{words}, mx={':'.join(map(str, policy.mx))}" if policy.mx else words


def span(seconds: float) -> str:
    """`3 days`, `5 hours`, `10 minutes`: one unit is enough."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
