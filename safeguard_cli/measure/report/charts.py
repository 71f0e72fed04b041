"""The charts of a report, as SVG elements of the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from safeguard_cli.measure import metrics
from safeguard_cli.measure.calibrate import calibrated_of
from safeguard_cli.measure.measured import Measured, outcomes
from safeguard_cli.output.labelled import LabelSet

BINS = 20
# The page's style sheet decides these colours, so that charts follow its light and dark scheme. matplotlib knows only
# fixed colours: the keys stand for the variables until the SVG is written.
_COLOURS = {"#010101": "currentColor", "#020202": "var(--bad)", "#030303": "var(--good)", "#040404": "var(--line)"}
_INK, _BAD, _GOOD, _LINE = _COLOURS


def histogram(p: Sequence[float], violating: Sequence[bool]) -> str:
    """Draw how p_violates is distributed; high in the middle means that the policy leaves the model unsure."""
    sides = [[x for x, bad in zip(p, violating, strict=True) if bad is side] for side in (False, True)]
    figure, axes = _axes("p_violates", "rows")
    axes.hist(sides, bins=BINS, range=(0, 1), stacked=True, color=[_GOOD, _BAD], label=["safe", "violating"])
    axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure)


def calibration(measured: Measured, answers: LabelSet) -> str:
    """Draw how many of the rows with p_violates p do violate; on the diagonal p means what it says."""
    found, _ = outcomes(measured, answers)
    bins = metrics.calibration_bins(found.truth, found.p_violates)
    calibrated = calibrated_of(measured, answers)
    figure, axes = _axes("mean p_violates" if calibrated is None else "mean probability", "share that violates")
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle="--")
    axes.plot([mean for _, mean, _ in bins], [share for *_, share in bins], color=_BAD, marker="o")
    for count, mean, share in bins:
        axes.annotate(f"{count:,}", (mean, share), (0, 6), textcoords="offset points", ha="center", color=_INK)
    if calibrated is not None:
        after = metrics.calibration_bins(found.truth, calibrated)
        axes.plot([mean for _, mean, _ in after], [share for *_, share in after], color=_GOOD, marker="s")
        axes.legend(["what it means", "p_violates", "p_calibrated"], frameon=False, labelcolor=_INK)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.12))
    return _svg(figure)


def thresholds(points: Sequence[Mapping[str, float | None]]) -> str:
    """Draw precision, recall and the share of flagged rows by threshold."""
    figure, axes = _axes("p_violates ≥", "share")
    at = [point["threshold"] for point in points]
    for key, colour, line in (("precision", _BAD, "-"), ("recall", _GOOD, "-"), ("flagged", _INK, ":")):
        axes.plot(at, [point[key] for point in points], color=colour, linestyle=line, label=key)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.12))
    axes.legend(frameon=False, labelcolor=_INK, loc="lower center", ncols=3)
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.8), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.tick_params(colors=_INK)
    for name, spine in axes.spines.items():
        spine.set_color(_LINE)
        spine.set_visible(name in ("left", "bottom"))
    return figure, axes


def _svg(figure: Any) -> str:
    """Return the chart as an SVG element: text as text, the same bytes for the same figures."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "safeguard", "text.parse_math": False}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for fixed, variable in _COLOURS.items():
        svg = svg.replace(fixed, variable)
    return svg
