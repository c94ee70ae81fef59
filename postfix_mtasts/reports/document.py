"""Reads one JSON document of a stranger, as strictly as I-JSON (RFC 7493), with bounds on time and memory."""

import json
import re
from typing import Any, NoReturn

from postfix_mtasts.reports.report import ReportError

MAX_DEPTH = 20  # Levels of arrays and objects. A report has five.
# A report of 10,000 failures with all their members has 330,000 quotes and 110,000 brackets and commas.
_MAX_QUOTES = 350_000
_MAX_BACKSLASHES = 200_000
_MAX_WIDE = 10_000  # Characters of four octets. Of a text that has one, Python takes four octets for each character.
_MAX_STRING = 100_000  # Octets.
_MAX_MARKS = 400_000  # Brackets and commas outside of strings. They bound the number of values.

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_LONG_STRING = re.compile(rb'"[^"]{%d}' % _MAX_STRING)
_MARKS = b"[]{},"
_OTHERS = bytes(set(range(256)) - set(_MARKS))
_NOT_WIDE = bytes(set(range(256)) - set(range(0xF0, 0xF5)))  # What begins no character of four octets in UTF-8.
_BLANKS = " \t\n\r"
_QUOTED = 60  # Characters of the document in a message.


def load(data: bytes) -> Any:
    """Return the value that a JSON document in UTF-8 stands for. Raises ReportError."""
    _check_size(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportError(f"not UTF-8: byte {error.start + 1}") from error
    begin = len(text) - len(text.lstrip(_BLANKS))
    try:
        value, end = _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        raise ReportError(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except ReportError:
        raise
    except ValueError as error:
        raise ReportError("a number has too many digits") from error
    rest = text[end:].lstrip(_BLANKS)
    if rest:
        what = "a second document" if rest[0] in "[{" else ascii(rest[:_QUOTED])
        raise ReportError(f"after the end of the JSON document there is {what}")
    return value


def _check_size(data: bytes) -> None:
    """Refuse what would take Python's parser too deep, or too much memory. Raises ReportError.

    Up to the first error in the syntax, this finds the same strings as the parser does. It stops there.
    """
    if data.count(b'"') > _MAX_QUOTES:
        raise ReportError(f"more than {_MAX_QUOTES} quotes")
    if data.count(b"\\") > _MAX_BACKSLASHES:
        raise ReportError(f"more than {_MAX_BACKSLASHES} backslashes")
    if len(data.translate(None, _NOT_WIDE)) > _MAX_WIDE:
        raise ReportError(f"more than {_MAX_WIDE} characters of four octets")
    without_escapes = _ESCAPE.sub(b"", data)
    if _LONG_STRING.search(without_escapes):
        raise ReportError(f"a text longer than {_MAX_STRING} octets")
    marks = _STRING.sub(b"", without_escapes).translate(None, _OTHERS)
    if len(marks) > _MAX_MARKS:
        raise ReportError(f"more than {_MAX_MARKS} brackets and commas")
    depth = 0
    for mark in marks:
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ReportError(f"nested deeper than {MAX_DEPTH} levels")
        elif mark in b"]}":
            depth -= 1


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ReportError(f"the name {twice[:_QUOTED]!a} stands twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ReportError(f"{name} is not a number in JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
