"""The command, run as a process in a small Internet: read tests/data/publish aloud.

With GOLDEN=write in the environment, what is said becomes what is expected.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from postfix_mtasts.publish.events import Added
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.store import Store
from postfix_mtasts.publish.view import EACH_SECOND
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.conftest import filled, mounted
from tests.integration.publish.conftest import HOST, PUBLISH, ZONE, FileServer, Golden, Place
from tests.world.daemon import toml

DOMAIN = "example.test"
TESTING = "version: STSv1\r\nmode: testing\r\nmx: mx1.example.test\r\nmax_age: 604800\r\n"


class Script:
    """Commands, and what each says, as a text to be read."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.text = ""

    def __call__(self, *words: str) -> int:
        done = self.place.run(*words)
        self.text += f"$ postfix-mtasts-publish {' '.join(words)}\n{done.stdout}{done.stderr}"
        self.text += f"[exit status {done.returncode}]\n" if done.returncode else ""
        return done.returncode

    def note(self, text: str) -> None:
        self.text += f"\n# {text}\n"


def test_from_the_first_record_to_the_last(place: Place, golden: Golden) -> None:
    say = Script(place)
    place.mx(DOMAIN)
    say.note("A customer's domain is added. Nothing is in DNS yet.")
    assert say("add", DOMAIN) == 0
    assert say("records", DOMAIN) == 0
    assert say("zone") == 0
    assert say("check", DOMAIN) == 2
    say.note("The customer has copied the three lines, and our name server has loaded the zone.")
    place.customer(DOMAIN)
    place.load_zone()
    assert say("check", DOMAIN) == 0
    place.load_zone()
    assert say("check", DOMAIN) == 0
    assert say("ready", DOMAIN) == 1
    assert place.served(DOMAIN) == TESTING
    say.note("Mode enforce.")
    assert say("mode", DOMAIN, "enforce") == 0
    assert say("check") == 0
    place.load_zone()
    assert say("check") == 0
    assert say("list") == 0
    say.note("An MX host is added in the wrong order.")
    place.mx(DOMAIN, "mx2")
    assert say("check") == 2
    assert say("mx", DOMAIN, "--refresh") == 0
    assert say("check") == 2
    place.load_zone()
    say.note("Another one in the right order.")
    assert say("mx", DOMAIN, "--set", f"mx1.{DOMAIN}", f"mx2.{DOMAIN}", f"mx3.{DOMAIN}") == 0
    assert say("check") == 2
    say.note("Removal. The waits take days, which pass here between two checks.")
    assert say("remove", DOMAIN) == 0
    assert say("check") == 2
    place.load_zone()
    for _ in range(4):
        place.days_pass(DOMAIN, 2)
        say("check")
    assert say("zone") == 0
    assert say("records", DOMAIN) == 0
    place.load_zone()
    assert say("check") == 0
    place.days_pass(DOMAIN, 0.1)
    assert say("check") == 0
    assert place.served(DOMAIN) is None
    assert say("check") == 0
    assert say("list") == 0
    assert say("show", DOMAIN) == 0
    assert say("zone") == 0
    golden("whole-life.txt", say.text)


def test_the_domain_of_ones_own_without_a_zone_for_customers(place: Place, golden: Golden) -> None:
    place.zone = ""
    place.configure()
    say = Script(place)
    place.mx(DOMAIN)
    assert say("add", DOMAIN, "--max-age", "1209600") == 0
    assert say("records", DOMAIN) == 0
    place.load_zone()
    say("check")
    assert say("records", DOMAIN) == 0
    place.load_zone()
    assert say("check") == 0
    assert say("max-age", DOMAIN, "31557600") == 0
    golden("own-domain.txt", say.text)


def test_json(place: Place, golden: Golden) -> None:
    place.mx(DOMAIN)
    place.mx(DOMAIN, "mx2", kind=None)  # It has no STARTTLS.
    text = ""
    for words in (("add", DOMAIN), ("check",), ("list",), ("show", DOMAIN), ("records", DOMAIN), ("zone",)):
        done = place.run(words[0], "--json", *words[1:])
        assert done.stderr == ""
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        text += "".join(f"{json.dumps(document, indent=1)}\n" for document in documents)
    ready = place.run("ready", "--json", DOMAIN)
    refused = place.run("mode", "--json", DOMAIN, "enforce")
    for done in (ready, refused):
        text += f"{json.dumps(json.loads(done.stdout), indent=1)}\n"
    assert (ready.returncode, refused.returncode) == (1, 2)
    golden("documents.json", text)


