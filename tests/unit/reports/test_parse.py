"""What is read of reports that are right, nearly right, and wrong."""

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.reports.fields import MAX_NAME, MAX_PROBLEMS
from postfix_mtasts.reports.parse import MAX_FAILURES, MAX_POLICIES, parse
from postfix_mtasts.reports.report import Failure, Policy, Report, ReportError
from tests.unit.reports.reports import DETAILS, FAILURE, GONE, POLICY, RIGHT, SUMMARY, spoiled
from tests.unit.strategies import json_values

TEXT = json.dumps(RIGHT).encode()
START, END = datetime(2026, 3, 9, tzinfo=UTC), datetime(2026, 3, 9, 23, 59, 59, tzinfo=UTC)
READ = Report(
    organization="Company-X",
    report_id="5065427c@company-x.example",
    start=START,
    end=END,
    policies=(
        Policy(
            domain="company-y.example",
            type="sts",
            mode="testing",
            successful=5326,
            failed=303,
            failures=(
                Failure(
                    result="starttls-not-supported",
                    sessions=200,
                    mx="mx2.company-y.example",
                    receiving_ip="203.0.113.56",
                    sending_ip="2001:db8:abcd:13::1",
                    code="NO_STARTTLS",
                    information="https://company-x.example/info",
                ),
            ),
        ),
    ),
)
PERIOD = ("date-range",)
DETAIL, FAILED = "policies[0].failure-details[0]", "policies[0].summary.total-failure-session-count"
DOMAIN, NO_DATE = "policies[0].policy.policy-domain", "date-range.end-datetime is not a date:"
END_PATH, FAILED_PATH = (*PERIOD, "end-datetime"), (*SUMMARY, "total-failure-session-count")
NO_COUNT = "is not a number of sessions:"


def changed(**values: Any) -> Report:
    """READ with other values: of the report, of its policy, or of its failure."""
    policy = READ.policies[0]
    of = {
        kind: {name: value for name, value in values.items() if name in {field.name for field in fields}}
        for kind, fields in (("failure", dataclasses.fields(Failure)), ("policy", dataclasses.fields(Policy)))
    }
    failure = dataclasses.replace(policy.failures[0], **of["failure"])
    inner = {"failures": (failure,)} | of["policy"]
    rest = {name: value for name, value in values.items() if name not in of["failure"] and name not in of["policy"]}
    return dataclasses.replace(READ, policies=(dataclasses.replace(policy, **inner),), **rest)


def test_a_report_that_is_right() -> None:
    assert parse(TEXT) == READ


