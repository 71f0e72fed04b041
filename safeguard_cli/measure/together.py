"""Figures of several policies together: of rows that violate any of them, and of all policies' answers as one pile."""

from __future__ import annotations

import math

import numpy as np

from safeguard_cli.measure.metrics import ENOUGH, RESAMPLES, Flags, Floats, Outcomes
from safeguard_cli.measure.statistics import LEVEL

ANY = ("precision", "recall", "false_positive_rate", "f1")  # the figures of rows that violate any policy
_SIDES = ("safe", "violating")


def any_policy(truth: Flags, told: Flags) -> Outcomes:
    """Return whether rows violate any policy: `truth` and `told` say by row and policy what does, and is said to."""
    bad: Flags = np.logical_or.reduce(truth, axis=1)
    said: Flags = np.logical_or.reduce(told, axis=1)
    return Outcomes(_SIDES, _SIDES[1:], bad.astype(np.int64), said.astype(np.int64), said, said.astype(np.float64))


def mean_figures(truth: Flags, told: Flags) -> dict[str, tuple[float, float, float]]:
    """Return figures over all policies' answers, each with its interval.

    The micro ones count each policy's answer to each row; the macro F1 is the mean of the policies' F1 of violating,
    without policies that no row violates or is said to. The answers to one row hang together, so whole rows are
    resampled, where enough of them violate a policy, and enough do not.
    """
    rows, bad = len(truth), int(truth.any(axis=1).sum())
    found = {name: (float(one[0]), math.nan, math.nan) for name, one in _means(np.ones((1, rows)), truth, told).items()}
    if min(bad, rows - bad) < ENOUGH:
        return found
    weights = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    for name, drawn in _means(weights.astype(np.float64), truth, told).items():
        if not np.isnan(drawn).any() and np.ptp(drawn) > 0:
            low, high = np.percentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
            found[name] = found[name][0], float(low), float(high)
    return found


def _means(weights: Floats, truth: Flags, told: Flags) -> dict[str, Floats]:
    """Return the figures with each row counted `weights` (samples, rows) times."""
    both, gold, said = (weights @ side.astype(np.float64) for side in (truth & told, truth, told))
    total = gold + said
    with np.errstate(all="ignore"):  # a division by zero gives NaN
        return {
            "micro_precision": both.sum(axis=1) / said.sum(axis=1),
            "micro_recall": both.sum(axis=1) / gold.sum(axis=1),
            "micro_f1": 2 * both.sum(axis=1) / total.sum(axis=1),
            "macro_f1": np.where(total > 0, 2 * both / total, 0.0).sum(axis=1) / (total > 0).sum(axis=1),
        }
