"""Text of mails and of the journal: printable ASCII in narrow lines. Pure functions."""

import textwrap
from collections.abc import Sequence

WIDTH = 60  # Characters of a line in a mail, which is read on a telephone too.
_MAX_TEXT = 300  # Characters of a text that others wrote. A hostname has 253.


def plain(text: str) -> str:
    """Escape all but printable ASCII, and cut what is too long. What a sender wrote must not end a line or a header."""
    cut = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in cut)


def fill(text: str, indent: str = "") -> list[str]:
    """A text of ours, in which what others wrote is `plain`, in lines."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def listed(names: Sequence[str], most: int = 3, more: int = 0) -> str:
    """The first names, which others wrote, and how many more there are, with those that are not even in `names`."""
    more += len(names[most:])
    return ", ".join(map(plain, names[:most])) + (f" and {more:,} more" if more else "")
