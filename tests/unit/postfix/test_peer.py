import time

import pytest

from postfix_mtasts.postfix.peer import accepts


@pytest.mark.parametrize(
    ("expected", "names", "result"),
    [
        ("mx.example.com", "mx.example.com", True),
        ("mx.example.com", "MX.Example.com.", True),
        ("mx.example.com", "example.com", False),
        ("mx.example.com", "*.example.com", True),
        ("a.mx.example.com", "*.example.com", False),
        ("example.com", "*.example.com", False),
        (".example.com", "mx.example.com", True),
        (".example.com", "a.b.example.com", True),
        (".example.com", "example.com", False),
        (".example.com", "*.example.com", True),
        (".example.com", "notexample.com", False),
        ("a.example b.example", "c.example b.example", True),
        ("mx.example.com", "", False),
    ],
)
def test_names(expected: str, names: str, result: bool) -> None:
    assert accepts(expected.split(), names.split()) is result


def test_a_thousand_names_are_not_compared_with_each_of_a_thousand_others() -> None:
    """One comparison takes some 100 ns: a million of them would hold up all answers."""
    expected = [f"mx{number}.example.com" for number in range(1000)]
    names = [f"mx{number}.example.net" for number in range(10_000)]
    begun = time.process_time()
    assert not accepts(expected, names)
    assert time.process_time() - begun < 0.5
