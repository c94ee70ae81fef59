"""Reads the report in a file or mail, and who sent it."""

import dataclasses
import datetime
from pathlib import Path

from postfix_mtasts.reports.decompress import decompress, is_compressed
from postfix_mtasts.reports.files import MAX_FILE, content, reason
from postfix_mtasts.reports.mail import find_report
from postfix_mtasts.reports.parse import parse
from postfix_mtasts.reports.report import Dkim, DkimState, Reading, Report, ReportError
from postfix_mtasts.reports.trust import Verifier

_SUFFIXES = (".json", ".gz")
# A mail begins with none of these.
_BLANKS = b" \t\r\n\xef\xbb\xbf"
_JSON = (b"{", b"[", b'"')
_NO_MAIL = Dkim(DkimState.NONE, None, "not a mail")


async def read(file: str, verifier: Verifier, now: datetime.datetime) -> Reading:
    """Read the mail, the JSON text or the compressed JSON text in a file."""
    try:
        data = content(file)
    except OSError as error:
        return Reading(file, None, _NO_MAIL, reason(error))
    return await read_data(file, data, verifier, now)


async def read_data(
    file: str, data: bytes, verifier: Verifier, now: datetime.datetime, known: Dkim | None = None
) -> Reading:
    """Read what is in a file. If it is `known` who sent it, that is not looked up again."""
    try:
        report = report_in(file, data)
    except ReportError as error:
        return Reading(file, None, _NO_MAIL, str(error))
    if _is_report(file, data):
        return Reading(file, report, _NO_MAIL)
    return Reading(file, report, known or await verifier.verify(data, now))


def report_in(file: str, data: bytes) -> Report:
    """The report in what a file has. Raises ReportError."""
    if len(data) > MAX_FILE:
        raise ReportError("larger than 20 MB")
    if _is_report(file, data):
        return parse(decompress(data), Path(file).name)
    attachment = find_report(data)
    report = parse(decompress(attachment.content), attachment.file_name)
    return dataclasses.replace(report, problems=attachment.problems + report.problems)


def _is_report(file: str, data: bytes) -> bool:
    """Whether it is a report by itself, and not a mail."""
    return file.endswith(_SUFFIXES) or is_compressed(data) or data[:1000].lstrip(_BLANKS).startswith(_JSON)
