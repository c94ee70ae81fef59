"""What the administrator is told: one function an event, one line each, `key=value` first, then words.

Text that comes from others is printed in ASCII, so that it can neither end the line nor steer a terminal.
"""

import logging
import sys

from postfix_mtasts.decide import Answer, Apply, NoPolicy, Unavailable
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.policy import Finding

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


def ready(line: str) -> None:
    """The daemon answers. `line` is what main.cf needs."""
    _log.info("ready; in main.cf: %s", line)


def stopping() -> None:
    """The daemon was told to stop."""
    _log.info("stopping")


def decided(domain: PolicyDomain, answer: Answer) -> None:
    """What was found out about a domain."""
    match answer:
        case Apply(policy, source):
            mx = ":".join(pattern.text for pattern in policy.mx)
            _log.info(
                "domain=%s, source=%s, mode=%s, max_age=%d, mx=%s",
                *(domain, source.value, policy.mode.value, policy.max_age, mx),
            )
        case NoPolicy(reason):
            _log.info("domain=%s, no policy: %s", domain, reason)
        case Unavailable(failure):
            kind = f" ({failure.result_type.value})" if failure.result_type else ""
            _log.warning("domain=%s, no policy can be had: %s%s", domain, failure, kind)


def found_in_policy(domain: PolicyDomain, findings: tuple[Finding, ...]) -> None:
    """A policy holds, but its owner should mend it."""
    _log.warning("domain=%s, its policy file is not in order: %s", domain, "; ".join(map(str, findings)))


def not_socketmap(peer: str, reason: str) -> None:
    """A client speaks something else than socketmap; its connection is closed."""
    _log.error("client=%s does not speak socketmap: %s", peer, reason)


def store_failed(domain: PolicyDomain, error: Exception) -> None:
    """The database could not be read or written; answers go on without it."""
    _log.error("domain=%s, cache.path: %s", domain, error)


def internal_error(error: BaseException) -> None:
    """A defect of this program; the query got TEMP."""
    _log.error("internal error", exc_info=error)
