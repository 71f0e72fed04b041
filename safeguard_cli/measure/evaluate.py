"""`safeguard eval`: labels a golden set with `label`'s run, or reads an output, and measures its labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.measure import metrics, thresholds, together
from safeguard_cli.measure.calibrate import add_calibration, check_target
from safeguard_cli.measure.gates import Gate, check_gates, check_junit, judge, parse_gates, tell, write_junit
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
from safeguard_cli.measure.voted import voted_result
from safeguard_cli.measure.wrong_file import PLACE, check_wrong_file, write_wrong_file
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import print_json, show


def evaluate(settings: Settings, wanted: Wanted) -> int:
    """Run `safeguard eval` and return the exit code. Raise SafeguardError with a sentence for the user."""
    search, gates = _parse_threshold(wanted.threshold), parse_gates(wanted.require)
    if isinstance(search, float):
        settings = replace(settings, threshold=None)  # applied to the scores below, of outputs and of new labels
    check_target(settings, wanted)
    with metrics.sklearn():  # fails before a model is loaded if the extra is missing
        pass
    _check_before(settings, wanted, gates)
    measured = measure(settings, wanted)
    quick = None
    if wanted.find_sure:
        if measured.effort == "none":
            raise UsageError("--find-sure compares effort none with full reasoning: use --effort low, medium or high")
        quick = label_golden(replace(_once(settings), effort="none"), measured.golden)
    unvoted = None
    if settings.votes and measured.anew:
        unvoted = label_golden(_once(settings), measured.golden)
    whole, others = by_pick(measured)
    quick_whole, unvoted_whole = (
        by_pick(replace_verdicts(measured, _verdicts(labels)))[0].verdicts if labels else None
        for labels in (quick, unvoted)
    )
    result: dict[str, Any] = {
        "golden": str(settings.input),
        "prompting": measured.prompting,
        "model": measured.model,
        "effort": measured.effort,
        "doubts": [*measured.doubts, *_doubts(whole, others)],
        "rows": len(whole.golden.rows),
        "rows_not_used": dict(measured.golden.unused),
        "intervals": metrics.METHODS,
        "policies": {
            answers.name: policy_result(whole, answers, wanted, search, quick_whole, unvoted_whole)
            | _apart(measured, answers, others, whole)
            for answers in measured.answers
        },
    }
    if len(measured.answers) > 1:
        result["multi_policy_accuracy"] = multi_policy_result(whole)
        result["together"] = together_result(whole, search if isinstance(search, float) else None)
    refused = add_calibration(whole, settings, wanted, result)
    failed = measured.golden.in_error + sum(any(v.error for v in one.values()) for one in measured.verdicts)
    judged = judge(gates, result)
    if judged:
        result["required"] = [each.record() for each in judged]
    if wanted.json:
        print_json(result)
    else:
        show(*shown(result, wanted.wrong))
    write_wrong_file(wanted.wrong_file, [*wrong_rows(result["policies"])])
    if wanted.junit is not None:
        write_junit(wanted.junit, judged, result)
    tell(judged, result)
    if refused:
        raise refused
    if not all(each.met for each in judged):
        return errors.CHECK_FAILED
    return errors.ROWS_IN_ERROR if failed else errors.OK


def _check_before(settings: Settings, wanted: Wanted, gates: Sequence[Gate]) -> None:
    """Raise, before a model is loaded, for a file that cannot be written and for a figure that does not exist."""
    if gates and settings.policies:
        policies = load_policies(settings)
        check_gates(gates, [LabelSet(policy.name, policy.labels, policy.violates) for policy in policies])
    read = used_by(settings)
    check_wrong_file(wanted.wrong_file, read)
    if wanted.junit is not None:
        check_junit(wanted.junit, read)


def wrong_rows(policies: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the wrong rows in the results of policies, of each those that were not picked at random last."""
    for name, policy in policies.items():
        for row in (*policy["wrong"], *(row for part in policy.get("apart", ()) for row in part["wrong"])):
            yield {**{at: row.get(at) for at in PLACE}, "policy": name, **row}


