"""What `safeguard eval` prints at a terminal: figures, confusion, slices and wrong rows, in the result's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.terminal import Figures, cut, facts, figure, interval, line_of

FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision of violating",
    "recall": "recall of violating",
    "specificity": "specificity",
    "f1": "F1 of violating",
    "kappa": "Cohen's kappa",
    "mcc": "MCC",
    "auroc": "AUROC of p_violates",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
}
INTERVALS = "95 % intervals: shares by Clopper-Pearson, the others by bootstrap; –: not defined"


def shown(result: Mapping[str, Any], wrong: int) -> Iterator[RenderableType]:
    """Yield the result of `eval` for people, with up to `wrong` of each policy's wrong rows."""
    yield facts(
        f"{result['rows']:,} golden rows",
        f"model {result['model'] or 'not on record'}",
        result["prompting"],
        result["effort"] and f"effort {result['effort']}",
    )
    for doubt in result["doubts"]:
        yield facts(doubt, style="yellow")
    if unused := not_used(result["rows_not_used"]):
        yield facts(unused, style="yellow")
    for name, policy in result["policies"].items():
        yield from _shown_policy(name, policy, wrong)
    if found := result.get("multi_policy_accuracy"):
        value = f"{figure(found['value'])}  ({interval(found)}, {found['rows']:,} rows)"
        yield Text.assemble("\n", ("multi-policy accuracy", "bold"), f"  {value}: every policy's label is right")
    yield facts(INTERVALS, style="dim")


def not_used(unused: Mapping[str, int]) -> str:
    """Return how many rows the figures leave out, and why; empty if none."""
    reasons = "; ".join(f"{n:,} {reason}" for reason, n in unused.items() if n)
    return f"rows not used: {sum(unused.values()):,} ({reasons})" if reasons else ""


def _shown_policy(name: str, policy: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (cut(name, 60), "bold"), f"  {policy['rows']:,} rows labelled")
    if policy["rows_in_error"]:
        yield facts(f"rows in error, not counted: {policy['rows_in_error']:,}", style="red")
    table = Figures("", "", "95 % interval")
    for key, title in FIGURES.items():
        found = policy["figures"][key]
        table.add_row(title, figure(found["value"]), interval(found))
    yield table
    titles = [Text(cut(label, 24), "red" if label in policy["violates"] else "") for label in policy["labels"]]
    table = Figures("label", "precision", "recall", "F1", "95 % interval of F1")
    for label, styled in zip(policy["labels"], titles, strict=True):
        each = [policy["figures"][f"{key}:{label}"] for key in ("precision", "recall", "f1")]
        table.add_row(styled, *(figure(found["value"]) for found in each), interval(each[2]))
    yield table
    table = Figures("gold ↓  said →", *(title.plain for title in titles))
    for i, counts in enumerate(policy["confusion"]):
        table.add_row(titles[i], *(Text(f"{n:,}", "bold" if i == j else "") for j, n in enumerate(counts)))
    yield table
    for column, slices in policy["slices"].items():
        table = Figures(f"by {column}", "rows", "accuracy", "95 % interval", "F1")
        for part in slices:
            table.add_row(
                cut(part["value"] or "(empty)", 30),
                f"{part['rows']:,}",
                figure(part["accuracy"]),
                interval(part),
                figure(part["f1"]),
            )
        yield table
    if apart := policy.get("apart"):
        table = Figures("not picked at random", "rows", "accuracy", "95 % interval")
        for part in apart:
            table.add_row(cut(part["picked"], 24), f"{part['rows']:,}", figure(part["accuracy"]), interval(part))
        yield table
    yield from _shown_calibration(policy)
    yield from _shown_choices(policy)
    wrong = policy["wrong"]
    if wrong and most:
        yield line_of(f"wrong, {min(len(wrong), most)} of {len(wrong):,}:")
        for row in wrong[:most]:
            place = f"  row {row['row']}, line {row['line']}, p {row['p_violates']:.2f}"
            said = f"gold {cut(row['gold'], 24)}, said {cut(row['label'], 24)}"
            text = f": {cut(row['text'], 100)}" if row["text"] else ""  # an output may have kept no text
            yield line_of(f"{place}: {said}{text}")
            if row.get("rationale"):
                yield line_of(f"    {cut(row['rationale'], 140)}", "dim")


def _shown_calibration(policy: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield how far p_violates is from a probability, before calibration and after."""
    if not (found := policy.get("calibrated")):
        return
    table = Figures("calibrated", "p_violates", "95 % interval", "p_calibrated", "95 % interval")
    for name in ("calibration_error", "brier"):
        sides = [found[name][side] for side in ("before", "after")]
        table.add_row(FIGURES[name], *(cell for side in sides for cell in (figure(side["value"]), interval(side))))
    yield table
    how = f"learned with {found['method']}, " if found["method"] else ""
    yield facts(f"{how}{found['by']}: {found['rows']:,} rows, {found['violating']:,} of them violating", style="dim")


def _shown_choices(policy: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what was found for --threshold and --find-sure."""
    threshold = policy.get("threshold") or {}
    if "wanted" in threshold:
        wanted = "{} at least {}".format(*threshold["wanted"])
        if "threshold" in threshold:
            gives = f"precision {figure(threshold['precision'])}, recall {figure(threshold['recall'])}"
            yield facts(f"for {wanted}: --threshold {threshold['threshold']:g} gives {gives} on these rows")
        else:
            yield facts(f"no threshold gives {wanted} on these rows", style="yellow")
    elif threshold:
        yield facts(f"violating means p_violates ≥ {threshold['threshold']:g} here")
    if lines := policy.get("sure"):
        table = Figures("--sure", "decided at once", "accuracy", "as with full reasoning")
        for line in lines:
            table.add_row(f"{line['sure']:g}", *(figure(line[key]) for key in ("at_once", "accuracy", "agreement")))
        yield table
