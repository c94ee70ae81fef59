"""`postfix-mtasts-query` beside a running daemon: what that has cached, its answers, and many domains at once."""

import json
import os
import pty
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import NOBODY, World, mounted
from tests.world.daemon import COMMAND, Daemon
from tests.world.dns import Behaviour

QUERY = str(COMMAND.with_name("postfix-mtasts-query"))


@pytest.fixture
def daemon(world: World, tmp_path: Path) -> Iterator[Daemon]:
    server: dict[str, object] = {"listen": [f"unix:{tmp_path / 'socket'}"], "control": str(tmp_path / "control")}
    with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as running:
        yield running


def policy(domain: str, max_age: int = 1209600) -> str:
    return f"version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: {max_age}\n"


def receive(world: World, domain: str) -> None:
    """The domain has an MX host."""
    world.dns.add(domain, "MX", f"10 mx.{domain}.")
    world.dns.add(f"mx.{domain}", "A", "127.0.3.200")


def query(daemon: Daemon, *words: str, given: str = "", **environment: str) -> tuple[int, str, str]:
    command = [QUERY, *words, "--config", str(daemon.config)]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout, done.stderr


def as_postfix(daemon: Daemon, domain: str) -> str:
    status, output, errors = query(daemon, "--as-postfix", domain)
    assert (status, errors) == (0, "")
    return re.sub(r"\(\d+\.\d ms, ", "(TIME, ", output).replace(str(daemon.config.parent), "FOLDER")


def test_as_postfix(world: World, daemon: Daemon) -> None:
    world.publish("asked.test", policy("asked.test"))
    assert as_postfix(daemon, "Asked.Test.") == (
        "Asked.Test.: OK secure match=mx.asked.test servername=hostname (TIME, unix:FOLDER/socket:postfix)\n"
    )
    assert as_postfix(daemon, ".test") == ".test: NOTFOUND (TIME, unix:FOLDER/socket:postfix)\n"
    assert as_postfix(daemon, "[127.0.0.1]") == "[127.0.0.1]: NOTFOUND (TIME, unix:FOLDER/socket:postfix)\n"
    status, output, _ = query(daemon, "--json", "--as-postfix", "asked.test")
    document = json.loads(output)
    assert (status, 0 < document.pop("seconds") < 60) == (0, True)
    assert document == {
        "key": "asked.test",
        "endpoint": f"unix:{daemon.config.parent / 'socket'}",
        "map": "postfix",
        "reply": "OK secure match=mx.asked.test servername=hostname",
        "status": "ok",
    }


