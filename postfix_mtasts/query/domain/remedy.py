"""What makes a policy host work whose policy could not be fetched."""

import re

from postfix_mtasts.query.domain.report import PolicyHostReport

DOMAINS_DNS = "your resolver answers for other names, so probably the domain's nameservers or its DNSSEC are broken"
ASK = "ask its administrator"
_DEFERS = re.compile(r"its [\w ]+ is '4")
_REFUSES = re.compile(r"its greeting is '5")

# What a stage is called where it failed. The keys are the words of the JSON.
STAGES = {
    "record": "TXT lookup",
    "proxy": "proxy",
    "address": "address lookup",
    "connect": "connection",
    "tls": "TLS handshake",
    "certificate": "certificate",
    "response": "HTTP response",
    "policy": "policy file",
    "tlsa": "TLSA lookup",
    "discovery": "discovery",
}


def remedy_for(host: PolicyHostReport) -> str:
    """What to do about the problem of a policy host."""
    problem = host.problem or ""
    url = f"https://{host.name}/.well-known/mta-sts.txt"
    if host.stage == "proxy":
        return f"your proxy must connect to {host.name}:443: ask its administrator, and see fetch.proxy"
    if problem.startswith(("not finished within", "timed out")):
        awaited = {"response": "the web server must answer sooner", "tls": "the web server must finish TLS sooner"}
        return awaited.get(host.stage or "", f"{host.name} must answer sooner")
    match host.stage:
        case "address" if host.missing:
            return f"{host.missing} does not exist in DNS (NXDOMAIN): give it a public IP address"
        case "address" if "no address" in problem or "no public address" in problem:
            return f"{host.name} needs a public IP address"
        case "address":
            return f"{DOMAINS_DNS}: {ASK}"
        case "connect":
            return "a web server must answer there on port 443"
        case "tls":
            return _tls_remedy(host.name, problem)
        case "certificate":
            return _certificate_remedy(host, problem)
        case _ if "Content-Type" in problem:
            return f"{url} must be served as text/plain"
        case _ if problem.startswith("status 3"):
            return f"{url} must be served there, without a redirect"
        case _ if problem.startswith("status"):
            return f"{url} must be served with status 200"
        case _ if "larger than" in problem:
            return f"{url} must be a policy file, which is a few lines of text"
        case _ if "disable compression" in problem:
            return f"{url} must be sent as it is"
        case _:
            return f"see what the web server answers: curl -v {url}"


def probe_remedy(unclear: str) -> str:
    """What to do about an MX host that could not be judged from here."""
    if unclear.startswith("address lookup"):
        return f"{DOMAINS_DNS}: {ASK}"
    if _REFUSES.match(unclear):
        return "it refuses this machine's address, so mail from here fails too"
    if _DEFERS.match(unclear):
        return "it may accept a connection later, or from another machine"
    return "probe from the mail server itself, and see whether your provider blocks port 25"


def _tls_remedy(name: str, problem: str) -> str:
    if "unrecognized name" in problem:
        return f"the web server has no site for {name}: add the name and its certificate to its configuration"
    if "not valid TLS" in problem:
        return "port 443 does not speak TLS: the web server must offer HTTPS there"
    return f"the web server must support TLS 1.2 or later for the name {name}"


def _certificate_remedy(host: PolicyHostReport, problem: str) -> str:
    needed = f"the web server needs a certificate for {host.name} that is valid and issued by a public CA"
    if "intermediate certificate missing" in problem:
        return (
            "the web server must send the intermediate certificate too (often the file fullchain.pem); if it does, its "
            "CA is not a public one, and it needs another certificate"
        )
    if "not yet valid" in problem:
        return f"check this machine's clock; if it is right, {needed}"
    if "mismatch" in problem and host.certificate and not host.certificate.names:
        return (
            "the certificate has no subjectAltName, and its common name does not count: have it issued again with "
            f"DNS:{host.name}"
        )
    return needed
