"""One line of the tables: a hostile host or nameserver, what is answered, and what it may cost.

What is answered follows from the cause:

    OK secure match=…       that                 and in the log  fetched: …
    TEMP …                  that                                 fetched: …
    fetched: …              NOTFOUND                             that
    no policy: …            NOTFOUND                             that
    anything else           TEMP STAGE: …                        policy unavailable: STAGE: … (RESULT TYPE)

`*` stands for anything, where a library words it or chance has a say. The daemon runs with `discovery.on_failure =
"temp"`; without that, Postfix is told "not found" in place of TEMP, and nothing else changes.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.world.ca import Ca
from tests.world.dns import Behaviour
from tests.world.https import Step

MX = "mx.example.com"
SECURE = f"OK secure match={MX} servername=hostname"
POLICY = f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 86400\n"
FETCH_TIMEOUT, DNS_TIMEOUT = 8, 5  # Seconds.
LATE = f"timed out after {FETCH_TIMEOUT} s"
KIB = 1024
_RESULT_TYPES = {
    "TXT lookup": "",
    "certificate of the policy host": " (sts-webpki-invalid)",
    "policy file": " (sts-policy-invalid)",
}
_MAX_REPLIED = 200  # Characters of a cause; 300 are logged.


@dataclass(frozen=True)
class Site:
    """What a policy host does: with this TLS context, without TLS, or `at_once`, before anything has come.

    It has `addresses`, or that of the server alone.
    """

    steps: Sequence[Step]
    tls: Callable[[Ca, str], ssl.SSLContext] | None = None
    at_once: bool = False
    addresses: Sequence[str] = ()


@dataclass(frozen=True)
class Zone:
    """How the nameserver answers for the record of a domain, or for the addresses of its policy host.

    What it has no behaviour for is as it should be, and the policy host has one IPv4 address.
    """

    txt: Behaviour | None = None
    a: Behaviour | None = None
    aaaa: Behaviour | None = None


@dataclass(frozen=True)
class Case:
    """What comes of a hostile domain, and the bounds of what it costs.

    `connections` are those to its policy host, `octets` what the host can send on them, `queries` those to the
    nameserver, and `cpu` is in seconds of the daemon's process.
    """

    name: str
    does: Site | Zone
    cause: str
    stage: str
    connections: int = 1
    octets: int = 2 * KIB
    queries: int = 3
    cpu: float = 0.02

    def is_answered_by(self, reply: str) -> bool:
        """Whether that is the reply to expect."""
        if self.cause.startswith(("OK ", "TEMP ")):
            return _matches(self.cause, reply)
        if self.cause.startswith(("no policy: ", "fetched: ")):
            return reply == "NOTFOUND "
        said = f"{self.stage}: {self.cause}"
        return _matches(f"TEMP {said if '*' in said else said[:_MAX_REPLIED]}", reply)

    def is_told_by(self, words: str) -> bool:
        """Whether the log is to tell this of the domain."""
        if self.cause.startswith(("OK ", "TEMP ")):
            return words.startswith("fetched: mode=enforce, ")
        if self.cause.startswith(("no policy: ", "fetched: ")):
            return _matches(self.cause, words)
        kind = _RESULT_TYPES.get(self.stage, " (sts-policy-fetch-error)")
        return _matches(f"policy unavailable: {self.stage}: {self.cause}{kind}", words)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