def published(place: Place, domain: str = DOMAIN) -> None:
    """A domain of which senders know, in mode testing."""
    place.mx(domain)
    assert place.run("add", domain).returncode == 0
    place.customer(domain)
    for _ in range(2):
        place.load_zone()
        assert place.run("check", domain).returncode == 0
    place.load_zone()


# What a check sees


def problems(place: Place) -> list[str]:
    return [remark["text"] for remark in place.json("check", DOMAIN)["remarks"]]


def test_ipv6_and_ipv4_are_looked_at_apart(place: Place) -> None:
    published(place)
    place.dns.add(HOST, "AAAA", "::1")
    (problem,) = problems(place)
    text = f"the address ::1 of mta-sts.{DOMAIN} does not serve the policy: connection: connection refused"
    assert problem.startswith(text)
    assert place.run("mode", DOMAIN, "enforce").returncode == 2
    with FileServer("::1", place.folder / "policies", place.ca):
        assert problems(place) == []
        assert place.run("mode", DOMAIN, "enforce").returncode == 0


def test_no_more_domains_are_begun_in_a_second_than_that(place: Place) -> None:
    """Also if each of them takes no time: nobody's name server is asked about more."""
    store = Store(str(place.folder / "publish.sqlite"))
    policy = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))
    for number in range(2 * EACH_SECOND + 1):
        store.save(decide(None, Added(PolicyDomain(f"d{number}.test"), policy), time.time()), "root", 0.0)
    store.close()
    begun = time.monotonic()
    done = place.run("check", "--json")
    assert time.monotonic() - begun >= 2
    assert len(done.stdout.splitlines()) == 2 * EACH_SECOND + 1


def test_what_one_address_serves_may_be_in_a_cache(place: Place, tmp_path: Path) -> None:
    """The second one has an old copy, in mode enforce and without the MX host. It is found out, and remembered."""
    published(place)
    old = tmp_path / "old"
    file = old / f"mta-sts.{DOMAIN}/.well-known/mta-sts.txt"
    file.parent.mkdir(parents=True)
    file.write_text("version: STSv1\nmode: enforce\nmx: old.test\nmax_age: 604800\n")
    place.dns.add(HOST, "A", "127.0.2.2")
    with FileServer("127.0.2.2", old, place.ca):
        found = place.json("check", DOMAIN)
    (remark,) = found["remarks"]
    text = f"the address 127.0.2.2 of mta-sts.{DOMAIN} does not serve the policy: serves another policy file"
    assert remark["text"].startswith(text)
    assert [(one["host"], one["until"] is not None) for one in found["warnings"]] == [(f"mx1.{DOMAIN}", True)]


def test_the_file_is_put_back_if_somebody_deletes_it(place: Place) -> None:
    published(place)
    (place.folder / f"policies/mta-sts.{DOMAIN}/.well-known/mta-sts.txt").unlink()
    assert problems(place) == []
    assert place.served(DOMAIN) == TESTING


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        ("_mta-sts", "old", f"the TXT record _mta-sts.{DOMAIN} has the id old, and the id of our policy is"),
        ("_mta-sts", "", f"there is no TXT record _mta-sts.{DOMAIN}: senders see no policy; {DOMAIN}._mta-sts.{ZONE}"),
        ("_mta-sts", "a b", f"the TXT record _mta-sts.{DOMAIN} is not valid: "),
    ],
)
def test_a_record_that_is_not_ours(place: Place, name: str, record: str, said: str) -> None:
    published(place)
    place.dns.remove(f"{DOMAIN}._mta-sts.{ZONE}")
    if record:
        place.dns.add_txt(f"{DOMAIN}._mta-sts.{ZONE}", f"v=STSv1; id={record};".encode())
    (problem,) = problems(place)
    assert problem.startswith(said)


def test_a_cname_that_leads_elsewhere(place: Place) -> None:
    published(place)
    place.dns.remove(f"mta-sts.{DOMAIN}")
    place.dns.add(f"mta-sts.{DOMAIN}", "CNAME", "policy.elsewhere.test.")
    place.dns.add("policy.elsewhere.test", "A", "127.0.2.9")
    found = place.json("check", DOMAIN)
    text = f"the CNAME record mta-sts.{DOMAIN} leads to policy.elsewhere.test, and must lead to {HOST}"
    assert text in [remark["text"] for remark in found["remarks"]]
    assert found["certificate"] is False


