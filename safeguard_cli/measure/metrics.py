"""Figures of a labeling against a golden set, with 95 % intervals if there are enough rows.

A share has the interval of Clopper and Pearson, which never promises too much. The other figures are resampled if each
side has enough rows for a resample to tell anything. A figure divided by zero is NaN, never 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli import errors
from safeguard_cli.measure.statistics import LEVEL, clopper_pearson

CALIBRATION_BINS = 10
SURE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
RESAMPLES = 1000
ENOUGH = 10  # rows on either side: fewer, and resampling does not tell how far a figure can be trusted
MOST_UNDEFINED = 0.05  # of the resamples
ALIKE = 1e-9  # how far rounding alone spreads the resamples of a figure that never moves
METHODS = {
    "shares": "Clopper-Pearson",
    "other figures": f"percentile bootstrap, {RESAMPLES} resamples, from {ENOUGH} rows on either side on",
}
AT_ONCE = 1 << 20  # weights in memory at a time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The right label and the verdict of each row, under one policy.

    `gold` and `said` (the verdict's label) are indices into `labels`; `violating` is the verdict's `violates`, by the
    threshold if there is one.
    """

    labels: tuple[str, ...]
    violates: tuple[str, ...]
    gold: Ints
    said: Ints
    violating: npt.NDArray[np.bool_]
    p_violates: Floats

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        violates: Sequence[str],
        gold: Sequence[str],
        said: Sequence[str],
        violating: Sequence[bool],
        p_violates: Sequence[float],
    ) -> Outcomes:
        index = {label: i for i, label in enumerate(labels)}
        return cls(
            tuple(labels),
            tuple(violates),
            np.array([index[label] for label in gold], np.int64),
            np.array([index[label] for label in said], np.int64),
            np.array(violating, np.bool_),
            np.array(p_violates, np.float64),
        )

    def __len__(self) -> int:
        return len(self.gold)

    @property
    def truth(self) -> npt.NDArray[np.bool_]:
        """By row, whether the right label violates."""
        bad = np.array([label in self.violates for label in self.labels], np.bool_)
        truth: npt.NDArray[np.bool_] = bad[self.gold]
        return truth

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = self.gold == self.said
        return same

    def take(self, rows: npt.NDArray[Any]) -> Outcomes:
        """Return the rows at these indices, or under this mask."""
        return Outcomes(
            self.labels,
            self.violates,
            self.gold[rows],
            self.said[rows],
            self.violating[rows],
            self.p_violates[rows],
        )


