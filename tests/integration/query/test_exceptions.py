"""`postfix-mtasts-query except`, and where else the command tells of exceptions, with the running daemon."""

import asyncio
import datetime
import io
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from postfix_mtasts.config import parse
from postfix_mtasts.query import command
from postfix_mtasts.query.exceptions import AT_ONCE, Without, look_at_all
from postfix_mtasts.query.output import Status
from tests.integration.conftest import World, filled, small_disk
from tests.world.daemon import Daemon, ask, toml
from tests.world.smtp import SmtpServer

pytestmark = pytest.mark.usefixtures("namespace")

DOCS = Path(__file__).parents[3] / "docs"
TODAY = datetime.date.today()  # noqa: DTZ011 - the day of this machine
UNTIL = TODAY + datetime.timedelta(30)
CONFIGURED = f"""
[[exception]]
domain = "*.below.test"
until = {UNTIL}
reason = "they renew their certificates, ticket 4711"
level = "may"
[[exception]]
domain = "over.test"
until = 2020-02-29
reason = "ticket 1"
"""
REASON = ("--reason", "ticket 4712")


def policy(domain: str) -> str:
    return f"version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 1209600\n"


def secure(domain: str) -> str:
    return f"OK secure match=mx.{domain} servername=hostname"


def without_times(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r"\b[\d,]+ (second|minute|day)s?\b", r"N \1s", text.replace(str(UNTIL), "DATE"))


class Relay:
    """A running daemon in a world whose domains all have an MX host with an expired certificate."""

    def __init__(self, world: World, folder: Path, servers: ExitStack, daemon: Daemon) -> None:
        self.world, self.folder, self.daemon = world, folder, daemon
        self._servers = servers
        self._numbers = itertools.count(1)

    def domain(self, name: str, *, expired: bool = True) -> str:
        self.world.publish(name, policy(name))
        address = f"127.0.4.{next(self._numbers)}"
        self.world.dns.add(name, "MX", f"10 mx.{name}.")
        self.world.dns.add(f"mx.{name}", "A", address)
        context = self.world.ca.issue(f"mx.{name}", kind="expired" if expired else "good").server_context()
        self._servers.enter_context(SmtpServer(address, context=context))
        return name

    def answer(self, key: str) -> str:
        return ask(f"unix:{self.folder}/socket", key).rstrip()

    def query(self, *words: str) -> tuple[int, str, str]:
        """Status, output and errors of the command, in this process, since there are many."""
        return run_here("--config", str(self.daemon.config), *words)


def run_here(*words: str) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = command.run(list(words))
    return status, output.getvalue(), errors.getvalue()


@pytest.fixture
def relay(world: World, tmp_path: Path) -> Iterator[Relay]:
    config = toml(world.configuration(tmp_path)) + CONFIGURED
    with ExitStack() as servers, Daemon(tmp_path, config) as daemon:
        yield Relay(world, tmp_path, servers, daemon)


