"""Whether the DANE settings of Postfix and the daemon fit together, and whether the nameserver validates DNSSEC."""

from collections.abc import Iterator

from postfix_mtasts.config import DaneSetting
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client
from postfix_mtasts.query.doctor.scene import Scene
from postfix_mtasts.query.output import Status

_ROOT = ""
_OVERRULED = "MTA-STS policies override DANE, which RFC 8461 forbids"


def check_dane(scene: Scene) -> Iterator[Finding]:
    """Settings that contradict each other, for each client."""
    for client in scene.postfix.clients:
        yield from _check(scene, client)


async def check_dns(resolver: Resolver, scene: Scene | None) -> list[Finding]:
    """Whether the nameserver answers and, if DANE is in use, whether it validates DNSSEC.

    It is asked for the root zone, which is signed.
    """
    try:
        found = await resolver.mx_hosts(_ROOT)
    except DnsError as error:
        why = "no policy can be looked up, and whether the nameserver validates DNSSEC is unknown"
        return [Finding("dns", Status.ERROR, f"the DNS lookup failed: {error}", why)]
    if found.secure or not scene or not _needs_dnssec(scene):
        return []
    why = "DANE needs DNSSEC validation: use a resolver that validates, such as unbound on this machine"
    return [Finding("dnssec-validation", Status.ERROR, "the nameserver does not validate DNSSEC", why)]


def _check(scene: Scene, client: Client) -> Iterator[Finding]:
    dane, level = scene.rules.dane, client.level
    has_dnssec = client["smtp_dns_support_level"] == "dnssec"
    place = f"{scene.file}, [reply]"
    where = client.where("smtp_tls_security_level")
    if dane is DaneSetting.OFF and level in DANE_LEVELS and has_dnssec:
        what = f"{where} is {level}, but the daemon has reply.dane off"
        yield Finding("dane", Status.ERROR, what, _OVERRULED, place, 'dane = "yield"')
    elif dane is DaneSetting.YIELD and level not in DANE_LEVELS:
        what = f"reply.dane is yield, but {where} is {level or 'empty'}"
        why = "for domains with TLSA records, Postfix checks neither these records nor the policy"
        yield Finding("dane", Status.ERROR, what, why, place, 'dane = "auto"')
    elif dane is DaneSetting.DANE_ONLY and not has_dnssec:
        what = f"reply.dane is dane-only, but {client.where('smtp_dns_support_level')} is not dnssec"
        why = "mail to domains with TLSA records is deferred"
        fix = scene.postfix.line(client, "smtp_dns_support_level", "dnssec")
        yield Finding("dane", Status.ERROR, what, why, *fix)


def _needs_dnssec(scene: Scene) -> bool:
    return scene.rules.dane is not DaneSetting.OFF or any(
        client.level in DANE_LEVELS and client["smtp_dns_support_level"] == "dnssec" for client in scene.postfix.clients
    )
