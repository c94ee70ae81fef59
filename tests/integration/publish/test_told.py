"""What TLS reports say of a published domain: mails of senders, taken in by postfix-mtasts-reports."""

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts import config
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.ready import Facts
from postfix_mtasts.publish.state import DAY, Clock, State, record_id
from postfix_mtasts.publish.store import Store
from postfix_mtasts.publish.told import told
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.publish.conftest import Place
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import Desk, mail, signed
from tests.integration.reports.test_stored import about, failure, policy

DOMAIN = "example.test"
ONE, TWO = "one.example", "two.example"
LONGEST = 100  # Seconds that a test takes at most, on a busy machine.
POLICY = Policy(Mode.TESTING, 604_800, (MxPattern(f"mx1.{DOMAIN}"),))

pytestmark = pytest.mark.timeout(3 * LONGEST)


def midnight() -> float:
    """When today began."""
    now = time.time()
    return now - now % DAY


def state(days: float) -> State:
    """A domain whose policy was announced so many days ago."""
    counted = 1000 * DAY
    return State(
        PolicyDomain(DOMAIN),
        POLICY,
        Clock(counted, time.time()),
        record=record_id(POLICY),
        announced_at=counted - days * DAY,
    )


class Office:
    """Takes reports in, as they come by mail."""

    def __init__(self, place: Place) -> None:
        folder = place.folder / "office"
        folder.mkdir()
        self.desk = Desk(folder, place.dns)
        self.signer = Signer(place.dns)
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.settings = config.Reports(path=str(self.desk.database))
        self.count = 0

    def said(self, sender: str | None, day: int, *policies: dict[str, Any]) -> None:
        """A sender reports on so many days before yesterday; None: somebody who signs nothing."""
        self.count += 1
        report = about(day, self.count, *policies)
        self.put(signed(self.signer, report, sender) if sender else mail(report), "eml")

    def put(self, content: bytes, kind: str) -> None:
        (self.inbox / f"{len(list(self.inbox.iterdir()))}.{kind}").write_bytes(content)

    def take_in(self) -> None:
        done = self.desk.run("import", *sorted(self.inbox.iterdir()))
        assert done.returncode in (0, 1), done.stdout + done.stderr  # With problems, or known already.


@pytest.fixture
def office(place: Place) -> Office:
    """All that a test does is on one day: if the next one is near, it is waited for."""
    if (left := DAY - time.time() % DAY) < LONGEST:
        time.sleep(left)
    made = Office(place)
    text = place.config.read_text()
    place.config.write_text(f"{text}\n[reports]\npath = {json.dumps(made.settings.path)}\n")
    return made


def of_us(successful: int, failed: int = 0, *failures: dict[str, Any], **members: Any) -> dict[str, Any]:
    made = policy(successful, failed, *failures, domain=DOMAIN)
    made["policy"] |= members
    return made


def test_only_what_verified_senders_say_of_this_policy_counts(office: Office) -> None:
    office.said(ONE, 0, of_us(10), of_us(5, 2, failure("certificate-expired", 2)))
    office.said(ONE, 3, of_us(20))
    office.said(TWO, 3, of_us(40, 0, **{"policy-domain": "Example.TEST"}))
    office.said("none.example", 1, of_us(400, 3, failure("no-policy-found", 3), **{"policy-type": "no-policy-found"}))
    office.said("none.example", 2, policy(400, 1, failure("certificate-expired", 1), domain=f"sub.{DOMAIN}"))
    office.said(TWO, 30, of_us(400, 1, failure("certificate-expired", 1)))  # Of the policy before.
    office.said(None, 4, of_us(400, 1, failure("certificate-expired", 1)))
    office.put(json.dumps(about(5, 99, of_us(400, 7, failure("certificate-expired", 7)))).encode(), "json")
    office.take_in()
    # One by one: (announced so many days ago, what is told since).
    for days, expected in (
        (20, Facts(reporters=2, days=2, sessions=77, last_failure=midnight(), failing=1)),
        (3, Facts(reporters=1, days=1, sessions=17, last_failure=midnight(), failing=1)),
        (1, Facts()),  # Announced yesterday: what is reported of that day may be about the policy before.
        (40, Facts(reporters=2, days=3, sessions=478, last_failure=midnight(), failing=1)),
    ):
        assert (days, told(office.settings, state(days), time.time())) == (days, expected)
    assert told(office.settings, replace(state(20), record=None), time.time()) == Facts()


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([], (None, 0)),
        ([(ONE, 1, "no-policy-found")], (None, 0)),
        ([(ONE, 1, "certificate-expired")], (1, 1)),
        ([(ONE, 1, "certificate-expired"), (ONE, 3, "starttls-not-supported")], (1, 1)),
        ([(ONE, 1, "certificate-expired"), (TWO, 3, "starttls-not-supported")], (1, 2)),
        ([(ONE, 9, "certificate-expired"), (TWO, 3, "validation-failure")], (3, 1)),
        ([(ONE, 9, "certificate-expired")], (9, 0)),
        # Mail arrives all the same, though unprotected, or nobody can say.
        ([(ONE, 2, "sts-webpki-invalid"), (TWO, 2, "a-new-type")], (2, 0)),
        # Somebody's clock is wrong.
        ([(ONE, -3, "certificate-expired")], (None, 0)),
    ],
)
def test_failures_of_our_making(
    office: Office, failures: Sequence[tuple[str, int, str]], expected: tuple[int | None, int]
) -> None:
    office.said(ONE, 0, of_us(1))
    for sender, day, result in failures:
        office.said(sender, day, of_us(0, 1, failure(result, 1)))
    office.take_in()
    found = told(office.settings, state(20), time.time())
    assert found
    last, failing = expected
    assert (found.last_failure, found.failing) == (None if last is None else midnight() - last * DAY, failing)


