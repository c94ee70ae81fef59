"""A count and its noun agree, wherever the product says them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import postfix_mtasts
from postfix_mtasts.counting import counted, noun, times

PACKAGE = Path(postfix_mtasts.__file__).parent
# A noun in the plural behind a value.
PLURAL = re.compile(
    r" (?:[a-zA-Z]+ )?(?:(characters|days|discoveries|domains|exceptions|files|hosts|hours|lines|mails|messages"
    r"|minutes|octets|organizations|policies|problems|records|relays|reports|seconds|sessions|sockets|sources|times))\b"
)
CONSTANT = re.compile(r"\b[A-Z_]{3,}\b")
# What is never 1, and what is no noun there.
NEVER_ONE = {
    "cache/store.py: {len(self._waiting)} policies",
    "counting.py: {count} times",
    "daemon/command.py: {most} files",
    "daemon/exceptions.py: {len(rest)} exceptions",
    "daemon/service.py: {len(found)} sockets",
    "delivery/certificate.py: {days} days",
    "publish/ready.py: {facts.failing} organizations",
    "publish/words.py: {command} records",
    "query/domain/verdict.py: {_hosts(len(hosts), len(judged))} records",
    "query/domain/verdict.py: {count} hosts",
    "query/domain/verdict.py: {len(refused)} hosts",
    "query/running/health.py: {counts['ended']} discoveries",
    "query/running/health.py: {counts['minutes']} minutes",
    "reports/fields.py: {most} characters",
    "reports/table.py: {days} days",
    "reports/templates/parts.html: {days} days",
    "reports/templates/reports.html: {days} days",
    "reports/templates/results.html: {length} days",
    "reports/templates/sources.html: {length} days",
    "sts/record.py: {len(found)} records",
    "sts/tlsrpt.py: {len(found)} records",
    "web/templates/recent.html: {days} days",
}


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions"), (1204, "1,204 sessions")]
)
def test_a_count_and_its_noun(count: int, said: str) -> None:
    assert counted(count, "session") == said


def test_a_noun_with_a_plural_of_its_own() -> None:
    assert [counted(count, "policy is", "policies are") for count in (1, 2)] == ["1 policy is", "2 policies are"]
    assert [noun(count, "policy", "policies") for count in (0, 1, 2)] == ["policies", "policy", "policies"]


def test_how_often() -> None:
    assert [times(count) for count in (0, 1, 2, 1204)] == ["0 times", "once", "2 times", "1,204 times"]


def in_code(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    said = ast.unparse(value.value)
                    found = PLURAL.match(str(text.value))
                    if found and not CONSTANT.search(said):
                        yield f"{path.relative_to(PACKAGE)}: {{{said}}} {found[1]}"


def in_template(path: Path) -> Iterator[str]:
    for said, rest in re.findall(r"\{\{ ([^}]*) \}\}([^{<]*)", path.read_text()):
        if found := PLURAL.match(rest):
            yield f"{path.relative_to(PACKAGE)}: {{{said}}} {found[1]}"


def test_no_other_place_says_a_count_with_its_noun() -> None:
    found = {one for path in PACKAGE.rglob("*.py") for one in in_code(path)}
    found |= {one for path in PACKAGE.rglob("*.html") for one in in_template(path)}
    assert found == NEVER_ONE
