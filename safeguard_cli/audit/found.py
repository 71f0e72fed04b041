"""What a search found: rows that the model flags, and how many of those in the file that is at least."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.audit.search import Ints, Pick, Search
from safeguard_cli.measure.statistics import LEVEL
from safeguard_cli.output.labelled import LabeledFile, LabeledRow
from safeguard_cli.output.spelled import number
from safeguard_cli.rows.records import SAMPLE
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.terminal import facts

PICKED = "find"  # what `picked` is in the `_sample` of a row that is no random one
SCORE, DRAW = "score", "draw"  # what `by` is there: by what the row was chosen
RANKS_WELL = 0.85  # the area under the ROC curve from which on the score is better than drawing at random
FEW = 10  # flagged rows of the uniform sample: with fewer, nobody can say how well the score ranks


@dataclass(frozen=True, slots=True)
class Found:
    """What a search of a file of `total` rows found: `found` of `labelled` rows that the model flags.

    `most` rows of the file would be flagged at most, so that `recall` is the least part that was found; None if there
    may be none at all. `picked` rows came by the score, `picked_found` of which are flagged; the others are of the
    uniform sample. `auroc` is how well the score ranks, None if too few rows are flagged to say.
    """

    total: int
    labelled: int
    found: int
    most: int
    recall: float | None
    level: float
    picked: int
    picked_found: int
    auroc: float | None


def flagged(verdicts: Mapping[str, Verdict]) -> bool:
    """Return whether the model flags a row: under one of the policies at least. A row in error is not flagged."""
    return any(verdict.violates for verdict in verdicts.values())


def p_violates(verdicts: Mapping[str, Verdict]) -> float:
    """Return the highest p_violates of a row, NaN if it has none."""
    return max((p for verdict in verdicts.values() if (p := verdict.p_violates) is not None), default=math.nan)


def mark_of(row: LabeledRow, columns: Sequence[str]) -> dict[str, Any]:
    """Return the `_sample` of a row of an output."""
    sample = row.fields.get(SAMPLE)
    if isinstance(sample, Mapping):
        return {part: value for part, value in sample.items() if value is not None}
    cells = {part: row.fields.get(f"{SAMPLE}_{part}") for part in columns}
    return {part: number(cell) if number(cell) is not None else cell for part, cell in cells.items() if cell}


def figures(search: Search, auroc: float | None) -> Found:
    """Return what a search found, of whose rows all verdicts are known."""
    bound = search.bound()
    of_score = [flag for pick, flag in zip(search.picks, search.flags, strict=True) if pick.rank is None]
    return Found(
        total=search.total,
        labelled=len(search.flags),
        found=bound.found,
        most=bound.most,
        recall=bound.recall if bound.most else None,
        level=LEVEL,
        picked=len(of_score),
        picked_found=sum(of_score),
        auroc=auroc,
    )


def shown(found: Found) -> Iterator[RenderableType]:
    """Yield the figures of a search, for people."""
    drawn, drawn_found = found.labelled - found.picked, found.found - found.picked_found
    yield Text()
    yield facts(sentence(found), style="bold")
    yield facts(
        f"{found.labelled:,} of {found.total:,} rows labelled",
        f"{found.picked_found:,} found among {found.picked:,} that the score picked" if found.picked else "",
        f"{drawn_found:,} found among {drawn:,} drawn at random",
    )
    if found.labelled < found.total:
        yield facts(judgement(found.auroc), style="yellow" if ranks_badly(found.auroc) else "dim")


def sentence(found: Found) -> str:
    """Return what was found in one sentence."""
    what = f"found {found.found:,}"
    if found.labelled == found.total:
        return f"{what}: all that the model flags, as every row is labelled"
    part = 100 * (found.recall or 0)
    if part < 0.1:
        what = what if found.found else "found none"
        return f"{what}; the model would flag at most {found.most:,} rows of the whole file, with 95 % confidence"
    least = f"{math.floor(part)}" if part >= 10 else f"{math.floor(10 * part) / 10}"
    return (
        f"{what}; that is at least {least} % of what the model would flag in the whole file (at most {found.most:,}"
        " rows), with 95 % confidence"
    )


def ranks_badly(auroc: float | None) -> bool:
    """Return whether the score is known not to rank well."""
    return auroc is not None and auroc < RANKS_WELL


def judgement(auroc: float | None) -> str:
    """Return what the score is worth in one sentence."""
    if auroc is None:
        return f"fewer than {FEW} rows of the random sample are flagged: too few to say how well the score ranks"
    worth = f"cross-validated AUROC {math.floor(100 * auroc) / 100:.2f}; 0.5 is chance, 1 perfect"
    if ranks_badly(auroc):
        return f"the score does not rank well here ({worth}): for the bound, drawing at random is as good"
    return f"the score ranks well here ({worth})"


def search_of(labels: LabeledFile, order: Ints, parts: int, columns: Sequence[str]) -> Search:
    """Return the search that asked about the rows of an output; each `parts`-th row of the file belongs to it."""
    rows = sorted(((mark_of(row, columns), row.verdicts) for row in labels.rows), key=lambda row: int(row[0]["asked"]))
    search = Search(order)
    search.restore(pick_of(mark, parts) for mark, _ in rows)
    search.learn([flagged(verdicts) for _, verdicts in rows])
    return search


def pick_of(mark: Mapping[str, Any], parts: int) -> Pick:
    """Return how a row was asked about, from its `_sample`."""
    return Pick((int(mark["row"]) - 1) // parts, None if mark["by"] == SCORE else int(mark["rank"]) - 1)


def ranked(mark: Mapping[str, Any], ranks: Mapping[int, int], parts: int) -> dict[str, Any]:
    """Return a row's `_sample` as that of a random row if it is one of the first `ranks`, whatever chose it.

    All rows of these ranks are labelled, some because the score chose them before their turn: only together are they a
    random sample of the file.
    """
    rank = ranks.get((int(mark["row"]) - 1) // parts)
    rest = {part: value for part, value in mark.items() if part not in ("rank", "picked")}
    return {**rest, "picked": PICKED} if rank is None else {**rest, "rank": rank + 1}
