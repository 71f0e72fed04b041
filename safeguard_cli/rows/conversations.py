"""Makes one text for each row that is a turn of a conversation: the turn, with the turns before it.

The rows of a conversation have the same value in a field, and need not be neighbours. They are read once beforehand,
from the whole input, into a temporary database of SQLite that has no name and goes when it is closed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Literal

from safeguard_cli.errors import UsageError, quoted
from safeguard_cli.rows.options import Grouping
from safeguard_cli.rows.paths import field_value, has_field
from safeguard_cli.rows.records import Record, is_blank, json_text
from safeguard_cli.rows.source import Source, no_field
from safeguard_cli.rows.text import Selector
from safeguard_cli.rows.turns import Turns, said
from safeguard_cli.rows.verdict import RowError

ROLE_FIELDS = ("role", "speaker", "author", "sender", "from", "turn_role")  # tried in this order
MOST_CONTEXT = 1 << 20  # characters of earlier turns that are looked at: more than any model's context holds
MOST_WHOLE = 1 << 24  # characters of a whole conversation that are read: more than --max-windows usually allows
_BATCH = 1000  # rows for each write to the database
_INTEGERS = range(-(1 << 63), 1 << 63)  # those of SQLite
_LONGEST_INTEGER = 19  # digits of the longest of them


@dataclass(frozen=True, slots=True)
class ByConversation:
    """A Selector for rows that are turns: it selects the turn with those before it, or the whole conversation."""

    selector: Selector
    database: sqlite3.Connection
    group: str
    order: str | None
    role: str | None
    per: Literal["turn", "conversation"]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The fields that hold a turn's text."""
        return self.selector.chosen

    @property
    def described(self) -> str:
        """What of a row is labelled, for people."""
        role = f", who spoke in {quoted(self.role)}" if self.role else ""
        what = "with the turns before it" if self.per == "turn" else "in the whole conversation"
        return f"{self.selector.described}, {what} by {quoted(self.group)}{role}"

    @property
    def turns(self) -> Mapping[str, Any]:
        """How the turns are put together, for the manifest."""
        return {"group": self.group, "order": self.order, "role": self.role, "per": self.per}

    def select(self, record: Record) -> Turns | str | RowError:
        """Return the turn with those before it, the whole conversation, or the error that the row has instead."""
        text = self.selector.select(record)
        if isinstance(text, RowError):
            return text
        place = _place(record, self.group, self.order)
        if isinstance(place, RowError):
            return place
        turn = said(self._role(record), text)
        group, order = place
        if group is None:
            return Turns(turn)
        if self.per == "conversation":
            return "\n".join(_within(MOST_WHOLE, self.database.execute(_WHOLE, (group,))))
        before = (group, order, record.index)
        found = [*_within(MOST_CONTEXT, self.database.execute(_BEFORE, before))]
        (count,) = self.database.execute(_COUNT, before).fetchone()
        return Turns(turn, tuple(reversed(found)), count - len(found))

    def _role(self, record: Record) -> str:
        value = None if self.role is None else field_value(record.fields or {}, self.role)
        return value if isinstance(value, str) else "" if value is None else str(value)

    def read(self, records: Iterable[Record]) -> int:
        """Read the turns of all rows into the database, and return their number."""
        self.database.execute(
            "CREATE TABLE turns (talk, place, row, said, PRIMARY KEY (talk, place, row)) WITHOUT ROWID"
        )
        rows = self._turns(records)
        count = 0
        while batch := [*islice(rows, _BATCH)]:
            self.database.executemany("INSERT INTO turns VALUES (?, ?, ?, ?)", batch)
            count += len(batch)
        return count

    def _turns(self, records: Iterable[Record]) -> Iterator[tuple[str, Any, int, str]]:
        for record in records:
            text = self.selector.select(record)
            place = _place(record, self.group, self.order)
            if not isinstance(text, RowError) and not isinstance(place, RowError) and place[0] is not None:
                yield place[0], place[1], record.index, said(self._role(record), text)


@dataclass(frozen=True, slots=True)
class PutTogether:
    """A Selector of texts that were selected before, as `Turns.as_dict` gives them, in the only field of `selector`."""

    selector: Selector
    turns: None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The field that holds the text."""
        return self.selector.chosen

    @property
    def described(self) -> str:
        """What of a row is labelled, for people."""
        return self.selector.described

    def select(self, record: Record) -> Turns | str | RowError:
        """Return the row's text, or the error that the row has instead."""
        if record.error is not None:
            return record.error
        (name,) = self.chosen
        value = (record.fields or {})[name]
        return value if isinstance(value, str) else Turns.of(value)


_WHOLE = "SELECT said FROM turns WHERE talk = ? ORDER BY place, row"
_BEFORE = "SELECT said FROM turns WHERE talk = ? AND (place, row) < (?, ?) ORDER BY place DESC, row DESC"
_COUNT = "SELECT count(*) FROM turns WHERE talk = ? AND (place, row) < (?, ?)"


@contextmanager
def by_conversation(selector: Selector, whole: Source, grouping: Grouping) -> Iterator[ByConversation]:
    """Read the turns of a `whole` input, all its shards, and yield the selector of their texts.

    Raise UsageError if the input lacks a field.
    """
    group, order, role = grouping.group or "", grouping.order, grouping.role_field
    for option, name in (("--group", group), ("--order", order), ("--role-field", role)):
        if name is not None and whole.lacks([name], has_field):
            raise no_field(whole.name, option, name, whole.fields())
    if clash := next((name for name in (group, order) if name in selector.fields), None):
        raise UsageError(f"{quoted(clash)} is the text: --group and --order name other fields of a turn")
    role = role or next((name for name in ROLE_FIELDS if not whole.lacks([name]) and name not in selector.fields), None)
    database = sqlite3.connect("", isolation_level=None)  # on disk, in a file without a name
    try:
        database.execute("PRAGMA journal_mode = OFF")
        turns = ByConversation(selector, database, group, order, role, grouping.verdict_per)
        turns.read(whole)
        yield turns
    finally:
        database.close()


def _place(record: Record, group: str, order: str | None) -> tuple[str | None, Any] | RowError:
    """Return a row's conversation, None if it names none, and its place in it as SQLite sorts it: numbers first."""
    fields = record.fields or {}
    talk = field_value(fields, group)
    if is_blank(talk):
        return None, 0
    talk = talk if isinstance(talk, str) else json_text(talk)
    if order is None:
        return talk, 0
    value = field_value(fields, order)
    if is_blank(value) or isinstance(value, (bool, dict, list)):
        return RowError("bad_row", f"line {record.line}: {order!r} says no place in the conversation (--order)")
    return talk, _sortable(value)


def _sortable(value: Any) -> int | float | str:
    """Return a number for all that is one, so that 9 comes before 10 in a CSV too."""
    text = str(value).strip()
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_INTEGER and int(text) in _INTEGERS:
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if number == number else text  # SQLite has no NaN


def _within(most: int, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield texts until they have more than `most` characters together."""
    left = most

    def fits(row: Sequence[str]) -> bool:
        nonlocal left
        left -= len(row[0])
        return left >= 0

    return (row[0] for row in takewhile(fits, rows))
