"""How much of a file violates by people's judgement: an audit's rows that people reviewed correct its share.

    found = by_people(golden, labels, estimate(labels))
    found["spam"].share, found["spam"].low, found["spam"].method

Only rows that were drawn at random and picked at random for review can stand for the file. Rows that people skipped
bound the share both ways: they are taken for rows that do not violate, and for rows that do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.audit.estimate import Estimate, is_random
from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import SAMPLE, ReviewedFile, ReviewedRow, alike, read_reviewed, sample_of
from safeguard_cli.measure.statistics import Corrected, Reviewed, corrected_share
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet
from safeguard_cli.terminal import facts, per_cent

_SLACK = 1e-6  # of a row, for rounding


@dataclass(frozen=True, slots=True)
class ByPeople:
    """The share of a file's rows that violate by people's judgement, with its 95 % interval.

    `reviewed` rows were labelled by people, `violating` of them as violating; `skipped` were not, and `left_out` by how
    they were picked cannot stand for the file. `method` is how the share was worked out, `why` is why not otherwise.
    `rows` are the bounds in rows of the file. `without_text` drawn rows hold no text, which nobody could review: where
    there are any, the share is of rows with a text, and `rows` is None if it is not known how many the file has.
    """

    share: float | None
    low: float
    high: float
    rows: tuple[int, int] | None
    method: str
    why: str
    reviewed: int
    violating: int
    skipped: int
    left_out: Mapping[str, int]
    without_text: int


def read_people(path: Path, format: str | None = None) -> ReviewedFile:
    """Read what people answered; raise UsageError if it is not a review of an audit's rows."""
    if not path.is_file():
        raise UsageError(f"--reviewed {path}: there is no such file")
    found = read_reviewed(path, format=format)
    if row := next((row for row in found.rows if "row" not in sample_of(row.fields)), None):
        raise UsageError(
            f"{path}, line {row.at}: the row has no {SAMPLE}, which an audit gives its rows: --reviewed takes a review"
            " of the audit's output, whose rows are known to be drawn at random"
        )
    return found


def by_people(golden: ReviewedFile, labels: LabeledFile, found: Estimate) -> dict[str, ByPeople]:
    """Return the share by people's judgement under the policy that they answered about.

    Raise UsageError if that is not known, if the rows are another audit's, or if none was picked at random.
    """
    answers = _policy(golden, labels)
    drawn = {_number(row): row for row in labels.rows if is_random(row)}
    left_out: Counter[str] = Counter()
    kept = []
    for row in golden.rows:
        how = sample_of(row.fields).get("picked") or row.picked.how
        if how != "random":
            left_out[str(how) or "unknown"] += 1
        elif row.key not in drawn:
            left_out["rows that this audit did not draw"] += 1
        else:
            _check_same(row, drawn[row.key], golden.path, labels.path, found.seed)
            kept.append(row)
    if not any(row.label is not None for row in kept):
        reasons = "; ".join(f"{n:,} {how}" for how, n in left_out.items()) or "no row has a label"
        raise UsageError(
            f"--reviewed {golden.path}: no row was picked at random and labelled ({reasons}), so that none can stand"
            " for the file: safeguard review OUT --pick random picks such rows"
        )
    return {answers.name: _corrected(kept, drawn, answers, found, left_out)}


def _policy(golden: ReviewedFile, labels: LabeledFile) -> LabelSet:
    """Return the policy that people answered about, and check that their labels are its."""
    known = {answers.name: answers for answers in labels.answers}
    named = {row.proposed.policy for row in golden.rows if row.proposed.policy is not None}
    names = [name for name in known if name in named] if named else [*known]
    if len(named) > 1 or len(names) != 1:
        told = ", ".join(sorted(named)) or "no policy on record"
        raise UsageError(
            f"--reviewed {golden.path} is about {told}, the audit about {', '.join(known)}: give a review of one of its"
            " policies"
        )
    answers = known[names[0]]
    for row in golden.rows:
        if row.label is not None and row.label not in answers.labels:
            raise UsageError(
                f"{golden.path}, line {row.at}: {row.label!r} is no label of {answers.name}, which has"
                f" {', '.join(answers.labels)}"
            )
    return answers