@pytest.mark.parametrize(
    ("path", "value", "read", "problems"),
    [
        # Texts
        (("organization-name",), GONE, {"organization": None}, ["organization-name is missing"]),
        (("organization-name",), "  ", {"organization": None}, ["organization-name is missing"]),
        (("organization-name",), " X ", {"organization": "X"}, []),
        (("organization-name",), 7, {"organization": "7"}, ["organization-name is a number instead of a text"]),
        (
            ("organization-name",),
            ["X"],
            {"organization": None},
            ["organization-name is a list instead of a text: left out"],
        ),
        (
            ("organization-name",),
            "X\ud800",
            {"organization": "X\ufffd"},
            ["organization-name has a half of a surrogate pair: replaced"],
        ),
        (
            ("organization-name",),
            "x" * (MAX_NAME + 1),
            {"organization": "x" * MAX_NAME},
            [f"organization-name is longer than {MAX_NAME} characters: cut"],
        ),
        (("report-id",), None, {"report_id": None}, ["report-id is missing"]),
        (("contact-info",), None, {}, ["contact-info is missing"]),
        ((*FAILURE, "receiving-mx-hostname"), GONE, {"mx": None}, []),
        ((*FAILURE, "additional-information"), "", {"information": None}, []),
        (
            (*FAILURE, "failure-reason-code"),
            18,
            {"code": "18"},
            [f"{DETAIL}.failure-reason-code is a number instead of a text"],
        ),
        # Counts
        (
            (*SUMMARY, "total-successful-session-count"),
            GONE,
            {"successful": 0},
            ["policies[0].summary.total-successful-session-count is missing: 0 is assumed"],
        ),
        (
            FAILED_PATH,
            " 12 ",
            {"failed": 12},
            [f"{FAILED} is a text instead of an integer"],
        ),
        (
            FAILED_PATH,
            3.0,
            {"failed": 3},
            [f"{FAILED} is a fraction instead of an integer"],
        ),
        (
            ("policies", 0, "summary"),
            GONE,
            {"successful": 0, "failed": 0},
            [
                "policies[0].summary is missing",
                "policies[0].summary.total-successful-session-count is missing: 0 is assumed",
                f"{FAILED} is missing: 0 is assumed",
            ],
        ),
        (
            (*FAILURE, "failed-session-count"),
            None,
            {"sessions": 0},
            [f"{DETAIL}.failed-session-count is missing: 0 is assumed"],
        ),
        # Lists and objects
        (
            (*POLICY, "mx-host"),
            "*.company-y.example",
            {},
            ["policies[0].policy.mx-host is a text instead of a list"],
        ),
        ((*POLICY, "mx-host"), 7, {}, ["policies[0].policy.mx-host is an integer instead of a list: left out"]),
        ((*POLICY, "policy-string"), GONE, {"mode": None}, []),
        (
            (*POLICY, "policy-string"),
            "version: STSv1\r\nmode: enforce\r\n",
            {"mode": "enforce"},
            ["policies[0].policy.policy-string is a text instead of a list"],
        ),
        (
            (*POLICY, "policy-string"),
            ['["version: STSv1", "mode: none"]', 1],
            {"mode": "none"},
            [
                "policies[0].policy.policy-string[0] is JSON in a string",
                "policies[0].policy.policy-string[1] is an integer instead of a text: left out",
            ],
        ),
        ((*POLICY, "policy-string"), ["mode:none", "[not JSON", "mode: testing"], {"mode": "none"}, []),
        (DETAILS, None, {"failures": ()}, []),
        (
            DETAILS,
            RIGHT["policies"][0]["failure-details"][0],
            {},
            ["policies[0].failure-details is an object instead of a list"],
        ),
        (("policies",), RIGHT["policies"][0], {}, ["policies is an object instead of a list"]),
        (("policies",), json.dumps(RIGHT["policies"]), {}, ["policies is JSON in a string"]),
        (("policies",), [json.dumps(RIGHT["policies"][0])], {}, ["policies[0] is JSON in a string"]),
        # Types and domains
        (
            (*POLICY, "policy-type"),
            "STS",
            {"type": "STS", "mode": None},
            ["policies[0].policy.policy-type is unknown: 'STS'"],
        ),
        ((*POLICY, "policy-type"), GONE, {"type": None, "mode": None}, ["policies[0].policy.policy-type is missing"]),
        ((*FAILURE, "result-type"), "new\x1b", {"result": "new\x1b"}, [f"{DETAIL}.result-type is unknown: 'new\\x1b'"]),
        ((*POLICY, "policy-domain"), "Company-Y.example.", {}, []),
        ((*POLICY, "policy-domain"), GONE, {"domain": None}, [f"{DOMAIN} is missing"]),
        (
            (*POLICY, "policy-domain"),
            "straße.example",
            {"domain": "xn--strae-oqa.example"},
            [f"{DOMAIN} is not in punycode: read as xn--strae-oqa.example"],
        ),
        (
            (*POLICY, "policy-domain"),
            "a b",
            {"domain": "a b"},
            [f"{DOMAIN} is not a domain: not a hostname"],
        ),
        # Addresses
        ((*FAILURE, "receiving-ip"), "", {"receiving_ip": None}, []),
        ((*FAILURE, "receiving-ip"), "[2001:DB8::1]", {"receiving_ip": "2001:db8::1"}, []),
        (
            (*FAILURE, "sending-mta-ip"),
            "010.0.0.1",
            {"sending_ip": "010.0.0.1"},
            [f"{DETAIL}.sending-mta-ip is not an IP address: '010.0.0.1'"],
        ),
        (
            (*FAILURE, "sending-mta-ip"),
            "fe80::1%\x1b",
            {"sending_ip": "fe80::1%\x1b"},
            [f"{DETAIL}.sending-mta-ip is not an IP address: 'fe80::1%\\x1b'"],
        ),
        # Times
        ((*PERIOD, "start-datetime"), "2026-03-09T02:00:00.5+02:00", {}, []),
        ((*PERIOD, "start-datetime"), "2026-03-09 00:00:00z", {}, []),
        (END_PATH, "2026-03-09T23:59:60Z", {}, []),
        (
            (*PERIOD, "start-datetime"),
            "2026-03-09T00:00:00",
            {},
            ["date-range.start-datetime has no time zone: UTC is assumed"],
        ),
        (
            END_PATH,
            "2026-03-09T24:00:00Z",
            {"end": datetime(2026, 3, 10, tzinfo=UTC)},
            ["date-range.end-datetime is 24:00:00: read as 00:00:00 of the next day"],
        ),
        (
            END_PATH,
            "2026-03-09",
            {},
            [
                "date-range.end-datetime has no time of day: 23:59:59 is assumed",
                "date-range.end-datetime has no time zone: UTC is assumed",
            ],
        ),
        (
            (*PERIOD, "start-datetime"),
            "2026-03-09 00:00:00 +0000",
            {},
            ["date-range.start-datetime has a time zone that is not written as in RFC 3339"],
        ),
        (
            (*PERIOD, "start-datetime"),
            "2026-03-09 00:00:00 UTC",
            {},
            ["date-range.start-datetime has a time zone that is not written as in RFC 3339"],
        ),
        (
            (*PERIOD, "start-datetime"),
            1773014400,
            {},
            ["date-range.start-datetime is a number: read as seconds since 1970"],
        ),
        (
            END_PATH,
            "2026-03-08T00:00:00Z",
            {"end": datetime(2026, 3, 8, tzinfo=UTC)},
            ["date-range ends before it begins"],
        ),
    ],
)
def test_what_is_read_with_problems(
    path: tuple[str | int, ...], value: object, read: dict[str, Any], problems: list[str]
) -> None:
    assert parse(spoiled(path, value)) == changed(**read, problems=tuple(problems))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xef\xbb\xbf" + TEXT, "the report begins with a byte order mark"),
        (json.dumps(TEXT.decode()).encode(), "the report is JSON in a string"),
        (b"[" + TEXT + b"]", "the report stands in a list"),
    ],
)
def test_wrappings_of_a_report(text: bytes, problem: str) -> None:
    assert parse(text) == changed(problems=(problem,))


