"""A page as a browser would read it: what it links, runs and says."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "br", "img", "option", "path", "circle", "rect"}


class Page(HTMLParser):
    """Reads a page; attributes by element, and the text of each section by its id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, str] = {}
        self.words: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self._open.append((tag, attributes.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if tag in ("td", "th", "li", "p"):
            self.handle_data(" ")
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        for _, name in self._open:
            if name:
                self.text[name] = self.text.get(name, "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of(self, name: str) -> str:
        """Gives the text of what has an id, with single spaces."""
        return " ".join(self.text.get(name, "").split())

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def hidden(self, name: str) -> str:
        return next(each["value"] for each in self.all("input") if each.get("name") == name)
