"""A module of over 300 lines, or a function of over 40, has a second duty (docs/architecture.md)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "postfix_mtasts"


def test_modules_and_functions_have_one_duty() -> None:
    too_long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 300:
            too_long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                if node.end_lineno - node.lineno + 1 > 40:
                    too_long.append(f"{path.name}: {node.name}")
    assert too_long == []
