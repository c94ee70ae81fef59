"""Decompresses a report (gzip, RFC 1952) up to a bound."""

import zlib

from postfix_mtasts.reports.report import ReportError

MAX_REPORT = 10 * 2**20  # Octets. Receivers commonly take no more than ten megabytes (RFC 8460, 5.2).
_MAGIC = b"\x1f\x8b"
_GZIP = 31  # zlib's number for a gzip header and a window of 32 KiB.


def is_compressed(data: bytes) -> bool:
    """Whether it begins as gzip does."""
    return data.startswith(_MAGIC)


def decompress(data: bytes) -> bytes:
    """Return what is compressed in `data`, or `data` itself if it is not compressed, at most 10 MiB.

    Raises ReportError. The work is bounded by the 10 MiB, whatever the header claims.
    """
    if not is_compressed(data):
        if len(data) > MAX_REPORT:
            raise ReportError("larger than 10 MiB")
        return data
    stream = zlib.decompressobj(_GZIP)
    try:
        content = stream.decompress(data, MAX_REPORT + 1)
    except zlib.error as error:
        raise ReportError("damaged gzip data") from error
    if len(content) > MAX_REPORT:
        raise ReportError("larger than 10 MiB when decompressed")
    if not stream.eof:
        raise ReportError("incomplete gzip data")
    # Zeros are padding, and a mail ends with a line break. A second member would be a second file.
    if stream.unused_data.strip(b"\0\r\n"):
        raise ReportError("more data follows the gzip data")
    return content
