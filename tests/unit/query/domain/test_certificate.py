"""When a certificate expires, in words."""

from datetime import UTC, datetime

import pytest

from postfix_mtasts.query.domain.certificate import Certificate

NOW = datetime(2026, 11, 25, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("not_after", "expiry"),
    [
        pytest.param(datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC), "expired on 2026-11-23", id="days ago"),
        pytest.param(datetime(2026, 11, 25, 22, 29, 59, tzinfo=UTC), "expired on 2026-11-25", id="a second ago"),
        pytest.param(datetime(2026, 11, 25, 22, 30, 0, tzinfo=UTC), "expires today (2026-11-25)", id="now"),
        pytest.param(datetime(2026, 11, 25, 23, 59, 59, tzinfo=UTC), "expires today (2026-11-25)", id="in an hour"),
        pytest.param(datetime(2026, 11, 26, 0, 0, 0, tzinfo=UTC), "expires tomorrow (2026-11-26)", id="after midnight"),
        pytest.param(datetime(2026, 11, 27, 0, 0, 0, tzinfo=UTC), "expires in 2 days (2026-11-27)", id="in two days"),
        pytest.param(datetime(2026, 12, 24, 12, 0, 0, tzinfo=UTC), "expires in 29 days (2026-12-24)", id="in weeks"),
    ],
)
def test_expiry(not_after: datetime, expiry: str) -> None:
    assert Certificate((), "Test CA", datetime(2026, 1, 1, tzinfo=UTC), not_after).expiry(NOW) == expiry
