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
