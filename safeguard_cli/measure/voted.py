"""What votes are worth: the figures with them and without, and how right rows are by how many votes agreed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import RenderableType

from safeguard_cli.measure import metrics
from safeguard_cli.measure.metrics import Outcomes
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.terminal import Figures, figure, interval

FIGURES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}
WITHOUT, MEAN, P_VOTES = "without votes", "p_violates with votes", "p_votes"


def voted_result(
    found: Outcomes, verdicts: Sequence[Verdict], answers: LabelSet, without: Outcomes | None
) -> dict[str, Any] | None:
    """Return what the votes of the rows `found` are worth, None if none were cast.

    `verdicts` are those of `found`, row by row; `without` are the same rows labelled without votes, if they were. Rows
    that were decided at once have no votes: their p_violates stands for p_votes.
    """
    if not any(verdict.votes for verdict in verdicts):
        return None
    by = {} if without is None else {WITHOUT: without}
    by[MEAN] = found
    if any(verdict.p_votes is not None for verdict in verdicts):
        p = [verdict.p_violates if verdict.p_votes is None else verdict.p_votes for verdict in verdicts]
        by[P_VOTES] = replace(found, p_violates=np.array(p, np.float64))
    return {
        "figures": {name: _figures(rows) for name, rows in by.items()},
        "agreed": list(_agreed(found, verdicts, answers)),
    }


def _figures(rows: Outcomes) -> dict[str, Any]:
    found = metrics.figures(rows)
    return {"rows": len(rows)} | {name: None if np.isnan(found[name]) else found[name] for name in FIGURES}


def _agreed(found: Outcomes, verdicts: Sequence[Verdict], answers: LabelSet) -> Iterator[dict[str, Any]]:
    """Yield how right the rows are, by the votes that agreed with the label on whether the row violates."""
    right: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for verdict, is_right in zip(verdicts, found.right, strict=True):
        if votes := verdict.votes:
            bad = verdict.label in answers.violates
            agreed = sum(count for label, count in votes.items() if (label in answers.violates) == bad)
            right[agreed, sum(votes.values())].append(bool(is_right))
    for (agreed, of), rows in sorted(right.items(), reverse=True):
        low, high = metrics.share_interval(sum(rows), len(rows))
        yield {
            "agreed": agreed,
            "of": of,
            "rows": len(rows),
            "accuracy": sum(rows) / len(rows),
            "low": low,
            "high": high,
        }


def voted_shown(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the tables of `voted_result` for people."""
    table = Figures("votes", "rows", *FIGURES.values())
    for name, found in result["figures"].items():
        table.add_row(name, f"{found['rows']:,}", *(figure(found[key]) for key in FIGURES))
    yield table
    table = Figures("votes that agreed", "rows", "accuracy", "95 % interval")
    for part in result["agreed"]:
        agreed = f"{part['agreed']} of {part['of']}"
        table.add_row(agreed, f"{part['rows']:,}", figure(part["accuracy"]), interval(part))
    yield table
