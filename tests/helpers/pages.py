"""HTML pages, read by their tags, and texts that try to inject markup into them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

HOSTILE = (
    "<script>document.title='broken'</script>",
    "</p></article></body><img src=x onerror=\"document.title='broken'\">",
    '" onmouseover="document.title=\'broken\'" x="',
    "{{ 7 * 191 }} {% for x in y %} javascript:document.title='broken'",
    "]]></svg><svg onload=\"document.title='broken'\">",
    "right \u202eto left, \x1b[31mred\x00",
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(page: Path) -> Tags:
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return tags
