"""Chooses the field that holds the text when the user names none: the one that every reader would take, or none.

A wrong choice would silently label ids or gold labels, so a field is chosen only if no other field could be meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.chats import is_chat, text_parts
from safeguard_cli.rows.field_names import is_common, never_text
from safeguard_cli.rows.paths import field_value
from safeguard_cli.rows.records import is_blank, json_text
from safeguard_cli.rows.source import Source
from safeguard_cli.terminal import cut

DEFAULT_FIELD = "text"
CHAT_FIELDS = ("messages", "conversation", "conversations", "body.messages")  # the last in OpenAI's batch files

_SHOWN, _SHOWN_WIDTH = 12, 40  # fields that a message lists, and characters of each value
_LETTERS = 8  # a text without white space has at least so many: Chinese and Thai use none
_MANY = 6  # with fewer values, repeats mean nothing
_LABEL_WORDS = 3  # the most words of a label
_LOOKED_AT = 4000  # characters of a value that the checks read
_ADDRESS_SIZE = 320  # characters of the longest mail address
_DEPTH = 6
_MONTHS = "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
_DAYS = "mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
_ZONES = "utc|gmt|bst|ce?st|ee?st|[ecmp][sd]t|ist|jst|msk"
_DATE_WORD = re.compile(
    rf"(?<![^\W\d_])(?:{_MONTHS}|nov(?:ember)?|dec(?:ember)?|{_DAYS}|{_ZONES}|[ap]\.?m\.?|t|z|st|nd|rd|th|of|at)(?![^\W\d_])"
    "|[年月日時时分秒]",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[\w+.-]+:/\S*|www\.\S+|\S+@\S+\.\S+|[\w-]+(?:\.[\w-]+)+(?:/\S*)?|\.{0,2}/\S*|[A-Za-z]:\\\S*")
_MAILBOX = re.compile(r"[^<>\n]*<\S+@\S+>")
_DIGEST = re.compile(r"(?=\S*\d)(?:[0-9a-f-]{12,}|[0-9A-F-]{12,})|(?=\S*\d)(?=\S*[A-Z])(?=\S*[a-z])[\w+/=-]{20,}")
_ONE_WORD = re.compile(r"[A-Za-z]?[a-z]+[.,!?…]*|[A-Z]+[.,!?…]*")


@dataclass(slots=True)
class Seen:
    """What a field held in the first rows: how many values, how many of them read like texts, and their length."""

    values: int = 0
    texts: int = 0
    size: int = 0
    different: set[str] = field(default_factory=set)
    example: Any = None
    certain: bool = False  # one text is more than one word: a single word could be a name
    long: bool = False  # one text is longer than any label

    def add(self, value: Any) -> None:
        self.values += 1
        self.different.add(value[:_LOOKED_AT] if isinstance(value, str) else f"value {self.values}")
        if reads_like_text(value):
            self.example = value if not self.texts else self.example
            self.texts += 1
            self.size += _size(value)
            words = len(value.split()) if isinstance(value, str) else _LABEL_WORDS + 1
            self.certain = self.certain or words > 1 or not value.isascii()
            self.long = self.long or words > _LABEL_WORDS
        elif self.example is None:
            self.example = value

    @property
    def convincing(self) -> bool:
        """Whether enough values read like texts (short messages do not), and they are not a few that repeat."""
        few = self.values >= _MANY and 3 * len(self.different) <= self.values and not self.long  # `not spam`, `spam`
        return self.certain and 4 * self.texts >= self.values and not few


def choose_field(source: Source, taken: Collection[str]) -> str:
    """Return the name of the field that holds the text of a source's rows, never one of `taken`.

    It is `text`, else a list of chat messages under one of their usual names, else the only field that reads like
    texts. Raise UsageError if that is not clear; it lists the fields that could be meant, with a value of each.
    """
    if DEFAULT_FIELD not in taken and not source.lacks([DEFAULT_FIELD]):
        return DEFAULT_FIELD
    rows = [record.fields or {} for record in source.sample()]
    if not any(rows) and DEFAULT_FIELD not in taken:
        return DEFAULT_FIELD  # no row has fields, so none will be labelled
    chats = [name for name in CHAT_FIELDS if name not in taken and any(is_chat(field_value(row, name)) for row in rows)]
    unread = [
        name
        for name in CHAT_FIELDS
        if name not in {*taken, *chats} and any(_objects(field_value(row, name)) for row in rows)
    ]
    if len(chats) == 1 and not unread:
        return chats[0]
    ours = _verdicts(rows)
    fields = _seen(rows, {*taken, *ours})
    likely = {name: seen for name, seen in fields.items() if name in unread or (seen.texts and not never_text(name))}
    if len(likely) == 1:
        ((name, seen),) = likely.items()
        if seen.convincing and seen.size >= _most_elsewhere(rows, {name, *taken, *ours}):
            _check_header(source, name, rows)
            return name
    if likely:
        _check_is_header(source, max(likely, key=lambda name: likely[name].size), rows)
    raise UsageError(f"{source.name}: " + _question(rows, likely, fields))


def _objects(value: Any) -> bool:
    """Return whether a value is a list of objects: in a chat field, messages of a shape unknown here."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def reads_like_text(value: Any) -> bool:
    """Return whether a value is a text that somebody wrote, or a chat: not a number, date, address or hash."""
    if not isinstance(value, str):
        return is_chat(value) or text_parts(value) is not None
    value = value[:_LOOKED_AT].strip()
    letters = sum(map(str.isalpha, value))
    words = value.split()
    if not letters or _is_date(value) or (len(value) <= _ADDRESS_SIZE and _MAILBOX.fullmatch(value)):
        return False
    if len(words) == 1 and (letters < _LETTERS or (value.isascii() and not _ONE_WORD.fullmatch(value))):
        return False
    return any(any(map(str.isalpha, word)) and not _is_address(word) for word in words)