def _number(row: LabeledRow) -> int:
    return int(sample_of(row.fields).get("row") or row.number)


def _check_same(row: ReviewedRow, drawn: LabeledRow, golden: Path, out: Path, seed: int) -> None:
    if sample_of(row.fields).get("seed", seed) != seed or not alike(row.fields, drawn.fields):
        raise UsageError(
            f"{golden}, line {row.at}: this is another row than the one of the same number in {out}, line {drawn.line}:"
            " it is a review of another audit"
        )


def _corrected(
    kept: Sequence[ReviewedRow],
    drawn: Mapping[int, LabeledRow],
    answers: LabelSet,
    found: Estimate,
    left_out: Mapping[str, int],
) -> ByPeople:
    said = {number: bool(row.verdicts[answers.name].violates) for number, row in drawn.items() if _has_text(row)}
    people = {row.key: row.label in answers.violates for row in kept if row.label is not None}
    skipped = [row.key for row in kept if row.label is None]
    without_text = len(drawn) - len(said)
    total: int | None = found.total
    if without_text:
        total = found.total - without_text if found.rows == found.total else None

    def corrected(meant: Mapping[int, bool]) -> Corrected:
        pairs = Counter((said[number], violates) for number, violates in meant.items() if number in said)
        others = [violates for number, violates in said.items() if number not in meant]
        reviewed = Reviewed(pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False])
        return corrected_share(reviewed, (sum(others), len(others)), total)

    shown = corrected(people)
    bounds = [shown, *(corrected(people | dict.fromkeys(skipped, taken)) for taken in (False, True) if skipped)]
    low, high = min(each.interval.low for each in bounds), max(each.interval.high for each in bounds)
    violating = sum(people.values())
    return ByPeople(
        share=None if math.isnan(shown.share) else shown.share,
        low=low,
        high=high,
        rows=None if total is None else (math.ceil(low * total - _SLACK), math.floor(high * total + _SLACK)),
        method=shown.method,
        why=shown.why,
        reviewed=len(people),
        violating=violating,
        skipped=len(skipped),
        left_out=dict(left_out),
        without_text=without_text,
    )


def _has_text(row: LabeledRow) -> bool:
    """Whether people could be asked about a row."""
    return not any(verdict.error is not None and verdict.error.code == "no_text" for verdict in row.verdicts.values())


def shown_people(found: ByPeople) -> Iterator[RenderableType]:
    """Yield what people's answers say about the share of one policy."""
    line = Text.assemble(
        ("by people's judgement", "bold"),
        f"  {per_cent(found.share)} violates, 95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} %",
    )
    if found.rows is not None:
        line.append(f", {found.rows[0]:,} to {found.rows[1]:,} rows of the file")
    yield line
    yield facts(
        f"  {found.violating:,} of {found.reviewed:,} reviewed rows violate",
        f"method: {found.method}" + (f" ({found.why})" if found.why else ""),
    )
    if found.skipped:
        yield facts(f"  skipped by people: {found.skipped:,}; the bounds take them for either", style="yellow")
    for how, rows in found.left_out.items():
        yield facts(f"  left out: {rows:,} {_told(how)}", style="yellow")
    if found.without_text:
        yield facts(f"  of rows with a text: {found.without_text:,} drawn rows have none, and nobody could review them")


def _told(how: str) -> str:
    if how.startswith("rows"):
        return how
    return f"picked as {how}, not at random: they cannot stand for the file"


def record(people: Mapping[str, ByPeople]) -> dict[str, Any]:
    """Return people's shares by policy as JSON has them."""
    return {name: asdict(found) for name, found in people.items()}