def test_who_has_a_copy_of_the_file_served_elsewhere_gets_no_certificate_here(place: Place, tmp_path: Path) -> None:
    published(place)
    assert place.json("check", DOMAIN)["certificate"] is True
    place.dns.remove(f"mta-sts.{DOMAIN}")
    place.dns.add(f"mta-sts.{DOMAIN}", "A", "127.0.2.77")
    with FileServer("127.0.2.77", place.folder / "policies", place.ca):
        assert place.json("check", DOMAIN)["certificate"] is False


def test_a_certificate_that_ends_soon_or_has_ended(place: Place) -> None:
    published(place)
    place.web.kinds[f"mta-sts.{DOMAIN}"] = "expired"
    (problem,) = problems(place)
    assert problem.startswith("the policy could not be fetched: certificate: certificate has expired")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (None, "does not offer STARTTLS"),
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_enforce_is_refused_while_an_mx_host_would_be(place: Place, kind: str | None, said: str) -> None:
    published(place)
    host = place.mx(DOMAIN, "mx2", kind=kind)  # type: ignore[arg-type]
    assert place.run("mx", DOMAIN, "--refresh").returncode == 0
    done = place.run("mode", DOMAIN, "enforce")
    assert done.returncode == 2
    first, hint = done.stderr.splitlines()
    assert first.startswith(f"postfix-mtasts-publish: error: {DOMAIN}: cannot enforce yet: ")
    assert said in done.stderr
    assert hint.startswith("hint: mend that, or ")
    assert place.json("show", DOMAIN)["mode"] == "testing"
    forced = place.json("mode", DOMAIN, "enforce", "--force", "mx2 goes tomorrow")
    assert forced["mode"] == "enforce"
    (entry,) = [one for one in place.json("show", DOMAIN)["history"] if one["what"] == "mode"]
    assert (entry["who"], entry["why"]) == ("anna", "forced: mx2 goes tomorrow")
    assert host in place.hosts


def test_what_is_published_is_judged_first(place: Place) -> None:
    published(place)
    assert place.run("mode", DOMAIN, "enforce").returncode == 0
    before = place.served(DOMAIN)
    place.dns.remove(DOMAIN)
    place.mx(DOMAIN, "other")
    done = place.run("mx", DOMAIN, "--set", "wrong.example.test")
    assert done.returncode == 2
    assert "nothing was changed: no mx line allows any MX host" in done.stderr
    assert place.served(DOMAIN) == before


def test_a_policy_of_somebody_else_that_could_not_be_fetched_is_told_of(place: Place) -> None:
    place.mx(DOMAIN)
    place.dns.add_txt(f"_mta-sts.{DOMAIN}", b"v=STSv1; id=other;")
    (remark,) = place.json("add", DOMAIN)["remarks"]
    assert remark["text"] == (
        "there may be a policy of somebody else, but it could not be fetched: nothing here says which MX hosts the "
        "senders that have it refuse, and until when"
    )


def test_without_addresses_of_ours_records_says_what_is_missing(place: Place) -> None:
    place.mx(DOMAIN)
    for zone, host in ((ZONE, HOST), ("", f"mta-sts.{DOMAIN}")):
        place.zone = zone
        place.configure(addresses=[])
        place.run("add", DOMAIN)
        said = place.run("records", DOMAIN).stdout
        text = f"; publish.addresses is empty: add the A and AAAA records of {host} that lead to your web server.\n"
        assert said.count(text) == 1


def test_a_policy_that_somebody_else_publishes_is_waited_for(place: Place) -> None:
    elsewhere = place.folder / f"elsewhere/mta-sts.{DOMAIN}/.well-known"
    elsewhere.mkdir(parents=True)
    text = f"version: STSv1\nmode: enforce\nmx: mx1.{DOMAIN}\nmax_age: 1209600\n"
    (elsewhere / "mta-sts.txt").write_text(text)
    place.mx(DOMAIN)
    place.dns.add_txt(f"_mta-sts.{DOMAIN}", b"v=STSv1; id=1;")
    place.dns.add(f"mta-sts.{DOMAIN}", "A", "127.0.2.9")
    with FileServer("127.0.2.9", place.folder / "elsewhere", place.ca):
        added = place.json("add", DOMAIN)
    assert [remark["text"] for remark in added["remarks"]] == [
        "somebody else publishes a policy in mode enforce, and ours is in mode testing: it protects nobody"
    ]
    place.mx(DOMAIN, "mx2")
    (warning,) = [one["host"] for one in place.json("check", DOMAIN)["warnings"]]
    assert warning == f"mx2.{DOMAIN}"


