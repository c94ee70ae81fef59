"""What else is wrong with Postfix's own configuration, whatever the daemon answers: its version, CAs, DANE, relays."""

import pathlib
import re
from collections.abc import Iterator

from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client, Installed
from postfix_mtasts.query.doctor.routes import Routes
from postfix_mtasts.query.output import Status
from postfix_mtasts.remote.network import CaError, tls_context

SERVERNAME_SINCE = (3, 4, 0)
_DEBIAN_CAS = "/etc/ssl/certs/ca-certificates.crt"
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_DEFERRED = "mail to every domain that enforces MTA-STS is deferred"


def check_postfix(postfix: Installed, routes: Routes) -> Iterator[Finding]:
    """Everything that is wrong, for the machine and for each client."""
    if postfix.version < SERVERNAME_SINCE:
        what = f"{postfix} is too old: it does not support servername=, which needs 3.4 or later"
        yield Finding("version", Status.ERROR, what, _DEFERRED)
    for client in postfix.clients:
        # A client that needs no policies need not trust anybody.
        if client["smtp_tls_policy_maps"] or client.level in ("verify", "secure") or routes.is_used(client):
            yield from _cas(postfix, client)
        yield from _dnssec(postfix, client)
        yield from _mx_names(postfix, client)
        yield from _relay_and_reuse(postfix, client, routes)


def _cas(postfix: Installed, client: Client) -> Iterator[Finding]:
    file, folder = client["smtp_tls_CAfile"], client["smtp_tls_CApath"]
    install = "" if pathlib.Path(_DEBIAN_CAS).exists() else "apt install ca-certificates && "
    fix = "run", install + postfix.set(client, {"smtp_tls_CAfile": _DEBIAN_CAS})
    if file:
        try:
            tls_context(file)
        except CaError as error:
            # With a CAfile that it cannot load, smtp(8) runs without TLS.
            what = f"{client.where('smtp_tls_CAfile')} = {file}: {error}"
            yield Finding("ca", Status.ERROR, what, f"Postfix cannot use TLS at all, and {_DEFERRED}", *fix)
    elif folder:
        place = postfix.queue / folder.lstrip("/") if client.chroot else pathlib.Path(folder)
        if not place.is_dir() or not any(_HASHED.fullmatch(one.name) for one in place.iterdir()):
            jail = f", which is in the chroot of {client}" if client.chroot else ""
            what = f"{client.where('smtp_tls_CApath')} = {folder}: no hash links (openssl rehash) in {place}{jail}"
            yield Finding("ca", Status.ERROR, what, f"Postfix trusts no CA, and {_DEFERRED}", *fix)
    elif client["tls_append_default_CA"] != "yes":
        what = f"{client.where('smtp_tls_CAfile')} and smtp_tls_CApath are empty"
        yield Finding("ca", Status.ERROR, what, f"Postfix trusts no CA, and {_DEFERRED}", *fix)


def _dnssec(postfix: Installed, client: Client) -> Iterator[Finding]:
    if client.level not in DANE_LEVELS:
        return
    insecure_mx = client["smtp_tls_dane_insecure_mx_policy"]
    # Before 3.6.17, 3.7.13, 3.8.8 and 3.9.2 the default depends on the level. postconf(1) computes it from the level in
    # main.cf, so the value is unknown for a service with a level of its own.
    is_known = "smtp_tls_security_level" not in client.own or "smtp_tls_dane_insecure_mx_policy" in client.own
    if client["smtp_dns_support_level"] != "dnssec":
        why = "it delivers as at level may" if client.level == "dane" else "it defers all mail"
        yield Finding(
            "dnssec",
            Status.ERROR,
            f"{client.where('smtp_tls_security_level')} is {client.level}, but smtp_dns_support_level is not dnssec",
            f"Postfix does not use DANE: {why}",
            "run",
            postfix.set(client, {"smtp_dns_support_level": "dnssec"}),
        )
    elif client.level == "dane" and is_known and insecure_mx not in ("dane", ""):
        yield Finding(
            "insecure-mx",
            Status.WARNING,
            f"{client.where('smtp_tls_dane_insecure_mx_policy')} is {insecure_mx}",
            "Postfix does not check TLSA records of MX hosts if the MX records are not signed with DNSSEC",
            "run",
            postfix.set(client, {"smtp_tls_dane_insecure_mx_policy": "dane"}),
        )


def _mx_names(postfix: Installed, client: Client) -> Iterator[Finding]:
    if client["smtp_tls_enforce_sts_mx_patterns"] == "no":
        yield Finding(
            "mx-patterns",
            Status.WARNING,
            f"{client.where('smtp_tls_enforce_sts_mx_patterns')} is no",
            "Postfix delivers to MX hosts that the policy does not allow, if their certificate has an allowed name",
            "run",
            postfix.set(client, {"smtp_tls_enforce_sts_mx_patterns": "yes"}),
        )


def _relay_and_reuse(postfix: Installed, client: Client, routes: Routes) -> Iterator[Finding]:
    """Settings with which mail takes another route, or with which Postfix cannot apply a policy."""
    relay = client["smtp_fallback_relay"]
    if relay and routes.is_direct(client):
        yield Finding(
            "fallback-relay",
            Status.WARNING,
            f"{client.where('smtp_fallback_relay')} is {relay}",
            "mail that a policy would defer goes to that relay instead, under the relay's policy or none",
            "run",
            postfix.set(client, {"smtp_fallback_relay": ""}),
        )
    if client["smtp_tls_connection_reuse"] == "yes" and "tlsproxy/unix" not in postfix.services:
        yield Finding(
            "tlsproxy",
            Status.ERROR,
            f"{client.where('smtp_tls_connection_reuse')} is yes, but master.cf has no service tlsproxy",
            "Postfix cannot use TLS at all, and mail that requires TLS is deferred",
            "run",
            postfix.edit("-M 'tlsproxy/unix = tlsproxy unix - - - - 0 tlsproxy'"),
        )
    if client["smtp_tls_per_site"]:
        what = f"{client.where('smtp_tls_per_site')} is {client['smtp_tls_per_site']}"
        why = "Postfix ignores it because smtp_tls_policy_maps is set: move its entries to a table there"
        yield Finding("per-site", Status.WARNING, what, why, "run", postfix.set(client, {"smtp_tls_per_site": ""}))