def test_a_key_that_is_not_utf_8(daemon: Daemon) -> None:
    command = [QUERY.encode(), b"--config", bytes(daemon.config), b"--as-postfix", b"\xff.test"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert re.sub(rb"\(.*\)", b"()", done.stdout) == rb"\udcff.test: NOTFOUND ()" + b"\n"


def test_no_daemon(daemon: Daemon) -> None:
    endpoint = f"unix:{daemon.config.parent / 'socket'}"
    assert daemon.stop() == 0
    errors = (
        f"postfix-mtasts-query: error: {endpoint} does not answer: no such file or directory\n"
        "hint: is postfix-mtasts-daemon running with this configuration?\n"
    )
    try:
        assert query(daemon, "--as-postfix", "example.com") == (69, "", errors)
        assert query(daemon, "warm", "-", given="example.com\n") == (69, "", errors)
    finally:
        daemon.start()


def block(output: str, name: str) -> list[str]:
    """The lines of one block of a report."""
    found = re.search(rf"^  {name} +(.*(?:\n {{8,}}.*)*)", output, flags=re.MULTILINE)
    assert found, output
    return [line.strip() for line in found[1].split("\n")]


def test_what_is_cached(world: World, daemon: Daemon) -> None:
    world.publish("cached.test", policy("cached.test"))
    receive(world, "cached.test")
    status, output, _ = query(daemon, "cached.test")
    nothing = "the daemon has nothing valid cached: it looks the policy up while Postfix waits"
    assert (status, " ".join(block(output, "now"))) == (0, nothing)
    as_postfix(daemon, "cached.test")
    status, output, _ = query(daemon, "cached.test")
    told = re.sub(r"\d+ seconds?\b", "N seconds", " ".join(block(output, "now")))
    expected = (
        "the daemon answers at once cached policy: mode enforce, fetched N seconds ago for id 1, expires in 14 days "
        "record checked N seconds ago"
    )
    assert (status, told) == (0, expected)
    _, output, _ = query(daemon, "--json", "cached.test")
    running = json.loads(output)["running"]
    assert (running["daemon"], running["waits"], running["policy"]) == (True, False, "enforce")


def test_a_file_that_changes_under_the_same_id(world: World, daemon: Daemon) -> None:
    domain = "changes.test"
    world.publish(domain, policy(domain))
    receive(world, domain)
    as_postfix(daemon, domain)
    context = world.ca.issue(f"mta-sts.{domain}").server_context()
    world.https.policy(f"mta-sts.{domain}", policy(domain, 2419200), context)
    warning = "warning: the policy has changed, but the id in the TXT record has not"
    status, output, _ = query(daemon, domain)
    assert (status, warning in output) == (1, True)
    world.dns.remove(f"_mta-sts.{domain}")
    world.dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=2;")
    status, output, _ = query(daemon, domain)
    assert (status, warning in output) == (0, False)


def test_several_domains_and_the_worst_of_them(world: World, daemon: Daemon) -> None:
    world.publish("several.test", policy("several.test"))
    receive(world, "several.test")
    world.announce("broken.test", host=NOBODY)
    for words, expected in (
        (("several.test",), 0),
        (("several.test", "nothing.test"), 3),
        (("several.test", "broken.test", "nothing.test"), 2),
    ):
        status, output, _ = query(daemon, "--json", *words)
        assert (status, [json.loads(line)["domain"] for line in output.splitlines()]) == (expected, list(words))


def test_warm(world: World, daemon: Daemon, tmp_path: Path) -> None:
    domains = [f"warm{number}.test" for number in range(30)]
    world.publish_all(domains, policy)
    file = tmp_path / "domains"
    file.write_text("\n".join(["# known ones", "", *domains, "WARM1.test. # again", "[warm2.test]:587", "cold.test"]))
    assert query(daemon, "warm", "--concurrency", "5", str(file)) == (
        0,
        "32 domains: 31 with a policy for Postfix, 1 without, 0 failed, 0 deferred\n",
        "",
    )
    assert all(world.asked(domain) == (1, 1) for domain in domains)
    status, output, _ = query(daemon, "cache", "list", "--json")
    assert (status, sorted(json.loads(line)["domain"] for line in output.splitlines())) == (0, sorted(domains))


def test_warm_skips_what_is_no_domain(daemon: Daemon) -> None:
    status, output, errors = query(daemon, "warm", "-", "--json", given="localhost\n\xff\ncold.test\nuser@cold.test\n")
    assert (status, json.loads(output)) == (1, {"domains": 1, "policies": 0, "none": 1, "failed": 0, "deferred": 0})
    assert errors == (
        "postfix-mtasts-query: warning: -:1: 'localhost' skipped: needs a dot, like example.com\n"
        "postfix-mtasts-query: warning: -:2: '\\xff' skipped: needs a dot, like example.com\n"
        "postfix-mtasts-query: warning: -:4: 'user@cold.test' skipped: not a hostname\n"
    )


def test_options_may_stand_before_a_subcommand(daemon: Daemon) -> None:
    status, output, errors = query(daemon, "--json", "health")
    assert (status, json.loads(output)["status"], errors) == (0, "OK", "")


def test_warm_counts_what_failed(world: World, daemon: Daemon) -> None:
    world.publish("testing.test", policy("testing.test").replace("enforce", "testing"))
    world.dns.set_behaviour("_mta-sts.failed.test", Behaviour(rcode="SERVFAIL"))
    found = query(daemon, "warm", "-", given="testing.test\nfailed.test\ncold.test\n")
    assert found == (
        2,
        "3 domains: 0 with a policy for Postfix, 2 without, 1 failed, 0 deferred\n",
        "postfix-mtasts-query: failed.test: TXT lookup: 127.0.0.1: SERVFAIL\n",
    )


def test_warm_without_control_says_what_it_cannot_tell(world: World, tmp_path: Path) -> None:
    server: dict[str, object] = {"listen": [f"unix:{tmp_path / 'socket'}"], "control": ""}
    with Daemon(tmp_path, world.configuration(tmp_path, server=server)) as daemon:
        found = query(daemon, "warm", "-", given="cold.test\ncolder.test\n")
    reason = 'server.control = "": the control socket is switched off'
    assert found == (
        1,
        "2 domains: 0 with a policy for Postfix, 2 without, 0 failed, 0 deferred\n",
        f"postfix-mtasts-query: warning: {reason}; domains whose lookup failed count as without a policy\n",
    )


def test_warm_asks_where_the_daemon_listens(world: World, tmp_path: Path) -> None:
    """The socket unit has other addresses than the configuration, which has none."""
    world.publish("elsewhere.test", policy("elsewhere.test"))
    config = {**world.configuration(tmp_path), "server": {"control": str(tmp_path / "control")}}
    with (
        socket.create_server(("127.0.0.1", 8462)) as listener,
        Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon,
    ):
        warmed = query(daemon, "warm", "-", given="elsewhere.test\n")
        status, output, _ = query(daemon, "health")
    assert warmed == (0, "1 domain: 1 with a policy for Postfix, 0 without, 0 failed, 0 deferred\n", "")
    assert (status, output.partition("|")[0]) == (0, "MTA-STS OK - answers Postfix; 1 policy")


def main_cf(folder: Path, ours: str) -> tuple[Path, str]:
    """The folder of a Postfix that asks a table with an exception for free.test before ours, and that table."""
    etc, table = folder / "etc", "texthash:/etc/postfix/exceptions"
    etc.mkdir()
    (etc / "exceptions").write_text("free.test may\n")
    (etc / "main.cf").write_text(f"compatibility_level = 3.6\nsmtp_tls_policy_maps = {table}, {ours}\n")
    (etc / "master.cf").write_text("smtp unix - - n - - smtp\n")
    return etc, table


@pytest.mark.skipif(not Path("/usr/sbin/postconf").exists(), reason="needs Postfix")
def test_what_main_cf_says_counts(world: World, tmp_path: Path) -> None:
    """The socket unit has another address, the name of the map chooses the style, and a table comes first."""
    etc, table = main_cf(tmp_path, "socketmap:inet:localhost:8462:tlsrpt")
    for domain in ("kept.test", "free.test"):
        world.publish(domain, policy(domain))
        receive(world, domain)
    config = {**world.configuration(tmp_path), "server": {"control": str(tmp_path / "control")}}
    with (
        mounted("--bind", etc, Path("/etc/postfix")),
        socket.create_server(("127.0.0.1", 8462)) as listener,
        Daemon(tmp_path, config, passed=[(listener, "socketmap")]) as daemon,
    ):
        asked = as_postfix(daemon, "kept.test")
        kept = query(daemon, "kept.test")
        free = query(daemon, "free.test")
        _, document, _ = query(daemon, "--json", "free.test")
    assert "policy_type=sts" in asked
    assert asked.endswith(" (TIME, inet:localhost:8462:tlsrpt)\n")
    assert (kept[0], "policy_type=sts" in kept[1].partition("Postfix gets")[2]) == (0, True)
    assert (free[0], " ".join(free[1].partition("\nfree.test\n")[0].split())) == (
        1,
        f"an exception of this machine decides: {table} has 'may' for free.test, and Postfix does not ask the daemon",
    )
    assert " ".join(free[1].partition("Postfix gets\n")[2].split()).startswith(f"now may ({table}) daemon OK secure")
    assert json.loads(document)["running"]["exception"] == {"table": table, "value": "may"}


@pytest.mark.skipif(not Path("/usr/sbin/postconf").exists(), reason="needs Postfix")
def test_a_daemon_that_is_down_where_postfix_asks_it(world: World, tmp_path: Path) -> None:
    """No policy of the domain matters then, but an exception that Postfix finds first does."""
    etc, _ = main_cf(tmp_path, "socketmap:inet:127.0.0.1:8462:postfix")
    for domain in ("kept.test", "free.test"):
        world.publish(domain, policy(domain))
        receive(world, domain)
    server = {"control": str(tmp_path / "control"), "listen": ["inet:127.0.0.1:8462"]}
    with mounted("--bind", etc, Path("/etc/postfix")):
        with Daemon(tmp_path, {**world.configuration(tmp_path), "server": server}) as daemon:
            up, *_ = query(daemon, "kept.test")
        down, text, _ = query(daemon, "kept.test")
        free, exempt, _ = query(daemon, "free.test")
        _, document, _ = query(daemon, "--json", "kept.test")
    refused = "inet:127.0.0.1:8462 does not answer: connection refused"
    assert (up, down, free) == (0, 2, 1)
    said, _, gets = " ".join(text.split()).partition(" Postfix gets ")
    assert said.startswith(
        f"all mail is deferred: {refused}, and Postfix asks the daemon there; `postfix-mtasts-query doctor` says what "
        f"to do kept.test now {refused}: Postfix defers all mail for which it asks there, until the daemon runs the "
        "daemon was not asked (server.control = "
    )
    assert gets.startswith("now no answer then OK secure match=mx.kept.test servername=hostname")
    assert exempt.startswith("an exception of this machine decides: ")
    assert json.loads(document)["running"]["silent"] == refused


def test_warm_needs_a_file(daemon: Daemon, tmp_path: Path) -> None:
    expected = f"postfix-mtasts-query: error: {tmp_path / 'none'}: no such file or directory\n"
    assert query(daemon, "warm", str(tmp_path / "none")) == (64, "", expected)


def on_a_terminal(daemon: Daemon, *words: str, **environment: str) -> str:
    """What a person sees."""
    theirs, ours = pty.openpty()
    command = [QUERY, *words, "--config", str(daemon.config)]
    with subprocess.Popen(
        command, stdout=ours, stderr=ours, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm", **environment}
    ):
        os.close(ours)
        seen = b""
        while True:
            try:
                data = os.read(theirs, 65536)
            except OSError:  # The other end is closed.
                break
            if not data:
                break
            seen += data
    os.close(theirs)
    return seen.decode().replace("\r\n", "\n")


def test_the_cache_is_shown_with_a_pager_on_a_terminal(daemon: Daemon) -> None:
    pager = "sed s/^/PAGED:/"
    assert on_a_terminal(daemon, "cache", "list", PAGER=pager) == "PAGED:nothing is cached\n"
    assert on_a_terminal(daemon, "cache", "show", "a.test", PAGER=pager) == "PAGED:a.test: nothing is cached\n"
    assert on_a_terminal(daemon, "cache", "list", PAGER="") == "nothing is cached\n"
    assert query(daemon, "cache", "list", PAGER=pager) == (0, "nothing is cached\n", "")


def test_colours_are_for_terminals_that_want_them(world: World, daemon: Daemon) -> None:
    world.announce("colour.test", host=NOBODY)
    error = "error: the policy could not be fetched"
    assert f"\x1b[31m{error}" in on_a_terminal(daemon, "colour.test")
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        seen = on_a_terminal(daemon, "colour.test", **environment)
        assert (f"\n{error}" in seen, "\x1b" in seen) == (True, False)
    _, output, _ = query(daemon, "colour.test", TERM="xterm")
    assert (f"\n{error}" in output, "\x1b" in output) == (True, False)


def test_progress_is_for_terminals(world: World, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("one.test\ntwo.test\n")
    seen = on_a_terminal(daemon, "warm", str(tmp_path / "domains"))
    blank = " " * len("2 of 2 domains")
    line = "2 domains: 0 with a policy for Postfix, 2 without, 0 failed, 0 deferred\n"
    assert seen == f"\r1 of 2 domains\r2 of 2 domains\r{blank}\r{line}"


def test_a_stage_that_takes_long_is_shown(world: World, daemon: Daemon) -> None:
    """After two seconds, and no longer than it lasts: the verdict takes its place."""
    world.dns.set_behaviour("_mta-sts.slow.test", Behaviour(silent=True))
    receive(world, "slow.test")
    seen = on_a_terminal(daemon, "slow.test", NO_COLOR="1")
    shown, _, rest = seen.partition("mail to slow.test is sent without a policy: TXT lookup: ")
    assert re.fullmatch(r"(\rTXT lookup \(\d+ s\) \.\.\. *)+\r +\r", shown), seen
    assert " ".join(rest.split()).startswith("127.0.0.1: no answer within 5 s slow.test now ")
    status, _, errors = query(daemon, "slow.test")
    assert (status, errors) == (2, "")


def test_a_daemon_that_hangs_is_not_waited_for(world: World, daemon: Daemon) -> None:
    world.publish("unasked.test", policy("unasked.test"))
    receive(world, "unasked.test")
    with daemon.stopped():
        status, output, _ = query(daemon, "unasked.test")
    why = (
        "the daemon was not asked (no answer from the daemon within 5 s): its cache is unknown; what follows holds if "
        "nothing is cached"
    )
    assert (status, " ".join(block(output, "now"))) == (0, why)


WRONG = {
    "nothing": ((), "the following arguments are required: DOMAIN"),
    "an unknown option": (("--bogus", "a.test"), "unrecognized arguments: --bogus"),
    "a single label": (("localhost",), "'localhost': needs a dot, like example.com"),
    "an address": (("[192.0.2.1]",), "'[192.0.2.1]': ends in a number, like an IP address"),
    "a number": (("warm", "--concurrency", "0", "-"), "argument --concurrency: must be a number from 1 to 1000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line(daemon: Daemon, case: str) -> None:
    words, error = WRONG[case]
    found, output, errors = query(daemon, *words)
    first, hint, *rest = errors.split("\n")
    assert (found, output, first, rest) == (64, "", f"postfix-mtasts-query: error: {error}", [""])
    assert hint.startswith("hint: ")


def test_a_wrong_configuration(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[reply]\nstyle = 1\n")
    command = [QUERY, "--config", str(file), "example.com"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    expected = f'postfix-mtasts-query: error: {file}: reply.style = 1: must be "auto", "plain" or "tlsrpt"\n'
    assert (done.returncode, done.stdout, done.stderr) == (78, "", expected)