def test_an_exception_is_added_used_listed_and_removed(relay: Relay) -> None:
    partner, below = relay.domain("partner.test"), relay.domain("x.below.test")
    assert relay.answer(partner) == secure(partner)
    added = relay.query("except", "add", partner, "--until", str(UNTIL), *REASON)
    assert added == (0, f"partner.test: exception until {UNTIL}\n", "")
    assert [relay.answer(partner) for _ in range(3)] == ["NOTFOUND"] * 3
    assert relay.answer(below) == "OK may"
    relay.daemon.wait_for("domain=x.below.test, an exception")  # It is the last line.
    relay.daemon.stop()  # What was added, and how it was used, is on disk.
    relay.daemon.start()
    assert relay.answer(partner) == "NOTFOUND"
    assert relay.answer(below) == "OK may"
    status, text, errors = relay.query("except", "list")
    assert (status, errors) == (0, "")
    assert without_times(text) == (
        "*.below.test: until DATE (ends in N days), level may, configured\n"
        "    reason: they renew their certificates, ticket 4711\n"
        "    used 2 times since TIME, last N seconds ago\n"
        "    without it: mail to x.below.test is deferred: its MX mx.x.below.test has an\n"
        "      expired certificate\n"
        "over.test: until 2020-02-29 (ended N days ago), level none, configured\n"
        "    reason: ticket 1\n"
        "    used 0 times since TIME\n"
        "    it has ended, and the policy holds again\n"
        "partner.test: until DATE (ends in N days), level none, added by command\n"
        "    reason: ticket 4712\n"
        "    used 4 times since TIME, last N seconds ago\n"
        "    without it: mail to partner.test is deferred: its MX mx.partner.test has an\n"
        "      expired certificate\n"
    )
    assert relay.query("except", "remove", partner) == (0, "partner.test: exception removed\n", "")
    assert relay.answer(partner) == secure(partner)
    assert relay.query("except", "remove", partner) == (3, "partner.test: there was no exception\n", "")
    relay.daemon.wait_for("exception removed")
    lines = [line for line in relay.daemon.log if "ticket" in line]
    lines = list(dict.fromkeys(lines))  # Another hour may have begun.
    used = 'Postfix is answered "NOTFOUND" instead of "OK secure": ticket 4712'
    below_used = f'until {UNTIL}: Postfix is answered "OK may" instead of "OK secure": they renew their certificates'
    over = "warning: the exception for over.test has ended with 2020-02-29, and the policy holds again: ticket 1; "
    assert lines == [
        f"{over}remove it from the configuration",
        f"info: exception added for partner.test, until {UNTIL}, level none: ticket 4712",
        f"info: domain=partner.test, an exception until {UNTIL}: {used}",
        f"info: domain=x.below.test, an exception for *.below.test {below_used}, ticket 4711",
        f"info: exception removed for partner.test, which was until {UNTIL}: ticket 4712",
    ]


def test_the_list_as_json(relay: Relay) -> None:
    fine = relay.domain("fine.below.test", expired=False)
    words = ("--until", str(UNTIL), *REASON, "--level", "encrypt", "--dane", "--json")
    status, text, errors = relay.query("except", "add", "*.BÜcher.test", *words)
    assert (status, json.loads(text), errors) == (0, {"domain": "*.xn--bcher-kva.test", "replaced": False}, "")
    assert json.loads(relay.query("except", "add", "*.bücher.test", *words)[1])["replaced"] is True
    assert relay.answer(fine) == "OK may"
    listed = [json.loads(line) for line in relay.query("except", "list", "--json")[1].splitlines()]
    below, added, over = sorted(listed, key=lambda one: str(one["domain"]))[:3]
    times = {name: below.pop(name) for name in ("ends_at", "last_used", "since")}
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times.values())
    assert below == {
        "domain": "*.below.test",
        "until": str(UNTIL),
        "reason": "they renew their certificates, ticket 4711",
        "level": "may",
        "dane": False,
        "added": False,
        "over": False,
        "overruled": False,
        "used": 1,
        "domains": ["fine.below.test"],
        "without": [
            {"domain": "fine.below.test", "status": "ok", "text": "fine: enforced, its MX host verified"},
        ],
    }
    assert (added["domain"], added["level"], added["dane"], added["added"]) == (
        "*.xn--bcher-kva.test",
        "encrypt",
        True,
        True,
    )
    assert (added["without"], added["last_used"], over["over"], over["without"]) == ([], None, True, [])
    assert json.loads(relay.query("except", "remove", "*.bücher.test", "--json")[1]) == {
        "domain": "*.xn--bcher-kva.test",
        "removed": True,
    }


def test_one_that_was_added_counts_before_the_configured_one(relay: Relay) -> None:
    below = relay.domain("y.below.test")
    assert relay.answer(below) == "OK may"
    assert relay.query("except", "add", "*.below.test", "--until", str(UNTIL), *REASON)[0] == 0
    assert relay.answer(below) == "NOTFOUND"
    text = relay.query("except", "list")[1]
    assert "    it does not count while the one that was added by command holds\n" in text
    refused = "error: the daemon says: *.below.test is in the configuration: remove it there, and reload the daemon\n"
    assert relay.query("except", "remove", "*.below.test") == (0, "*.below.test: exception removed\n", "")
    assert relay.query("except", "remove", "*.below.test") == (69, "", f"postfix-mtasts-query: {refused}")
    assert relay.answer(below) == "OK may"


