"""What `safeguard policy history` prints at a terminal: a table of versions, then each step between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.output.manifest import changes
from safeguard_cli.terminal import Figures, cut, facts, figure, interval, line_of

SURE = 0.05
_LINES = 8  # of the policy that differ
_LEFT_OUT = 5  # outputs named


def shown(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    """Yield the result for people, with up to `most` flipped rows of each step."""
    before: Mapping[str, Any] = {}
    for series in result["histories"]:
        yield from _shown_series(series, before, most)
        before = series
    left_out = result["left_out"]
    for each in left_out[:_LEFT_OUT]:
        yield facts(f"left out: {each['output']}: {each['reason']}", style="yellow")
    if len(left_out) > _LEFT_OUT:
        yield facts(f"left out: {len(left_out) - _LEFT_OUT:,} more outputs; --json names them", style="yellow")
    yield facts(
        f"right labels of {result['golden']} · outputs of {result['folder']} · 95 % intervals by {result['intervals']}",
        style="dim",
    )


def _shown_series(series: Mapping[str, Any], before: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    measurements = series["measurements"]
    effort = f"effort {series['effort']}" if series["effort"] else ""
    yield Text.assemble(
        (cut(series["policy"], 60), "bold"),
        "  ",
        facts(f"model {series['model'] or 'not on record'}", effort, series["prompting"]),
    )
    if before.get("policy") == series["policy"] and (differs := _differs(before["asked"], series["asked"])):
        yield facts(f"asked otherwise than above: {'; '.join(differs)}", style="dim")
    for each in measurements:
        for doubt in each["doubts"]:
            yield facts(f"{each['output']}: {doubt}", style="yellow")
    if series["now_measured"] is False:
        yield facts("the policy as it is now was not measured in this way", style="yellow")
    table = Figures(
        "version", "measured", "rows", "accuracy", "95 % interval", "precision", "recall", "F1", "sha256", left=2
    )
    for each in measurements:
        figures = each["figures"]
        table.add_row(
            _version(each),
            each["finished"][:16].replace("T", " "),
            f"{each['rows']:,}" + (f" + {each['rows_in_error']:,} in error" if each["rows_in_error"] else ""),
            figure(figures["accuracy"]["value"]),
            interval(figures["accuracy"]),
            *(figure(figures[name]["value"]) for name in ("precision", "recall", "f1")),
            each["sha256"][:8],
        )
    yield table
    for step in series["steps"]:
        yield from _shown_step(step, measurements, most)
    if len(measurements) > 2:
        yield facts("the best of several looks better here than it is: measure it on rows kept apart", style="dim")
    yield Text("")


def _version(each: Mapping[str, Any]) -> str:
    now = " (now)" if each["now"] else ""
    return cut(f"v{each['version']}{now} {Path(each['output']).name}", 40)


def _differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return how two ways of asking differ, apart from what the heading says: the model and the prompt's layout."""
    return [cut(text, 100) for text in changes(a, b) if not text.startswith(("model.", "prompt:"))]


def _shown_step(step: Mapping[str, Any], measurements: list[Mapping[str, Any]], most: int) -> Iterator[RenderableType]:
    a, b = (measurements[at] for at in step["at"])
    name = f"v{step['from']} → v{step['to']}"
    if step["at"][1] - step["at"][0] > 1:
        name += ", first to last"
    elif step["from"] == step["to"]:
        name += ", the same policy again"
    if not step["rows"]:
        yield facts(f"{name}: they have no row in common")
        return
    flips = step["flips"]
    yield Text.assemble(
        (name, "bold"),
        facts(
            f": {len(flips):,} of {step['rows']:,} rows flipped; right only in the older {step['only_a_right']:,}, only"
            f" in the newer {step['only_b_right']:,}; McNemar's exact p {step['mcnemar_p']:.3g}: "
        ),
        (_judged(step), "bold"),
    )
    if max(a["rows"], b["rows"]) > step["rows"]:
        yield facts("  only the rows that both have are compared", style="dim")
    if step["at"][1] - step["at"][0] > 1:
        return  # its rows were shown step by step
    for line in (step["policy_diff"] or ())[:_LINES]:
        yield line_of(f"  {line}", "green" if line.startswith("+") else "red")
    if len(step["policy_diff"] or ()) > _LINES:
        yield facts(f"  {len(step['policy_diff']) - _LINES:,} more lines of the policy differ", style="dim")
    for flip in flips[:most]:
        moved = f"{cut(flip['a'], 24)} → {cut(flip['b'], 24)}, gold {cut(str(flip['gold']), 24)}"
        yield line_of(f"  row {flip['row']}, line {flip['line']}: {moved}: {flip['text']}")
    if len(flips) > most > 0:
        yield facts(f"  {len(flips) - most:,} more: --wrong N or --json shows them", style="dim")


def _judged(step: Mapping[str, Any]) -> str:
    """Return whether the newer version is seen to be better."""
    if step["mcnemar_p"] >= SURE:
        return "no proof of a difference"
    return "better" if step["only_b_right"] > step["only_a_right"] else "worse"