def _once(settings: Settings) -> Settings:
    """Return the settings of a run that reasons once about a row, and gives no reasons."""
    return replace(settings, votes=None, until_decided=False, temperature=None, rationale=False, calibration=None)


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
    low, high = metrics.slice_interval(right, len(known))
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
    unvoted: Sequence[Mapping[str, Verdict]] | None = None,
) -> dict[str, Any]:
    """Return all results about one policy; `quick` are the rows without reasoning, `unvoted` those without votes."""
    found, kept = outcomes(measured, answers, search if isinstance(search, float) else None)
    result: dict[str, Any] = {
        "labels": list(answers.labels),
        "violates": list(answers.violates),
        "rows": len(found),
        "rows_in_error": len(measured.verdicts) - len(found),
        "figures": _figures(found),
        "confusion": metrics.confusion(found),
        "distances": [{"grades": far, "rows": rows} for far, rows in metrics.distances(found).items()],
        "curve": thresholds.Curve.of(found).points(),
        "slices": {column: list(_slices(measured.golden.rows, kept, found, column)) for column in wanted.by},
        "wrong": [
            _wrong(measured.golden.rows[kept[i]], measured.verdicts[kept[i]][answers.name], answers.name)
            for i in (~found.right).nonzero()[0]
        ],
    }
    if isinstance(search, float):
        result["threshold"] = {"threshold": search}
    elif search is not None:
        rows = [measured.golden.rows[i] for i in kept]
        same = [row.text or row.number for row in rows]  # an output may have kept no text
        result["threshold"] = thresholds.search(found, *search, same).as_dict()
    without = outcomes(replace_verdicts(measured, unvoted), answers)[0] if unvoted is not None else None
    said = [measured.verdicts[i][answers.name] for i in kept]
    if (voted := voted_result(found, said, answers, without)) is not None:
        result["votes"] = voted
    if quick is not None:
        other = replace_verdicts(measured, quick)
        quick_found, quick_kept = outcomes(other, answers)
        both = sorted(set(kept) & set(quick_kept))
        table = thresholds.sure_table(quick_found.take(_places(quick_kept, both)), found.take(_places(kept, both)))
        result["sure"] = [
            {"sure": t.sure, "at_once": t.at_once, "accuracy": t.accuracy, "agreement": t.agreement} for t in table
        ]
    return result


def _figures(found: Outcomes) -> dict[str, dict[str, Any]]:
    """Return each figure with its interval and of how many rows it is; of a share also how many of them count."""
    shares, bounds = metrics.shares(found), metrics.intervals(found)
    return {
        name: {"value": number(value), "low": number(bounds[name][0]), "high": number(bounds[name][1])}
        | ({"count": shares[name][0], "rows": shares[name][1]} if name in shares else {"rows": len(found)})
        for name, value in metrics.figures(found).items()
    }


def _places(kept: Sequence[int], wanted: Sequence[int]) -> Any:
    import numpy as np

    at = {row: place for place, row in enumerate(kept)}
    return np.array([at[row] for row in wanted], np.int64)


def multi_policy_result(measured: Measured) -> dict[str, Any]:
    """Return the technical report's multi-policy accuracy: a row counts only if every policy's label is right."""
    whole = _without_errors(measured)
    right, total = metrics.multi_policy_accuracy(
        [verdicts[a.name].label == row.gold[a.name] for a in measured.answers] for row, verdicts in whole
    )
    low, high = metrics.share_interval(right, total)
    return {"value": right / total if total else None, "low": number(low), "high": number(high), "rows": total}


def _without_errors(measured: Measured) -> list[tuple[GoldenRow, Mapping[str, Verdict]]]:
    """Return the rows that are labelled under every policy."""
    pairs = zip(measured.golden.rows, measured.verdicts, strict=True)
    return [(row, verdicts) for row, verdicts in pairs if not any(verdict.error for verdict in verdicts.values())]


def together_result(measured: Measured, threshold: float | None = None) -> dict[str, Any]:
    """Return the figures of rows that violate any policy, as `any_…`, and those of all policies' answers."""
    import numpy as np

    def told(verdict: Verdict) -> bool:
        return bool(verdict.violates) if threshold is None else (verdict.p_violates or 0.0) >= threshold

    whole = _without_errors(measured)
    if not whole:
        return {}
    truth = np.array([[row.gold[a.name] in a.violates for a in measured.answers] for row, _ in whole])
    said = np.array([[told(verdicts[a.name]) for a in measured.answers] for _, verdicts in whole])
    of_rows = _figures(together.any_policy(truth, said))
    of_answers = together.mean_figures(truth, said).items()
    return {f"any_{name}": of_rows[name] for name in together.ANY} | {
        name: {**dict(zip(("value", "low", "high"), map(number, found), strict=True)), "rows": truth.size}
        for name, found in of_answers
    }


def _slices(rows: Sequence[GoldenRow], kept: Sequence[int], found: Outcomes, column: str) -> Iterator[dict[str, Any]]:
    import numpy as np

    values = [as_text(rows[i].fields.get(column)) for i in kept]
    for value in sorted(set(values)):
        part = found.take(np.array([v == value for v in values]))
        right = int(part.right.sum())
        low, high = metrics.slice_interval(right, len(part))
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
        **({"id": row.id} if row.id is not None else {}),
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
