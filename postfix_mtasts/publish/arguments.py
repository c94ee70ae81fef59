"""What the administrator types: domains, MX hosts and spans. What is wrong gets one line, with what is allowed."""

import ipaddress
import os

from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.sts.domain import HostnameError, PolicyDomain, PolicyDomainError, hostname, next_hop
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern

DAY = 86_400


def domain_of(word: str) -> PolicyDomain:
    """A domain. Raises QueryError."""
    name = word.strip().removesuffix(".")
    if "*" in name:
        reason = "a policy is for one domain, and each subdomain that gets mail needs one of its own (RFC 8461, 3.4)"
        raise _wrong(word, reason)
    if not name.isascii():
        raise _wrong(word, f"write it in punycode{_in_punycode(name)}")
    if any(character in name for character in "[]:@/"):
        raise _wrong(word, "write the domain alone, like example.com")
    try:
        return next_hop(os.fsencode(name)).domain
    except PolicyDomainError as error:
        raise _wrong(word, str(error)) from error


def mx_of(words: list[str]) -> tuple[MxPattern, ...]:
    """The mx of a policy, each once. Raises QueryError."""
    return tuple(dict.fromkeys(map(_mx, words)))


def max_age_of(word: str) -> int:
    """A `max_age` in seconds. Raises QueryError."""
    if not (word.isascii() and word.isdecimal() and len(word) <= 12 and DAY <= int(word) <= MAX_AGE_LIMIT):
        allowed = f"a number of seconds from {DAY} (a day) to {MAX_AGE_LIMIT} (a year); weeks are usual"
        raise QueryError(f"max_age {word[:40]!a}: must be {allowed}", status=Status.USAGE)
    return int(word)


def reason_of(word: str | None, mode: Mode) -> str:
    """The reason for which a mode is forced, or an empty string. Raises QueryError."""
    if word is None:
        return ""
    if mode is not Mode.ENFORCE:
        raise QueryError(f"--force is for mode enforce: mode {mode.value} is never refused", status=Status.USAGE)
    if not word.strip():
        raise QueryError("--force needs a reason, which the history keeps", status=Status.USAGE)
    return word.strip()


def _mx(word: str) -> MxPattern:
    try:
        ipaddress.ip_address(word.strip("[]"))
    except ValueError:
        pass
    else:
        raise _wrong(word, "an MX host is a name, not an IP address")
    try:
        return MxPattern(word.lower())
    except ValueError as error:
        hint = _in_punycode(word) if not word.isascii() else ""
        raise _wrong(word, f"{str(error).removesuffix(' (xn--…)') if hint else error}{hint}") from error


def _in_punycode(name: str) -> str:
    """The same name in punycode, if there is one, for a message."""
    try:
        return f": {hostname(name)}"
    except HostnameError:
        return ""


def _wrong(word: str, reason: str) -> QueryError:
    shown = word if len(word) <= 80 else f"{word[:80]}..."
    return QueryError(f"{shown!a}: {reason}", status=Status.USAGE)
