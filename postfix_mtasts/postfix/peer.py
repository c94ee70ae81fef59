"""How Postfix compares names in a certificate with those in `match=` (postconf(5), smtp_tls_secure_cert_match).

A plain name matches itself. `.example.com` matches any name below example.com, also several labels below, and a
certificate for `*.example.com`. A wildcard in a certificate stands for exactly one label. Postfix takes the common name
if the certificate has no DNS name among its alternative names.
"""

from collections.abc import Iterable


def accepts(expected: Iterable[str], names: Iterable[str]) -> bool:
    """Whether one of the names in a certificate matches one of the names in `match=`.

    Strangers may list a thousand of either, so each name is looked for, and not compared with all others.
    """
    wanted = {one.lower() for one in expected}
    domains = {one for one in wanted if one.startswith(".")}
    hosts = wanted - domains
    siblings = {one.partition(".")[2] for one in hosts}  # With a wildcard for their first label, they are matched.

    def matches(name: str) -> bool:
        found = name.removeprefix("*.") in siblings if name.startswith("*.") else name in hosts
        return found or any(c == "." and name[at:] in domains for at, c in enumerate(name) if at)

    return any(matches(name.lower().removesuffix(".")) for name in names)
