"""A page as a reader has it: its tables, links and text."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Reads a page.

    Attributes:
        tables: by what they are labelled with: rows of cells, the header first.
        links: anchors that links lead to.
        anchors: all ids.
        attributes: (tag, name, value) of every attribute.
        tags: how often each.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: dict[str, int] = {}
        self.text = ""
        self._table: list[list[str]] | None = None
        self._in_cell = self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if "id" in given:
            self.anchors.append(given["id"])
        if tag == "a":
            self.links.append(given["href"].removeprefix("#"))
        elif tag == "table":
            self._table = self.tables.setdefault(given["aria-label"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
            self._in_cell = True
        elif tag == "style":
            self._in_style = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "table":
            self._table = None
        elif tag == "style":
            self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.text += data
        if self._in_cell and self._table is not None:
            self._table[-1][-1] += data
