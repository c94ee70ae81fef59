"""Settings of smtp(8) that stop mail, or with which Postfix cannot apply a policy: a table of parameters."""

import difflib
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client, Installed
from postfix_mtasts.query.doctor.routes import Routes
from postfix_mtasts.query.output import Status

LEVELS = ("none", "may", "encrypt", "fingerprint", "dane", "dane-only", "verify", "secure")
HELD_BACK = "mail to every domain that enforces MTA-STS is deferred"
_ALL = "smtp(8) does not start, and all mail is deferred"
_GRADES = ("null", "export", "low", "medium", "high")
_PROTOCOLS = ("sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3")
_SANE_PROTOCOLS = "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1"
_SMTPS = re.compile(r":(?:465|smtps|submissions)$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a value, what follows, and the right values: of this parameter, or of several."""

    status: Status
    problem: str
    why: str
    right: Mapping[str, str] | str


@dataclass(frozen=True, slots=True)
class Use:
    """A client, and where it sends mail."""

    client: Client
    is_direct: bool  # To the MX hosts of its recipients, among others.
    is_default: bool  # If no table directs the mail elsewhere.
    relays: tuple[str, ...]  # To these next hops.


def check_settings(postfix: Installed, routes: Routes) -> Iterator[Finding]:
    """Everything that is wrong, for each client."""
    for client in postfix.clients:
        relays = tuple(sorted(hop for hop in routes.next_hops(client) if hop))
        use = Use(client, routes.is_direct(client), routes.is_default(client), relays)
        for parameter, judge in _TABLE.items():
            verdict = judge(use, client[parameter])
            if verdict:
                right = {parameter: verdict.right} if isinstance(verdict.right, str) else verdict.right
                line = postfix.set(client, right)
                shown = client[parameter] or "empty"
                what = f"{client.where(parameter)} is {shown}{verdict.problem and f': {verdict.problem}'}"
                fix = ("run", line) if verdict.status is not Status.OK else ("", "")
                yield Finding(_name(parameter), verdict.status, what, verdict.why, *fix)


def nearest(word: str, allowed: tuple[str, ...], otherwise: str) -> str:
    """The allowed word that somebody probably meant."""
    return next(iter(difflib.get_close_matches(word.lower(), allowed, n=1)), otherwise)


def _level(use: Use, value: str) -> Verdict | None:
    level = use.client.level
    if level and level not in LEVELS:
        near = nearest(level, LEVELS, "may")
        return Verdict(Status.ERROR, f"allowed are {', '.join(LEVELS)}", _ALL, near)
    if not use.is_direct:
        return None
    if level in ("", "none"):
        why = "policies still apply, but all other mail is sent in the clear, and Postfix makes no TLS reports"
        return Verdict(Status.WARNING, "", why, "may")
    if not use.is_default:  # The administrator has chosen the domains for which this level is right.
        return None
    if level == "encrypt":
        cause = "" if value else "smtp_enforce_tls is yes, so "
        why = f"{cause}mail to hosts that do not offer TLS is deferred, with a policy or without"
        return Verdict(Status.OK, "", why, level)
    if level == "fingerprint":
        why = "mail to all domains without a policy is deferred, because no fingerprints are known"
        return Verdict(Status.ERROR, "", why, "may")
    if level in ("verify", "secure"):
        why = "mail to all domains without a policy is deferred, unless their certificates have the expected names"
        return Verdict(Status.WARNING, "", why, "may")
    return None


def _wrappermode(use: Use, value: str) -> Verdict | None:
    with_tls = [relay for relay in use.relays if _SMTPS.search(relay)]
    others = [relay for relay in use.relays if relay not in with_tls]
    if value == "yes" and (use.is_direct or others):
        where = others[0] if others else "MX hosts"
        why = f"{where} do not speak TLS from the first octet on, and the mail is deferred"
        return Verdict(Status.ERROR, "", why.replace(" do ", " does ") if others else why, "no")
    right = {"smtp_tls_wrappermode": "yes", "smtp_tls_security_level": "encrypt"}
    is_lenient = use.client.level in ("", "none", "may")
    if value == "yes" and is_lenient:
        problem = "that needs smtp_tls_security_level encrypt or a stricter one"
        return Verdict(Status.ERROR, problem, "the mail is deferred", right)
    if with_tls and value != "yes":
        why = f"mail to {with_tls[0]} is deferred, because that port speaks TLS from the first octet on"
        if use.is_direct:
            return None  # One value cannot be right for both.
        return Verdict(Status.ERROR, "", why, right if is_lenient else "yes")
    return None


def _dns_support(use: Use, value: str) -> Verdict | None:
    if value not in ("", "disabled", "enabled", "dnssec"):
        near = nearest(value, ("disabled", "enabled", "dnssec"), "enabled")
        return Verdict(Status.ERROR, "allowed are disabled, enabled, dnssec", _ALL, near)
    if value == "disabled" and use.is_direct:
        return Verdict(
            Status.ERROR, "", "Postfix does not look for MX hosts, and mail to most domains bounces", "enabled"
        )
    return None


def _host_lookup(use: Use, value: str) -> Verdict | None:
    words = value.replace(",", " ").split()
    if any(word.lower() not in ("dns", "native") for word in words):
        return Verdict(Status.ERROR, "allowed are dns, native", _ALL, "dns")
    if words and "dns" not in words and use.client.level in DANE_LEVELS:
        why = "Postfix does not use DANE if it does not look up hosts in DNS"
        return Verdict(Status.ERROR, "", why, "dns, native")
    return None


def _ehlo(use: Use, value: str) -> Verdict | None:
    words = value.replace(",", " ").split()
    left = [word for word in words if word.lower() != "starttls"]
    if len(left) == len(words):
        return None
    return Verdict(Status.ERROR, "", f"Postfix uses no TLS, and {HELD_BACK}", ", ".join(left))


def _protocols(use: Use, value: str) -> Verdict | None:
    allowed = _allowed_protocols(value)
    if allowed is None:
        problem = "allowed are SSLv2, SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"
        return Verdict(Status.ERROR, problem, HELD_BACK, _SANE_PROTOCOLS)
    if not allowed & {"tlsv1.2", "tlsv1.3"}:
        why = f"neither TLSv1.2 nor TLSv1.3 is left, and {HELD_BACK}"
        return Verdict(Status.ERROR, "", why, _SANE_PROTOCOLS)
    if "tlsv1.2" not in allowed:
        why = "mail to domains that enforce MTA-STS is deferred if their mail servers do not have TLSv1.3"
        return Verdict(Status.WARNING, "", why, _SANE_PROTOCOLS)
    return None


def _allowed_protocols(value: str) -> set[str] | None:
    """The protocols that a list such as `>=TLSv1.2` or `!SSLv2, !SSLv3` allows. None if a word in it is wrong."""
    included, excluded = set[str](), set[str]()
    lowest, highest = 0, len(_PROTOCOLS)
    for word in re.split(r"[\s,:]+", value.lower().strip()):
        name = word.lstrip("!<>=")
        if name not in ("", *_PROTOCOLS):
            return None
        if word.startswith(">="):
            lowest = _PROTOCOLS.index(name)
        elif word.startswith("<="):
            highest = _PROTOCOLS.index(name) + 1
        elif name:
            (excluded if word.startswith("!") else included).add(name)
    return (included or set(_PROTOCOLS)) & set(_PROTOCOLS[lowest:highest]) - excluded


def _grade(use: Use, value: str) -> Verdict | None:
    if value.lower() in ("", *_GRADES):
        return None
    return Verdict(Status.ERROR, f"allowed are {', '.join(_GRADES)}", HELD_BACK, nearest(value, _GRADES, "medium"))


def _mandatory_ciphers(use: Use, value: str) -> Verdict | None:
    return _ciphers(use, value, [use.client["smtp_tls_exclude_ciphers"]])


def _usual_ciphers(use: Use, value: str) -> Verdict | None:
    return _ciphers(use, value, [])


def _ciphers(use: Use, value: str, others: list[str]) -> Verdict | None:
    """Which ciphers for TLSv1.2 are left when these are excluded. Postfix gives up if there are none."""
    grade = use.client["smtp_tls_mandatory_ciphers"].lower()
    names = use.client[f"tls_{grade if grade == 'high' else 'medium'}_cipherlist"]
    if not value or not names:
        return None
    excluded = [f"!{name}" for name in re.split(r"[\s,:]+", " ".join([value, *others])) if name]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.set_ciphers(":".join([names, *excluded]))
    except ssl.SSLError:
        return Verdict(Status.ERROR, "", f"no cipher is left, and {HELD_BACK}", "")
    if any(one["name"].startswith("ECDHE-") for one in context.get_ciphers()):
        return None
    why = "mail to domains that enforce MTA-STS is deferred if their mail servers have TLSv1.2 with ECDHE only"
    return Verdict(Status.WARNING, "", why, "")


def _name(parameter: str) -> str:
    names = {"smtp_tls_security_level": "level", "smtp_tls_wrappermode": "wrappermode"}
    return names.get(parameter, parameter.removeprefix("smtp_").removeprefix("tls_").replace("_", "-"))


_TABLE: Mapping[str, Callable[[Use, str], Verdict | None]] = {
    "smtp_tls_security_level": _level,
    "smtp_tls_wrappermode": _wrappermode,
    "smtp_tls_mandatory_protocols": _protocols,
    "smtp_tls_mandatory_ciphers": _grade,
    "smtp_tls_mandatory_exclude_ciphers": _mandatory_ciphers,
    "smtp_tls_exclude_ciphers": _usual_ciphers,
    "smtp_discard_ehlo_keywords": _ehlo,
    "smtp_dns_support_level": _dns_support,
    "smtp_host_lookup": _host_lookup,
}
