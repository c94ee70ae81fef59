"""A TLS report, alone or in a mail, and what is said of it. ReportError is declared."""

import datetime
from collections.abc import Iterator

from postfix_mtasts.query.output import printable
from postfix_mtasts.reports.decompress import decompress, is_compressed
from postfix_mtasts.reports.fields import MAX_NAME, MAX_PROBLEMS, MAX_TEXT
from postfix_mtasts.reports.mail import find_report
from postfix_mtasts.reports.parse import MAX_FAILURES, MAX_POLICIES, parse
from postfix_mtasts.reports.report import Dkim, DkimState, Report, ReportError
from postfix_mtasts.reports.verdict import State, verdict
from postfix_mtasts.reports.views import day_of
from tests.fuzz.targets import DATA, check_words

_DKIM = Dkim(DkimState.VERIFIED, "example.org")
_SOON = datetime.timedelta()


def seeds() -> Iterator[bytes]:
    for path in sorted((DATA / "reports/senders").iterdir()):
        yield path.read_bytes()
        if not path.name.endswith(".eml"):
            yield decompress(path.read_bytes())
            continue
        attachment = find_report(path.read_bytes())
        yield decompress(attachment.content)
    yield b'{"date-range":' + b"[" * 15 + b"]" * 15 + b"}"
    yield b"From: a@b\nContent-Type: multipart/report; boundary=b\n\n" + b"--b\n\n" * 190


def run(data: bytes) -> None:
    try:
        if is_compressed(data) or data.lstrip()[:1] in (b"{", b"[", b'"'):
            report = parse(decompress(data))
        else:
            attachment = find_report(data)
            report = parse(decompress(attachment.content), attachment.file_name)
    except ReportError as error:
        check_words(printable(str(error)))
        assert str(error)
        return
    _check(report)


def _check(report: Report) -> None:
    assert len(report.policies) <= MAX_POLICIES
    assert sum(len(policy.failures) for policy in report.policies) <= MAX_FAILURES
    assert len(report.problems) <= MAX_PROBLEMS + 1
    assert day_of(report.start, report.end) >= datetime.date(1970, 1, 1)
    for policy in report.policies:
        assert min(policy.successful, policy.failed) >= 0
        for failure in policy.failures:
            assert failure.sessions >= 0
            names = (failure.result, failure.mx, failure.receiving_ip, failure.sending_ip)
            texts = (failure.code, failure.information)
            assert max((len(name) for name in names if name), default=0) <= MAX_NAME
            assert max((len(text) for text in texts if text), default=0) <= MAX_TEXT
            for text in (*names, *texts):
                (text or "").encode()  # No half of a surrogate pair, which a database refuses.
    for text in (report.organization, report.report_id, *report.problems):
        (text or "").encode()
    state, reason = verdict(report, _DKIM, _SOON, ("example.com",), accepted=False)
    assert (state is State.QUARANTINED) == bool(reason)
    check_words(printable(reason))
