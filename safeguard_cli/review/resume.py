"""Go on with a golden file: whose answers it has, whether they are of these rows, and how each row counts as picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import SAMPLE, Proposed, ReviewedRow, alike
from safeguard_cli.review.picking import Item
from safeguard_cli.review.session import Task


def taken_over(
    there: Sequence[ReviewedRow], task: Task, agreed: Sequence[ReviewedRow], path: Path, *, settles: bool
) -> list[ReviewedRow]:
    """Return the answers that a golden file begins with: those `there` that are `agreed` on, and those in it already.

    A random row keeps the probability of the largest sample that was drawn; one that was picked for another reason and
    belongs to the sample counts as random. Raise UsageError for another person's answers, and those to other rows.
    """
    items = {item.candidate.key: item for item in task.items}
    kept: dict[int, ReviewedRow] = {row.key: row for row in agreed}
    for row in there:
        _check_person(row, task.person, settles, path)
        item = items.get(row.key)
        if item is None:
            kept.setdefault(row.key, row)
            continue
        _check_row(row, item, task, path)
        picked = row.picked
        if item.picked.how == "random" and not (picked.how == "random" and _larger(picked.probability, item)):
            picked = item.picked
        candidate = item.candidate
        proposed = candidate.proposed if candidate.proposed != Proposed() else row.proposed
        drawn = {name: value for name, value in task.own[candidate.row].items() if name.startswith(SAMPLE)}
        kept.pop(row.key, None)
        kept[row.key] = replace(
            row,
            row=candidate.row,
            line=candidate.line,
            fields={**row.fields, **drawn},  # an audit that went on drew it with another probability
            picked=picked,
            proposed=proposed,
        )
    return list(kept.values())


def _larger(probability: float | None, item: Item) -> bool:
    return (probability or 0.0) > (item.picked.probability or 0.0)


def _check_person(row: ReviewedRow, person: str, settles: bool, path: Path) -> None:
    """Raise UsageError if an answer in a golden file is another person's."""
    others = [row.settled_by] if row.settled_by else [] if settles else [*row.labels]
    if row.settled_by and not settles:
        raise UsageError(f"{path}: these rows were settled with --pick disputed: answer into another file with -o")
    if other := next((name for name in others if name != person), None):
        raise UsageError(f"{path} has the answers of {other!r}: --as {person} needs a golden file of its own, with -o")


def _check_row(row: ReviewedRow, item: Item, task: Task, path: Path) -> None:
    """Raise UsageError if the text of a row in a golden file is not that of the row to review."""
    own = task.own[item.candidate.row]
    texts = {name.partition(".")[0] for name in task.layout.fields} or own.keys()
    if not alike(own, row.fields, texts):
        raise UsageError(
            f"{path}, line {row.at}: its row {row.row} is another row in what is to be reviewed: is this the golden"
            " file of another output? Answer into another file with -o"
        )