def test_the_configuration_is_read_again_by_sighup(relay: Relay) -> None:
    below = relay.domain("z.below.test")
    assert relay.answer(below) == "OK may"
    for table, reply in ((CONFIGURED.replace('"may"', '"encrypt"'), "OK encrypt"), ("", secure(below))):
        relay.daemon.config.write_text(toml(relay.world.configuration(relay.folder)) + table)
        since = len(relay.daemon.log)
        relay.daemon.hang_up()
        assert relay.daemon.wait_for("reloaded", since=since) == "info: configuration reloaded"
        relay.daemon.wait_for("reply.dane", since=since)
        assert relay.answer(below) == reply
    relay.daemon.config.write_text('[[exception]]\ndomain = "z.below.test"\nreason = "x"\n')
    relay.daemon.hang_up()
    error = relay.daemon.wait_for("not reloaded")
    assert error.endswith(
        "[[exception]] number 1: exception.until is missing: must be a date without quotes, such as 2026-12-31"
    )
    assert relay.answer(below) == secure(below)


def test_where_else_it_is_told_of(relay: Relay) -> None:
    partner = relay.domain("told.test")
    soon = TODAY + datetime.timedelta(2)
    assert relay.query("except", "add", partner, "--until", str(soon), *REASON)[0] == 0
    assert relay.answer(partner) == "NOTFOUND"
    shown = relay.query("cache", "show", partner)[1]
    assert re.search(
        rf"^    exception   until {soon} \(ends in \d+ \w+\), level none: ticket 4712$", shown, re.MULTILINE
    )
    health = relay.query("health")[1]
    assert re.match(
        r"MTA-STS WARNING - the exception for told\.test ends in \d+ \w+: ticket 4712; answers Post", health
    )
    assert health.rstrip().endswith(" exceptions=2")
    status, text, _ = relay.query(partner)
    assert (status, text.partition("\ntold.test\n")[0].replace("\n ", "")) == (
        1,
        (
            f"mail to told.test is sent without its policy: an exception decides until {soon} (ticket 4712); without "
            "it: fine: enforced, its MX host is allowed by the policy (--probe verifies certificates)"
        ),
    )
    findings = [
        one for one in json.loads(relay.query("doctor", "--json")[1])["findings"] if one["check"] == "exception"
    ]
    assert [(one["status"], one["what"]) for one in findings] == [
        ("warning", f"an exception for told.test holds until {soon}: ticket 4712"),
        ("ok", f"an exception for *.below.test holds until {UNTIL}: they renew their certificates, ticket 4711"),
    ]
    assert re.fullmatch(
        rf"it has changed 1 answer since {TODAY}; it ends in \d+ \w+, and then the policy holds again",
        findings[0]["why"],
    )


REFUSED: list[tuple[list[str], str, int]] = [
    (["except", "list", "a.test"], "except list takes no DOMAIN", 64),
    (["except", "add"], "except add needs a DOMAIN", 64),
    (["except", "remove"], "except remove needs a DOMAIN", 64),
    (["except", "add", "a.test", "--until", str(UNTIL)], "except add needs --until DATE and --reason TEXT", 64),
    (["except", "add", "a.test", "--reason", "x"], "except add needs --until DATE and --reason TEXT", 64),
    (["except", "remove", "a.test", "--dane"], "except remove takes no --until, --reason and --dane", 64),
    (
        ["except", "add", "a.test", "--until", "tomorrow"],
        "argument --until: 'tomorrow': must be a date such as 2026-12-31",
        64,
    ),
    (
        ["except", "add", "a.test", "--until", "2020-01-01"],
        "argument --until: 2020-01-01 is over: name today or a later day",
        64,
    ),
    (["except", "add", "label", "--until", str(UNTIL), *REASON], "'label': needs a dot, like example.com", 64),
    (
        ["except", "add", "a.test", "--until", str(UNTIL), "--reason", "a\nb"],
        'the daemon says: except: exception.reason = "a\\nb": must be a text of 1 to 200 characters on one line',
        69,
    ),
]


def test_what_is_refused(relay: Relay) -> None:
    for words, error, status in REFUSED:
        found, text, errors = relay.query(*words)
        assert (found, text, errors.splitlines()[0]) == (status, "", f"postfix-mtasts-query: error: {error}")


