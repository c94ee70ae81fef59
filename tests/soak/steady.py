"""An Internet of domains that always publish the same, for daemons that are compared with one another."""

import random
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.world.ca import Ca
from tests.world.dns import GOOD, Behaviour
from tests.world.https import Drip, Step, answer

SLOW = 1.0  # Seconds that a slow policy host takes.
_NAMES = 50  # Of one certificate.
# How many of a hundred domains do what.
_MODES = {"enforce": 50, "testing": 5, "none": 5}
_RECORDS = {"no record": 20, "wrong record": 4, "SERVFAIL": 4}
_KINDS = _MODES | _RECORDS | {"no address": 3, "expired": 3, "404": 3, "no policy": 3}


class Steady:
    """Domains that always publish the same. It counts who is asked for. So many of about a hundred are slow."""

    def __init__(self, folder: Path, count: int, *, slow: int = 0) -> None:
        self.ca = Ca(folder)
        self.asked: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()
        self.is_down = False  # All of it: no record can be looked up.
        weights = _KINDS | {"slow": slow}
        kinds = random.Random(1).choices(list(weights), list(weights.values()), k=count)
        self.kinds = {f"d{number}.test": kind for number, kind in enumerate(kinds)}
        self.domains = list(self.kinds)
        expired = [domain for domain, kind in self.kinds.items() if kind == "expired"]
        good = [domain for domain, kind in self.kinds.items() if kind != "expired"]
        self._contexts = dict(self._certified(good)) | dict(self._certified(expired, is_expired=True))

    def record(self, domain: str) -> tuple[str | None, int, Behaviour]:
        """The text of the record if there is one, its TTL or that of its absence, and how the nameserver behaves."""
        self.asked[domain] += 1
        texts = {"no record": None, "SERVFAIL": None, "wrong record": "v=STSv1; id=;"}
        kind = "SERVFAIL" if self.is_down else self.kinds[domain]
        return texts.get(kind, "v=STSv1; id=1;"), 3600, Behaviour(rcode="SERVFAIL") if kind == "SERVFAIL" else GOOD

    def has_address(self, domain: str) -> bool:
        """Whether the policy host of a domain has an address."""
        return self.kinds[domain] != "no address"

    def site(self, domain: str) -> tuple[ssl.SSLContext | None, Sequence[Step]]:
        """What the policy host does."""
        self.fetched[domain] += 1
        kind = self.kinds[domain]
        mode = kind if kind in _MODES else "enforce"
        policy = f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: 604800\n"
        steps = {"404": answer(status=404), "no policy": answer("version: STSv1\n")}
        slow = (Drip(b"HTTP", SLOW / len(b"HTTP")), answer(policy)[len(b"HTTP") :])
        return self._contexts[domain], slow if kind == "slow" else (steps.get(kind, answer(policy)),)

    def _certified(self, domains: list[str], *, is_expired: bool = False) -> Iterator[tuple[str, ssl.SSLContext]]:
        for begin in range(0, len(domains), _NAMES):
            some = domains[begin : begin + _NAMES]
            hosts = (f"mta-sts.{domain}" for domain in some)
            context = self.ca.issue(*hosts, kind="expired" if is_expired else "good").server_context()
            yield from ((domain, context) for domain in some)
