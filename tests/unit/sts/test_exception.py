"""Which exception holds for a domain, and until when."""

from dataclasses import replace

import pytest

from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.exception import PolicyException, exception_for

END = 1_800_000_000.0
NAMED = PolicyException("partner.example", "2027-01-14", END, "ticket 1")
BELOW = replace(NAMED, domain="*.partner.example", reason="ticket 2")
FURTHER_BELOW = replace(NAMED, domain="*.mail.partner.example", reason="ticket 3")
BELOW_ALL = replace(NAMED, domain="*.partner", reason="ticket 4")


def over(exception: PolicyException) -> PolicyException:
    return replace(exception, ends_at=END - 100)


def by_command(exception: PolicyException) -> PolicyException:
    return replace(exception, added=True, reason="tonight")


def known(*exceptions: PolicyException) -> dict[str, PolicyException]:
    return {one.domain: one for one in exceptions}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        pytest.param("partner.example", NAMED, id="its own name"),
        pytest.param("mail.partner.example", BELOW, id="below"),
        pytest.param("a.b.partner.example", BELOW, id="far below"),
        pytest.param("x.mail.partner.example", FURTHER_BELOW, id="the nearest one counts"),
        pytest.param("notpartner.example", None, id="the same end of a label is not below"),
        pytest.param("example", None, id="above"),
        pytest.param("partner.example.org", None, id="the same beginning"),
    ],
)
def test_the_exception_with_the_most_labels_counts(domain: str, expected: PolicyException | None) -> None:
    configured = known(NAMED, BELOW, FURTHER_BELOW)
    assert exception_for(PolicyDomain(domain), END - 1, {}, configured) == expected


@pytest.mark.parametrize(
    ("added", "configured", "expected"),
    [
        pytest.param([by_command(NAMED)], [NAMED], by_command(NAMED), id="by command before configured"),
        pytest.param([over(by_command(NAMED))], [NAMED], NAMED, id="one that is over is as if it were not"),
        pytest.param([by_command(BELOW_ALL)], [NAMED], NAMED, id="a nearer one counts, wherever it is from"),
        pytest.param([], [over(NAMED)], None, id="over"),
        pytest.param([], [], None, id="none"),
    ],
)
def test_which_of_several(
    added: list[PolicyException], configured: list[PolicyException], expected: PolicyException | None
) -> None:
    domain = PolicyDomain("partner.example")
    assert exception_for(domain, END - 1, known(*added), known(*configured)) == expected


def test_an_exception_that_is_over_leaves_it_to_one_for_the_domains_below_another() -> None:
    domain, configured = PolicyDomain("x.mail.partner.example"), known(over(FURTHER_BELOW), BELOW)
    assert exception_for(domain, END - 1, {}, configured) == BELOW


@pytest.mark.parametrize(("now", "holds"), [(END - 0.001, True), (END, False), (END + 86400, False), (0.0, True)])
def test_the_end_itself_is_after_it(now: float, *, holds: bool) -> None:
    assert exception_for(PolicyDomain("partner.example"), now, {}, known(NAMED)) == (NAMED if holds else None)