def test_dane_with_level_none_is_warned_of(relay: Relay) -> None:
    words = ("except", "add", "a.test", "--until", str(UNTIL), *REASON, "--dane")
    assert relay.query(*words)[2] == (
        'postfix-mtasts-query: warning: with level none, a Postfix at level "dane" applies DANE by itself; --level may '
        "overrules that too\n"
    )
    assert relay.query(*words, "--level", "may")[2] == ""


def test_a_full_disk_refuses_one_and_health_says_so(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        config = world.configuration(tmp_path, cache={"path": str(disk / "policies.sqlite")})
        with Daemon(tmp_path, config) as daemon:
            world.publish("full.test", policy("full.test"))
            words = ("--config", str(daemon.config), "except", "add", "full.test", "--until", str(UNTIL), *REASON)
            with filled(disk):
                status, _, errors = run_here(*words)
                assert (status, errors) == (
                    69,
                    (
                        f"postfix-mtasts-query: error: the daemon says: {disk}/policies.sqlite-exceptions.json cannot "
                        "be written: no space left on device\n"
                    ),
                )
                assert "exceptions that were added by command: " in run_here(*words[:2], "health")[1]
                assert ask(f"unix:{tmp_path}/socket", "full.test") == secure("full.test")
            assert run_here(*words)[0] == 0
            assert ask(f"unix:{tmp_path}/socket", "full.test").rstrip() == "NOTFOUND"


def test_without_a_daemon_it_says_so(relay: Relay) -> None:
    relay.daemon.stop()
    status, _, errors = relay.query("except", "list")
    assert (status, errors.splitlines()[0].split(":")[1:3]) == (69, [" error", " the daemon cannot be reached"])
    relay.daemon.start()


async def test_domains_are_looked_at_some_at_a_time_and_those_that_hang_are_given_up() -> None:
    hanging, now = asyncio.Event(), list[str]()
    most = 0

    async def look(domain: str) -> Without:
        nonlocal most
        now.append(domain)
        most = max(most, len(now))
        try:
            if domain.startswith("hangs"):
                await hanging.wait()
            return Without(domain, "fine", Status.OK)
        finally:
            now.remove(domain)

    fine = [f"fine{number}.test" for number in range(50)]
    hang = [f"hangs{number}.test" for number in range(50)]
    seen = await look_at_all([*fine, *hang], look, within=0.2)
    assert most == AT_ONCE
    gone = "unknown: not all could be looked up within 0.2 s"
    assert seen == {name: Without(name, "fine", Status.OK) for name in fine} | {
        name: Without(name, gone, None) for name in hang
    }


def test_the_commands_of_the_documentation(relay: Relay) -> None:
    """In their order; `postqueue` is Postfix's."""
    text = (DOCS / "operations.md").read_text()
    section = text.split("## Deliver in spite of a policy\n")[1].split("\n## ")[0]
    partner = relay.domain("partner.example")
    commands = [shlex.split(line, comments=True) for line in section.splitlines() if line.startswith("    p")]
    told = []
    for name, *words in commands:
        if name != "postqueue":
            assert name == "postfix-mtasts-query"
            found = relay.query(*(str(UNTIL) if word == "2026-12-31" else word for word in words))
            told.append((found[0], found[1].partition(":")[0], relay.answer(partner)))
    broken = "mail to partner.example is deferred"
    assert told == [
        (2, broken, secure(partner)),
        (0, partner, "NOTFOUND"),
        (0, "*.below.test", "NOTFOUND"),
        (0, partner, secure(partner)),
    ]
    table = section.split("    [[exception]]\n")[1].split("\n\n")[0]
    assert parse(f"[[exception]]\n{table}".encode(), "docs").exception[0].domain == partner
    lines = [line[4:] for line in section.splitlines() if line.startswith(("    info: ", "    warning: "))]
    reason, until = "their certificate has expired, ticket 4711", "2026-12-31"
    assert lines == [
        (
            f'info: domain={partner}, an exception until {until}: Postfix is answered "NOTFOUND" instead of '
            f'"OK secure": {reason}'
        ),
        f"warning: the exception for {partner} ends in 3 days, with {until}, and then the policy holds again: {reason}",
    ]
    assert relay.daemon.wait_for(f"domain={partner}, an exception").replace(str(UNTIL), until) == lines[0]
