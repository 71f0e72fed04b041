"""Put several people's golden files together: what they agree on, and the rows in dispute, to be settled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedFile, ReviewedRow, alike, read_reviewed
from safeguard_cli.output.labelled import LabeledFile, LabeledRow
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.review.options import Reviewing
from safeguard_cli.review.picking import Candidate, Item
from safeguard_cli.review.reading import HowRead, Material, shown_text
from safeguard_cli.review.shown import Layout, Said, count_of


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
        skipped=settled.skipped if settled else agreed is None and all(row.skipped for row in rows),
    )


def _check_same_row(first: tuple[ReviewedFile, ReviewedRow], other: tuple[ReviewedFile, ReviewedRow]) -> None:
    if not alike(first[1].fields, other[1].fields):
        raise UsageError(
            f"row {first[1].row} of {first[0].path} (line {first[1].at}) is another row in {other[0].path} (line"
            f" {other[1].at}): these are not reviews of one output"
        )


def _notes(same: Iterable[tuple[ReviewedFile, ReviewedRow]]) -> str:
    """Return all notes on a row, each with the name of who wrote it, if there are several."""
    notes = {", ".join(row.labels or file.people) or str(file.path): row.note for file, row in same if row.note}
    return next(iter(notes.values())) if len(notes) == 1 else "; ".join(f"{who}: {note}" for who, note in notes.items())


@dataclass(frozen=True, slots=True)
class Disputes:
    """The rows in dispute, as rows to review, and the rows that a golden file begins with.

    These are those that people agree on, and those in dispute, without a label: who reads the file before all are
    settled must know of them, as what people agree on is no random part of what they answered.
    """

    material: Material
    items: list[Item]
    begins: list[ReviewedRow]


def read_disputes(paths: Sequence[Path], wanted: Reviewing, reading: HowRead) -> Disputes:
    """Read people's golden files. Without a policy, its labels are those that people and the model gave."""
    if len(wanted.policies) > 1:
        raise UsageError("--policy is given twice: a review is about one policy")
    policy = load_policy(wanted.policies[0]) if wanted.policies else None
    labels = policy.labels if policy else ()
    golden = [read_reviewed(path, format=reading.format, encoding=reading.encoding, labels=labels) for path in paths]
    agreed, disputed = put_together(golden)
    if not labels:
        said = (label for row in (*agreed, *disputed) for label in (*row.labels.values(), row.proposed.label))
        labels = tuple(dict.fromkeys(label for label in said if label is not None))
    layout, texts = _texts(paths[0], disputed, reading) if disputed else (Layout(), ())
    picked = Picked("disputed", None, None, len(disputed))
    items = [
        Item(_candidate(row, text), picked if row.picked == Picked() else row.picked, row)
        for row, text in zip(disputed, texts, strict=True)
    ]
    remark = f"{count_of(len(disputed))} in dispute; the golden file gets {len(agreed):,} that are not as they are"
    open_rows = [replace(row, picked=item.picked, note="", rule="") for row, item in zip(disputed, items, strict=True)]
    material = Material((), labels, layout, policy, (remark,))
    return Disputes(material, items[: wanted.rows], [*agreed, *open_rows])


def _texts(path: Path, disputed: Sequence[ReviewedRow], reading: HowRead) -> tuple[Layout, tuple[str, ...]]:
    rows = tuple(LabeledRow(row.row, row.line, row.fields, {}) for row in disputed)
    file = LabeledFile(path, rows, (), None)
    texts = file.texts(reading.text.text_fields, reading.text.template)
    if texts is None:
        raise UsageError(f"{path}: which field holds the text? Name it with --text-field")
    return shown_text(file, reading.text, ()), texts


def _candidate(row: ReviewedRow, text: str) -> Candidate:
    said = tuple(Said(name, label) for name, label in row.labels.items())
    notes = (Said("notes", "", because=row.note),) if row.note else ()
    return Candidate(row.row, row.line, row.fields, text, row.proposed, (*said, *notes))
