"""What result types mean."""

import pytest

from postfix_mtasts.reports.meaning import MX_HOSTS_MISMATCH, RESULTS, Severity, meaning
from postfix_mtasts.reports.parse import RESULTS as PARSED

ALL = [
    *((result, None) for result in (*RESULTS, "a-new-type", None)),
    ("validation-failure", MX_HOSTS_MISMATCH),
    ("validation-failure", "VALIDATION_FAILURE"),
]


def test_every_result_type_of_the_rfc_has_a_meaning() -> None:
    assert set(RESULTS) == {*PARSED, "no-policy-found"}


@pytest.mark.parametrize(("result", "code"), ALL)
def test_it_is_said_in_one_or_two_sentences(result: str | None, code: str | None) -> None:
    text = meaning(result, code).text
    assert text.isascii()
    assert text[0].isupper()
    assert text[-1] == "."
    assert text.count(". ") <= 1
    assert len(text) < 230


def test_only_some_need_no_haste() -> None:
    severities = {result: meaning(result).severity for result in (*RESULTS, "a-new-type", None)}
    assert {result for result, severity in severities.items() if severity is Severity.WARNING} == {
        "sts-policy-fetch-error",
        "sts-policy-invalid",
        "sts-webpki-invalid",
        "a-new-type",
        None,
    }
    assert {result for result, severity in severities.items() if severity is Severity.NOTE} == {"no-policy-found"}


def test_the_code_of_microsoft() -> None:
    assert "does not name" in meaning("validation-failure", MX_HOSTS_MISMATCH).text
    assert meaning("certificate-expired", MX_HOSTS_MISMATCH) == meaning("certificate-expired")
    assert meaning("validation-failure", "OTHER") == meaning("validation-failure")
