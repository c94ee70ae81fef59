"""Each button runs one command. What is typed never becomes an option of it."""

import pytest

from postfix_mtasts.query.output import QueryError
from postfix_mtasts.web.buttons import BUTTONS, MAX_TEXT, FieldError, command_of


@pytest.mark.parametrize(
    ("name", "target", "form", "command"),
    [
        ("add", "", {"domain": "Example.COM."}, "postfix-mtasts-publish add example.com"),
        (
            "add", "", {"domain": "example.com", "mx": " mx1.example.com  *.example.net "},
            "postfix-mtasts-publish add example.com --mx mx1.example.com '*.example.net'",
        ),
        ("check", "example.com", {}, "postfix-mtasts-publish check example.com"),
        ("testing", "example.com", {}, "postfix-mtasts-publish mode example.com testing"),
        ("testing", "example.com", {"reason": "x"}, "postfix-mtasts-publish mode example.com testing"),
        ("enforce", "example.com", {}, "postfix-mtasts-publish mode example.com enforce"),
        (
            "enforce", "example.com", {"reason": "--force it; rm -rf '/'"},
            """postfix-mtasts-publish mode example.com enforce '--force=--force it; rm -rf '"'"'/'"'"''""",
        ),
        ("mx", "example.com", {}, "postfix-mtasts-publish mx example.com --refresh"),
        ("remove", "example.com", {}, "postfix-mtasts-publish remove example.com"),
        ("forget", "example.com", {}, "postfix-mtasts-query cache forget example.com"),
        ("refresh", "example.com", {}, "postfix-mtasts-query cache refresh example.com"),
        (
            "except", "", {"domain": "*.Example.com", "until": "2026-12-31", "reason": "it's known"},
            """postfix-mtasts-query except add '*.example.com' --until=2026-12-31 '--reason=it'"'"'s known'""",
        ),
        (
            "except", "example.com", {"until": "2026-12-31", "reason": "known"},
            "postfix-mtasts-query except add example.com --until=2026-12-31 --reason=known",
        ),
        ("unexcept", "example.com", {}, "postfix-mtasts-query except remove example.com"),
        ("unexcept", "*.example.com", {}, "postfix-mtasts-query except remove '*.example.com'"),
        ("probe", "example.com", {}, "postfix-mtasts-query --probe example.com"),
        ("compare", "example.com", {}, "postfix-mtasts-query example.com"),
        ("hide", "Google.com", {}, "postfix-mtasts-reports hide google.com"),
        ("unhide", "google.com", {}, "postfix-mtasts-reports unhide google.com"),
        ("accept", "12", {}, "postfix-mtasts-reports quarantine accept 12"),
        ("drop", "12", {}, "postfix-mtasts-reports quarantine drop 12"),
    ],
)  # fmt: skip
def test_the_command_of_a_button(name: str, target: str, form: dict[str, str], command: str) -> None:
    assert str(command_of(BUTTONS[name], target, form)) == command


def test_every_button_is_tried() -> None:
    mark = test_the_command_of_a_button.pytestmark[0]  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == set(BUTTONS)


@pytest.mark.parametrize("name", sorted(set(BUTTONS) - {"add"}))
@pytest.mark.parametrize(
    "target",
    ["", "--config=/etc/passwd", "-h", "../../etc/passwd", "a b.example", "example.com\n--force=x", "\0", "*"],
)  # fmt: skip
def test_what_is_no_domain_becomes_no_command(name: str, target: str) -> None:
    with pytest.raises((FieldError, QueryError)):
        command_of(BUTTONS[name], target, {})


@pytest.mark.parametrize(
    ("name", "form", "why"),
    [
        ("add", {}, "Domain: is missing"),
        ("except", {"reason": "x"}, "The last day: is missing"),
        ("except", {"until": "2026-12-31"}, "Reason, for those who find the exception later: is missing"),
        ("add", {"domain": "  "}, "Domain: is missing"),
        ("add", {"domain": "example.com", "mx": "--max-age=1 x"}, "MX hosts: write names of hosts"),
        ("enforce", {"reason": "x" * (MAX_TEXT + 1)}, f"one line of at most {MAX_TEXT} characters"),
        ("enforce", {"reason": "a\x1b[31m"}, f"one line of at most {MAX_TEXT} characters"),
        ("enforce", {"reason": "two\nlines"}, f"one line of at most {MAX_TEXT} characters"),
    ],
)
def test_wrong_fields(name: str, form: dict[str, str], why: str) -> None:
    with pytest.raises(FieldError, match=why):
        command_of(BUTTONS[name], "example.com", form)
