"""Decompression, up to a bound."""

import gzip

import pytest

from postfix_mtasts.reports.decompress import MAX_REPORT, decompress, is_compressed
from postfix_mtasts.reports.report import ReportError
from tests.unit.reports.measure import cost

TEXT = b'{"report-id": "1"}'
COMPRESSED = gzip.compress(TEXT, mtime=0)  # The names of tests must be the same in each process.


def test_what_is_compressed_and_what_is_not() -> None:
    assert [is_compressed(data) for data in (COMPRESSED, TEXT, b"")] == [True, False, False]
    assert [decompress(data) for data in (COMPRESSED, TEXT, b"")] == [TEXT, TEXT, b""]


def test_what_may_follow() -> None:
    assert [decompress(COMPRESSED + rest) for rest in (b"\0\0\0", b"\r\n")] == [TEXT, TEXT]


def test_ten_mebibytes_are_read() -> None:
    assert len(decompress(bytes(MAX_REPORT))) == MAX_REPORT
    assert len(decompress(gzip.compress(bytes(MAX_REPORT)))) == MAX_REPORT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(MAX_REPORT + 1), "larger than 10 MiB"),
        (gzip.compress(bytes(MAX_REPORT + 1), mtime=0), "larger than 10 MiB when decompressed"),
        (COMPRESSED[:-1], "incomplete gzip data"),
        (COMPRESSED[:2], "incomplete gzip data"),
        (COMPRESSED[:-8] + b"\0\0\0\0" + COMPRESSED[-4:], "damaged gzip data"),
        (COMPRESSED[:12] + b"\xff\xff" + COMPRESSED[14:], "damaged gzip data"),
        (COMPRESSED + COMPRESSED, "more data follows the gzip data"),
        (COMPRESSED + b"x", "more data follows the gzip data"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as refused:
        decompress(data)
    assert str(refused.value) == reason


def test_a_bomb_costs_no_more_than_the_bound() -> None:
    found = cost(lambda: gzip.compress(bytes(20 * MAX_REPORT)), decompress)
    assert found.reason == "larger than 10 MiB when decompressed"
    assert found.kilobytes < 2.5 * MAX_REPORT / 1024  # 20 times the bound would be needed for all of it.
