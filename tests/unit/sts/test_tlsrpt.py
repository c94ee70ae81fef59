import pytest

from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.record import slip
from postfix_mtasts.sts.tlsrpt import VERSION, TlsrptError, TlsrptRecord, find_record, record_name
from tests.unit.vectors import load


def read(*texts: str) -> tuple[str, ...] | str | None:
    """The URIs of the record among these texts, or what is wrong."""
    try:
        found = find_record([[text.encode("latin-1")] for text in texts])
    except TlsrptError as error:
        return str(error)
    return found.rua if found else None


@pytest.mark.parametrize("case", load("tlsrpt_txt_records.json"), ids=lambda case: str(case["record"])[:60])
def test_vectors(case: dict[str, dict[str, object]]) -> None:
    found = read(str(case["record"]))
    assert (list(found) if isinstance(found, tuple) else []) == case["expect"]["rua"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("v=spf1 -all",), None),
        (("v=TLSRPTv1 ; rua=mailto:a@b.test",), ("mailto:a@b.test",)),
        (("v=TLSRPTv1 ; rua=mailto:a@b.test", "other"), None),
        (("v=TLSRPTv1;rua=mailto:a@b.test", "other"), ("mailto:a@b.test",)),
        (("v=TLSRPTv1;rua=mailto:a@b.test", "v=TLSRPTv1;"), "2 records begin with v=TLSRPTv1; remove all but one"),
        (("v=TLSRPTv1;rua=mailto:a@b.test",) * 2, ("mailto:a@b.test",)),
        (("v=TLSRPTv1, rua=mailto:a@b.test",), 'v=TLSRPTv1 must be followed by ";"'),
        (("v=TLSRPTv1; ruf=mailto:a@b.test",), "rua is missing"),
        (("v=TLSRPTv1; rua=a@b.test",), "write mailto: before 'a@b.test'"),
        (
            ("v=TLSRPTv1; rua=mailto:a@b.test!10m",),
            "'mailto:a@b.test!10m' is not a URI, such as mailto:tls@example.com",
        ),
        (("v=TLSRPTv1; rua=mailto:a@b.test,",), "rua is empty, or has an extra comma"),
        (("v=TLSRPTv1; rua=mailto:a@b.test; \xe9=1",), "expected name=value, got '\\xe9=1'"),
        (("v=TLSRPTv1;; rua=mailto:a@b.test",), "remove the extra semicolon"),
        (("v=TLSRPTv1; rua=mailto:a@b.test?subject=x%2C1",), ("mailto:a@b.test?subject=x%2C1",)),
    ],
)
def test_records(texts: tuple[str, ...], expected: object) -> None:
    assert read(*texts) == expected


def test_uris_that_senders_know() -> None:
    record = TlsrptRecord(("ftp://a.test/", "MAILTO:a@b.test", "http://a.test/", "https://a.test/"))
    assert record.usable() == ("MAILTO:a@b.test", "https://a.test/")


def test_the_name() -> None:
    assert record_name(PolicyDomain("example.com")) == "_smtp._tls.example.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"v=TLSRPTv1; rua=mailto:a@b.test", None),
        (b"v=STSv1; id=1", None),
        (b"V=tlsrptv1; rua=mailto:a@b.test", "the record must begin with v=TLSRPTv1, not with 'V=tlsrptv1'"),
    ],
)
def test_slips(text: bytes, expected: str | None) -> None:
    assert slip(text, VERSION) == expected