def test_without_a_database_nothing_is_known(office: Office) -> None:
    assert told(office.settings, state(20), time.time()) is None
    assert told(config.Reports(path=f"{office.inbox}/none/reports.sqlite"), state(20), time.time()) is None


def test_a_database_that_cannot_be_read_is_told_in_one_line(office: Office, place: Place) -> None:
    database = Path(office.settings.path)
    database.parent.mkdir()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(QueryError) as caught:
        told(office.settings, state(20), time.time())
    assert str(caught.value) == f"TLS reports: {database}: file is not a database"
    place.mx(DOMAIN)
    assert place.run("add", DOMAIN).returncode == 0
    done = place.run("ready", DOMAIN)
    assert (done.returncode, done.stdout) == (69, "")
    error, hint = done.stderr.splitlines()
    assert error == f"postfix-mtasts-publish: error: {caught.value}"
    assert hint.startswith("hint: move it away")
    assert database.read_bytes() == b"no database" * 1000


def published(place: Place, days: float) -> None:
    """The domain is published in mode testing, clean, and its policy was announced so many days ago."""
    place.mx(DOMAIN)
    assert place.run("add", DOMAIN).returncode == 0
    place.customer(DOMAIN)
    for _ in range(3):  # The file is seen, then the records.
        place.load_zone()
        found = place.json("check", DOMAIN)
    assert (found["id_in_dns"], found["remarks"]) == (True, [])
    announced_days_ago(place, days)


def announced_days_ago(place: Place, days: float) -> None:
    """So many days have passed since, and the last check was a moment ago."""
    store = Store(str(place.folder / "publish.sqlite"))
    found = store.get(PolicyDomain(DOMAIN))
    assert found
    later = Clock(found.clock.counted + days * DAY, found.clock.at)
    checked = found.checked and replace(found.checked, at=later.counted)
    store.save(follows(replace(found, clock=later, checked=checked)), "the test", 0.0)
    store.close()


def enough(office: Office) -> None:
    """What two senders say of ten days."""
    for day in range(10):
        office.said(ONE, day, of_us(9))
        office.said(TWO, day, of_us(2))


def ready(place: Place) -> tuple[int, list[str]]:
    done = place.run("ready", DOMAIN)
    assert done.stderr == ""
    return done.returncode, [line.strip() for line in done.stdout.splitlines()]


def test_ready_shows_what_reports_say(office: Office, place: Place) -> None:
    published(place, 15)
    status, lines = ready(place)
    assert status == 1
    assert lines[2] == (
        "not met   2 organizations that report, verified by DKIM: unknown: no reports are taken in here"
    )
    assert lines[-1].startswith("next      let Postfix hand reports to `postfix-mtasts-reports receive`")
    enough(office)
    office.take_in()
    assert ready(place) == (
        0,
        [
            f"{DOMAIN}: ready for mode enforce",
            "met       14 days of the present policy: 15 so far",
            "met       2 organizations that report, verified by DKIM: 2 so far",
            "met       10 days with reports: 10 so far",
            "met       100 sessions in reports: 110 so far",
            "met       no failure of our making reported for 7 days: none",
            "met       a check without a problem today: clean",
        ],
    )
    office.said(TWO, 2, of_us(0, 1, failure("certificate-host-mismatch", 1)))
    office.take_in()
    status, lines = ready(place)
    on = f"{datetime.datetime.fromtimestamp(midnight() + 5 * DAY, datetime.UTC):%Y-%m-%d} 00:00 UTC"
    ago = f"{(time.time() - midnight()) / DAY + 2:.0f} days ago"
    text = f"no failure of our making reported for 7 days: the last one {ago}; met on {on}, if nothing changes"
    assert (status, lines[5]) == (1, f"not met   {text}")
    assert lines[0] == f"{DOMAIN}: not ready for mode enforce before {on}"


