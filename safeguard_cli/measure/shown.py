"""What `safeguard eval` prints at a terminal: figures, confusion, slices and wrong rows, in the result's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.measure.voted import voted_shown
from safeguard_cli.output.spelled import plain
from safeguard_cli.terminal import Figures, cut, facts, figure, interval, line_of

FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision of violating",
    "recall": "recall of violating (sensitivity)",
    "specificity": "specificity",
    "false_positive_rate": "false positive rate",
    "false_negative_rate": "false negative rate",
    "f1": "F1 of violating",
    "macro_f1": "macro F1 of all labels",
    "weighted_f1": "weighted F1 of all labels",
    "kappa": "Cohen's kappa",
    "weighted_kappa": "weighted kappa of the grades",
    "mcc": "MCC",
    "auroc": "AUROC of p_violates",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
}
TOGETHER = {
    "any_precision": "precision of violating any policy",
    "any_recall": "recall of violating any policy",
    "any_false_positive_rate": "false positive rate of any policy",
    "any_f1": "F1 of violating any policy",
    "micro_precision": "micro precision of all answers",
    "micro_recall": "micro recall of all answers",
    "micro_f1": "micro F1 of all answers",
    "macro_f1": "macro F1 of the policies",
}
INTERVALS = (
    "95 % intervals: shares (n of m) by Clopper-Pearson, in tables by slice by Wilson, the others by bootstrap;"
    " –: not defined"
)

_COUNTED = {"precision": "flagged rows", "recall": "violating rows"}


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
        table = Figures("", "", "95 % interval", "rows")
        for key, one in result["together"].items():
            table.add_row(TOGETHER[key], figure(one["value"]), interval(one), rows_of(one))
        yield table
    yield facts(INTERVALS, style="dim")
    for required in result.get("required", ()):
        yield facts(required_text(required), style="green" if required["met"] else "bold red")


def required_text(required: Mapping[str, Any]) -> str:
    """Return in words whether a figure is what is required."""
    under = f" under {required['policy']}" if required["policy"] else ""
    return f"{'met' if required['met'] else 'NOT MET'}: {required['require']}{under}: {required['shown']}"


def not_used(unused: Mapping[str, int]) -> str:
    """Return how many rows the figures leave out, and why; empty if none."""
    reasons = "; ".join(f"{n:,} {reason}" for reason, n in unused.items() if n)
    return f"rows not used: {sum(unused.values()):,} ({reasons})" if reasons else ""


def _shown_policy(name: str, policy: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (cut(name, 60), "bold"), f"  {policy['rows']:,} rows labelled")
    if policy["rows_in_error"]:
        yield facts(f"rows in error, not counted: {policy['rows_in_error']:,}", style="red")
    table = Figures("", "", "95 % interval", "rows")
    for key, title in FIGURES.items():
        if found := policy["figures"].get(key):  # only grades have a weighted kappa
            table.add_row(title, figure(found["value"]), interval(found), rows_of(found))
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
    if any(far["grades"] for far in policy["distances"]):
        table = Figures("said minus gold, in grades", "rows")
        for far in policy["distances"]:
            table.add_row(f"{far['grades']:+d}" if far["grades"] else "0", f"{far['rows']:,}")
        yield table
    for column, slices in policy["slices"].items():
        table = Figures(f"by {column}", "rows", "accuracy", "95 % interval (Wilson)", "F1")
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
        table = Figures("not picked at random", "rows", "accuracy", "95 % interval (Wilson)")
        for part in apart:
            table.add_row(cut(part["picked"], 24), f"{part['rows']:,}", figure(part["accuracy"]), interval(part))
        yield table
    if voted := policy.get("votes"):
        yield from voted_shown(voted)
    yield from _shown_calibration(policy)
    yield from _shown_choices(policy)
    wrong = policy["wrong"]
    if wrong and most:
        yield line_of(f"wrong, {min(len(wrong), most)} of {len(wrong):,}:")
        for row in wrong[:most]:
            place = f"  {place_of(row)}, p {row['p_violates']:.2f}"
            said = f"gold {cut(row['gold'], 24)}, said {cut(row['label'], 24)}"
            text = f": {cut(row['text'], 100)}" if row["text"] else ""  # an output may have kept no text
            yield line_of(f"{place}: {said}{text}")
            if row.get("rationale"):
                yield line_of(f"    {cut(row['rationale'], 140)}", "dim")


def rows_of(found: Mapping[str, Any]) -> str:
    """Return of which rows a figure is: `9 of 20` for a share, the number of rows for another."""
    return f"{found['count']:,} of {found['rows']:,}" if "count" in found else f"{found['rows']:,}"


def place_of(row: Mapping[str, Any]) -> str:
    """Return where a row of a result stands, and its id if it has one."""
    named = f", id {cut(plain(row['id']), 40)}" if row.get("id") is not None else ""
    return f"row {row['row']}, line {row['line']}{named}"


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
        yield from _shown_search(threshold)
        yield from _shown_curve(policy["curve"])
    elif threshold:
        yield facts(f"violating means p_violates ≥ {threshold['threshold']:g} here")
    if lines := policy.get("sure"):
        table = Figures("--sure", "decided at once", "accuracy", "as with full reasoning")
        for line in lines:
            table.add_row(f"{line['sure']:g}", *(figure(line[key]) for key in ("at_once", "accuracy", "agreement")))
        yield table


def _shown_search(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield a threshold that one half of the rows chose, what the other half says of it, and the halves exchanged."""
    kind, value = found["wanted"]
    if found["none"]:
        yield facts(f"no threshold for {kind} at least {value:g}: {found['none']}", style="yellow")
        return
    table = Figures(f"{kind} at least {value:g}", "one half chooses", "halves exchanged")
    halves = [half for half in (found, found["exchanged"]) if not half["none"]]
    lines = {
        "--threshold": [f"{half['threshold']:g}" for half in halves],
        "precision on the other half": [_share(half, "precision", half["flagged"]) for half in halves],
        "recall on the other half": [_share(half, "recall", half["violating"]) for half in halves],
        f"{kind} is at least": [figure(half["bound"]) for half in halves],
    }
    for title, cells in lines.items():
        table.add_row(title, *cells, *["–"] * (2 - len(cells)))
    yield table
    known = f"{kind} is at least {found['bound']:.3f} with --threshold {found['threshold']:g}, with 95 % confidence"
    yield facts(f"{known} ({found['method']})")
    if found["bound"] < value:
        takes = found["proof"]
        more = f": that takes {takes:,} {_COUNTED[kind]} in the other half, all of them right, or more" if takes else ""
        yield facts(f"these rows do not prove {value:g}{more}", style="yellow")


def _share(half: Mapping[str, Any], kind: str, among: int) -> str:
    return f"{figure(half[kind])} ({half['right']:,} of {among:,})"


def _shown_curve(points: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    """Yield the curve at each tenth of recall, on all rows: what is chosen by it is not measured by it."""
    tenths = (next((at for at, one in enumerate(points) if (one["recall"] or 0) >= n / 10), None) for n in range(1, 11))
    table = Figures("on all rows, p_violates ≥", "flagged", "precision", "recall")
    for point in (points[at] for at in dict.fromkeys(tenths) if at is not None):
        table.add_row(f"{point['threshold']:g}", *(figure(point[key]) for key in ("flagged", "precision", "recall")))
    yield table
