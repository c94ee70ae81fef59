"""An answer in the words of Postfix's smtp_tls_policy_maps (postconf(5), TLS policy table).

A policy is sent in one of two styles. Postfix before 3.10 defers all mail to a domain whose answer has an attribute
that it does not know; later ones check MX names only if they get these attributes.

    plain   secure match=mx1.example.com:.example.net servername=hostname
    tlsrpt  the same, and  policy_type=sts policy_domain=… mx_host_pattern=…  { policy_string = … } …

Only validated fields are printed: hostnames, numbers and fixed words, in ASCII. So nothing in a policy file can add an
attribute, close a brace or cut the reply short.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from postfix_mtasts.config import DaneSetting, OnFailure, OnTesting
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy

NOTFOUND = Reply(Status.NOTFOUND)
_MAX_REASON = 200  # Characters; Postfix logs no more.


class Style(enum.Enum):
    """Which attributes a policy is sent with."""

    PLAIN = "plain"
    TLSRPT = "tlsrpt"


_STYLE_OF_MAP = {b"plain": Style.PLAIN, b"tlsrpt": Style.TLSRPT, b"QUERYwithTLSRPT": Style.TLSRPT}


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """How answers are put; `style` is that of maps whose name in main.cf asks for none."""

    style: Style
    on_failure: OnFailure = OnFailure.NOTFOUND
    testing: OnTesting = OnTesting.IGNORE
    dane: DaneSetting = DaneSetting.OFF

    def of_map(self, name: bytes) -> "ReplyRules":
        """That of a map with this name. An unknown name is served too: a typo must not stop mail."""
        return replace(self, style=_STYLE_OF_MAP.get(name, self.style))

    def heeds_dane(self, answer: Answer) -> bool:
        """Whether it must be known if DANE decides before an answer is sent.

        Where Postfix has a level `dane` of its own, that needs no help unless we are about to take its place.
        """
        match self.dane, answer:
            case DaneSetting.DANE_ONLY, _:
                return True
            case DaneSetting.YIELD, Apply(policy):
                return policy.mode is Mode.ENFORCE or self.reports(policy)
            case _:
                return False

    def reports(self, policy: Policy) -> bool:
        """Whether Postfix is to report a policy that it is not to enforce."""
        wanted = (Mode.TESTING, Style.TLSRPT, OnTesting.REPORT)
        return (policy.mode, self.style, self.testing) == wanted


def beside_dane(answer: Answer, dane: DaneObservation) -> Answer:
    """What DANE leaves of an answer: MTA-STS must not "override a failing DANE validation" (RFC 8461, 2)."""
    match dane:
        case DaneUsable(hosts):
            return YieldToDane(hosts)
        case DaneFailed(failure):
            return Unavailable(failure, defer=True)
        case DaneAbsent():
            return answer


def reply_to(domain: PolicyDomain, answer: Answer, rules: ReplyRules) -> Reply:
    """The reply that tells Postfix an answer. Testing and none leave Postfix its own level (RFC 8461, 5).

    To have a policy in mode testing reported, Postfix must be given a level with it, and that is `may`: `encrypt` would
    refuse mail, and `match=` makes Postfix defer it. So its own level, if stricter, does not apply to these domains.
    """
    match answer:
        case Apply(policy) if policy.mode is Mode.ENFORCE:
            return _enforce(domain, policy, rules.style)
        case Apply(policy) if rules.reports(policy):
            return next(_with_attributes("may", domain, policy), NOTFOUND)
        case Apply() | NoPolicy():
            return NOTFOUND
        case YieldToDane():
            # Without the attributes of tlsrpt: by them Postfix would hold the MX hosts against the policy.
            return Reply(Status.OK, "dane-only") if rules.dane is DaneSetting.DANE_ONLY else NOTFOUND
        case Unavailable(failure, defer):
            # Mail goes out "as though the domain has not implemented MTA-STS" (RFC 8461, 3.3), if none may be stored.
            defer = defer or rules.on_failure is OnFailure.TEMP
            return temporary_failure(str(failure)) if defer else NOTFOUND


def temporary_failure(reason: str) -> Reply:
    """The reply that makes Postfix try again later. `reason` goes to its log."""
    return Reply(Status.TEMP, "".join(c if " " <= c <= "~" else "?" for c in reason)[:_MAX_REASON])


def _enforce(domain: PolicyDomain, policy: Policy, style: Style) -> Reply:
    """The most telling reply that Postfix can take in; one too long for it is never cut."""
    plain = _plain(_distinct(policy.mx))
    if style is Style.TLSRPT:
        for reply in _with_attributes(plain, domain, policy):
            return reply
    reply = Reply(Status.OK, plain)
    return reply if reply.fits() else temporary_failure(f"the policy of {domain} has too many mx for a reply")


def _with_attributes(level: str, domain: PolicyDomain, policy: Policy) -> Iterator[Reply]:
    """The level with the attributes of tlsrpt: all, or what fits."""
    checked = f"{level} {_sts(domain, _distinct(policy.mx))}"
    # Postfix 3.10.0 to 3.10.5 crash without any policy_string, so the first one stays.
    for strings in (_policy_strings(policy), f" {_policy_string('version: STSv1')}"):
        reply = Reply(Status.OK, checked + strings)
        if reply.fits():
            yield reply


def _distinct(mx: tuple[MxPattern, ...]) -> list[str]:
    """The patterns as published, without repetitions, in order."""
    distinct: dict[str, str] = {}
    for pattern in mx:
        distinct.setdefault(pattern.text.lower(), pattern.text)
    return list(distinct.values())


def _plain(patterns: list[str]) -> str:
    # In match= a wildcard is `.example.net`. servername=hostname makes the MX host's name the SNI (RFC 8461, 7.1).
    return f"secure match={':'.join(pattern.removeprefix('*') for pattern in patterns)} servername=hostname"


def _sts(domain: PolicyDomain, patterns: list[str]) -> str:
    return " ".join([f"policy_type=sts policy_domain={domain}", *(f"mx_host_pattern={one}" for one in patterns)])


def _policy_strings(policy: Policy) -> str:
    return "".join(f" {_policy_string(line)}" for line in str(policy).splitlines())


def _policy_string(line: str) -> str:
    return f"{{ policy_string = {line} }}"
