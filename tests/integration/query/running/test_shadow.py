"""Shadow mode as an administrator meets it: what each command says, and the commands of the first day."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import World
from tests.integration.daemon.test_control import endpoint, policy
from tests.world.daemon import COMMAND, Daemon, ask, query, toml
from tests.world.smtp import SmtpServer

pytestmark = pytest.mark.usefixtures("namespace")

OPERATIONS = Path(__file__).parents[4] / "docs/operations.md"
DATE = r"\d{4}-\d\d-\d\d"
NOTHING_ENFORCED = f"no policy is enforced since {DATE} \\(reply.enforce = false\\)"


@pytest.fixture(scope="module")
def mail(world: World) -> Iterator[None]:
    """`bad.test`, whose MX host offers no STARTTLS."""
    world.publish("bad.test", policy("bad.test"))
    world.dns.add("bad.test", "MX", "10 mx.bad.test.")
    world.dns.add("mx.bad.test", "A", "127.0.1.1")
    with SmtpServer("127.0.1.1"):
        yield


@pytest.fixture
def daemon(world: World, mail: None, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, world.configuration(tmp_path, reply={"enforce": False})) as running:
        yield running


def said(daemon: Daemon, *words: str) -> tuple[int, str]:
    status, output, errors = query(*words, "--config", daemon.config)
    assert errors == ""
    return status, output


def test_what_is_said_while_nothing_is_enforced(daemon: Daemon) -> None:
    assert "; no policy is enforced (reply.enforce = false)" in daemon.wait_for("ready; ")
    assert said(daemon, "shadow")[0] == 3
    assert ask(endpoint(daemon), "bad.test") == "NOTFOUND "
    daemon.wait_for("mail would be deferred: its MX mx.bad.test does not offer STARTTLS")
    status, output = said(daemon, "shadow")
    assert (status, re.sub(r"\d+ seconds?\b", "N seconds", output)) == (
        2,
        (
            f"no policy is enforced since {re.findall(DATE, output)[0]} (N seconds)\n"
            "domains asked for: 1; with a policy: 1; in mode enforce: 1. If they were\n"
            "enforced today, of these:\n"
            "       1  would be deferred\n"
            "\n"
            "would be deferred                                     queries  probed\n"
            "bad.test                                                    1  N seconds ago\n"
            "    its MX mx.bad.test does not offer STARTTLS\n"
        ),
    )
    status, output = said(daemon, "health")
    assert status == 1
    assert re.match(f"MTA-STS WARNING - {NOTHING_ENFORCED}: `postfix-mtasts-query shadow` says", output)
    _, output = said(daemon, "cache", "show", "bad.test")
    assert '    withheld    Postfix is told "not found": no policy is enforced (reply.enforce = false)\n' in output
    _, output = said(daemon, "doctor", "--json")
    document = json.loads(output)
    (finding,) = [one for one in document["findings"] if one["check"] == "shadow"]
    assert (finding["status"], finding["line"]) == ("warning", "postfix-mtasts-query shadow")
    assert re.fullmatch(f"no policy is enforced since {DATE}: reply.enforce = false", finding["what"])
    assert document["daemon"]["enforce"] is False


def test_a_domain_whose_policy_is_withheld(daemon: Daemon) -> None:
    assert ask(endpoint(daemon), "bad.test") == "NOTFOUND "
    status, output = said(daemon, "--probe", "--json", "bad.test")
    document = json.loads(output)
    assert (status, document["verdict"]) == (
        1,
        (
            "mail to bad.test is sent without its policy (reply.enforce = false); if it were enforced: "
            "mail to bad.test is deferred: its MX mx.bad.test does not offer STARTTLS"
        ),
    )
    running = document["running"]
    assert (running["withheld"], running["reply"]) == (True, "NOTFOUND")
    assert 'no policy is enforced (reply.enforce = false): Postfix is told "not found"' in running["because"]


def test_nothing_is_said_where_policies_are_enforced(world: World, mail: None, tmp_path: Path) -> None:
    with Daemon(tmp_path, world.configuration(tmp_path)) as daemon:
        assert ask(endpoint(daemon), "bad.test").startswith("OK secure ")
        assert said(daemon, "shadow") == (3, "policies are enforced: shadow mode is off (reply.enforce = true)\n")
        assert json.loads(said(daemon, "shadow", "--json")[1])["since"] is None
        assert said(daemon, "health")[0] == 0
        assert "withheld" not in said(daemon, "cache", "show", "bad.test")[1]
        findings = json.loads(said(daemon, "doctor", "--json")[1])["findings"]
        assert [one for one in findings if one["check"] == "shadow"] == []
        assert "shadow" not in "".join(daemon.log)


def test_without_a_daemon_it_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'[server]\ncontrol = "{tmp_path / "control"}"\n')
    status, output, errors = query("shadow", "--config", file)
    assert (status, output) == (69, "")
    assert errors.startswith("postfix-mtasts-query: error: the daemon cannot be reached: server.control = ")
    assert "hint: is postfix-mtasts-daemon running with this configuration?\n" in errors


def test_the_commands_of_the_first_day(daemon: Daemon, world: World, tmp_path: Path) -> None:
    """Each command of the section runs, in its order; systemctl reload is SIGHUP here."""
    section = OPERATIONS.read_text().split("## The first day\n")[1].split("\n## ")[0]
    commands = re.findall(r"^    ((?:postfix-mtasts|systemctl)\S* .*?)(?: {2,}#.*)?$", section, flags=re.MULTILINE)
    assert ask(endpoint(daemon), "bad.test") == "NOTFOUND "
    daemon.wait_for("mail would be deferred")
    statuses = []
    for number, command in enumerate(commands):
        program, *words = command.replace("example.com", "bad.test").split()
        if program == "systemctl":
            if number > 1:  # Now enforce = false is removed.
                daemon.config.write_text(toml(world.configuration(tmp_path)))
            since = len(daemon.log)
            daemon.hang_up()
            daemon.wait_for("configuration reloaded" if number == 1 else "policies are enforced; ", since=since)
        elif program == "postfix-mtasts-daemon":
            done = subprocess.run([COMMAND, *words, "--config", daemon.config], capture_output=True, text=True)
            assert done.stdout.endswith(": ok\n")
        else:
            statuses.append((" ".join(words), said(daemon, *words)[0]))
    assert [one for one in statuses if one[0] != "doctor"] == [
        ("shadow", 2),
        ("shadow --json", 2),
        ("--probe bad.test", 1),
        ("health", 0),
    ]
    assert ask(endpoint(daemon), "bad.test").startswith("OK secure ")
    assert len(commands) == 8
