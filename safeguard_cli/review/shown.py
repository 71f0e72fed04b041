"""Lay out what a person sees of a row: texts, titles, conversations and other fields, as lines that are safe to print.

Nothing here knows of terminals or browsers. Every line went through `terminal.safe`: control, bidi and format
characters are spelled out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from safeguard_cli.measure.reviewed import SAMPLE
from safeguard_cli.output.spelled import is_missing, plain
from safeguard_cli.rows.chats import chat_messages, is_chat
from safeguard_cli.rows.field_names import may_be_gold
from safeguard_cli.rows.paths import find
from safeguard_cli.rows.turns import EARLIER, LABELLED
from safeguard_cli.terminal import cut, safe

MOST_CHARACTERS = 200_000  # of one text: more would keep a terminal busy
_TITLES = ("title", "subject", "headline")
_FIELD = 300  # cells of another field's value
_TAB = 4


@dataclass(frozen=True, slots=True)
class Block:
    """A text with its heading, which may be empty; `minor` marks the row's other fields."""

    head: str
    lines: tuple[str, ...]
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """What a model, a person or the gold field said about a row, as it came: not yet safe."""

    who: str
    label: str | None
    detail: str = ""
    because: str = ""  # a rationale or a note


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fields of a row hold its text; with a template, the text is laid out as the model saw it."""

    fields: Sequence[str] = ()
    template: bool = False
    gold: Collection[str] = ()

    def blocks(
        self, fields: Mapping[str, Any], text: str, earlier: Sequence[str] = (), *, with_labels: bool
    ) -> tuple[Block, ...]:
        """Return the blocks of a row; without labels, no field is shown that may hold somebody's label.

        `earlier` are the turns before it in its conversation.
        """
        before = [Block(EARLIER, text_lines("\n".join(earlier)), minor=True)] if earlier else []
        shown = [] if self.template else [block for name in self.fields for block in _blocks(name, fields, self.fields)]
        shown = shown or [Block("", text_lines(text))]
        if earlier:
            shown[0] = replace(shown[0], head=LABELLED)
        others = {
            name: cut(plain(value), _FIELD)
            for name, value in fields.items()
            if not self._is_text(name) and not name.startswith(SAMPLE) and not is_missing(value)
            if with_labels or not (name in self.gold or may_be_gold(name))
        }
        titles = tuple(Block(value, ()) for name, value in others.items() if name.lower() in _TITLES)
        rest = tuple(f"{safe(name)}: {value}" for name, value in others.items() if name.lower() not in _TITLES)
        return (*before, *titles, *shown, *([Block("", rest, minor=True)] if rest else []))

    def _is_text(self, name: str) -> bool:
        return any(name in (field, field.partition(".")[0]) for field in self.fields)


def _blocks(name: str, fields: Mapping[str, Any], names: Sequence[str]) -> list[Block]:
    """Return a field's text: a conversation as a block for each message, all else as one."""
    value = find(fields, name)
    if isinstance(value, str) and value.startswith("["):  # a conversation in a CSV
        try:
            read = orjson.loads(value)
        except orjson.JSONDecodeError:
            read = None
        value = read if is_chat(read) else value
    if is_chat(value):
        return [Block(safe(role), text_lines(text)) for role, text in chat_messages(value)]
    if not isinstance(value, str) or not value.strip():
        return []
    return [Block(safe(name) if len(names) > 1 else "", text_lines(value))]


def text_lines(text: str) -> tuple[str, ...]:
    """Return a text as safe lines; of a huge one, the beginning, and how much more there is."""
    head = text[:MOST_CHARACTERS].replace("\r\n", "\n").expandtabs(_TAB)
    lines = tuple(safe(head, keep_newlines=True).split("\n"))
    more = len(text) - MOST_CHARACTERS
    return (*lines, f"… and {more:,} more characters, which are not shown") if more > 0 else lines


def count_of(rows: int) -> str:
    """Return a number of rows in words."""
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def said_lines(said: Sequence[Said]) -> list[str]:
    """Return what was said about a row, a line for each speaker, then one for what it gave as a reason."""
    lines = []
    for each in said:
        label = "no label" if each.label is None else safe(each.label)
        lines.append(f"{safe(each.who)}: {label}" + (f"  ({safe(each.detail)})" if each.detail else ""))
        lines += [f"  {line}" for line in text_lines(each.because)] if each.because else []
    return lines
