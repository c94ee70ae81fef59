"""How Postfix compares names in a certificate with those in `match=` (postconf(5), smtp_tls_secure_cert_match).

A plain name matches itself. `.example.com` matches any name below example.com, also several labels below, and a
certificate for `*.example.com`. A wildcard in a certificate stands for exactly one label. Postfix takes the common name
if the certificate has no DNS name among its alternative names.
"""

from collections.abc import Iterable


def accepts(expected: Iterable[str], names: Iterable[str]) -> bool:
    """Whether one of the names in a certificate matches one of the names in `match=`."""
    presented = [name.lower().removesuffix(".") for name in names]
    return any(_matches(one.lower(), name) for one in expected for name in presented)


def _matches(expected: str, name: str) -> bool:
    if expected.startswith("."):
        return name.endswith(expected) and name != expected
    if name.startswith("*."):
        return expected.partition(".")[2] == name.removeprefix("*.")
    return name == expected
