"""The daemon where DANE may decide: over its socket, with DNS that is signed here and not there."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import World
from tests.world.daemon import Daemon, ask
from tests.world.dns import GOOD, Behaviour

EE = "3 1 1 " + 32 * "ab"
SERVFAIL = Behaviour(rcode="SERVFAIL")
NOTFOUND = "NOTFOUND "
DANE_ONLY = "OK dane-only"


@pytest.fixture(autouse=True)
def _signed(world: World) -> None:
    world.dns.authenticated = {"signed"}


def configuration(world: World, folder: Path, dane: str, **reply: object) -> dict[str, dict[str, object]]:
    ours = world.configuration(folder, reply={"dane": dane, **reply})
    return {name: dict(table) for name, table in ours.items()}


def endpoint(daemon: Daemon) -> str:
    return f"unix:{daemon.config.parent / 'socket'}"


@pytest.fixture
def yielding(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, configuration(world, tmp_path, "yield")) as daemon:
        yield daemon


@pytest.fixture
def dane_only(world: World, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, configuration(world, tmp_path, "dane-only")) as daemon:
        yield daemon


def policy(domain: str, mode: str = "enforce", max_age: int = 86400) -> str:
    return f"version: STSv1\nmode: {mode}\nmx: mx.{domain}\nmax_age: {max_age}\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


def mail(world: World, domain: str, *tlsa: str, ttl: int = 300) -> None:
    """A domain with one MX host, and its TLSA records."""
    world.dns.add(domain, "MX", f"10 mx.{domain}.")
    world.dns.add(f"mx.{domain}", "A", "192.0.2.1")
    for record in tlsa:
        world.dns.add(f"_25._tcp.mx.{domain}", "TLSA", record, ttl=ttl)


def asked(world: World, domain: str) -> list[tuple[str, str]]:
    """What DNS was asked of a domain's mail, in any order."""
    names = {domain: "MX", f"mx.{domain}": "A", f"_25._tcp.mx.{domain}": "TLSA"}
    return sorted((query.name, query.rdtype) for query in world.dns.queries if names.get(query.name) == query.rdtype)


def all_of(domain: str) -> list[tuple[str, str]]:
    return sorted([(domain, "MX"), (f"mx.{domain}", "A"), (f"_25._tcp.mx.{domain}", "TLSA")])


def test_a_policy_yields_to_tlsa_records(world: World, yielding: Daemon) -> None:
    world.publish("both.signed", policy("both.signed"))
    mail(world, "both.signed", EE)
    assert [ask(endpoint(yielding), "both.signed") for _ in range(3)] == [NOTFOUND] * 3
    assert asked(world, "both.signed") == all_of("both.signed")
    assert yielding.wait_for("DANE takes precedence") == (
        "info: domain=both.signed, DANE takes precedence over MTA-STS: TLSA records of mx.both.signed"
    )


def test_a_policy_holds_where_there_are_no_tlsa_records(world: World, yielding: Daemon) -> None:
    for domain in ("sts.signed", "sts.unsigned"):
        world.publish(domain, policy(domain))
        mail(world, domain)
        assert [ask(endpoint(yielding), domain) for _ in range(3)] == [secure(domain)] * 3
    assert asked(world, "sts.signed") == all_of("sts.signed")
    assert asked(world, "sts.unsigned") == [("sts.unsigned", "MX")]


def test_a_policy_holds_where_tlsa_records_are_not_proved(world: World, yielding: Daemon) -> None:
    world.publish("claims.unsigned", policy("claims.unsigned"))
    mail(world, "claims.unsigned", EE)
    world.dns.set_behaviour("_25._tcp.mx.claims.unsigned", SERVFAIL)
    assert ask(endpoint(yielding), "claims.unsigned") == secure("claims.unsigned")


def test_mail_waits_when_tlsa_records_cannot_be_looked_up(world: World, yielding: Daemon) -> None:
    world.publish("broken.signed", policy("broken.signed"))
    mail(world, "broken.signed", EE)
    world.dns.set_behaviour("_25._tcp.mx.broken.signed", SERVFAIL)
    reason = "TLSA lookup: _25._tcp.mx.broken.signed: 127.0.0.1: SERVFAIL"
    assert ask(endpoint(yielding), "broken.signed") == f"TEMP {reason}"
    assert yielding.wait_for("is deferred") == f"warning: domain=broken.signed, mail is deferred: {reason}"