def test_a_report_without_policies() -> None:
    assert parse(spoiled(("policies",), [])) == dataclasses.replace(READ, policies=(), problems=("policies is empty",))


@pytest.mark.parametrize(
    ("name", "domain", "problem"),
    [
        ("x!y.example!177!178!1.json.gz", "y.example", "is missing: 'y.example' in the file's name is taken"),
        ("x.example!Y.example!1!2.json", "y.example", "is missing: 'Y.example' in the file's name is taken"),
        ("x.example!a!b!2.json", None, "is missing"),
        ("report.json", None, "is missing"),
    ],
)
def test_the_name_of_the_file_has_the_domain(name: str, domain: str | None, problem: str) -> None:
    text = spoiled((*POLICY, "policy-domain"), GONE)
    assert parse(text, name) == changed(domain=domain, problems=(f"{DOMAIN} {problem}",))


def test_the_report_decides_and_not_the_name_of_the_file() -> None:
    assert parse(TEXT, "x.example!other.example!1773014400!1773100799.json") == READ


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON: Expecting value in line 1, column 1"),
        (b"\xff", "not UTF-8: byte 1"),
        (TEXT.decode().encode("utf-16"), "not UTF-8: byte 1"),
        (TEXT.replace(b"5326", b"NaN"), "NaN is not a number in JSON"),
        (TEXT.replace(b"5326", b"-Infinity"), "-Infinity is not a number in JSON"),
        (TEXT.replace(b"5326", b"9" * 5000), "a number has too many digits"),
        (TEXT.replace(b'"report-id"', b'"contact-info"'), "the name 'contact-info' stands twice in one object"),
        (TEXT + b"\n" + TEXT, "after the end of the JSON document there is a second document"),
        (TEXT + b"\0", "after the end of the JSON document there is '\\x00'"),
        (b"7", "not a TLS report: the JSON document is not an object"),
        (b"[]", "not a TLS report: the JSON document is not an object"),
        (b"[" + TEXT + b"," + TEXT + b"]", "not a TLS report: the JSON document is not an object"),
        (b"{}", "not a TLS report: date-range is missing"),
        (spoiled(("date-range",), []), "date-range is a list instead of an object"),
        (spoiled(END_PATH, GONE), f"{NO_DATE} null"),
        (spoiled(END_PATH, "yesterday"), f"{NO_DATE} 'yesterday'"),
        (spoiled(END_PATH, "2026-02-30T00:00:00Z"), f"{NO_DATE} '2026-02-30T00:00:00Z'"),
        (spoiled(END_PATH, "0001-01-01T00:00:00Z"), f"{NO_DATE} '0001-01-01T00:00:00Z'"),
        (spoiled(END_PATH, "0001-01-01T00:00:00+23:00"), f"{NO_DATE} '0001-01-01T00:00:00+23:00'"),
        (spoiled(END_PATH, "2026-03-09T24:00:01Z"), f"{NO_DATE} '2026-03-09T24:00:01Z'"),
        (spoiled(END_PATH, "9999-12-31T24:00:00Z"), f"{NO_DATE} '9999-12-31T24:00:00Z'"),
        (spoiled(END_PATH, -1), f"{NO_DATE} -1"),
        (spoiled(END_PATH, 10**30), f"{NO_DATE} 1000000000000000000000000000000"),
        (spoiled(END_PATH, True), f"{NO_DATE} true"),
        (spoiled(FAILED_PATH, -1), f"{FAILED} is negative"),
        (spoiled(FAILED_PATH, "-1"), f"{FAILED} is negative"),
        (spoiled(FAILED_PATH, 2**53), f"{FAILED} is larger than 9007199254740991"),
        (spoiled(FAILED_PATH, 0.5), f"{FAILED} {NO_COUNT} 0.5"),
        (TEXT.replace(b"5326", b"1e999"), f"policies[0].summary.total-successful-session-count {NO_COUNT} inf"),
        (spoiled(FAILED_PATH, True), f"{FAILED} {NO_COUNT} true"),
        (spoiled(FAILED_PATH, "many"), f"{FAILED} {NO_COUNT} 'many'"),
        (spoiled(FAILED_PATH, "\u0663"), f"{FAILED} {NO_COUNT} '\\u0663'"),
        (spoiled((*FAILURE, "failed-session-count"), [1]), f"{DETAIL}.failed-session-count {NO_COUNT} a list"),
        (spoiled(("policies",), 7), "policies is an integer instead of a list"),
        (spoiled(("policies",), "none"), "policies is a text instead of a list"),
        (spoiled(("policies",), [None]), "policies[0] is null instead of an object"),
        (spoiled(("policies", 0, "policy"), "sts"), "policies[0].policy is a text instead of an object"),
        (spoiled(DETAILS, [[]]), f"{DETAIL} is a list instead of an object"),
        (spoiled(("policies",), [{}] * (MAX_POLICIES + 1)), "policies has more than 100 items"),
        (spoiled(DETAILS, [{}] * (MAX_FAILURES + 1)), "policies[0].failure-details has more than 10000 items"),
    ],
)
def test_what_is_rejected(text: bytes, reason: str) -> None:
    with pytest.raises(ReportError) as refused:
        parse(text)
    assert str(refused.value) == reason


