"""How far people agree on labels: raw agreement, Cohen's kappa, Gwet's AC1, Krippendorff's alpha, with 95 % intervals.

Each figure is 1 - d / e: the disagreement that was seen, d, over the one that chance alone would give, e (1 for raw
agreement). d and e are worked out from sums over rows, so that leaving a row out is a subtraction.

An interval is never narrower than the rows allow: where all agree, the spread of the rows is 0, but 7 of 7 is no proof
of 1.000. So raw agreement has the interval of Clopper and Pearson, and the others the jackknife's (Student's t, rows
left out one by one; Efron and Stein 1981), widened to what raw agreement's interval means at that e.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safeguard_cli.measure.statistics import LEVEL, clopper_pearson

METHODS = {
    "raw_agreement": "Clopper-Pearson",
    "other figures": "jackknife over rows, no narrower than Clopper-Pearson of the raw agreement allows",
}

Floats = npt.NDArray[np.float64]
Labels = Sequence[Sequence[str | None]]  # of each row, one of each person in the same order; None: no answer
_Parts = Callable[[Floats], tuple[Floats, Floats]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """A figure with its interval, from `rows` rows that two people or more labelled; NaN if rows cannot tell."""

    value: float
    low: float
    high: float
    rows: int


def raw_agreement(labels: Labels, level: float = LEVEL) -> Agreement:
    """Return the share of pairs of people who give a row the same label, averaged over the rows."""
    counts = _counts(labels)
    pairs = counts[counts.sum(axis=1) >= 2]
    if not len(pairs):
        return _unknown(0)
    agreed = float((1 - _differing(pairs)).sum())
    found = clopper_pearson(agreed, len(pairs), level)
    return Agreement(agreed / len(pairs), found.low, found.high, len(pairs))


def cohen_kappa(labels: Labels, level: float = LEVEL) -> Agreement:
    """Return the agreement of two people beyond that of two who answer at random, each as often (Cohen 1960).

    It is low, whatever people do, where one label is nearly all there is. NaN if both give one label only.
    """
    both = [(str(a), str(b)) for a, b in labels if a is not None and b is not None]
    names = sorted({label for pair in both for label in pair})
    size, index = len(names), {label: at for at, label in enumerate(names)}
    sums = np.zeros((len(both), size * size))
    for row, (a, b) in enumerate(both):
        sums[row, index[a] * size + index[b]] = 1

    def parts(total: Floats) -> tuple[Floats, Floats]:
        table = total.reshape(*total.shape[:-1], size, size)
        rows = total.sum(axis=-1)
        chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / rows**2
        return 1 - np.trace(table, axis1=-2, axis2=-1) / rows, 1 - chance

    return _figure(sums, parts, len(both), level)


def gwet_ac1(labels: Labels, level: float = LEVEL) -> Agreement:
    """Return Gwet's AC1 (2008; with answers missing, 2014): chance counts only where a row is hard to tell.

    It stays sound where one label is nearly all there is. Labels that nobody gave count for nothing, but two at least
    there must have been.
    """
    counts = _counts(labels)
    counts = counts[counts.sum(axis=1) >= 1]
    given = counts.sum(axis=1)
    pairs = given >= 2
    size = max(2, counts.shape[1])
    shares = counts / given[:, None]
    differing = np.where(pairs, _differing(counts), 0.0)
    sums = np.column_stack([differing, pairs, np.ones(len(counts)), shares])

    def parts(total: Floats) -> tuple[Floats, Floats]:
        mean = total[..., 3:] / total[..., 2:3]
        chance = (mean * (1 - mean)).sum(axis=-1) / (size - 1)
        return total[..., 0] / total[..., 1], 1 - chance

    return _figure(sums, parts, int(pairs.sum()), level)


def krippendorff_alpha(labels: Labels, level: float = LEVEL) -> Agreement:
    """Return Krippendorff's alpha for names (2011), for any number of people and with answers missing.

    NaN if only one label was given.
    """
    counts = _counts(labels)
    counts = counts[counts.sum(axis=1) >= 2]
    given = counts.sum(axis=1)
    sums = np.column_stack([given * _differing(counts), counts])

    def parts(total: Floats) -> tuple[Floats, Floats]:
        each = total[..., 1:]
        n = each.sum(axis=-1)
        return total[..., 0] / n, (n**2 - (each**2).sum(axis=-1)) / (n * (n - 1))

    return _figure(sums, parts, len(counts), level)


def _counts(labels: Labels) -> Floats:
    """Return how many people gave each row (first axis) each label."""
    names = sorted({label for row in labels for label in row if label is not None})
    index = {label: at for at, label in enumerate(names)}
    counts = np.zeros((len(labels), len(names)))
    for at, row in enumerate(labels):
        for label in row:
            if label is not None:
                counts[at, index[label]] += 1
    return counts


def _differing(counts: Floats) -> Floats:
    """Return by row the share of pairs of people who give it different labels."""
    given = counts.sum(axis=1)
    pairs: Floats = np.maximum(given * (given - 1), 1)
    same: Floats = (counts * (counts - 1)).sum(axis=1)
    return 1 - same / pairs


def _figure(sums: Floats, parts: _Parts, rows: int, level: float) -> Agreement:
    """Return 1 - d / e of the sums of all rows, with its interval; `rows` of them have two labels or more."""
    if not rows:
        return _unknown(0)
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        seen, chance = (float(part) for part in parts(total))
        if not chance > 0:
            return _unknown(rows)
        without_each = parts(total - sums)
        values = 1 - without_each[0] / without_each[1]
    value = 1 - seen / chance
    exact = clopper_pearson((1 - seen) * rows, rows, level)
    low, high = 1 - (1 - exact.low) / chance, 1 - (1 - exact.high) / chance
    known = values[np.isfinite(values)]
    if len(known) > 1:
        from scipy.stats import t

        n = len(known)
        half = float(t.ppf((1 + level) / 2, n - 1)) * math.sqrt(
            (n - 1) / n * float(((known - known.mean()) ** 2).sum())
        )
        low, high = min(low, value - half), max(high, value + half)
    return Agreement(value, max(low, -1.0), min(high, 1.0), rows)


def _unknown(rows: int) -> Agreement:
    return Agreement(math.nan, math.nan, math.nan, rows)
