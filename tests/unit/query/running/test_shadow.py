"""What would stop, as text and as a status."""

from typing import Any

import pytest

from postfix_mtasts.query.output import Status
from postfix_mtasts.query.running.shadow import document, judge, lines, ordered

NOW = 1_800_000_000.0
NONE = dict.fromkeys(("delivered", "deferred", "returned", "unclear", "dane", "unprobed"), 0)
COUNTS: dict[str, Any] = {
    "since": NOW - 4 * 86400,
    "asked": 512,
    "asked_is_at_least": False,
    "with_policy": 61,
    "enforced": 44,
    **NONE,
    "delivered": 36,
    "deferred": 2,
    "returned": 1,
    "unclear": 2,
    "dane": 2,
    "unprobed": 1,
}


def found(domain: str, state: str, reason: str, queries: int) -> dict[str, Any]:
    return {
        "domain": domain,
        "state": state,
        "reason": reason,
        "probed_at": NOW - 7200,
        "queries": queries,
        "asked_at": NOW - 60,
    }


LONG = f"{'x' * 50}.example"
DOMAINS = [
    found("few.example", "deferred", "its MX mx.few.example has an expired certificate", 2),
    found(LONG, "deferred", f"its MX mx.{LONG} is not allowed by the policy", 31),
    found("gone.example", "returned", "it does not exist in DNS (NXDOMAIN)", 1),
    found("a.example", "unclear", "its MX mx.a.example: connection refused", 5),
    found("b.example", "unclear", "its MX mx.b.example: connection refused", 5),
]
SHOWN = f"""\
no policy is enforced since 2027-01-11 (4 days)
domains asked for: 512; with a policy: 61; in mode enforce: 44. If they were
enforced today, of these:
      36  would be delivered
       2  would be deferred
       1  are returned to their senders, as they are now
       2  could not be judged from here: if mail to them is deferred now, it
          stays so
       2  would not change: DANE decides
       1  not probed yet

would be deferred                                     queries  probed
{LONG}
                                                           31  2 hours ago
    its MX mx.{LONG} is not
    allowed by the policy
few.example                                                 2  2 hours ago
    its MX mx.few.example has an expired certificate

are returned now                                      queries  probed
gone.example                                                1  2 hours ago
    it does not exist in DNS (NXDOMAIN)

could not be judged                                   queries  probed
a.example                                                   5  2 hours ago
    its MX mx.a.example: connection refused
b.example                                                   5  2 hours ago
    its MX mx.b.example: connection refused
"""


def shown(counts: dict[str, Any], domains: list[dict[str, Any]], most: int = 50) -> str:
    return "".join(f"{line.rstrip()}\n" for line, _ in lines(counts, ordered(domains), NOW, most))


def test_text() -> None:
    assert shown(COUNTS, DOMAINS) == SHOWN
    assert max(map(len, SHOWN.splitlines())) <= 80


def test_of_thousands_of_domains_the_most_asked_for_are_listed() -> None:
    many = [found(f"{number}.example", "deferred", "no STARTTLS", number) for number in range(5000)]
    said = shown({**COUNTS, **NONE, "deferred": 5000, "enforced": 5000}, many).splitlines()
    assert said[-1] == "and 4950 more; --all lists them"
    assert [line.split()[0] for line in said if ".example" in line] == [f"{n}.example" for n in range(4999, 4949, -1)]
    assert len(shown(COUNTS, many, most=5000).splitlines()) > 10_000


def test_when_nothing_is_withheld() -> None:
    assert shown({"since": None}, []) == "policies are enforced: shadow mode is off (reply.enforce = true)\n"
    nobody = {**COUNTS, **NONE, "asked": 100_000, "asked_is_at_least": True, "with_policy": 0, "enforced": 0}
    said = "domains asked for: more than 100000; with a policy: 0, none of them in mode enforce"
    assert " ".join(shown(nobody, []).splitlines()[1:]) == said


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"since": None}, Status.NOTHING),
        ({"since": NOW, "enforced": 0}, Status.NOTHING),
        ({"since": NOW, "enforced": 3, **NONE, "delivered": 2, "returned": 1}, Status.OK),
        ({"since": NOW, "enforced": 1, **NONE, "dane": 1}, Status.OK),
        ({"since": NOW, "enforced": 2, **NONE, "delivered": 1, "unprobed": 1}, Status.WARNING),
        ({"since": NOW, "enforced": 1, **NONE, "unclear": 1}, Status.WARNING),
        ({"since": NOW, "enforced": 2, **NONE, "deferred": 1, "unprobed": 1}, Status.ERROR),
    ],
)
def test_status(counts: dict[str, Any], status: Status) -> None:
    assert judge(counts) is status


def test_json() -> None:
    assert document(COUNTS, DOMAINS[:1], Status.ERROR) == {
        **COUNTS,
        "since": "2027-01-11T08:00:00Z",
        "domains": [{**DOMAINS[0], "probed_at": "2027-01-15T06:00:00Z", "asked_at": "2027-01-15T07:59:00Z"}],
        "status": "error",
    }
    assert document({"since": None}, [], Status.NOTHING) == {"since": None, "domains": [], "status": "nothing"}
