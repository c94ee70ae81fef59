"""Which part of a mail is the report."""

import base64
import gzip
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.reports.mail import MAX_DEPTH, MAX_HEADERS, MAX_PARTS, Attachment, find_report
from postfix_mtasts.reports.report import ReportError
from tests.unit.reports.measure import cost
from tests.unit.strategies import near

TEXT = b'{"report-id": "1"}'
GZIP = gzip.compress(TEXT, mtime=0)
MAX_MAIL = 20_000_000


def part(kind: str, body: bytes = GZIP, name: str = "", encoding: str = "base64") -> bytes:
    """A part of a mail, with its headers."""
    encoded = base64.encodebytes(body) if encoding == "base64" else body
    fields = f"Content-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n"
    if name:
        fields += f'Content-Disposition: attachment; filename="{name}"\n'
    return fields.encode() + b"\n" + encoded


def multipart(*parts: bytes, kind: str = "multipart/report", boundary: str = "b") -> bytes:
    """A multipart of these parts, with its header."""
    inner = b"".join(b"--%b\n%b\n" % (boundary.encode(), one) for one in parts)
    return f'Content-Type: {kind}; boundary="{boundary}"\n\n'.encode() + inner + f"--{boundary}--\n".encode()


def mail(body: bytes) -> bytes:
    return b"From: a@example.org\nMIME-Version: 1.0\n" + body


NOTE = part("text/plain", b"A report", encoding="7bit")
DAMAGED = part("application/octet-stream", b"", name="picture.gz").rstrip() + b"\n\ne\n"
NAME = "x.example!y.example!1!2.json.gz"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        # As in RFC 8460, 5.3
        (multipart(NOTE, part("application/tlsrpt+gzip", name=NAME)), (GZIP, NAME)),
        (multipart(NOTE, part("application/tlsrpt+json", TEXT, encoding="7bit")), (TEXT, "")),
        (multipart(part("application/tlsrpt+json", TEXT + b" \n", encoding="8bit")), (TEXT + b" \n", "")),
        # Other media types and encodings
        (part("Application/TLSRPT+GZIP", name=NAME), (GZIP, NAME)),
        (part("application/gzip"), (GZIP, "")),
        (part("application/x-gzip"), (GZIP, "")),
        (part("application/json", TEXT, encoding="binary"), (TEXT, "")),
        (part("application/octet-stream", b"\n " + TEXT, encoding="unknown"), (b"\n " + TEXT, "")),
        (part("text/plain", TEXT, name="report.JSON", encoding="7bit"), (TEXT, "report.JSON")),
        (part("application/tlsrpt+json", b'{"a"=3A 1=\n}', encoding="Quoted-Printable"), (b'{"a": 1}', "")),
        (part("application/tlsrpt+gzip", TEXT, name="report.json.gz", encoding="7bit"), (TEXT, "report.json.gz")),
        (part('application/tlsrpt+gzip; name="name.json.gz"'), (GZIP, "name.json.gz")),
        (part("application/tlsrpt+gzip; name*=utf-8''a%21b.json"), (GZIP, "a!b.json")),
        (part("application/tlsrpt+gzip", name="../../etc/x.json.gz"), (GZIP, "x.json.gz")),
        (
            b"Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\nH4sI" + b"=" * 5,
            (b"\x1f\x8b\x08", ""),
        ),
        (part("application/octet-stream", b"\xef\xbb\xbf" + TEXT), (b"\xef\xbb\xbf" + TEXT, "")),
        # What does not look like a report, or is damaged
        (multipart(DAMAGED, part("application/gzip"), DAMAGED), (GZIP, "")),
        (multipart(part("application/octet-stream", b"\x89PNG"), part("application/gzip")), (GZIP, "")),
        # Parts within parts
        (multipart(multipart(NOTE, part("application/gzip"), boundary="b1"), boundary="b"), (GZIP, "")),
        (multipart(multipart(part("application/gzip"), boundary="b"), boundary="b1"), (GZIP, "")),
        (multipart(part("application/gzip"), boundary="a.b+c ?"), (GZIP, "")),
    ],
)
def test_the_report_in_a_mail(body: bytes, found: tuple[bytes, str]) -> None:
    for delivered in (
        mail(body),
        mail(body).replace(b"\n", b"\r\n"),
        b"From a Mon Mar  9 00:00:00 2026\n" + mail(body),
    ):
        attachment = find_report(delivered)
        content = attachment.content.replace(b"\r\n", b"\n")
        # The line break before a boundary is not of the part.
        assert Attachment(content, attachment.file_name, attachment.problems) == Attachment(*found, ())


def test_the_first_report_counts() -> None:
    second = part("application/tlsrpt+json", b"{}", encoding="7bit")
    found = find_report(mail(multipart(part("application/gzip"), second)))
    assert found == Attachment(GZIP, "", ("another part of the mail may be a report: not read",))
    found = find_report(mail(multipart(second, part("application/gzip"), second)))
    assert found == Attachment(b"{}", "", ("2 other parts of the mail may be reports: not read",))