def test_postfix_does_dane_by_itself_where_there_is_no_policy(world: World, yielding: Daemon) -> None:
    """Even if whether there are TLSA records cannot be found out: its own lookup has the last word."""
    for domain, mode in (("none.signed", "none"), ("testing.signed", "testing")):
        world.publish(domain, policy(domain, mode))
    for domain in ("none.signed", "testing.signed", "nothing.signed"):
        mail(world, domain, EE)
        world.dns.set_behaviour(f"_25._tcp.mx.{domain}", SERVFAIL)
        assert ask(endpoint(yielding), domain) == NOTFOUND


def test_a_reported_policy_in_mode_testing_yields_too(world: World, tmp_path: Path) -> None:
    """`may` would take the place of Postfix's level `dane`."""
    world.publish("reported.signed", policy("reported.signed", "testing"))
    mail(world, "reported.signed", EE)
    with Daemon(tmp_path, configuration(world, tmp_path, "yield", testing="report")) as daemon:
        assert ask(endpoint(daemon), "reported.signed", name="tlsrpt") == NOTFOUND


def test_dane_only(world: World, dane_only: Daemon) -> None:
    world.publish("only.signed", policy("only.signed"))
    for domain in ("only.signed", "plain.signed", "only.unsigned"):
        mail(world, domain, EE)
    replies = {domain: ask(endpoint(dane_only), domain) for domain in ("only.signed", "plain.signed", "only.unsigned")}
    assert replies == {"only.signed": DANE_ONLY, "plain.signed": DANE_ONLY, "only.unsigned": NOTFOUND}
    # With the attributes of tlsrpt Postfix would hold the MX hosts against the policy.
    assert ask(endpoint(dane_only), "only.signed", name="tlsrpt") == DANE_ONLY


def test_dane_only_makes_mail_wait_whatever_the_policy(world: World, dane_only: Daemon) -> None:
    mail(world, "bogus.signed", EE)
    world.dns.set_behaviour("_25._tcp.mx.bogus.signed", SERVFAIL)
    assert ask(endpoint(dane_only), "bogus.signed") == (
        "TEMP TLSA lookup: _25._tcp.mx.bogus.signed: 127.0.0.1: SERVFAIL"
    )


def test_off_asks_for_nothing(world: World, tmp_path: Path) -> None:
    world.publish("off.signed", policy("off.signed"))
    mail(world, "off.signed", EE)
    with Daemon(tmp_path, configuration(world, tmp_path, "off")) as daemon:
        assert ask(endpoint(daemon), "off.signed") == secure("off.signed")
    assert asked(world, "off.signed") == []


def test_a_smart_host_has_tlsa_records_of_its_own_port(world: World, yielding: Daemon) -> None:
    world.publish("smart.signed", policy("smart.signed"))
    world.dns.add("smart.signed", "MX", "10 mx.smart.signed.")
    for host in ("smart.signed", "mx.smart.signed"):
        world.dns.add(host, "A", "192.0.2.1")
    world.dns.add("_587._tcp.smart.signed", "TLSA", EE)
    keys = ("smart.signed", "[smart.signed]", "[smart.signed]:587", "[smart.signed]:submission", "smart.signed:587")
    replies = {key: ask(endpoint(yielding), key) for key in keys}
    assert replies == dict.fromkeys(keys, secure("smart.signed")) | {
        "[smart.signed]:587": NOTFOUND,
        "[smart.signed]:submission": NOTFOUND,
    }


def test_the_records_of_dane_are_looked_up_beside_that_of_the_policy(world: World, tmp_path: Path) -> None:
    """Both are asked for before either is answered."""
    domain = "beside.signed"
    world.publish(domain, policy(domain))
    mail(world, domain, EE)
    release: Future[None] = Future()
    for name in (f"_mta-sts.{domain}", domain):
        world.dns.set_behaviour(name, Behaviour(release=release))
    config = configuration(world, tmp_path, "yield")
    config["server"] |= {"answer_within": 90}
    config["dns"] |= {"timeout": 90}
    with Daemon(tmp_path, config) as daemon, ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, endpoint(daemon), domain)
        deadline = time.monotonic() + 20
        begun: set[tuple[str, str]] = set()
        while begun != {(f"_mta-sts.{domain}", "TXT"), (domain, "MX")}:
            assert time.monotonic() < deadline
            begun = {(query.name, query.rdtype) for query in world.dns.queries if query.name.endswith(domain)}
            time.sleep(0.01)
        assert not reply.done()
        release.set_result(None)
        assert reply.result() == NOTFOUND