def test_failures_are_counted_over_all_policies() -> None:
    half: dict[str, Any] = {"policy": {}, "summary": {}, "failure-details": [{}] * (MAX_FAILURES // 2)}
    text = spoiled(("policies",), [half, half])
    assert sum(len(policy.failures) for policy in parse(text).policies) == MAX_FAILURES
    with pytest.raises(ReportError, match=r"^more than 10000 failures$"):
        parse(spoiled(("policies",), [half, half, {"failure-details": [{}]}]))


def test_many_problems_are_counted() -> None:
    problems = parse(spoiled(("policies",), [{}] * MAX_POLICIES)).problems
    assert problems[:2] == ("policies[0].policy is missing", "policies[0].policy.policy-type is missing")
    # Each policy has six.
    assert problems[MAX_PROBLEMS:] == (f"{6 * MAX_POLICIES - MAX_PROBLEMS} more problems",)


PARTS = [RIGHT["policies"][0], *(RIGHT["policies"][0][name] for name in ("policy", "summary"))]
PARTS.append(RIGHT["policies"][0]["failure-details"][0])
names = st.sampled_from([name for part in (RIGHT, RIGHT["date-range"], *PARTS) for name in part])
values = json_values | st.sampled_from(["2026-03-09T00:00:00Z", "[]", "{}", '[["mode: none"]]', "1", " 1 "])
objects = st.recursive(
    values,
    lambda inner: st.dictionaries(names, inner, max_size=8) | st.lists(inner, max_size=3) | inner.map(json.dumps),
    max_leaves=30,
)


def reason(text: bytes, name: str = "") -> str:
    """Why it is rejected; empty if it is a report, which can then be stored and printed."""
    try:
        report = parse(text, name)
    except ReportError as refused:
        return str(refused)
    assert all(0 <= policy.failed < 2**53 for policy in report.policies)
    assert json.dumps(dataclasses.asdict(report), default=str, ensure_ascii=False).encode()
    return ""


@given(objects, st.sampled_from([("policies",), POLICY, SUMMARY, FAILURE, PERIOD, ("report-id",)]), st.text())
def test_anything_is_a_report_or_rejected(value: object, path: tuple[str | int, ...], name: str) -> None:
    reason(json.dumps(value).encode(), name)
    reason(spoiled(path, value), name)


@given(st.binary(), st.integers(0, len(TEXT)), st.integers(0, 30))
def test_any_octets_are_a_report_or_rejected(octets: bytes, at: int, length: int) -> None:
    reason(TEXT[:at] + octets + TEXT[at + length :])
