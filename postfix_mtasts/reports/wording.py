"""Numbers and foreign text as pages show them. Pure functions."""

import datetime

from postfix_mtasts.reports.meaning import Severity

MAX_TEXT = 200  # Characters of what a report says that are shown. The JSON beside the page has the rest.


def shown(text: str) -> str:
    """What a report says, without control characters, changes of direction and what else is not to be seen.

    These are escaped as in Python. What is long is cut. It still has to be escaped for HTML.
    """
    cut = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
    return visible(cut)


def visible(text: str) -> str:
    """Text of any length, in which what is not to be seen is escaped as in Python."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def number(count: int) -> str:
    """A number with its thousands apart."""
    return f"{count:,}"


def share(part: int, whole: int) -> str:
    """A part in per cent. Neither a few of many nor all but a few are rounded away."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.01:
        return "under 0.01 %"
    if part < whole and percent >= 99.995:
        return "over 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def moment(time: datetime.datetime) -> str:
    """A time in UTC to the minute."""
    return f"{time:%Y-%m-%d %H:%M}"


SIGNS = {Severity.NOTE: "i", Severity.WARNING: "!", Severity.ERROR: "✗"}
WORDS = {Severity.NOTE: "note", Severity.WARNING: "warning", Severity.ERROR: "error"}
TONES = {Severity.NOTE: "soft", Severity.WARNING: "warn", Severity.ERROR: "bad"}
