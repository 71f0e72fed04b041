"""Put several people's golden files together: what they agree on, and the rows in dispute, to be settled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedFile, ReviewedRow
from safeguard_cli.output.spelled import normal
from safeguard_cli.review.picking import Candidate, Item
from safeguard_cli.review.shown import Said


def put_together(golden: Sequence[ReviewedFile]) -> tuple[list[ReviewedRow], list[ReviewedRow]]:
    """Return the rows that are not in dispute, and those that are, which have no label.

    A row that only one person labelled is not in dispute, nor is one that was settled before. Raise UsageError for
    files of different outputs, and for two files in which the same person says different things.
    """
    found: dict[int, list[tuple[ReviewedFile, ReviewedRow]]] = {}
    for each in golden:
        for row in each.rows:
            found.setdefault(row.key, []).append((each, row))
    rows = [_one(same) for same in found.values()]
    return [row for row in rows if row.answered], [row for row in rows if not row.answered]


def _one(same: Sequence[tuple[ReviewedFile, ReviewedRow]]) -> ReviewedRow:
    """Return the answers to one row as one, without a label if they differ."""
    first, rows = same[0], [row for _, row in same]
    labels: dict[str, str] = {}
    for file, row in same:
        _check_same_row(first, (file, row))
        for name, label in row.labels.items():
            if labels.setdefault(name, label) != label:
                raise UsageError(
                    f"{file.path}: row {row.row}: {name} says {label!r} here and {labels[name]!r} elsewhere"
                )
    settled = next((row for row in rows if row.settled_by), None)
    given = {row.label for row in rows if row.label is not None}
    agreed = settled.label if settled else given.pop() if len(given) == 1 else None
    rules = {row.rule for row in rows if row.rule}
    return replace(
        settled or rows[0],
        label=agreed,
        labels=labels,
        note=_notes(same),
        rule=rules.pop() if agreed is not None and len(rules) == 1 else "",
        picked=next((row.picked for row in rows if row.picked.how == "random"), rows[0].picked),
        proposed=next((row.proposed for row in rows if row.proposed != Proposed()), Proposed()),
        blind=all(row.blind for row in rows),
        skipped=agreed is None and all(row.skipped for row in rows),
    )


def _check_same_row(first: tuple[ReviewedFile, ReviewedRow], other: tuple[ReviewedFile, ReviewedRow]) -> None:
    fields, others = first[1].fields, other[1].fields
    if any(normal(fields[name]) != normal(others[name]) for name in fields.keys() & others.keys()):
        raise UsageError(
            f"row {first[1].row} of {first[0].path} (line {first[1].at}) is another row in {other[0].path} (line"
            f" {other[1].at}): these are not reviews of one output"
        )


def _notes(same: Iterable[tuple[ReviewedFile, ReviewedRow]]) -> str:
    """Return all notes on a row, each with the name of who wrote it, if there are several."""
    notes = {", ".join(row.labels or file.people) or str(file.path): row.note for file, row in same if row.note}
    return next(iter(notes.values())) if len(notes) == 1 else "; ".join(f"{who}: {note}" for who, note in notes.items())


def disputed_items(disputed: Sequence[ReviewedRow], texts: Mapping[int, str]) -> list[Item]:
    """Return rows in dispute as rows to review, with everyone's answer shown beside them; `texts` are by row number."""
    picked = Picked("disputed", None, None, len(disputed))
    return [
        Item(
            Candidate(
                row.row,
                row.line,
                row.fields,
                texts[row.row],
                row.proposed,
                tuple(Said(name, label) for name, label in row.labels.items())
                + ((Said("notes", "", because=row.note),) if row.note else ()),
            ),
            picked if row.picked == Picked() else row.picked,
            row,
        )
        for row in disputed
    ]
