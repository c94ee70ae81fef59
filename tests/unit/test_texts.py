"""What the texts name exists: each command line is one that its program takes, and each link leads somewhere."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from postfix_mtasts.publish.command import parser as publish
from postfix_mtasts.query import command as query
from postfix_mtasts.query.output import QueryError
from postfix_mtasts.reports.command import parser as reports
from postfix_mtasts.web.main import parser as web

ROOT = Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("contrib/*/*.md")))
TEXTS = (*PAGES, ROOT / "debian/README.Debian", ROOT / "contrib/prometheus/alerts.yml")
PROGRAM = r"postfix-mtasts-(?:daemon|publish|query|reports|web)(?=\s|$)"
# In code, which is indented, a command ends before a comment, or what a shell does next.
CODE = re.compile(
    rf"(?:^(?: {{4,}}|\t)(?:command: |\$ )?|&& |; )({PROGRAM}(?:'[^'\n]*'|[^'\n])*?)(?=  +#| && |; | \| | >|$)",
    re.MULTILINE,
)
# Between backticks in a sentence.
SPAN = re.compile(rf"`({PROGRAM}[^`]*)`")


def refusal(line: str) -> str:
    """Why the program does not take this command line, or nothing."""
    program, *words = shlex.split(line.replace("DATE", "2026-12-31"))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parse(program, words)
    except QueryError as error:
        return str(error)
    except SystemExit:
        return errors.getvalue()
    return ""


def parse(program: str, words: list[str]) -> None:
    match program.removeprefix("postfix-mtasts-"):
        case "daemon":  # It has no subcommands, and test_manual knows its options.
            assert set(words) <= {"--check"}
        case "query":
            name = next((word for word in words if word in query.SUBCOMMANDS), None)
            query.parser(name).parse_intermixed_args([word for word in words if word != name])
        case other:
            {"publish": publish, "reports": reports, "web": web}[other]().parse_args(words)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: str(text.relative_to(ROOT)))
def test_programs_take_the_commands(text: Path) -> None:
    found = text.read_text()
    assert {line: why for line in CODE.findall(found) if (why := refusal(line))} == {}
    # A command in a sentence need not have all arguments, and may have brackets around them.
    spans = [re.sub(r"[][]|\.\.\.", "", span) for span in SPAN.findall(found)]
    assert {line: why for line in spans if "arguments are required" not in (why := refusal(line)) and why} == {}


def anchors(page: Path) -> set[str]:
    """The anchors that forges give to headings: without punctuation, in lower case, and with a hyphen for a blank."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        to = page.parent / name if name else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(link)
    assert broken == []
