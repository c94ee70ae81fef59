"""What `except list` says of one exception."""

import pytest

from postfix_mtasts.query.exceptions import Without, describe
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.exception import PolicyException

NOW = 1_800_000_000.0
EXCEPTION = PolicyException("*.below.test", "2027-01-31", NOW + 86400, "ticket 4711")
USE = {"over": False, "overruled": False, "used": 9, "last_used": NOW - 60, "since": NOW - 86400, "domains": []}


@pytest.mark.parametrize(("count", "more"), [(4, []), (5, ["only the last 5 domains that used it were looked up"])])
def test_of_many_domains_the_last_five_are_looked_up_and_it_says_so(count: int, more: list[str]) -> None:
    without = [Without(f"{number}.below.test", f"mail to {number} is sent", Status.OK) for number in range(count)]
    assert [line for line, _ in describe(EXCEPTION, USE, without, NOW)] == [
        "*.below.test: until 2027-01-31 (ends in 24 hours), level none, configured",
        "reason: ticket 4711",
        "used 9 times since 2027-01-14T08:00:00Z, last 60 seconds ago",
        *(f"without it: mail to {number} is sent" for number in range(count)),
        *more,
    ]
