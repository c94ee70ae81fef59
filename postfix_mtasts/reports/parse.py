"""Parses the text of a report (RFC 8460, 4.4) into a `Report`."""

import codecs
import re
from typing import Any

from postfix_mtasts.reports.document import load
from postfix_mtasts.reports.fields import MAX_TEXT, Object, Problems
from postfix_mtasts.reports.report import Failure, Policy, Report, ReportError
from postfix_mtasts.sts.domain import HostnameError, hostname

MAX_POLICIES = 100  # Of a report.
MAX_FAILURES = 10_000  # Of all its policies.
_TYPES = ("sts", "tlsa", "no-policy-found")
RESULTS = (
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
)
_MODE = re.compile(r"\s*mode\s*:\s*(\S{1,20})\s*")
# sender!policy-domain!begin!end[!unique-id].json[.gz] (RFC 8460, 5.1)
_FILE_NAME = re.compile(r"[^!/]*!(?P<domain>[A-Za-z0-9._-]{1,253})![0-9]+![0-9]+(?:![^!/]*)?\.json(?:\.gz)?")


def parse(text: bytes, file_name: str = "") -> Report:
    """Parse a report, which is JSON in UTF-8. Raises ReportError if it is none, or its meaning is not clear.

    `file_name` is the name that the sender gave to it. It has the policy domain, which some senders leave out.
    """
    problems = Problems()
    if text.startswith(codecs.BOM_UTF8):
        problems.add("the report begins with a byte order mark")
        text = text.removeprefix(codecs.BOM_UTF8)
    report = Object(_members(load(text), problems), "", problems)
    period = report.object("date-range")
    start, end = period.time("start-datetime", "00:00:00"), period.time("end-datetime", "23:59:59")
    if end < start:
        problems.add("date-range ends before it begins")
    organization = report.text("organization-name", required=True)
    report_id = report.text("report-id", required=True)
    report.text("contact-info", required=True)
    match = _FILE_NAME.fullmatch(file_name)
    named = match["domain"] if match else None
    policies: list[Policy] = []
    failures = 0
    for item in report.objects("policies", MAX_POLICIES):
        policies.append(_policy(item, named))
        failures += len(policies[-1].failures)
        if failures > MAX_FAILURES:
            raise ReportError(f"more than {MAX_FAILURES} failures")
    if not policies:
        report.problem("policies", "is empty")
    return Report(organization, report_id, start, end, tuple(policies), problems.all())


def _members(value: Any, problems: Problems) -> dict[str, Any]:
    if isinstance(value, str):
        problems.add("the report is JSON in a string")
        value = load(value.encode("utf-8", "replace"))
    if isinstance(value, list) and len(value) == 1:
        problems.add("the report stands in a list")
        value = value[0]
    if not isinstance(value, dict):
        raise ReportError("not a TLS report: the JSON document is not an object")
    if "date-range" not in value:
        raise ReportError("not a TLS report: date-range is missing")
    return value


def _policy(item: Object, named: str | None) -> Policy:
    policy = item.object("policy")
    kind = policy.text("policy-type", required=True)
    if kind and kind not in _TYPES:
        policy.problem("policy-type", f"is unknown: {kind[:60]!a}")
    lines = policy.texts("policy-string")
    policy.texts("mx-host")
    modes = [match[1] for line in lines if (match := _MODE.fullmatch(line))]
    summary = item.object("summary")
    return Policy(
        domain=_domain(policy, named),
        type=kind,
        mode=modes[0] if modes and kind == "sts" else None,
        successful=summary.count("total-successful-session-count"),
        failed=summary.count("total-failure-session-count"),
        failures=tuple(_failure(one) for one in item.objects("failure-details", MAX_FAILURES)),
    )


def _domain(policy: Object, named: str | None) -> str | None:
    name = "policy-domain"
    text = policy.text(name)
    if text is None:
        # Postfix leaves it out if there is no policy.
        policy.problem(name, f"is missing: {named!a} in the file's name is taken" if named else "is missing")
        text = named
    if text is None:
        return None
    try:
        domain = hostname(text)
    except HostnameError as error:
        policy.problem(name, f"is not a domain: {error}")
        return text
    if not text.isascii():
        policy.problem(name, f"is not in punycode: read as {domain}")
    return domain


def _failure(item: Object) -> Failure:
    result = item.text("result-type", required=True)
    if result and result not in RESULTS:
        item.problem("result-type", f"is unknown: {result[:60]!a}")
    return Failure(
        result=result,
        sessions=item.count("failed-session-count"),
        mx=item.text("receiving-mx-hostname"),
        receiving_ip=item.address("receiving-ip"),
        sending_ip=item.address("sending-mta-ip"),
        code=item.text("failure-reason-code", most=MAX_TEXT),
        information=item.text("additional-information", most=MAX_TEXT),
    )