def automatic(place: Place) -> None:
    text = place.config.read_text()
    place.config.write_text(text.replace("[publish]\n", "[publish]\nauto = true\n"))


def test_check_enforces_by_itself_once_all_conditions_hold(office: Office, place: Place) -> None:
    published(place, 15)
    enough(office)
    office.take_in()
    assert place.json("check", DOMAIN)["mode"] == "testing"  # Nobody has allowed it.
    automatic(place)
    other = place.mx(DOMAIN, "other")  # The policy does not name it.
    assert place.json("check", DOMAIN)["mode"] == "testing"
    place.dns.remove(DOMAIN, "MX")
    place.mx(DOMAIN)
    place.dns.remove(other)
    assert place.json("check", DOMAIN)["mode"] == "testing"  # Resolvers may have it still.
    (unmet,) = [one["text"] for one in place.json("ready", DOMAIN)["conditions"] if not one["met"]]
    assert unmet == (
        f"a check without a problem today: the policy forbids the MX host {other}, which DNS had less than two days ago"
    )
    place.days_pass(DOMAIN, 2)
    found = place.json("check", DOMAIN)
    assert (found["mode"], found["remarks"], [one["kind"] for one in found["waits"]]) == ("enforce", [], ["file"])
    assert "mode: enforce" in (place.served(DOMAIN) or "")
    entry = [one for one in place.json("show", DOMAIN)["history"] if one["what"] == "mode"][-1]
    assert [entry[name] for name in ("who", "before", "after", "why")] == ["anna", "testing", "enforce", "auto"]


@pytest.mark.parametrize("sender", [ONE, None])
def test_a_verified_failure_puts_off_that_check_enforces(office: Office, place: Place, sender: str | None) -> None:
    published(place, 15)
    automatic(place)
    enough(office)
    office.said(sender, 5, of_us(0, 1, failure("sts-policy-fetch-error", 1)))
    office.take_in()
    assert place.json("check", DOMAIN)["mode"] == ("testing" if sender else "enforce")


def test_check_does_not_enforce_while_records_cannot_be_sent(office: Office, place: Place) -> None:
    published(place, 15)
    automatic(place)
    enough(office)
    office.take_in()
    key = place.folder / "key"
    key.write_text('key "publish" { algorithm hmac-sha256; secret "c2VjcmV0"; };')
    server = f'[publish.dns]\nserver = "127.0.5.9"\nkey = "{key}"\n'  # Nobody listens there.
    place.config.write_text(f"{place.config.read_text()}\n{server}")
    done = place.run("check", "--json", DOMAIN)
    *_, found = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, found["mode"], [one["check"] for one in found["remarks"]]) == (2, "testing", ["record"])


def test_without_reports_check_does_not_enforce(office: Office, place: Place) -> None:
    published(place, 15)
    automatic(place)
    found = place.json("check", DOMAIN)
    assert (found["mode"], found["remarks"]) == ("testing", [])
    database = Path(office.settings.path)
    database.parent.mkdir()
    database.write_bytes(b"no database" * 1000)
    found = place.json("check", DOMAIN)
    text = f"TLS reports: {database}: file is not a database"
    assert (found["mode"], found["remarks"]) == ("testing", [{"status": "warning", "check": "reports", "text": text}])


def test_two_senders_whose_mail_does_not_arrive_are_an_error_and_no_step_back(office: Office, place: Place) -> None:
    published(place, 1)
    assert place.run("mode", DOMAIN, "enforce").returncode == 0
    place.run("check", DOMAIN)
    place.load_zone()
    announced_days_ago(place, 3)
    automatic(place)
    office.said(ONE, 0, of_us(0, 1, failure("certificate-expired", 1)))
    office.said(None, 0, of_us(0, 1, failure("certificate-expired", 1)))
    office.said("other.example", 0, of_us(0, 1, failure("sts-policy-fetch-error", 1)))
    office.take_in()
    assert place.json("check", DOMAIN)["remarks"] == []
    office.said(TWO, 1, of_us(0, 1, failure("starttls-not-supported", 1)))
    office.take_in()
    done = place.run("check", "--json", DOMAIN)
    text = (
        "2 organizations reported in the last 7 days that they could not deliver under the policy: "
        f"`postfix-mtasts-reports results --domain {DOMAIN}` says what failed"
    )
    assert (done.returncode, done.stderr) == (2, f"postfix-mtasts-publish: error: {DOMAIN}: {text}\n")
    found = json.loads(done.stdout)
    assert (found["mode"], found["remarks"]) == ("enforce", [{"status": "error", "check": "reports", "text": text}])
    assert place.run("ready", DOMAIN).returncode == 2
