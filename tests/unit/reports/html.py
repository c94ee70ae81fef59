"""What is in a page of HTML: its elements, its text and its tables."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"input", "meta", "link"}
_BLOCKS = {"div", "td", "th", "p", "dt", "dd", "li", "caption", "h1", "h2"}


@dataclass
class Element:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str | None]
    inside: list["Element | str"] = field(default_factory=list)

    def all(self, *names: str) -> Iterator["Element"]:
        """The elements of these names in it, however deep."""
        for one in self.inside:
            if isinstance(one, Element):
                if not names or one.name in names:
                    yield one
                yield from one.all(*names)

    @property
    def text(self) -> str:
        """The text in it, with single spaces."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for one in self.inside:
            if isinstance(one, str):
                yield one
            elif one.name not in ("style", "title"):
                yield from (" ", *one._texts(), " ") if one.name in _BLOCKS else one._texts()

    def rows(self) -> list[list[str]]:
        """The texts of the rows of a table, without those that open and those of tables in it."""
        return [
            [cell.text for cell in row.inside if isinstance(cell, Element)]
            for part in self.inside
            if isinstance(part, Element) and part.name in ("thead", "tbody")
            for row in part.inside
            if isinstance(row, Element) and row.attributes.get("class") != "more"
        ]

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the first table whose caption begins so."""
        return next(
            table.rows()
            for table in self.all("table")
            if isinstance(table.inside[1], Element) and table.inside[1].text.startswith(caption)
        )


def parse(text: str) -> Element:
    """The page. Each element that is opened must be closed, but for those that have no end."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert len(parser.open) == 1, parser.open[-1].name
    return parser.open[0]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(name, dict(attributes))
        assert len(element.attributes) == len(attributes), name
        self.open[-1].inside.append(element)
        if name not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        if name not in _VOID or self.open[-1].name == name:
            assert self.open.pop().name == name

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)
