"""What is wrong with Postfix by itself, whatever the daemon says to it."""

import pathlib
import re
from collections.abc import Iterator

from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client, Installed
from postfix_mtasts.query.output import Status
from postfix_mtasts.remote.network import CaError, tls_context

SERVERNAME_SINCE = (3, 4, 0)
_DEBIAN_CAS = "/etc/ssl/certs/ca-certificates.crt"
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_HELD_BACK = "mail to every domain that enforces MTA-STS stays in the queue"


def check_postfix(postfix: Installed) -> Iterator[Finding]:
    """All of it."""
    if postfix.version < SERVERNAME_SINCE:
        yield Finding("version", Status.ERROR, f"{postfix} does not know servername=, which came with 3.4", _HELD_BACK)
    if relay := postfix.settings.get("relayhost"):
        what = f"relayhost is {relay}: Postfix asks for the policy of that host"
        yield Finding("relayhost", Status.OK, what, "the policies of the recipients' domains are for it to heed")
    for client in postfix.clients:
        yield from _cas(postfix, client)
        yield from _level(postfix, client)
        yield from _dnssec(postfix, client)
        yield from _mx_names(postfix, client)
        yield from _other_ways(postfix, client)


def _cas(postfix: Installed, client: Client) -> Iterator[Finding]:
    file, folder = client["smtp_tls_CAfile"], client["smtp_tls_CApath"]
    cas = _DEBIAN_CAS if pathlib.Path(_DEBIAN_CAS).exists() else "/PATH/OF/CA-CERTIFICATES.pem"
    fix = postfix.line(client, "smtp_tls_CAfile", cas)
    if file:
        try:
            tls_context(file)
        except CaError as error:
            # smtp(8) goes on without TLS then.
            what = f"{client.where('smtp_tls_CAfile')} = {file}: {error}"
            yield Finding("ca", Status.ERROR, what, f"Postfix can use no TLS at all, and {_HELD_BACK}", *fix)
    elif folder:
        place = postfix.queue / folder.lstrip("/") if client.chroot else pathlib.Path(folder)
        if not place.is_dir() or not any(_HASHED.fullmatch(one.name) for one in place.iterdir()):
            jail = f", where {client} looks for it in its chroot," if client.chroot else ""
            what = f"{client.where('smtp_tls_CApath')} = {folder}: {place}{jail} has no hashed certificates"
            yield Finding("ca", Status.ERROR, what, f"Postfix trusts nobody, and {_HELD_BACK}", *fix)
    elif client["tls_append_default_CA"] != "yes":
        what = f"{client.where('smtp_tls_CAfile')} and smtp_tls_CApath are empty"
        yield Finding("ca", Status.ERROR, what, f"Postfix trusts nobody, and {_HELD_BACK}", *fix)


def _level(postfix: Installed, client: Client) -> Iterator[Finding]:
    if client.level in ("", "none"):
        yield Finding(
            "level",
            Status.WARNING,
            f"{client.where('smtp_tls_security_level')} is {client.level or 'empty'}",
            "policies hold all the same, but all other mail goes out in clear, and no TLS reports are made",
            *postfix.line(client, "smtp_tls_security_level", "may"),
        )


def _dnssec(postfix: Installed, client: Client) -> Iterator[Finding]:
    if client.level not in DANE_LEVELS:
        return
    insecure_mx = client["smtp_tls_dane_insecure_mx_policy"]
    # Before 3.6.17, 3.7.13, 3.8.8 and 3.9.2 the default follows the level, which postconf(1) knows only of main.cf.
    is_known = "smtp_tls_security_level" not in client.own or "smtp_tls_dane_insecure_mx_policy" in client.own
    if client["smtp_dns_support_level"] != "dnssec":
        why = "mail goes out as at level may" if client.level == "dane" else "all mail stays in the queue"
        yield Finding(
            "dnssec",
            Status.ERROR,
            f"{client.where('smtp_tls_security_level')} is {client.level}, without smtp_dns_support_level = dnssec",
            f"Postfix applies no DANE: {why}",
            *postfix.line(client, "smtp_dns_support_level", "dnssec"),
        )
    elif client.level == "dane" and is_known and insecure_mx not in ("dane", ""):
        yield Finding(
            "insecure-mx",
            Status.WARNING,
            f"{client.where('smtp_tls_dane_insecure_mx_policy')} is {insecure_mx}",
            "MX hosts with TLSA records are not checked by them where the MX records are not signed",
            *postfix.line(client, "smtp_tls_dane_insecure_mx_policy", "dane"),
        )


def _mx_names(postfix: Installed, client: Client) -> Iterator[Finding]:
    if client["smtp_tls_enforce_sts_mx_patterns"] == "no":
        yield Finding(
            "mx-patterns",
            Status.WARNING,
            f"{client.where('smtp_tls_enforce_sts_mx_patterns')} is no",
            "Postfix sends to MX hosts that the policy does not allow, if their certificate has a name that it allows",
            *postfix.line(client, "smtp_tls_enforce_sts_mx_patterns", "yes"),
        )


def _other_ways(postfix: Installed, client: Client) -> Iterator[Finding]:
    """How mail goes where no policy is asked for, or none can be applied."""
    if relay := client["smtp_fallback_relay"]:
        yield Finding(
            "fallback-relay",
            Status.WARNING,
            f"{client.where('smtp_fallback_relay')} is {relay}",
            "mail that a policy holds back goes there, under the policy of that host or none",
            *postfix.line(client, "smtp_fallback_relay", ""),
        )
    if client["smtp_tls_connection_reuse"] == "yes" and "tlsproxy/unix" not in postfix.services:
        yield Finding(
            "tlsproxy",
            Status.ERROR,
            f"{client.where('smtp_tls_connection_reuse')} is yes, but master.cf has no service tlsproxy",
            "Postfix can use no TLS at all, and mail that must have it stays in the queue",
            "run",
            "postconf -M 'tlsproxy/unix = tlsproxy unix - - - - 0 tlsproxy'",
        )
    if client["smtp_tls_per_site"]:
        what = f"{client.where('smtp_tls_per_site')} is {client['smtp_tls_per_site']}"
        why = "Postfix ignores it beside smtp_tls_policy_maps: its entries belong into a table there"
        yield Finding("per-site", Status.WARNING, what, why, *postfix.line(client, "smtp_tls_per_site", ""))