def test_what_dns_says_of_dane_is_kept_apart_from_the_policy(world: World, tmp_path: Path) -> None:
    """A policy that is at hand after a restart waits for it."""
    domain = "apart.signed"
    world.publish(domain, policy(domain))
    mail(world, domain)
    with Daemon(tmp_path, configuration(world, tmp_path, "yield")) as daemon:
        assert ask(endpoint(daemon), domain) == secure(domain)
        world.dns.add(f"_25._tcp.mx.{domain}", "TLSA", EE)
        assert ask(endpoint(daemon), domain) == secure(domain)
        daemon.restart()
        assert ask(endpoint(daemon), domain) == NOTFOUND
    assert world.asked(domain) == (1, 1)


def test_a_policy_fetched_anew_each_time_costs_no_more_lookups_of_dane(world: World, yielding: Daemon) -> None:
    domain = "brief.signed"
    world.publish(domain, policy(domain, max_age=0))
    mail(world, domain)
    assert [ask(endpoint(yielding), domain) for _ in range(3)] == [secure(domain)] * 3
    assert asked(world, domain) == all_of(domain)
    assert world.asked(domain) == (3, 3)


def test_mail_waits_while_the_lookups_of_dane_take_too_long(world: World, tmp_path: Path) -> None:
    domain = "slow.signed"
    world.publish(domain, policy(domain))
    mail(world, domain, EE)
    world.dns.set_behaviour(f"_25._tcp.mx.{domain}", Behaviour(delay=3))
    config = configuration(world, tmp_path, "yield")
    config["server"] |= {"answer_within": 1}
    with Daemon(tmp_path, config) as daemon:
        assert ask(endpoint(daemon), domain) == "TEMP discovery: no result within 1 s; it goes on"


def test_a_resolver_that_is_down_stops_no_policy_at_hand(world: World, tmp_path: Path) -> None:
    """Whether the domain is signed is unknown then, and Postfix has no MX host to deliver to either, until it is up."""
    domain = "down.signed"
    world.publish(domain, policy(domain))
    mail(world, domain, EE)
    with Daemon(tmp_path, configuration(world, tmp_path, "off")) as daemon:
        assert ask(endpoint(daemon), domain) == secure(domain)
    world.dns.set_behaviour(domain, SERVFAIL)
    with Daemon(tmp_path, configuration(world, tmp_path, "yield")) as daemon:
        assert ask(endpoint(daemon), domain) == secure(domain)
        world.dns.set_behaviour(domain, GOOD)
        assert ask(endpoint(daemon), domain) == NOTFOUND


# Reload


def reload(daemon: Daemon, config: str) -> list[str]:
    """What the daemon logs when it is told to read this configuration."""
    since = len(daemon.log)
    daemon.config.write_text(config)
    daemon.hang_up()
    daemon.wait_for("not reloaded|reply.dane is", since=since)
    return [line for line in daemon.log[since:] if "domain=" not in line]


def test_a_reload(world: World, yielding: Daemon) -> None:
    domain = "reload.signed"
    world.publish(domain, policy(domain))
    mail(world, domain, EE)
    tables = yielding.config.read_text()
    assert ask(endpoint(yielding), domain) == NOTFOUND
    assert reload(yielding, tables.replace('"yield"', '"dane-only"')) == [
        "info: configuration reloaded",
        "info: reply.style is plain: configured",
        "info: reply.dane is dane-only: configured",
    ]
    assert ask(endpoint(yielding), domain) == DANE_ONLY
    wrong = f'{yielding.config}: reply.dane = "offf": must be "auto", "yield", "dane-only" or "off"'
    assert reload(yielding, tables.replace('"yield"', '"offf"')) == [
        f"error: configuration not reloaded, the previous one stays in effect: {wrong}"
    ]
    assert ask(endpoint(yielding), domain) == DANE_ONLY
    elsewhere = (
        '[server]\nlisten = ["inet:127.0.0.1:8462"]\n[dns]\ntimeout = 1\n[reply]\nstyle = "plain"\ndane = "off"\n'
    )
    assert reload(yielding, elsewhere) == [
        "info: configuration reloaded; restart the daemon to apply the changes in [server], [cache], [dns], [fetch]",
        "info: reply.style is plain: configured",
        "info: reply.dane is off: configured",
    ]
    assert ask(endpoint(yielding), domain) == secure(domain)
