"""Whether the nameserver answers and, if DANE is in use, whether it validates DNSSEC."""

from collections.abc import Iterable

from postfix_mtasts.config import DaneSetting
from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.scene import Scene
from postfix_mtasts.query.output import Status

_ROOT = ""


async def check_dns(resolver: Resolver, scenes: Iterable[Scene]) -> list[Finding]:
    """Ask the nameserver for the root zone, which is signed."""
    try:
        found = await resolver.mx_hosts(_ROOT)
    except DnsError as error:
        why = "no policy can be looked up, and whether the nameserver validates DNSSEC is unknown"
        return [Finding("dns", Status.ERROR, f"the DNS lookup failed: {error}", why)]
    if found.secure or not any(map(_needs_dnssec, scenes)):
        return []
    why = "DANE needs DNSSEC validation: use a resolver that validates, such as unbound on this machine"
    return [Finding("dnssec-validation", Status.ERROR, "the nameserver does not validate DNSSEC", why)]


def _needs_dnssec(scene: Scene) -> bool:
    return scene.rules.dane is not DaneSetting.OFF or any(
        client.level in DANE_LEVELS and client["smtp_dns_support_level"] == "dnssec" for client in scene.postfix.clients
    )