@contextmanager
def sklearn() -> Iterator[Any]:
    """Provide scikit-learn, fast and quiet: what a sample cannot tell becomes NaN, without a warning each time."""
    try:
        import sklearn as package
        import sklearn.metrics
    except ImportError:
        raise errors.missing_extra("measuring needs scikit-learn", "eval") from None
    with (
        package.config_context(assume_finite=True, skip_parameter_validation=True),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield package.metrics


def figures(outcomes: Outcomes) -> dict[str, float]:
    """Return all figures by name; NaN if a figure is not defined, such as AUROC when all rows violate.

    `precision`, `recall`, `specificity` and `f1` are those of violating, `precision:LABEL` and so on those of each
    label. The Brier score, the calibration error, AUROC and average precision are of p_violates.
    """
    with sklearn() as metrics:
        labels = range(len(outcomes.labels))
        truth, p = outcomes.truth, outcomes.p_violates
        both = 0 < truth.sum() < len(truth)
        two_labels = len(set(outcomes.gold)) > 1 and len(set(outcomes.said)) > 1
        found = {
            "accuracy": math.nan,
            "precision": math.nan,
            "recall": math.nan,
            "specificity": math.nan,
            "f1": math.nan,
            "kappa": metrics.cohen_kappa_score(outcomes.gold, outcomes.said, labels=labels),
            "mcc": metrics.matthews_corrcoef(outcomes.gold, outcomes.said) if two_labels else math.nan,
            "auroc": metrics.roc_auc_score(truth, p) if both else math.nan,
            "average_precision": metrics.average_precision_score(truth, p) if both else math.nan,
            "brier": metrics.brier_score_loss(truth, p, pos_label=True),
            "calibration_error": calibration_error(truth, p),
        }
    for name, (count, total) in shares(outcomes).items():
        found[name] = count / total if total else math.nan
    for suffix, right, told in _sides(outcomes):
        of = int(right.sum() + told.sum())
        found[f"f1{suffix}"] = 2 * int((right & told).sum()) / of if of else math.nan
    return {name: float(value) for name, value in found.items()}


def shares(outcomes: Outcomes) -> dict[str, tuple[int, int]]:
    """Return the figures that are shares of rows, each as (how many, of how many)."""
    safe, called_safe = ~outcomes.truth, ~outcomes.violating
    found = {
        "accuracy": (int(outcomes.right.sum()), len(outcomes)),
        "specificity": (int((safe & called_safe).sum()), int(safe.sum())),
    }
    for suffix, right, told in _sides(outcomes):
        both = int((right & told).sum())
        found[f"precision{suffix}"] = both, int(told.sum())
        found[f"recall{suffix}"] = both, int(right.sum())
    return found


def _sides(outcomes: Outcomes) -> list[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Return for violating and for each label: its figures' suffix, where it is right, and where it is said."""
    labels = enumerate(outcomes.labels)
    each = [(f":{label}", outcomes.gold == i, outcomes.said == i) for i, label in labels]
    return [("", outcomes.truth, outcomes.violating), *each]


def calibration_bins(truth: npt.NDArray[np.bool_], p: Floats) -> list[tuple[int, float, float]]:
    """Return per tenth of p_violates that has rows: how many, their mean p_violates, the share that violates."""
    at = _bins(p)
    masks = (at == i for i in range(CALIBRATION_BINS))
    return [(int(mask.sum()), float(p[mask].mean()), float(truth[mask].mean())) for mask in masks if mask.any()]


def _bins(p: Floats) -> Ints:
    return np.minimum((p * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(truth: npt.NDArray[np.bool_], p: Floats) -> float:
    """Return the expected calibration error over ten equal bins (Naeini et al. 2015), which scikit-learn lacks."""
    return sum(n * abs(mean - share) for n, mean, share in calibration_bins(truth, p)) / max(len(p), 1)


def intervals(outcomes: Outcomes, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of all figures: exact ones of shares, percentile bootstrap intervals of the others.

    NaN if a figure has none: too few rows on a side, or resamples that are all alike.
    """
    found = {name: share_interval(count, total) for name, (count, total) in shares(outcomes).items()}
    return found | _resampled(outcomes, {name for name in figures(outcomes) if name not in found}, resamples, seed)


def _resampled(outcomes: Outcomes, names: set[str], resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Draw rows with replacement, `resamples` times, and return how far the figures `names` move."""
    rows, rng = len(outcomes), np.random.default_rng(seed)
    able = {name for name in names if _enough(outcomes, name)}
    drawn: dict[str, list[Floats]] = {name: [] for name in able}
    step = max(1, AT_ONCE // rows)
    for begin in range(0, resamples if able else 0, step):
        weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=min(step, resamples - begin))
        figures_of = weighted_figures(outcomes, weights.astype(np.float64))
        for name in able:
            drawn[name].append(figures_of[name])
    found = dict.fromkeys(names, (math.nan, math.nan))
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        known = values[~np.isnan(values)]
        if len(known) >= (1 - MOST_UNDEFINED) * len(values) and np.ptp(known) > ALIKE:
            low, high = np.percentile(known, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
            found[name] = (float(low), float(high))
    return found


def _enough(outcomes: Outcomes, name: str) -> bool:
    """Return whether each side that a figure tells apart has enough rows to draw from."""
    rows = len(outcomes)
    if name in ("brier", "calibration_error"):
        return rows >= 2 * ENOUGH
    if name in ("kappa", "mcc"):
        most = int(np.bincount(outcomes.gold).max())
        return min(most, rows - most) >= ENOUGH
    sides = {f"f1{suffix}": right for suffix, right, _ in _sides(outcomes)}
    right = int(sides.get(name, outcomes.truth).sum())
    return min(right, rows - right) >= ENOUGH


def weighted_figures(outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """Return `figures` with each row counted `weights` (samples, rows) times, for all samples at once.

    scikit-learn takes 10 ms or more a sample; here a thousand samples of every figure take as much together.
    """
    k, truth, p = len(outcomes.labels), outcomes.truth, outcomes.p_violates
    total = weights.sum(axis=1)
    pairs = np.eye(k * k)[outcomes.gold * k + outcomes.said]
    table = (weights @ pairs).reshape(-1, k, k)
    hits, gold, said = np.trace(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1)
    chance = (gold * said).sum(axis=1)
    with np.errstate(all="ignore"):  # a division by zero gives NaN
        spread = np.sqrt(total**2 - (said**2).sum(axis=1)) * np.sqrt(total**2 - (gold**2).sum(axis=1))
        safe, called_safe = ~truth, ~outcomes.violating
        found = {
            "accuracy": hits / total,
            "specificity": weights @ (safe & called_safe) / (weights @ safe),
            "kappa": (hits / total - chance / total**2) / (1 - chance / total**2),
            "mcc": np.where(spread > 0, (hits * total - chance) / spread, np.nan),
            "brier": weights @ (p - truth) ** 2 / total,
        }
        for suffix, right, told in _sides(outcomes):
            both, n_right, n_told = weights @ (right & told), weights @ right, weights @ told
            found[f"precision{suffix}"] = both / n_told
            found[f"recall{suffix}"] = both / n_right
            found[f"f1{suffix}"] = 2 * both / (n_right + n_told)
        bins = np.eye(CALIBRATION_BINS)[_bins(p)]
        found["calibration_error"] = np.abs((weights * (p - truth)) @ bins).sum(axis=1) / total
        # At each distinct value of p_violates, from the highest down: the rows at or above it that violate, and those
        # that do not.
        order = np.argsort(-p, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
        above, below = ((weights * side)[:, order].cumsum(axis=1)[:, ends] for side in (truth, ~truth))
        yes, no = np.diff(above, prepend=0.0), np.diff(below, prepend=0.0)
        n_yes, n_no = above[:, -1], below[:, -1]
        known = (n_yes > 0) & (n_no > 0)
        found["auroc"] = np.where(known, (no * (above - yes / 2)).sum(axis=1) / (n_yes * n_no), np.nan)
        precision = np.where(above + below > 0, above / (above + below), 0.0)
        found["average_precision"] = np.where(known, (yes * precision).sum(axis=1) / n_yes, np.nan)
    return found


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Clopper and Pearson (1934), which is exact; NaN if there are no rows."""
    if not total:
        return math.nan, math.nan
    found = clopper_pearson(count, total)
    return found.low, found.high


def confusion(outcomes: Outcomes) -> list[list[int]]:
    """Return the confusion matrix: rows are the right labels, columns the verdicts', in the policy's order."""
    with sklearn() as metrics:
        matrix = metrics.confusion_matrix(outcomes.gold, outcomes.said, labels=range(len(outcomes.labels)))
    return [[int(count) for count in row] for row in matrix]


def multi_policy_accuracy(right: Iterable[Sequence[bool]]) -> tuple[int, int]:
    """Return on how many rows every policy's label is right, and of how many: `right` holds each row's policies."""
    rows = [all(row) for row in right]
    return sum(rows), len(rows)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least p_violates at which a row violates, with the precision and recall it gives on these rows."""

    threshold: float
    precision: float
    recall: float


def find_threshold(outcomes: Outcomes, wanted: str, value: float) -> Threshold | None:
    """Return the threshold of highest recall with a precision of at least `value`, or the other way round.

    None if there is no such threshold, or if no row violates: there is nothing to find then.
    """
    if not outcomes.truth.any():
        return None
    with sklearn() as metrics:
        precision, recall, at = metrics.precision_recall_curve(outcomes.truth, outcomes.p_violates)
    curve = [Threshold(float(t), float(p), float(r)) for p, r, t in zip(precision, recall, at, strict=False)]
    if wanted == "precision":
        fitting = [point for point in curve if point.precision >= value and point.recall > 0]
        return max(fitting, key=lambda point: (point.recall, point.precision), default=None)
    fitting = [point for point in curve if point.recall >= value]
    return max(fitting, key=lambda point: (point.precision, point.threshold), default=None)


@dataclass(frozen=True, slots=True)
class Sure:
    """What `--effort auto --sure` would give: rows that are at least so sure without reasoning keep that label."""

    sure: float
    at_once: float  # share of rows
    accuracy: float
    agreement: float  # with full reasoning


def sure_table(quick: Outcomes, full: Outcomes) -> list[Sure]:
    """Return one line per candidate, from the labels of effort none (`quick`) and of full reasoning (`full`)."""
    certainty = np.maximum(quick.p_violates, 1 - quick.p_violates)
    found = []
    for sure in SURE:
        at_once = certainty >= sure
        said = np.where(at_once, quick.said, full.said)
        found.append(
            Sure(sure, float(at_once.mean()), float((said == full.gold).mean()), float((said == full.said).mean()))
        )
    return found


def mcnemar(only_a: int, only_b: int) -> float:
    """Return McNemar's exact two-sided p: how likely so lopsided a split of the rows is if A and B are equally good."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def agreement(a: Sequence[str], b: Sequence[str]) -> tuple[float, float]:
    """Return the share of equal labels, and Cohen's kappa (NaN when both have only one label)."""
    with sklearn() as metrics:
        return float(np.mean([x == y for x, y in zip(a, b, strict=True)])), float(metrics.cohen_kappa_score(a, b))
