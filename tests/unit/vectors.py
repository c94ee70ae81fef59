"""The cases of tests/data/*.json."""

import json
import pathlib
from typing import Any

DATA = pathlib.Path(__file__).parent.parent / "data"


def load(name: str) -> list[dict[str, Any]]:
    """The cases in a file. `ambiguous` marks those where the RFC leaves room for our own answer."""
    cases: list[dict[str, Any]] = json.loads((DATA / name).read_text("utf-8"))
    return cases


def split(cases: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cases that the RFC decides, and the ambiguous ones."""
    return [case for case in cases if not case.get("ambiguous")], [case for case in cases if case.get("ambiguous")]
