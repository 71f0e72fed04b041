"""Splits a CSV's records into cells, and makes the names of its columns unique."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import AnyStr


def split_cells(text: str, delimiter: str, more: Callable[[], str]) -> list[str] | None:
    """Return a record's cells by RFC 4180, or None if a quote never closes.

    They come from the record's first line and as many more as its quotes need. As in Python's csv module, a quote
    inside an unquoted cell is an ordinary character, and text after a closing quote belongs to the cell. But if a quote
    closes on another line than it opened, such text means that the quote was a stray one, and that the lines between
    are rows of their own.
    """
    if '"' not in text:
        return chomp(text).split(delimiter)
    cells: list[str] = []
    at = 0
    while True:
        parts: list[str] = []
        same_line = True
        quoted = text.startswith('"', at)
        at += quoted
        while quoted:
            end = text.find('"', at)
            if end < 0:
                parts.append(text[at:])
                text, at, same_line = more(), 0, False
                if not text:
                    return None
                continue
            quoted = text.startswith('"', end + 1)
            parts.append(text[at : end + quoted])
            at = end + 1 + quoted
        end = text.find(delimiter, at)
        rest = chomp(text[at:]) if end < 0 else text[at:end]
        if rest and not same_line:
            return None
        cells.append("".join(parts) + rest)
        if end < 0:
            return cells
        at = end + 1


def is_sentence(line: str, delimiter: str) -> bool:
    """Return whether a line of a one-column table is an unquoted text with delimiters that are only punctuation.

    Punctuation has white space after it, or digits on both sides.
    """
    if line.startswith('"') or delimiter not in line:
        return False
    parts = chomp(line).split(delimiter)
    return all(b[:1].isspace() or (a[-1:].isdigit() and b[:1].isdigit()) for a, b in pairwise(parts))


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names made unique: `a, a, b` as `a, a_2, b`."""
    taken = set(names := tuple(names))
    out: dict[str, None] = {}
    last: dict[str, int] = {}  # by name, the number that it reached: lower ones are taken
    for name in names:
        new, n = name, last.get(name, 1)
        while new in out or (n > 1 and new in taken):
            n += 1
            new = f"{name}_{n}"
        out[new], last[name] = None, n
    return tuple(out)


def chomp(text: AnyStr) -> AnyStr:
    """Return a line without its line end."""
    if isinstance(text, bytes):
        return text.removesuffix(b"\n").removesuffix(b"\r")
    return text.removesuffix("\n").removesuffix("\r")
