"""What an exception changes, when it ends, and what the log is told of it; the file of those that were added.

The lookups are real, and the clock is ours.
"""

import datetime
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.cache import exceptions as file
from postfix_mtasts.cache.exceptions import ExceptionsError
from postfix_mtasts.cache.uses import Use
from postfix_mtasts.config import DaneSetting, ExceptionSetting, Level, OnFailure
from postfix_mtasts.daemon.exceptions import Exceptions, RefusedError, end_of, policy_exception
from postfix_mtasts.daemon.known import print_exceptions, print_holding
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.socketmap import Reply, Status
from postfix_mtasts.sts.domain import PolicyDomain
from tests.integration.conftest import filled, small_disk
from tests.integration.daemon.test_ready import HAS, NOTFOUND, POLICY, SECURE, START, Service
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HttpsServer

LAST_DAY = datetime.date.fromtimestamp(START + 3 * 86400)  # noqa: DTZ012 - the day of this machine
END = end_of(LAST_DAY)
SETTING = ExceptionSetting("has.test", LAST_DAY, "ticket 4711")
MAY, ENCRYPT = b"6:OK may,", b"10:OK encrypt,"
DAY = 86400.0


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(ca: Ca) -> Iterator[Service]:
    with DnsServer() as dns, HttpsServer() as https:
        for domain in (HAS.name, "mail.has.test"):
            dns.add_txt(f"_mta-sts.{domain}", b"v=STSv1; id=1;")
            dns.add(f"mta-sts.{domain}", "A", "127.0.0.1")
            https.policy(f"mta-sts.{domain}", POLICY, ca.issue(f"mta-sts.{domain}").server_context())
        yield Service(dns, https, ca)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log was told of exceptions since the last time, without the parts that every line has."""
    lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return [line for line in lines if "exception" in line]


async def replies(world: Service, *keys: str) -> list[bytes]:
    return [reply for key in keys for _, reply in await world.ask(key)]


@pytest.mark.parametrize(("level", "reply"), [(Level.NONE, NOTFOUND), (Level.MAY, MAY), (Level.ENCRYPT, ENCRYPT)])
async def test_postfix_is_answered_the_level_until_the_end_and_the_policy_from_then_on(
    world: Service, tmp_path: Path, level: Level, reply: bytes
) -> None:
    async with world.running(tmp_path):
        await world.exceptions.load([replace(SETTING, level=level)])
        answers = []
        for world.now in (START, END - 1, END, END + DAY, END - 1):
            answers += await replies(world, "has.test", "[has.test]:587", "mail.has.test")
    holds, over = [reply, reply, SECURE], [SECURE, SECURE, SECURE]
    assert answers == [*holds, *holds, *over, *over, *holds]


async def test_a_change_drops_ready_replies_and_none_is_made_under_an_exception(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path):
        await world.ask("has.test", times=3)
        assert world.ready("has.test") == SECURE
        await world.exceptions.add(SETTING)
        assert await world.ask("has.test", times=4) == [(None, NOTFOUND)] * 4
        await world.exceptions.remove("has.test")
        assert await world.ask("has.test", times=2) == [(None, SECURE), (SECURE, SECURE)]
        await world.exceptions.load([SETTING])
        assert await world.ask("has.test") == [(None, NOTFOUND)]


async def test_the_policy_is_fetched_and_kept_under_an_exception(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path):
        await world.exceptions.load([SETTING])
        assert await replies(world, "has.test") == [NOTFOUND]
        entry = await world.lookup.entry(HAS)
    assert entry.cached
    assert entry.cached.text == POLICY


async def test_the_log_tells_the_first_query_of_each_hour_that_is_changed(
    world: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hour = START - START % 3600
    async with world.running(tmp_path):
        await world.exceptions.load([SETTING])
        told = []
        for world.now in (hour, hour + 1, hour + 3599, hour + 3600, hour + 3 * 3600):
            await replies(world, "has.test", "has-not.test")
            told.append(said(caplog))
        (known,) = world.exceptions.all()
        use = world.exceptions.use_of(known)
    line = (
        f"INFO domain=has.test, an exception until {LAST_DAY}: "
        'Postfix is answered "NOTFOUND" instead of "OK secure": ticket 4711'
    )
    assert told == [[line], [], [], [line], [line]]
    assert (use.count, use.last, list(use.domains)) == (5, hour + 3 * 3600, [HAS])


async def test_the_last_domains_are_noted_and_the_status_names_those_that_end_first(tmp_path: Path) -> None:
    known = Exceptions(tmp_path / "exceptions.json", lambda: START)
    days = range(12, 0, -1)
    await known.load(
        [replace(SETTING, domain=f"*.n{day}.test", until=LAST_DAY + datetime.timedelta(day)) for day in days]
    )
    below = known.holding()[0]
    told, without = (Reply(Status.OK, word) for word in ("may", "secure"))
    for name in "abcdefc":
        known.used(PolicyDomain(f"{name}.n1.test"), below, told, without)
    listed = {one["domain"]: one for one in print_exceptions(known)}
    assert listed["*.n1.test"]["domains"] == [f"{name}.n1.test" for name in "bdefc"]
    assert (listed["*.n1.test"]["used"], listed["*.n2.test"]["used"]) == (7, 0)
    holding = print_holding(known)
    assert (holding["holding"], holding["trouble"]) == (12, None)
    assert [one["domain"] for one in holding["first_to_end"]] == [f"*.n{day}.test" for day in range(1, 11)]
    assert [one["used"] for one in holding["first_to_end"]] == [7, *[0] * 9]


async def test_what_it_does_not_change_is_neither_told_nor_counted(
    world: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running(tmp_path):
        await world.exceptions.load([replace(SETTING, domain="has-not.test")])
        assert await replies(world, "has-not.test", "has-not.test") == [NOTFOUND, NOTFOUND]
        (known,) = world.exceptions.all()
        assert world.exceptions.use_of(known).count == 0
    assert said(caplog) == []


async def test_mail_that_would_be_deferred_goes_out(
    world: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.rules = ReplyRules(Style.PLAIN, OnFailure.TEMP)
    world.dns.set_behaviour("_mta-sts.slow.test", Behaviour(silent=True))
    world.dns.set_behaviour("_mta-sts.broken.test", Behaviour(rcode="SERVFAIL"))
    async with world.running(tmp_path):
        world.lookup.answer_within = 0.2
        await world.exceptions.load([replace(SETTING, domain="*.test")])
        assert await replies(world, "slow.test", "broken.test") == [NOTFOUND, NOTFOUND]
    lines = [record.getMessage() for record in caplog.records]
    assert not [line for line in lines if "slow.test" in line and "exception" not in line]


@pytest.mark.parametrize(
    ("setting", "works", "beside_dane"),
    [
        pytest.param(DaneSetting.YIELD, True, ["NOTFOUND"] * 3, id="Postfix is left to DANE"),
        pytest.param(DaneSetting.YIELD, False, ["NOTFOUND", "TEMP TLSA", "TEMP TLSA"], id="at its own level it looks"),
        pytest.param(DaneSetting.DANE_ONLY, True, ["OK dane-only"] * 3, id="DANE alone"),
        pytest.param(DaneSetting.DANE_ONLY, False, ["TEMP TLSA"] * 3, id="mail waits until it is known"),
    ],
)
async def test_dane_is_not_overruled_unless_that_is_wanted(
    world: Service, tmp_path: Path, setting: DaneSetting, *, works: bool, beside_dane: list[str]
) -> None:
    world.rules = ReplyRules(Style.PLAIN, dane=setting)
    world.dns.authenticated = {"has.test"}
    world.dns.add("has.test", "MX", "10 mx.has.test.")
    world.dns.add("mx.has.test", "A", "192.0.2.1")
    world.dns.add("_25._tcp.mx.has.test", "TLSA", "3 1 1 " + 32 * "ab")
    if not works:
        world.dns.set_behaviour("_25._tcp.mx.has.test", Behaviour(rcode="SERVFAIL"))
    async with world.running(tmp_path):
        answers = []
        for dane in (False, True):
            for level in Level:
                await world.exceptions.load([replace(SETTING, level=level, dane=dane)])
                (reply,) = await replies(world, "has.test")
                answers.append(" ".join(reply.decode().split(":", 1)[1].strip(" ,").split(" ")[:2]))
    assert answers == [*beside_dane, "NOTFOUND", "OK may", "OK encrypt"]


async def test_the_end_is_told_from_a_week_before_once_a_day(
    world: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.running(tmp_path):
        await world.exceptions.load(
            [SETTING, replace(SETTING, domain="late.test", until=LAST_DAY + datetime.timedelta(9))]
        )
        told = {}
        for days in (-7.01, -7, -6.99, -6.5, -5.5, -0.01, 0, 0.01, 1.01):
            world.now = END + days * DAY
            world.exceptions.tick(world.now)
            told[days] = [
                line.replace(f", with {LAST_DAY}, and then the policy holds again", "") for line in said(caplog)
            ]
    ended = f"WARNING the exception for has.test has ended with {LAST_DAY}, and the policy holds again: ticket 4711"
    assert told == {
        -7.01: [],
        -7: ["WARNING the exception for has.test ends in 7 days: ticket 4711"],
        -6.99: [],
        -6.5: [],
        -5.5: ["WARNING the exception for has.test ends in 6 days: ticket 4711"],
        -0.01: ["WARNING the exception for has.test ends in 14 minutes: ticket 4711"],
        0: [f"{ended}; remove it from the configuration"],
        0.01: [],
        1.01: [],
    }


async def test_one_that_was_added_counts_in_place_of_the_configured_one(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path):
        await world.exceptions.load([replace(SETTING, level=Level.ENCRYPT)])
        assert await world.exceptions.add(replace(SETTING, level=Level.MAY)) is False
        by_command, configured = world.exceptions.all()
        assert (by_command.added, configured.added) == (True, False)
        overruled = [world.exceptions.is_overruled(one) for one in (by_command, configured)]
        holding = world.exceptions.holding()
        first = await replies(world, "has.test")
        assert await world.exceptions.add(SETTING) is True
        assert await world.exceptions.remove("has.test") is True
        second = await replies(world, "has.test")
        with pytest.raises(RefusedError, match=r"^has\.test is in the configuration: remove it there, and reload"):
            await world.exceptions.remove("has.test")
        assert await world.exceptions.remove("other.test") is False
    assert (overruled, holding, first, second) == ([False, True], [by_command], [MAY], [ENCRYPT])


async def test_one_that_is_over_cannot_be_added_and_is_shown_for_a_month(tmp_path: Path) -> None:
    """By a wrong clock, none is deleted: it is dropped from the file when the next one is added."""
    now = END
    known = Exceptions(tmp_path / "exceptions.json", lambda: now)
    with pytest.raises(RefusedError, match=f"^{LAST_DAY} is over: name today or a later day$"):
        await known.add(SETTING)
    now = END - 1
    await known.add(SETTING)
    counts = []
    for now in (END, END + 30 * DAY - 1, END + 30 * DAY, END - 1):
        known.tick(now)
        counts.append((len(known.all()), len(known.holding())))
    assert counts == [(1, 0), (1, 0), (0, 0), (1, 1)]
    now = END + 30 * DAY
    other = replace(SETTING, domain="other.test", until=LAST_DAY + datetime.timedelta(31))
    assert await known.add(other) is False
    assert file.read(tmp_path / "exceptions.json") == (other,)


async def test_a_restart_forgets_neither_the_use_nor_what_the_log_was_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, moment = START, Reply(Status.OK, "may")

    async def started() -> Exceptions:
        known = Exceptions(tmp_path / "exceptions.json", lambda: now)
        await known.load([replace(SETTING, domain="*.test")])
        return known

    known = await started()
    await known.add(SETTING)
    below, exact = known.all()[1], known.all()[0]
    for name, one in (("has.test", exact), ("a.test", below), ("b.test", below)):
        known.used(PolicyDomain(name), one, moment, Reply(Status.NOTFOUND))
    known.tick(END - DAY)
    said(caplog)
    await known.save()
    before, since = list(print_exceptions(known)), known.since
    now = START + 60
    known = await started()
    assert (known.since, list(print_exceptions(known))) == (since, before)
    assert [one["used"] for one in before] == [1, 2]
    known.used(PolicyDomain("a.test"), below, moment, Reply(Status.NOTFOUND))
    known.tick(END - DAY)
    known.tick(END)
    ended = said(caplog)
    assert [line.split(" has ")[-1].partition(" with ")[0] for line in ended] == ["ended", "ended"]
    await known.save()
    now = END + 60
    (await started()).tick(now)
    assert said(caplog) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 2, "since": 1, "uses": []}', b'{"version": 1, "since": 1, "uses": [{}]}', b"\xff"],
)
async def test_where_uses_are_not_understood_counting_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "exceptions-used.json").write_bytes(content)
    known = Exceptions(tmp_path / "exceptions.json", lambda: START)
    await known.load([SETTING])
    await known.save()
    assert [(one["used"], one["since"]) for one in print_exceptions(known)] == [(0, START)]


async def test_uses_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    known = Exceptions(tmp_path / "later" / "exceptions.json", lambda: START)
    await known.load([SETTING])
    (one,) = known.all()
    known.used(HAS, one, Reply(Status.NOTFOUND), Reply(Status.OK, "secure"))
    await known.save()
    (tmp_path / "later").mkdir()
    await known.save()
    again = Exceptions(tmp_path / "later" / "exceptions.json", lambda: START)
    await again.load([SETTING])
    assert again.use_of(one) == Use(1, START, {HAS: None}, START // 3600)


async def test_what_was_added_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.json"
    settings = [SETTING, ExceptionSetting("*.b.test", LAST_DAY, "grüße", Level.MAY, dane=True)]
    known = Exceptions(path, lambda: START)
    for setting in settings:
        await known.add(setting)
    path.with_name("exceptions.json.new").write_text('{"version": 1, "exc')  # What a kill leaves.
    anew = Exceptions(path, lambda: START)
    await anew.load([])
    assert set(anew.all()) == {policy_exception(setting, added=True) for setting in settings}
    await anew.add(replace(SETTING, domain="c.test"))
    assert [one.domain for one in file.read(path)] == ["has.test", "*.b.test", "c.test"]


async def test_two_daemons_that_share_a_file_lose_nothing(tmp_path: Path) -> None:
    one, other = (Exceptions(tmp_path / "exceptions.json", lambda: START) for _ in range(2))
    await one.add(SETTING)
    await other.add(replace(SETTING, domain="b.test"))
    await one.remove("has.test")
    assert [each.domain for each in one.all()] == ["b.test"]


@pytest.mark.usefixtures("namespace")
async def test_a_full_disk_refuses_what_is_new_and_keeps_what_there_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as folder:
        path = folder / "exceptions.json"
        known = Exceptions(path, lambda: START)
        await known.add(SETTING)
        before = path.read_bytes()
        with filled(folder):
            with pytest.raises(RefusedError, match=r"exceptions\.json cannot be written: no space left on device$"):
                await known.add(replace(SETTING, domain="b.test"))
            assert path.read_bytes() == before
            assert [one.domain for one in known.all()] == ["has.test"]
            assert known.trouble == f"{path} cannot be written: no space left on device"
        await known.add(replace(SETTING, domain="b.test"))
        assert known.trouble == ""
    assert [line for line in said(caplog) if line.startswith("ERROR")] == [
        (
            f"ERROR exceptions that were added by command: {path} cannot be written: no space left on device; "
            "those that are known hold, and no others"
        )
    ]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", r"Expecting value: line 1 column 1 \(char 0\)"),
        (b"[" * 100_000, ".*"),
        (b"[]", "list indices must be integers or slices, not str"),
        (b'{"version": 2}', "written by a later version"),
        (b"\xff", ".*"),
        (b'{"version": 1, "exceptions": [7]}', ".*: an exception must be an object"),
        (b'{"version": 1, "exceptions": [{"domain": "a.test"}]}', ".*exception.until = None: must be a date .*"),
        (b" " * (2 * 2**20 + 1), "larger than 2 MiB"),
    ],
)
async def test_a_file_that_cannot_be_understood_is_never_overwritten(tmp_path: Path, octets: bytes, why: str) -> None:
    path = tmp_path / "exceptions.json"
    path.write_bytes(octets)
    known = Exceptions(path, lambda: START)
    await known.load([SETTING])
    assert re.fullmatch(f"{path} cannot be understood: {why}; correct it, or move it away", known.trouble)
    assert [one.domain for one in known.all()] == ["has.test"]
    with pytest.raises(RefusedError, match=r"cannot be understood"):
        await known.add(replace(SETTING, domain="b.test"))
    assert path.read_bytes() == octets


async def test_at_most_a_thousand_may_be_added_and_they_fit_the_bound_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "exceptions.json"
    label = "x" * 58
    longest = [
        ExceptionSetting(f"*.{label}.{label}.{label}.{label}.n{number:04}.test", LAST_DAY, "\U0001d518" * 200)
        for number in range(file.MAX_EXCEPTIONS)
    ]
    file.write(path, longest)
    known = Exceptions(path, lambda: START)
    await known.load([])
    assert (len(known.all()), known.trouble) == (1000, "")
    with pytest.raises(RefusedError, match=r"^there are 1000 exceptions already, the most that may be added$"):
        await known.add(SETTING)
    assert await known.add(replace(longest[0], level=Level.MAY)) is True


def test_an_error_of_the_system_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ExceptionsError, match=r"is a directory$"):
        file.read(tmp_path)
    with pytest.raises(ExceptionsError, match=r"cannot be written: no such file or directory$"):
        file.write(tmp_path / "missing" / "exceptions.json", [])


@pytest.mark.parametrize(
    ("zone", "utc"),
    [
        ("UTC", "2027-01-01T00:00:00+00:00"),
        ("Europe/Berlin", "2026-12-31T23:00:00+00:00"),
        ("America/New_York", "2027-01-01T05:00:00+00:00"),
        ("Pacific/Kiritimati", "2026-12-31T10:00:00+00:00"),
    ],
)
def test_a_day_ends_at_midnight_in_the_time_zone_of_this_machine(zone: str, utc: str) -> None:
    (end,) = ends(zone, "2026-12-31")
    assert datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat() == utc


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_every_date_of_toml_has_an_end(zone: str) -> None:
    first, last = ends(zone, "0001-01-01", "9999-12-31")
    assert first < time.time() < last


def ends(zone: str, *days: str) -> list[float]:
    """The ends of days on a machine in that time zone."""
    code = (
        "import datetime, sys; from postfix_mtasts.daemon.exceptions import end_of; "
        "print(*(end_of(datetime.date.fromisoformat(day)) for day in sys.argv[1:]))"
    )
    command, environment = [sys.executable, "-c", code, *days], {**os.environ, "TZ": zone}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return list(map(float, done.stdout.split()))


async def test_no_lookup_of_an_exception_costs_more_for_the_longest_name(tmp_path: Path) -> None:
    """A name has at most 127 labels, each of which is looked for once in each of the two."""
    known = Exceptions(tmp_path / "exceptions.json", lambda: START)
    await known.load([replace(SETTING, domain="*.b.test")])
    name = ".".join(["a"] * 120)
    begun = time.process_time()
    for _ in range(1000):
        assert known.of(PolicyDomain(name)) is None
    assert time.process_time() - begun < 2  # Seconds; it takes a tenth.
