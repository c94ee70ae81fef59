"""Judges MX hosts as the Postfix at hand would: their names, and what probes saw of their certificates."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from postfix_mtasts.delivery import certificate
from postfix_mtasts.delivery.certificate import Certificate
from postfix_mtasts.dns.resolver import Tlsa
from postfix_mtasts.postfix.peer import accepts
from postfix_mtasts.remote.probe import Probe
from postfix_mtasts.sts.policy import MxPattern, Policy

NOT_ALLOWED = "is not allowed by "  # Followed by what does not.
OUT_OF_DATE = ", which is out of date: refresh it"  # It may follow that.
NO_ADDRESS = "has no address"
NOT_THERE = "does not exist in DNS (NXDOMAIN)"
_FOR_OTHERS = "its certificate is for "
_DANE_EE = 3  # The certificate usage for the certificate of the host itself (RFC 6698, 2.1.1).
_SPKI = 1  # The selector for its public key.
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A connection to one address of an MX host. `problem` is what Postfix would not accept.

    `unclear` is why it could not be judged from here: mail servers refuse and defer for reasons of their own.
    `tlsa` says whether a TLSA record matches the certificate, if the host has any.
    """

    address: str | None
    tls: str | None
    certificate: Certificate | None
    problem: str | None
    unclear: str | None
    tlsa: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class MxReport:
    """An MX host, and the mx patterns that allow it: of the fresh policy, and of the policy that is in force now."""

    host: str
    pattern: str | None
    pattern_in_force: str | None
    probes: tuple[ProbeReport, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """By what a certificate is judged: the policy, or none; and whether Postfix compares it with the host's own name.

    Otherwise Postfix compares it with the names in the policy, whatever the host is called (postconf(5),
    smtp_tls_enforce_sts_mx_patterns).
    """

    policy: Policy | None
    by_hostname: bool
    name: str = "the policy"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether Postfix delivers to a host: `fine`, `refused`, `unclear` from here, or `unprobed` and allowed by name."""

    state: Literal["fine", "refused", "unclear", "unprobed"]
    reason: str = ""


def pattern_for(host: str, policy: Policy | None) -> str | None:
    """The first mx pattern of a policy that allows a host."""
    return next((str(pattern) for pattern in policy.mx if pattern.matches(host)), None) if policy else None


def unmatched(patterns: Sequence[str], hosts: Sequence[MxReport]) -> list[str]:
    """The patterns of a valid policy that match none of these MX hosts, each once."""
    used = {mx.pattern for mx in hosts}  # Most need no closer look.
    rest = [MxPattern(text) for text in dict.fromkeys(patterns) if text not in used]
    return [str(pattern) for pattern in rest if not any(pattern.matches(mx.host) for mx in hosts)]


def probe_report(host: str, probe: Probe, rules: Rules, records: Sequence[Tlsa]) -> ProbeReport:
    """A probe, judged. If the host has usable TLSA `records`, only they count."""
    problem, unclear, matches = probe.problem, probe.unclear, None
    if records and probe.certificate:
        matches = any(_matches(record, probe) for record in records)
        unclear = None if matches else _incomparable(records, probe)
        problem = None if matches or unclear else "no TLSA record matches its certificate"
        matches = None if unclear else matches
    elif not problem and not probe.unclear:
        expected = [host] if rules.by_hostname or not rules.policy else match_names(rules.policy)
        if not accepts(expected, probe.names):
            names = ", ".join(probe.names[:3]) or "no name"
            allowed = host if expected == [host] else f"any name that {rules.name} allows"
            problem = f"{_FOR_OTHERS}{names}, not for {allowed}"
    return ProbeReport(
        probe.address,
        probe.tls or None,
        certificate.parse(probe.certificate),
        problem,
        unclear,
        matches,
        probe.seconds,
    )


def unprobed(problem: str | None = None, unclear: str | None = None) -> ProbeReport:
    """An MX host without an address to connect to."""
    return ProbeReport(None, None, None, problem, unclear, None, 0.0)


def match_names(policy: Policy) -> list[str]:
    """The names in `match=`, as Postfix is sent them: `*.example.com` is `.example.com` there."""
    return [str(pattern).removeprefix("*") for pattern in policy.mx]


def judge(mx: MxReport, rules: Rules) -> Judgement:
    """Whether Postfix delivers to a host under an enforced policy."""
    if not mx.pattern_in_force and (rules.by_hostname or not mx.probes):
        return _not_allowed(mx, rules)
    if not mx.probes:
        return Judgement("unprobed")
    if any(not probe.problem and not probe.unclear for probe in mx.probes):
        return Judgement("fine")
    problems = [probe.problem for probe in mx.probes if probe.problem]
    if problems and problems[0].startswith(_FOR_OTHERS) and not mx.pattern_in_force:
        return _not_allowed(mx, rules)
    if problems:
        return Judgement("refused", problems[0])
    return Judgement("unclear", "; ".join(dict.fromkeys(probe.unclear or "" for probe in mx.probes)))


def _not_allowed(mx: MxReport, rules: Rules) -> Judgement:
    """A host that no mx line in force allows. If a line of the fresh policy does, a refresh would help."""
    return Judgement("refused", f"{NOT_ALLOWED}{rules.name}{OUT_OF_DATE if mx.pattern else ''}")


def _incomparable(records: Sequence[Tlsa], probe: Probe) -> str | None:
    """Why TLSA records that do not match may match all the same."""
    if any(record.usage != _DANE_EE for record in records) and not probe.chain:
        return "its TLSA records are for a CA, whose certificate Python shows since version 3.13"
    if any(record.selector == _SPKI for record in records) and not certificate.public_key(probe.certificate):
        return "without the package python3-cryptography, its TLSA records cannot be compared"
    return None


def _matches(record: Tlsa, probe: Probe) -> bool:
    """Whether a TLSA record matches what a host has sent (RFC 6698, 2.1)."""
    chain = (probe.certificate,) if record.usage == _DANE_EE else probe.chain or (probe.certificate,)
    parts = [certificate.public_key(der) if record.selector == _SPKI else der for der in chain]
    digest = _DIGESTS.get(record.matching_type)
    return any((digest(part).digest() if digest else part) == record.data for part in parts if part)
