"""`safeguard eval`: labels a golden set with `label`'s run, or reads an output, and measures its labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.measure.calibrate import add_calibration, check_target
from safeguard_cli.measure.golden import GoldenRow, as_text
from safeguard_cli.measure.measured import (
    Measured,
    _verdicts,
    by_pick,
    label_golden,
    measure,
    outcomes,
    replace_verdicts,
    take,
)
from safeguard_cli.measure.metrics import Outcomes
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.shown import shown
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import print_json, show


def evaluate(settings: Settings, wanted: Wanted) -> int:
    """Run `safeguard eval` and return the exit code. Raise SafeguardError with a sentence for the user."""
    search = _parse_threshold(wanted.threshold)
    if isinstance(search, float):
        settings = replace(settings, threshold=None)  # applied to the scores below, of outputs and of new labels
    check_target(settings, wanted)
    with metrics.sklearn():  # fails before a model is loaded if the extra is missing
        pass
    measured = measure(settings, wanted)
    quick = None
    if wanted.find_sure:
        if measured.effort == "none":
            raise UsageError("--find-sure compares effort none with full reasoning: use --effort low, medium or high")
        quick = label_golden(replace(settings, effort="none", rationale=False, calibration=None), measured.golden)
    whole, others = by_pick(measured)
    quick_whole = by_pick(replace_verdicts(measured, _verdicts(quick)))[0].verdicts if quick else None
    result = {
        "golden": str(settings.input),
        "prompting": measured.prompting,
        "model": measured.model,
        "effort": measured.effort,
        "doubts": [*measured.doubts, *_doubts(whole, others)],
        "rows": len(whole.golden.rows),
        "rows_not_used": dict(measured.golden.unused),
        "intervals": metrics.METHODS,
        "policies": {
            answers.name: policy_result(whole, answers, wanted, search, quick_whole)
            | _apart(measured, answers, others, whole)
            for answers in measured.answers
        },
    }
    if len(measured.answers) > 1:
        result["multi_policy_accuracy"] = multi_policy_result(whole)
    refused = add_calibration(whole, settings, wanted, result)
    failed = measured.golden.in_error + sum(any(v.error for v in one.values()) for one in measured.verdicts)
    if wanted.json:
        print_json(result)
    else:
        show(*shown(result, wanted.wrong))
    if refused:
        raise refused
    return errors.ROWS_IN_ERROR if failed else errors.OK


def _doubts(whole: Measured, others: Mapping[str, Sequence[int]]) -> Iterator[str]:
    if not others:
        return
    rows = ", ".join(f"{len(places):,} picked as {how}" for how, places in others.items())
    if any(row.picked for row in whole.golden.rows):
        yield f"no row was picked at random ({rows}): the figures are of these rows, not of the file they come from"
    else:
        yield f"the figures are of the {len(whole.golden.rows):,} rows picked at random; {rows} are shown apart"


def _apart(
    measured: Measured, answers: LabelSet, others: Mapping[str, Sequence[int]], whole: Measured
) -> dict[str, Any]:
    """Return how right the labels are on rows that were not picked at random, which no figure of the file may use."""
    if not others or any(row.picked for row in whole.golden.rows):
        return {}
    return {"apart": [_apart_rows(take(measured, places), answers, how) for how, places in others.items()]}


def _apart_rows(part: Measured, answers: LabelSet, how: str) -> dict[str, Any]:
    known = [
        (row, verdict)
        for row, verdicts in zip(part.golden.rows, part.verdicts, strict=True)
        if (verdict := verdicts[answers.name]).error is None
    ]
    right = sum(verdict.label == row.gold[answers.name] for row, verdict in known)
    low, high = metrics.share_interval(right, len(known))
    return {
        "picked": how,
        "rows": len(known),
        "accuracy": right / len(known) if known else None,
        "low": number(low),
        "high": number(high),
        "wrong": [_wrong(row, v, answers.name) for row, v in known if v.label != row.gold[answers.name]],
    }


def policy_result(
    measured: Measured,
    answers: LabelSet,
    wanted: Wanted,
    search: float | tuple[str, float] | None,
    quick: Sequence[Mapping[str, Verdict]] | None,
) -> dict[str, Any]:
    """Return all results about one policy."""
    found, kept = outcomes(measured, answers, search if isinstance(search, float) else None)
    bounds = metrics.intervals(found)
    result: dict[str, Any] = {
        "labels": list(answers.labels),
        "violates": list(answers.violates),
        "rows": len(found),
        "rows_in_error": len(measured.verdicts) - len(found),
        "figures": {
            name: {"value": number(value), "low": number(bounds[name][0]), "high": number(bounds[name][1])}
            for name, value in metrics.figures(found).items()
        },
        "confusion": metrics.confusion(found),
        "slices": {column: list(_slices(measured.golden.rows, kept, found, column)) for column in wanted.by},
        "wrong": [
            _wrong(measured.golden.rows[kept[i]], measured.verdicts[kept[i]][answers.name], answers.name)
            for i in (~found.right).nonzero()[0]
        ],
    }
    if isinstance(search, float):
        result["threshold"] = {"threshold": search}
    elif search is not None:
        point = metrics.find_threshold(found, *search)
        result["threshold"] = {"wanted": list(search)} | (
            {"threshold": point.threshold, "precision": point.precision, "recall": point.recall} if point else {}
        )
    if quick is not None:
        other = replace_verdicts(measured, quick)
        quick_found, quick_kept = outcomes(other, answers)
        both = sorted(set(kept) & set(quick_kept))
        table = metrics.sure_table(quick_found.take(_places(quick_kept, both)), found.take(_places(kept, both)))
        result["sure"] = [
            {"sure": t.sure, "at_once": t.at_once, "accuracy": t.accuracy, "agreement": t.agreement} for t in table
        ]
    return result


def _places(kept: Sequence[int], wanted: Sequence[int]) -> Any:
    import numpy as np

    at = {row: place for place, row in enumerate(kept)}
    return np.array([at[row] for row in wanted], np.int64)


def multi_policy_result(measured: Measured) -> dict[str, Any]:
    """Return the technical report's multi-policy accuracy: a row counts only if every policy's label is right."""
    whole = [
        (row, verdicts)
        for row, verdicts in zip(measured.golden.rows, measured.verdicts, strict=True)
        if not any(verdict.error for verdict in verdicts.values())
    ]
    right, total = metrics.multi_policy_accuracy(
        [verdicts[a.name].label == row.gold[a.name] for a in measured.answers] for row, verdicts in whole
    )
    low, high = metrics.share_interval(right, total)
    return {"value": right / total if total else None, "low": number(low), "high": number(high), "rows": total}


def _slices(rows: Sequence[GoldenRow], kept: Sequence[int], found: Outcomes, column: str) -> Iterator[dict[str, Any]]:
    import numpy as np

    values = [as_text(rows[i].fields.get(column)) for i in kept]
    for value in sorted(set(values)):
        part = found.take(np.array([v == value for v in values]))
        right = int(part.right.sum())
        low, high = metrics.share_interval(right, len(part))
        figures = metrics.figures(part)
        yield {
            "value": value,
            "rows": len(part),
            "accuracy": right / len(part),
            "low": low,
            "high": high,
            "f1": number(figures["f1"]) if 0 < part.truth.sum() < len(part) else None,
        }


def _wrong(row: GoldenRow, verdict: Verdict, policy: str) -> dict[str, Any]:
    return {
        "row": row.number,
        "line": row.line,
        "gold": row.gold[policy],
        "label": verdict.label,
        "p_violates": verdict.p_violates,
        "text": row.text,
        **({"rationale": verdict.rationale} if verdict.rationale is not None else {}),
    }


def _parse_threshold(value: str | None) -> float | tuple[str, float] | None:
    """Read `0.7`, `precision=0.95` or `recall=0.9`."""
    if value is None:
        return None
    wanted, equals, number = value.rpartition("=")
    try:
        level = float(number)
    except ValueError:
        level = -1.0
    if not 0 <= level <= 1 or wanted not in ("", "precision", "recall") or bool(equals) != bool(wanted):
        raise UsageError(f"--threshold {value!r}: write 0.7, precision=0.95 or recall=0.9")
    return (wanted, level) if wanted else level


def number(value: float) -> float | None:
    """Return a figure for JSON, null if it is not defined."""
    return None if math.isnan(value) else value
