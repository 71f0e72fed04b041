"""Find the turns before a row that is itself a turn of a conversation, as far as the same output has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safeguard_cli.output.labelled import LabeledFile, LabeledRow
from safeguard_cli.output.spelled import is_missing, number, plain
from safeguard_cli.rows.conversations import ROLE_FIELDS
from safeguard_cli.rows.paths import field_value
from safeguard_cli.rows.turns import said

MOST_TURNS = 50


def earlier_turns(labels: LabeledFile, texts: Sequence[str]) -> Mapping[int, tuple[str, ...]]:
    """Return by a row's place the turns that were labelled with it, oldest first; nothing for rows that are no turns.

    Where a whole conversation got one verdict, all its other turns are returned.
    """
    turns = labels.manifest.identity.input.turns if labels.manifest else None
    if turns is None:
        return {}
    talks: dict[str, list[int]] = {}
    for place, row in enumerate(labels.rows):
        if not is_missing(talk := field_value(row.fields, turns.group)):
            talks.setdefault(plain(talk), []).append(place)
    found = {}
    for places in talks.values():
        places.sort(key=lambda place: _order(labels.rows[place], turns.order))
        lines = [said(_role(labels.rows[place], turns.role), texts[place]) for place in places]
        for at, place in enumerate(places):
            others = lines[:at] if turns.per == "turn" else [*lines[:at], *lines[at + 1 :]]
            found[place] = tuple(others[-MOST_TURNS:])
    return found


def _order(row: LabeledRow, field: str | None) -> tuple[bool, float, str]:
    """Return a row's place in its conversation: numbers first, as the run sorted them."""
    value = None if field is None else field_value(row.fields, field)
    found = number(value)
    return found is None, found or 0.0, "" if found is not None else plain(value)


def _role(row: LabeledRow, field: str | None) -> str:
    names = ROLE_FIELDS if field is None else (field,)
    return plain(next((value for name in names if (value := field_value(row.fields, name)) is not None), ""))
