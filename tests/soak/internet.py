"""An Internet of 5,000 domains that change all the time, and that write down what they have told the daemon."""

import itertools
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.soak.oracle import Failed, LookedUp, Past, Served
from tests.world.ca import Ca
from tests.world.dns import GOOD, Behaviour, DnsServer
from tests.world.https import Drip, End, HttpsServer, Step, answer

DOMAINS = 5000
NAMESERVER, POLICY_HOST = "127.0.0.1", "127.0.0.2"
_NAMES = 50  # Of one certificate.
_Record = Literal["good", "absent", "wrong", "SERVFAIL", "silent"]
_Host = Literal["good", "no address", "expired", "other name", "no TLS", "404", "no policy", "slow", "reset"]
_RECORDS: dict[_Record, int] = {"good": 80, "absent": 10, "wrong": 3, "SERVFAIL": 5, "silent": 2}
_FAULTS: dict[_Host, int] = {"no address": 2, "expired": 3, "other name": 3, "no TLS": 1, "404": 2, "no policy": 2}
_HOSTS: dict[_Host, int] = {"good": 84, **_FAULTS, "slow": 1, "reset": 2}
_MODES = {"enforce": 75, "testing": 15, "none": 10}
# Those of a minute and less expire in the run, and that of 700 seconds is due to be refreshed in it.
_MAX_AGES = {0: 1, 1: 2, 5: 3, 20: 6, 60: 38, 700: 25, 604800: 25}


@dataclass(frozen=True, slots=True)
class _State:
    """What a domain publishes."""

    record: _Record
    record_id: str
    mode: str
    max_age: int
    host: _Host


class World(Protocol):
    """What the servers tell of domains."""

    def record(self, domain: str) -> tuple[str | None, int, Behaviour]:
        """The text of the record if there is one, its TTL or that of its absence, and how the nameserver behaves."""

    def has_address(self, domain: str) -> bool:
        """Whether the policy host of a domain has an address."""

    def site(self, domain: str) -> tuple[ssl.SSLContext | None, Sequence[Step]]:
        """What the policy host does."""


class Internet:
    """`seed` decides what the domains publish."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.ca = Ca(folder)
        self.pasts = {f"d{number}.test": Past(f"d{number}.test") for number in range(DOMAINS)}
        self.domains = list(self.pasts)
        self.changes = 0
        self._random = random.Random(seed)
        self._ids, self._serials = itertools.count(), itertools.count()
        self._states = {domain: self._made_up() for domain in self.domains}
        self._good: dict[str, ssl.SSLContext] = {}
        self._expired: dict[str, ssl.SSLContext] = {}
        for names in (self.domains[at : at + _NAMES] for at in range(0, DOMAINS, _NAMES)):
            hosts = [f"mta-sts.{name}" for name in names]
            self._good.update(dict.fromkeys(names, self.ca.issue(*hosts).server_context()))
            self._expired.update(dict.fromkeys(names, self.ca.issue(*hosts, kind="expired").server_context()))
        self._other = self.ca.issue("mta-sts.other.test").server_context()

    def change(self) -> None:
        """One domain publishes something else."""
        self._states[self._random.choice(self.domains)] = self._made_up()
        self.changes += 1

    def record(self, domain: str) -> tuple[str | None, int, Behaviour]:
        """The text of the record if there is one, its TTL or that of its absence, and how the nameserver behaves."""
        state, past = self._states[domain], self.pasts[domain]
        ttl = state.max_age % 97
        texts = {"good": f"v=STSv1; id={state.record_id};", "wrong": "v=STSv1; id=;"}
        is_failure = state.record in {"SERVFAIL", "silent"}
        record_id = state.record_id if state.record == "good" else None
        past.looked_up.append(LookedUp(time.time(), record_id, 0 if is_failure else ttl))
        behaviours = {"SERVFAIL": Behaviour(rcode="SERVFAIL"), "silent": Behaviour(silent=True)}
        return texts.get(state.record), ttl, behaviours.get(state.record, GOOD)

    def has_address(self, domain: str) -> bool:
        """Whether the policy host of a domain has an address."""
        if self._states[domain].host != "no address":
            return True
        self._fails(domain)
        return False

    def site(self, domain: str) -> tuple[ssl.SSLContext | None, Sequence[Step]]:
        """What the policy host does."""
        state = self._states[domain]
        good = self._good[domain]
        sites: dict[str, tuple[ssl.SSLContext | None, Sequence[Step]]] = {
            "expired": (self._expired[domain], ()),
            "other name": (self._other, ()),
            "no TLS": (None, (answer("not here"),)),
            "404": (good, (answer(status=404),)),
            "no policy": (good, (answer("version: STSv1\nmode: enforce\nmax_age: 60\n"),)),
            "slow": (good, (Drip(b"HTTP", 1.0),)),
            "reset": (good, (End.RESET,)),
        }
        if state.host in sites:
            self._fails(domain)
            return sites[state.host]
        return good, (lambda _: self._policy(domain, state),)

    def _policy(self, domain: str, state: _State) -> bytes:
        past, serial = self.pasts[domain], next(self._serials)
        past.served.append(Served(serial, time.time(), state.mode, state.max_age, past.record_id()))
        lines = ("version: STSv1", f"mode: {state.mode}", f"mx: s{serial}.{domain}", f"max_age: {state.max_age}", "")
        return answer("\n".join(lines))

    def _fails(self, domain: str) -> None:
        past = self.pasts[domain]
        past.failed.append(Failed(time.time(), past.record_id()))

    def _made_up(self) -> _State:
        (record,) = self._random.choices(list(_RECORDS), list(_RECORDS.values()))
        (mode,) = self._random.choices(list(_MODES), list(_MODES.values()))
        (max_age,) = self._random.choices(list(_MAX_AGES), list(_MAX_AGES.values()))
        (host,) = self._random.choices(list(_HOSTS), list(_HOSTS.values()))
        return _State(record, f"{next(self._ids)}", mode, max_age, host)


class Nameserver(DnsServer):
    """The nameserver of an Internet."""

    def __init__(self, internet: World) -> None:
        super().__init__(NAMESERVER, 53)
        self._internet = internet

    def answer(self, query: dns.message.Message) -> tuple[dns.message.Message, Behaviour]:
        """Made of what the domain publishes now."""
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        label, _, domain = question.name.to_text(omit_final_dot=True).partition(".")
        behaviour, text, ttl = GOOD, None, 60
        if (label, question.rdtype) == ("_mta-sts", dns.rdatatype.TXT):
            text, ttl, behaviour = self._internet.record(domain)
            text = text and f'"{text}"'
        elif (label, question.rdtype) == ("mta-sts", dns.rdatatype.A) and self._internet.has_address(domain):
            text = POLICY_HOST
        if behaviour.rcode:
            response.set_rcode(dns.rcode.from_text(behaviour.rcode))
        elif text:
            response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", question.rdtype, text))
        else:
            soa = f"ns.test. hostmaster.test. 1 3600 600 86400 {ttl}"
            response.authority.append(dns.rrset.from_text("test.", ttl, "IN", "SOA", soa))
        return response, behaviour


class PolicyHost(HttpsServer):
    """All policy hosts of an Internet."""

    def __init__(self, internet: World) -> None:
        super().__init__(POLICY_HOST, 443)
        self._internet = internet

    def site_of(self, host: str | None) -> tuple[ssl.SSLContext | None, Sequence[Step]] | None:
        """Made of what the domain publishes now."""
        assert host is not None
        return self._internet.site(host.removeprefix("mta-sts."))
