"""One parser each: `seeds()` are inputs to begin with, and `run(data)` raises for an input that breaks the parser.

Its time counts. What takes long and is not the parser's work belongs into `check(data)`, which is called after it.

A target suppresses the exceptions that its parser declares; any other is a finding. Beyond that it asserts what must
hold for all that is accepted, and for all that is said of the rest.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

DATA = pathlib.Path(__file__).parents[2] / "data"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases in a file of tests/data."""
    loaded: list[dict[str, Any]] = json.loads((DATA / name).read_text("utf-8"))
    return loaded


def check_words(text: str) -> None:
    """What is said of a stranger's text, or made of it, is in ASCII on one line, but for an ellipsis of our own."""
    assert text.replace("…", "").isascii(), text
    assert text.isprintable(), text


def slices(data: bytes, size: int) -> Iterator[bytes]:
    """The data in pieces."""
    return (data[at : at + size] for at in range(0, len(data), size))
