"""Turns an answer into a reply for Postfix's smtp_tls_policy_maps (postconf(5), TLS policy table).

A policy is sent in one of two styles. Postfix 3.9 and earlier do not support the attributes of style tlsrpt, and defer
all mail to a domain whose reply has them. Postfix 3.10 and later check MX names only if the reply has them.

    plain   secure match=mx1.example.com:.example.net servername=hostname
    tlsrpt  the same, and  policy_type=sts policy_domain=… mx_host_pattern=…  { policy_string = … } …

A reply contains only validated fields: hostnames, numbers and fixed words, in ASCII. So nothing in a policy file can
add an attribute, close a brace or cut the reply short.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from postfix_mtasts.config import DaneSetting, Level, OnFailure, OnTesting
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, Exempt, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOTFOUND = Reply(Status.NOTFOUND)
_MAX_REASON = 200  # Characters. Postfix does not log more.


class Style(enum.Enum):
    """The attributes that a policy is sent with."""

    PLAIN = "plain"
    TLSRPT = "tlsrpt"


_STYLE_OF_MAP = {b"plain": Style.PLAIN, b"tlsrpt": Style.TLSRPT, b"QUERYwithTLSRPT": Style.TLSRPT}


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """The settings that decide what Postfix is told. `style` is for maps whose name in main.cf does not choose one."""

    style: Style
    on_failure: OnFailure = OnFailure.NOTFOUND
    testing: OnTesting = OnTesting.IGNORE
    dane: DaneSetting = DaneSetting.OFF

    def of_map(self, name: bytes) -> "ReplyRules":
        """Return the rules for a map with this name. An unknown name is accepted, so that a typo does not stop mail."""
        return replace(self, style=_STYLE_OF_MAP.get(name, self.style))

    def heeds_dane(self, answer: Answer) -> bool:
        """Whether TLSA records must be looked up before the reply to this answer is sent.

        With dane-only they always must. With yield, Postfix uses its own level `dane` after a "not found". So they
        matter only if the reply would override that level.
        """
        match self.dane, answer:
            case _, Exempt(exception) if exception.dane:
                return False
            case DaneSetting.DANE_ONLY, _:
                return True
            case DaneSetting.YIELD, Exempt(exception):
                return exception.level is not Level.NONE
            case DaneSetting.YIELD, Apply(policy):
                return policy.mode is Mode.ENFORCE or self.reports(policy)
            case _:
                return False

    def reports(self, policy: Policy) -> bool:
        """Whether this policy is sent to Postfix for TLS reports only."""
        wanted = (Mode.TESTING, Style.TLSRPT, OnTesting.REPORT)
        return (policy.mode, self.style, self.testing) == wanted


def beside_dane(answer: Answer, dane: DaneObservation) -> Answer:
    """Return the answer that follows with DANE: MTA-STS must not "override a failing DANE validation" (RFC 8461, 2)."""
    match dane:
        case DaneUsable(hosts, covers_all=covers_all):
            enforced = isinstance(answer, Apply) and answer.policy.mode is Mode.ENFORCE
            return YieldToDane(hosts, only=enforced and not covers_all)
        case DaneFailed(failure):
            return Unavailable(failure, defer=True)
        case DaneAbsent():
            return answer


def reply_to(domain: PolicyDomain, answer: Answer, rules: ReplyRules) -> Reply:
    """Return the reply that tells Postfix an answer.

    For policies in mode testing or none, Postfix uses its own level (RFC 8461, 5). To report a policy in mode testing,
    Postfix must be sent a level with it. That level is `may`, because with `encrypt` or `match=` it could defer the
    mail. A stricter level in main.cf does not apply to these domains.
    """
    match answer:
        case Apply(policy) if policy.mode is Mode.ENFORCE:
            return _enforce(domain, policy, rules.style)
        case Apply(policy) if rules.reports(policy):
            return next(_with_attributes("may", domain, policy), NOTFOUND)
        case Exempt(exception) if exception.level is not Level.NONE:
            return Reply(Status.OK, exception.level.value)
        case Apply() | NoPolicy() | Exempt():
            return NOTFOUND
        case YieldToDane(only=only):
            # This reply has no attributes of tlsrpt: with them, Postfix would check the MX hosts by the policy.
            return Reply(Status.OK, "dane-only") if only or rules.dane is DaneSetting.DANE_ONLY else NOTFOUND
        case Unavailable(failure, defer):
            # Mail is sent "as though the domain has not implemented MTA-STS" (RFC 8461, 3.3), except where the answer
            # says to defer.
            defer = defer or rules.on_failure is OnFailure.TEMP
            return temporary_failure(str(failure)) if defer else NOTFOUND


def temporary_failure(reason: str) -> Reply:
    """Return the reply that makes Postfix defer the mail. Postfix logs `reason`."""
    return Reply(Status.TEMP, "".join(c if " " <= c <= "~" else "?" for c in reason)[:_MAX_REASON])


def _enforce(domain: PolicyDomain, policy: Policy, style: Style) -> Reply:
    """Return the most detailed reply that is not too long for Postfix. A reply that is too long is never cut."""
    patterns = [pattern for pattern in _distinct(policy.mx) if "." in pattern]
    if not patterns:
        return temporary_failure(f"the mx lines of {domain}'s policy name no MX host: they have no dot")
    # Without a dot are Postfix's own words in match=: `hostname` would allow every MX host, `nexthop` another one.
    plain = _plain(patterns)
    if style is Style.TLSRPT:
        for reply in _with_attributes(plain, domain, policy):
            return reply
    reply = Reply(Status.OK, plain)
    return reply if reply.fits() else temporary_failure(f"the mx lines of {domain}'s policy are too long for a reply")


def _with_attributes(level: str, domain: PolicyDomain, policy: Policy) -> Iterator[Reply]:
    """Yield those replies that fit: with the whole policy as policy_string, and with its first line only."""
    checked = f"{level} {_sts(domain, _distinct(policy.mx))}"
    # Postfix 3.10.0 to 3.10.5 crash if there is no policy_string, so the first one is always sent.
    for strings in (_policy_strings(policy), f" {_policy_string('version: STSv1')}"):
        reply = Reply(Status.OK, checked + strings)
        if reply.fits():
            yield reply


def _distinct(mx: tuple[MxPattern, ...]) -> list[str]:
    """Return the patterns as published, in order and without duplicates."""
    distinct: dict[str, str] = {}
    for pattern in mx:
        distinct.setdefault(pattern.text.lower(), pattern.text)
    return list(distinct.values())


def _plain(patterns: list[str]) -> str:
    # In match= a wildcard is written `.example.net`. With servername=hostname, Postfix sends the name of the MX host
    # as the SNI (RFC 8461, 7.1).
    return f"secure match={':'.join(pattern.removeprefix('*') for pattern in patterns)} servername=hostname"


def _sts(domain: PolicyDomain, patterns: list[str]) -> str:
    return " ".join([f"policy_type=sts policy_domain={domain}", *(f"mx_host_pattern={one}" for one in patterns)])


def _policy_strings(policy: Policy) -> str:
    return "".join(f" {_policy_string(line)}" for line in str(policy).splitlines())


def _policy_string(line: str) -> str:
    return f"{{ policy_string = {line} }}"
