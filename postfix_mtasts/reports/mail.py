"""Finds the report in a mail (RFC 8460, 5.3), also where the sender chose another media type.

Python's `email` reads the headers of parts. The parts are found here: `email` keeps copies of the whole mail, and takes
hours for some headers.
"""

import binascii
import email.message
import email.parser
import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass

from postfix_mtasts.reports.decompress import is_compressed
from postfix_mtasts.reports.report import ReportError

MAX_DEPTH = 10  # Of multiparts within multiparts.
MAX_PARTS = 200  # With those within others.
MAX_HEADERS = 256 * 1024  # Octets of the headers of a mail, and of those of all its parts.
_MAX_FIELD = 2000  # Characters of a field that says what a part is.
_MAX_BOUNDARY = 200  # Characters. RFC 2046, 5.1.1, allows 70.

_EMPTY_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
# In a file that begins with a postmark, an mbox, each mail has one, and then a header.
_POSTMARK = b"From "
_NEXT_MAIL = re.compile(rb"\n\r?\nFrom [^\r\n]{1,500}\r?\n[!-9;-~]{1,100}:")
_HEADERS = email.parser.BytesHeaderParser(policy=email.policy.compat32)
_FIELDS = ("Content-Type", "Content-Disposition", "Content-Transfer-Encoding")

_REPORTS = ("application/tlsrpt+gzip", "application/tlsrpt+json")
# Media types that senders give to reports, and to other files.
_FILES = ("application/octet-stream", "application/gzip", "application/x-gzip", "application/json", "text/json")
_BLANKS = b" \t\r\n\xef\xbb\xbf"  # With a byte order mark.
_NAMES = (".json", ".json.gz", ".gz")


@dataclass(frozen=True, slots=True)
class Attachment:
    """The report in a mail, which may be compressed."""

    content: bytes
    file_name: str  # As the sender named it, or empty.
    problems: tuple[str, ...]


def find_report(mail: bytes) -> Attachment:
    """Return the first report in a mail. What else looks like one is noted as a problem. Raises ReportError."""
    if mail.startswith(_POSTMARK) and _NEXT_MAIL.search(mail):
        raise ReportError("several mails in one file (mbox): save each in a file of its own, as in a Maildir")
    found = list(_Mail(mail).reports())
    if not found:
        raise ReportError("no report in this mail")
    (content, file_name), *others = found
    match len(others):
        case 0:
            problems = []
        case 1:
            problems = ["another part of the mail may be a report: not read"]
        case more:
            problems = [f"{more} other parts of the mail may be reports: not read"]
    return Attachment(content, file_name, tuple(problems))


class _Mail:
    """A mail, taken apart. Parts are positions in it."""

    def __init__(self, mail: bytes) -> None:
        self._mail = mail
        self._parts = 0
        self._headers = 0

    def reports(self) -> Iterator[tuple[bytes, str]]:
        """Return content and file name of the parts that look like reports."""
        return self._reports(0, len(self._mail), 0)

    def _reports(self, start: int, end: int, depth: int) -> Iterator[tuple[bytes, str]]:
        """Look between two positions. A mail within the mail (message/rfc822) is somebody else's."""
        part, body = self._read_headers(start, end)
        try:
            kind, boundary, name = part.get_content_type(), part.get_boundary(""), part.get_filename("")
        except Exception as error:  # `email` raises many kinds for malformed headers, and documents none.
            raise ReportError(f"malformed headers of a part: {type(error).__name__}") from error
        if kind.startswith("multipart/"):
            if depth == MAX_DEPTH:
                raise ReportError(f"a mail with parts nested deeper than {MAX_DEPTH} levels")
            for inner_start, inner_end in self._inner(boundary, body, end):
                yield from self._reports(inner_start, inner_end, depth + 1)
        elif kind in _REPORTS:
            yield self._content(part, body, end), _base_name(name)
        elif kind in _FILES or name.lower().endswith(_NAMES):
            try:
                content = self._content(part, body, end)
            except ReportError:  # Another file may be damaged, with a report beside it.
                return
            if is_compressed(content) or content[:1000].lstrip(_BLANKS)[:1] == b"{":
                yield content, _base_name(name)

    def _read_headers(self, start: int, end: int) -> tuple[email.message.Message, int]:
        """Return the headers of a part, and where its body begins. Without an empty line there is no body."""
        match = _EMPTY_LINE.search(self._mail, start, end)
        headers_end, body = (match.start(), match.end()) if match else (end, end)
        self._headers += headers_end - start
        if self._headers > MAX_HEADERS:
            raise ReportError(f"a mail with headers of more than {MAX_HEADERS // 1024} KiB")
        part = _HEADERS.parsebytes(self._mail[start:headers_end])
        if any(len(str(value)) > _MAX_FIELD for name in _FIELDS for value in part.get_all(name, [])):
            raise ReportError(f"a mail with a Content- field of more than {_MAX_FIELD} characters")
        return part, body

    def _inner(self, boundary: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Return where the parts of a multipart begin and end (RFC 2046, 5.1.1)."""
        if not 0 < len(boundary) <= _MAX_BOUNDARY:
            raise ReportError("a mail with a multipart without a valid boundary")
        line = re.escape(boundary.encode("utf-8", "surrogateescape"))
        delimiter = re.compile(rb"^--%b(?P<last>--)?[ \t]*\r?$" % line, re.MULTILINE)
        begun: int | None = None
        for match in delimiter.finditer(self._mail, start, end):
            if begun is not None:  # The line break before a boundary is not part of what comes before.
                yield begun, begun + len(self._mail[begun : match.start()].removesuffix(b"\n").removesuffix(b"\r"))
            self._parts += 1
            if self._parts > MAX_PARTS:
                raise ReportError(f"a mail with more than {MAX_PARTS} parts")
            begun = match.end() + 1
            if match["last"]:
                return
        if begun is not None and begun < end:
            yield begun, end

    def _content(self, part: email.message.Message, start: int, end: int) -> bytes:
        """Return the decoded body of a part. Raises ReportError."""
        body = self._mail[start:end]
        match str(part.get("Content-Transfer-Encoding", "")).strip().lower():
            case "base64":
                try:
                    return binascii.a2b_base64(body + b"==")  # Some senders leave out the padding.
                except binascii.Error as error:
                    raise ReportError("damaged base64") from error
            case "quoted-printable":
                return binascii.a2b_qp(body)
            case _:
                return body


def _base_name(name: str) -> str:
    return name.rpartition("/")[2]
