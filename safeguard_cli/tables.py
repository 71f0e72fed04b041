"""Tables and lines of figures for a terminal of any width: headings wrap, columns move below, no figure is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from safeguard_cli.terminal import cut, safe

GAP = "  "
_TITLE = 30  # cells of a heading
_NAME = 12  # cells that are left of a row's name before columns move below


class Figures:
    """A table without lines: rows' names on the left, their figures to the right; `left` of the columns are text.

    Where the terminal is too narrow, headings wrap first, then names are cut, and then the columns that do not fit
    stand below, with the names again.
    """

    def __init__(self, *titles: str, left: int = 1) -> None:
        self._titles = [cut(title, _TITLE) if title else "" for title in titles]
        self._left = left
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row, with a cell for every column."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = [max(Text(title).cell_len, *self._lengths(at)) for at, title in enumerate(self._titles)]
        if _total(wide) <= options.max_width:
            yield from self._block(range(len(wide)), wide)
            return
        narrow = [
            max([Text(word).cell_len for word in title.split()] + self._lengths(at))
            for at, title in enumerate(self._titles)
        ]
        too_much = max(0, _total(narrow) - options.max_width)
        name = max(min(narrow[0], _NAME), narrow[0] - too_much)
        if _total([name, *narrow[1:]]) > options.max_width:  # columns move below: a third is for the names
            name = min(narrow[0], max(_NAME, options.max_width // 3))
        narrow[0] = name
        columns = list(range(1, len(narrow)))
        while True:
            taken = columns[:1]
            for at in columns[1:]:
                if _total([narrow[0], *(narrow[i] for i in taken), narrow[at]]) > options.max_width:
                    break
                taken.append(at)
            yield from self._block([0, *taken], narrow)
            columns = columns[len(taken) :]
            if not columns:
                return

    def _lengths(self, column: int) -> list[int]:
        return [row[column].cell_len for row in self._rows] or [0]

    def _block(self, columns: Sequence[int], widths: Sequence[int]) -> Iterator[Text]:
        titles = [_wrapped(self._titles[at], widths[at]) for at in columns]
        height = max(map(len, titles))
        heads = [[""] * (height - len(lines)) + lines for lines in titles]
        for line in range(height):
            head = Text(style="dim")
            self._line(head, columns, [Text(lines[line]) for lines in heads], widths)
            if head.plain.strip():
                yield head
        for row in self._rows:
            text = Text()
            self._line(text, columns, [row[at] for at in columns], widths)
            yield text

    def _line(self, line: Text, columns: Sequence[int], cells: Sequence[Text], widths: Sequence[int]) -> None:
        for place, (at, cell) in enumerate(zip(columns, cells, strict=True)):
            if cell.cell_len > widths[at]:
                cell = Text(cut(cell.plain, widths[at]), cell.style)
            pad = " " * (widths[at] - cell.cell_len)
            if place:
                line.append(GAP)
            line.append_text(Text.assemble(cell, pad) if at < self._left else Text.assemble(pad, cell))
        line.rstrip()


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _wrapped(title: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in title.split():
        if lines and Text(f"{lines[-1]} {word}").cell_len <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def facts(*parts: str, style: str = "") -> Text:
    """Return facts as text that wraps where the terminal ends, so that none is cut."""
    return Text(safe(" · ".join(part for part in parts if part)), style)


def line_of(text: str, style: str = "") -> Text:
    """Return one line, made harmless, and cut where the terminal ends: for a row's text, which comes last."""
    return Text(cut(text, 1000), style, no_wrap=True, overflow="ellipsis")


def figure(value: float | None) -> str:
    """Return a figure with three decimals, `–` for one that is not defined."""
    return "–" if value is None else f"{value:.3f}"


def interval(found: Mapping[str, Any], per_cent: bool = False) -> str:
    """Return the interval of a figure or of a rate, `–` where there is none."""
    low, high = found["low"], found["high"]
    if low is None:
        return "–"
    return f"{100 * low:.1f} to {100 * high:.1f} %" if per_cent else f"{low:.3f} to {high:.3f}"


def per_cent(share: float | None) -> str:
    """Return a share in per cent, `–` for none."""
    return "–" if share is None else f"{100 * share:.1f} %"