def _is_address(word: str) -> bool:
    """Return whether a word begins like an address, a path or a hash."""
    beginning = word[:_ADDRESS_SIZE]
    return bool(_ADDRESS.fullmatch(beginning) or _DIGEST.fullmatch(beginning))


def _is_date(value: str) -> bool:
    return any(map(str.isdigit, value)) and not any(map(str.isalpha, _DATE_WORD.sub(" ", value)))


def _seen(rows: Sequence[Mapping[str, Any]], taken: Collection[str]) -> dict[str, Seen]:
    """Return what the fields of some rows held, in the rows' order, without the fields in `taken`."""
    fields: dict[str, Seen] = {}
    for row in rows:
        for name, value in row.items():
            if name not in taken:
                seen = fields.setdefault(name, Seen())
                if not is_blank(value):
                    seen.add(value)
    return fields


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the fields that an earlier run of this program added."""
    names = {name for row in rows for name in row}
    stems = [name.removesuffix("_p_violates") for name in names if name.endswith("_p_violates")]
    found = {name for name in names for stem in stems if name.startswith(f"{stem}_")}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict) and "label" in value and ("p_violates" in value or "error" in value):
                found.add(name)
    return found


def _check_header(source: Source, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError if the line read as a CSV's header may not be one; `name` is the field with the text.

    A row that is read as the header gets no label.
    """
    if source.names and not source.header[source.names.index(name)].strip():
        raise UsageError(
            f"{source.name}: the column with the text has no name; is there a title above the header? --skip-rows N"
            f" leaves out N lines; --text-field {name!r} takes the column as it is"
        )
    _check_is_header(source, name, rows)


def _check_is_header(source: Source, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    named = [name for name, cell in zip(source.names, source.header, strict=True) if cell.strip()]
    if _is_a_row(named, name, rows):
        raise UsageError(
            f"{source.name}: is the first line a header? If so, name the field with the text: --text-field"
            f" {cut(name, _SHOWN_WIDTH)!r}; if not, add a line of column names above it"
        )


def _is_a_row(header: Sequence[str], name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a CSV's header looks like a row.

    It does if `name`, the field with the text, reads like a text, or if another cell has no letters or is also a value
    of its own column. It does not if any cell is a common column name.
    """
    if any(map(is_common, header)):
        return False
    others = [row for row in rows if any(row.get(cell) != cell for cell in header)]
    return bool(header) and (
        len(name.split()) > 3
        or (not name.isascii() and len(name) > 9 and reads_like_text(name))
        or any(not any(map(str.isalpha, cell)) for cell in header)
        or any(row.get(cell) == cell for row in others for cell in header)
    )


def _most_elsewhere(rows: Sequence[Mapping[str, Any]], taken: Collection[str]) -> int:
    """Return how much text the largest nested field holds: it may be the text, in a shape unknown here."""
    sizes: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, (list, dict)) and name not in taken and not never_text(name):
                sizes[name] = sizes.get(name, 0) + _size(value)
    return max(sizes.values(), default=0)


def _size(value: Any) -> int:
    """Return how many characters of text a value holds at any depth."""
    found, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found += len(item)
        elif isinstance(item, (list, dict)):
            waiting += item.values() if isinstance(item, dict) else item
    return found


def _question(rows: Sequence[Mapping[str, Any]], likely: Mapping[str, Seen], fields: Mapping[str, Seen]) -> str:
    """Return the question for the field with the text; it lists those that could be meant, else all."""
    inside = {path: value for row in rows[:1] for path, value in _inside(row) if path.split(".")[0] in fields}
    examples = {name: seen.example for name, seen in likely.items()} | inside
    if examples:
        return f"which field holds the text? Name it with --text-field; it could be {_listed(examples)}"
    listed = _listed({name: seen.example for name, seen in fields.items()})
    return f"which field holds the text? Name it with --text-field; none looks like one: {listed}"


def _inside(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the texts and chats inside nested fields, each with its dotted path."""
    waiting = [(name, value, 1) for name, value in row.items() if not never_text(name)]
    while waiting:
        path, value, depth = waiting.pop(0)
        if depth > 1 and reads_like_text(value) and not (isinstance(value, str) and value.isalpha()):
            yield path, value
        elif isinstance(value, dict) and depth < _DEPTH:
            waiting += [(f"{path}.{name}", item, depth + 1) for name, item in value.items() if not never_text(name)]
        elif isinstance(value, list) and len(value) == 1 and depth < _DEPTH:
            waiting.append((f"{path}.0", value[0], depth + 1))


def _listed(examples: Mapping[str, Any]) -> str:
    shown = [f"{name!r} ({_example(value)})" for name, value in list(examples.items())[:_SHOWN]]
    more = f" and {len(examples) - _SHOWN:,} more" if len(examples) > _SHOWN else ""
    return (", ".join(shown) or "none") + more


def _example(value: Any) -> str:
    if value is None:
        return "empty"
    try:
        return cut(value if isinstance(value, str) else json_text(value), _SHOWN_WIDTH)
    except ValueError as problem:
        return str(problem)