# Wrong input


ADD = ("add", DOMAIN, "--mx")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("add", "bücher.example"), 64, "'b\\xfccher.example': write it in punycode: xn--bcher-kva.example"),
        (
            ("add", "*.example.com"),
            64,
            "'*.example.com': a policy is for one domain, and each subdomain that gets",
        ),
        (("add", "192.0.2.1"), 64, "'192.0.2.1': ends in a number, like an IP address"),
        (("add", "[192.0.2.1]"), 64, "'[192.0.2.1]': write the domain alone, like example.com"),
        (("add", "example"), 64, "'example': needs a dot, like example.com"),
        (("add", "a_b.example"), 64, "'a_b.example': not a hostname"),
        (("add", "x" * 64 + ".example"), 64, f"'{'x' * 64}.example': not a hostname"),
        (("add", "../../etc.passwd"), 64, "'../../etc.passwd': write the domain alone, like example.com"),
        (("add", "x.\x1b[31m"), 64, "'x.\\x1b[31m': write the domain alone, like example.com"),
        ((*ADD, "192.0.2.1"), 64, "'192.0.2.1': an MX host is a name, not an IP address"),
        ((*ADD, "[2001:db8::1]"), 64, "'[2001:db8::1]': an MX host is a name, not an IP address"),
        ((*ADD, "mx*.example.com"), 64, "'mx*.example.com': write one hostname, or *.domain"),
        ((*ADD, "mx.bücher.example"), 64, "'mx.b\\xfccher.example': write it in punycode: mx.xn--bcher-kva.example"),
        (
            (*ADD, "10 mx.example.com"),
            64,
            "'10 mx.example.com': leave out the preference 10: write the name of",
        ),
        ((*ADD, "mx.example.com."), 64, "'mx.example.com.': remove the dot at the end"),
        (("add", DOMAIN, "--max-age", "60"), 64, "max_age '60': must be a number of seconds from 86400 (a day) to"),
        (("add", DOMAIN, "--max-age", "9" * 5000), 64, f"max_age '{'9' * 40}': must be a number of seconds from"),
        (("add", DOMAIN, "--max-age", "000000086400999"), 64, "max_age '000000086400999': must be"),
        (("add", DOMAIN, "--max-age", "86400" + "0" * 5000), 64, "max_age '86400"),
        (("max-age", DOMAIN, "60"), 64, "max_age '60': must be a number of seconds from 86400 (a day) to"),
        (("max-age", "other.test", "86400"), 2, "other.test: is not published here"),
        (("mode", DOMAIN, "enforce", "--force", " "), 64, "--force needs a reason, which the history keeps"),
        (("mode", DOMAIN, "none", "--force", "x"), 64, "--force is for mode enforce: mode none is never refused"),
        (("add", DOMAIN), 2, f"{DOMAIN}: its MX records cannot be looked up"),
        (("add",), 64, "the following arguments are required: DOMAIN"),
        (("show", "other.test"), 2, "other.test: is not published here"),
        (("records", "other.test"), 2, "other.test: is not published here"),
        (("check", "other.test"), 2, "other.test: is not published here"),
        (("mode", "other.test", "testing"), 2, "other.test: is not published here"),
        (("mode", DOMAIN, "off"), 64, "argument MODE: invalid choice: 'off' (choose from"),
        (("mx", "other.test", "--refresh"), 2, "other.test: is not published here"),
        (("mx", DOMAIN), 64, "one of the arguments --refresh --set is required"),
        (("ready", "other.test"), 2, "other.test: is not published here"),
        (("remove", "other.test"), 2, "other.test: is not published here"),
    ],
)
def test_wrong_input_gets_one_line(tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    config = tmp_path / "postfix-mtasts.toml"
    database = tmp_path / "publish.sqlite"
    config.write_text(toml({"dns": {"nameservers": ["127.0.0.9"], "timeout": 0.1}, "publish": {"path": str(database)}}))
    done = subprocess.run(
        [PUBLISH, words[0], "--config", config, *words[1:]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (status, "")
    line, *hints = done.stderr.splitlines()
    assert line.startswith(f"postfix-mtasts-publish: error: {said}")
    assert all(hint.startswith("hint: ") for hint in hints)
    assert len(hints) <= 1
    store = Store(str(database))
    assert list(store.lines()) == []
    store.close()


def test_a_name_that_is_too_long_with_ours(place: Place) -> None:
    done = place.run("add", ".".join(["x" * 55] * 4) + ".example", "--mx", "mx.example.com")
    assert done.returncode == 2
    assert "is too long: " in done.stderr


def test_a_domain_twice(place: Place) -> None:
    published(place)
    before = place.run("show", DOMAIN).stdout
    done = place.run("add", "EXAMPLE.test.", "--mx", "other.example.test")
    error, hint = "EXAMPLE.test.: is published already", f"postfix-mtasts-publish show {DOMAIN}"
    said = f"postfix-mtasts-publish: error: {error}\nhint: {hint}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert place.run("show", DOMAIN).stdout == before


def test_a_full_disk_loses_nothing(place: Place) -> None:
    policies = place.folder / "policies"
    policies.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", policies):
        published(place)
        with filled(policies):
            done = place.run("mode", DOMAIN, "enforce")
            file = policies / f"mta-sts.{DOMAIN}/.well-known/mta-sts.txt"
            assert done.returncode == 69
            assert done.stderr.splitlines()[0] == f"postfix-mtasts-publish: error: {file}: no space left on device"
            assert place.served(DOMAIN) == TESTING
            assert place.run("check", DOMAIN).returncode == 2
        assert place.run("check", DOMAIN).returncode == 0
        assert place.served(DOMAIN) == TESTING.replace("testing", "enforce")


def test_a_full_disk_is_called_so(place: Place) -> None:
    disk = place.folder / "disk"
    disk.mkdir()
    database = disk / "publish.sqlite"
    place.configure(path=str(database))
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", disk):
        assert place.run("list").returncode == 0
        with filled(disk):
            done = place.run("remove", DOMAIN)
            said = f"postfix-mtasts-publish: error: {database}: no space left on device\n"
            assert (done.returncode, done.stderr) == (69, said)


def test_a_database_that_cannot_be_used(place: Place) -> None:
    place.configure(path=str(place.folder / "missing/publish.sqlite"))
    done = place.run("list")
    reason = f"{place.folder}/missing/publish.sqlite: no such file or directory (its folder does not exist)"
    assert (done.returncode, done.stderr) == (69, f"postfix-mtasts-publish: error: {reason}\n")


def test_a_wrong_configuration(place: Place) -> None:
    place.configure(zone="bücher.example")
    done = place.run("list")
    assert done.returncode == 78
    assert "publish.zone = " in done.stderr


def test_ten_thousand_domains(place: Place) -> None:
    """The bounds are those of the processor: `list` is to take a second, and `zone` two."""
    store = Store(str(place.folder / "publish.sqlite"))
    policy = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))
    with store._transaction():  # One by one, each would be synced.
        for number in range(10_000):
            decision = decide(None, Added(PolicyDomain(f"d{number}.example"), policy), 1_800_000_000.0)
            store._write(decision, "root", 0.0)
    store.close()
    for subcommand, seconds, lines in (("list", 2, 10_000), ("zone", 4, 3)):
        before = os.times()
        done = place.run(subcommand)
        after = os.times()
        assert len(done.stdout.splitlines()) == lines
        assert after.children_user + after.children_system - before.children_user - before.children_system < seconds


def test_two_commands_at_once(place: Place) -> None:
    published(place)
    commands = [
        subprocess.Popen(
            [place.command, "mx", "--config", place.config, DOMAIN, "--set", f"mx1.{DOMAIN}", f"mx{number}.{DOMAIN}"],
            stdout=subprocess.DEVNULL,
        )
        for number in range(2, 8)
    ]
    assert [command.wait(60) for command in commands] == [0] * 6
    found = place.json("show", DOMAIN)
    assert place.served(DOMAIN) == found["policy"].replace("\n", "\r\n")
    assert len([entry for entry in found["history"] if entry["what"] == "mx"]) == 6