def nested(depth: int) -> bytes:
    body = part("application/gzip")
    for number in range(depth):
        body = multipart(body, boundary=f"b{number}")
    return body


def test_the_deepest_part_that_is_read() -> None:
    assert find_report(mail(nested(MAX_DEPTH))).content == GZIP


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no report in this mail"),
        (b"\nhello", "no report in this mail"),
        (part("text/plain", TEXT), "no report in this mail"),
        (part("application/json", b"[]"), "no report in this mail"),
        # A bounce of a report of ours, or a mail that somebody passes on, is not from whoever signed it.
        (multipart(b"Content-Type: message/rfc822\n\n" + mail(part("application/gzip"))), "no report in this mail"),
        (part("application/tlsrpt+json", b"e", encoding="7bit").replace(b"7bit", b"base64"), "damaged base64"),
        (b"Content-Type: multipart/report\n\n", "a mail with a multipart without a valid boundary"),
        (multipart(boundary=201 * "b"), "a mail with a multipart without a valid boundary"),
        (nested(MAX_DEPTH + 1), "a mail with parts nested deeper than 10 levels"),
        (multipart(*[NOTE] * MAX_PARTS), "a mail with more than 200 parts"),
        (b"X: " + b"x" * MAX_HEADERS, "a mail with headers of more than 256 KiB"),
        (multipart(*[b"X: " + MAX_HEADERS // 9 * b"x" + b"\n\n"] * 9), "a mail with headers of more than 256 KiB"),
        (part(f"application/json; {1990 * 'x'}"), "a mail with a Content- field of more than 2000 characters"),
    ],
)
def test_what_has_no_report(body: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as refused:
        find_report(mail(body))
    assert str(refused.value) == reason


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "lines": lambda: nested(MAX_DEPTH) + b"--b\n" * 100 + b"\n" * MAX_MAIL,
    "boundaries": lambda: b'Content-Type: multipart/x; boundary="b"\n\n' + b"--b \n" * (MAX_MAIL // 5),
    "nearly boundaries": lambda: b'Content-Type: multipart/x; boundary="b"\n\n' + b"--b x" * (MAX_MAIL // 5),
    "blanks": lambda: b'Content-Type: multipart/x; boundary="b"\n\n--b' + b" " * MAX_MAIL,
    "headers": lambda: b"a:b\n" * (MAX_MAIL // 4),
    "parameters": lambda: b"Content-Type: x/y" + b";x" * (MAX_MAIL // 2),
    "parameters of parts": lambda: multipart(*[b"Content-Type: x/y" + b";x" * 600 + b"\n\n"] * 199),
    "names in pieces": lambda: multipart(
        *[b"Content-Disposition: x" + b"".join(b";name*%d*=x" % n for n in range(100)) + b"\n\n"] * 190
    ),
    "a report": lambda: part("application/gzip", GZIP + bytes(MAX_MAIL * 7 // 10)),
    "postmarks": lambda: b"\n\n" + (b"From " + 490 * b"x" + b"\n\n") * (MAX_MAIL // 497),
    "quotes": lambda: multipart(*[b"Content-Type: x/y;a=" + b'"\\' * 600 + b"\n\n"] * 199),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_mbox(end: str) -> None:
    """One mail with a postmark, as some programs save it, is read; of several, none is left out in silence."""
    postmark = b"From a@example.org Mon Mar  9 00:00:00 2026\n"
    single = postmark + mail(multipart(NOTE, part("application/gzip"))) + b"\nFrom here on, all is well:\n"
    assert find_report(single.replace(b"\n", end.encode())).content == GZIP
    with pytest.raises(ReportError) as refused:
        find_report((single + b"\n" + single).replace(b"\n", end.encode()))
    assert str(refused.value) == "several mails in one file (mbox): save each in a file of its own, as in a Maildir"


@pytest.mark.parametrize("name", EXPENSIVE)
def test_what_a_mail_costs_is_bounded(name: str) -> None:
    postmark = b"From x\n" if name == "postmarks" else b""
    found = cost(lambda: postmark + mail(EXPENSIVE[name]()), find_report)
    assert found.seconds < 3  # A tenth of this where nothing else runs.
    assert found.kilobytes < 3 * MAX_MAIL / 1000


lines = near(
    *("Content-Type: ", "multipart/report", "application/json", "; ", 'boundary="b"', "name*0*=", "filename*=", "\n\n"),
    *("--b", "--", "\n", "\r\n", "Content-Transfer-Encoding: base64\n", "e30=", "{}", "message/rfc822", '"', "\\", "%"),
)


@given(lines | st.binary().map(lambda octets: octets.decode("latin-1")))
def test_any_mail_has_a_report_or_none(text: str) -> None:
    for made in (text.encode(), mail(text.encode()), multipart(text.encode())):
        try:
            found = find_report(made)
        except ReportError as refused:
            assert str(refused) != ""  # noqa: PT017 - most have none
        else:
            assert "/" not in found.file_name
