"""Figures of a labeling against a golden set: scikit-learn computes them, resampling gives their intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli.errors import SafeguardError

CALIBRATION_BINS = 10
SURE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LEVEL = 0.95
RESAMPLES = 1000
AT_ONCE = 1 << 20  # weights held at a time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What was right and what was said, row by row, under one policy.

    `gold` and `said` are indices into `labels`; `violating` is what the verdict made of p_violates, threshold included.
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
        """Whether the right label violates."""
        bad = np.array([label in self.violates for label in self.labels], np.bool_)
        truth: npt.NDArray[np.bool_] = bad[self.gold]
        return truth

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = self.gold == self.said
        return same

    def take(self, rows: npt.NDArray[Any]) -> Outcomes:
        """The rows at these indices, or under this mask."""
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
    """scikit-learn, quick and quiet: what a sample cannot tell comes out as NaN, without a warning each time."""
    try:
        import sklearn as package
        import sklearn.metrics
    except ImportError:
        raise SafeguardError("measuring needs scikit-learn: pip install 'safeguard-cli[eval]'") from None
    with (
        package.config_context(assume_finite=True, skip_parameter_validation=True),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield package.metrics


def figures(outcomes: Outcomes) -> dict[str, float]:
    """All figures by name; NaN where the rows cannot tell, such as AUROC when all of them violate.

    `precision`, `recall` and `f1` are those of violating, `precision:LABEL` and so on those of each label. The Brier
    score, the calibration error, AUROC and average precision are of p_violates.
    """
    with sklearn() as metrics:
        labels = range(len(outcomes.labels))
        truth, p = outcomes.truth, outcomes.p_violates
        binary = metrics.precision_recall_fscore_support(
            truth, outcomes.violating, average="binary", pos_label=True, zero_division=0
        )
        each = metrics.precision_recall_fscore_support(outcomes.gold, outcomes.said, labels=labels, zero_division=0)
        both = 0 < truth.sum() < len(truth)
        found = {
            "accuracy": metrics.accuracy_score(outcomes.gold, outcomes.said),
            "precision": binary[0],
            "recall": binary[1],
            "f1": binary[2],
            "kappa": metrics.cohen_kappa_score(outcomes.gold, outcomes.said, labels=labels),
            "mcc": metrics.matthews_corrcoef(outcomes.gold, outcomes.said),
            "auroc": metrics.roc_auc_score(truth, p) if both else math.nan,
            "average_precision": metrics.average_precision_score(truth, p) if both else math.nan,
            "brier": metrics.brier_score_loss(truth, p, pos_label=True),
            "calibration_error": calibration_error(truth, p),
        }
        for i, label in enumerate(outcomes.labels):
            for name, values in zip(("precision", "recall", "f1"), each[:3], strict=True):
                found[f"{name}:{label}"] = values[i]
    return {name: float(value) for name, value in found.items()}


def calibration_bins(truth: npt.NDArray[np.bool_], p: Floats) -> list[tuple[int, float, float]]:
    """Per tenth of p_violates that has rows: how many, their mean p_violates, the share that violates."""
    at = _bins(p)
    masks = (at == i for i in range(CALIBRATION_BINS))
    return [(int(mask.sum()), float(p[mask].mean()), float(truth[mask].mean())) for mask in masks if mask.any()]


def _bins(p: Floats) -> Ints:
    return np.minimum((p * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(truth: npt.NDArray[np.bool_], p: Floats) -> float:
    """Expected calibration error over ten equal bins (Naeini et al. 2015), which scikit-learn does not have."""
    return sum(n * abs(mean - share) for n, mean, share in calibration_bins(truth, p)) / max(len(p), 1)


def intervals(outcomes: Outcomes, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of all figures: rows drawn with replacement, `resamples` times."""
    rows, rng = len(outcomes), np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {}
    step = max(1, AT_ONCE // rows)
    for begin in range(0, resamples, step):
        weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=min(step, resamples - begin))
        for name, values in weighted_figures(outcomes, weights.astype(np.float64)).items():
            drawn.setdefault(name, []).append(values)
    found = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        known = values[~np.isnan(values)]
        low, high = np.percentile(known, (50 * (1 - LEVEL), 50 * (1 + LEVEL))) if len(known) else (math.nan, math.nan)
        found[name] = (float(low), float(high))
    return found


def weighted_figures(outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """What `figures` gives when each row counts as often as `weights` (samples, rows) says, for all samples at once.

    scikit-learn takes 10 ms and more a sample, a thousand samples of every figure here as much together.
    """
    k, truth, p = len(outcomes.labels), outcomes.truth, outcomes.p_violates
    total = weights.sum(axis=1)
    pairs = np.eye(k * k)[outcomes.gold * k + outcomes.said]
    table = (weights @ pairs).reshape(-1, k, k)
    hits, gold, said = np.trace(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1)
    chance = (gold * said).sum(axis=1)
    with np.errstate(all="ignore"):
        spread = np.sqrt(total**2 - (said**2).sum(axis=1)) * np.sqrt(total**2 - (gold**2).sum(axis=1))
        found = {
            "accuracy": hits / total,
            "kappa": (hits / total - chance / total**2) / (1 - chance / total**2),
            "mcc": np.where(spread > 0, (hits * total - chance) / spread, 0.0),
            "brier": weights @ (p - truth) ** 2 / total,
        }
        sides = [("", truth, outcomes.violating)]
        sides += [(f":{label}", outcomes.gold == i, outcomes.said == i) for i, label in enumerate(outcomes.labels)]
        for suffix, right, told in sides:
            both, n_right, n_told = weights @ (right & told), weights @ right, weights @ told
            found[f"precision{suffix}"] = np.where(n_told > 0, both / n_told, 0.0)
            found[f"recall{suffix}"] = np.where(n_right > 0, both / n_right, 0.0)
            found[f"f1{suffix}"] = np.where(n_right + n_told > 0, 2 * both / (n_right + n_told), 0.0)
        bins = np.eye(CALIBRATION_BINS)[_bins(p)]
        found["calibration_error"] = np.abs((weights * (p - truth)) @ bins).sum(axis=1) / total
        # Down the distinct values of p_violates: what violates and what does not at or above each of them.
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
    """95 % Wilson interval of a share; right for small slices too, where resampling would say 1.0 to 1.0."""
    from scipy.stats import binomtest  # comes with scikit-learn

    found = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def confusion(outcomes: Outcomes) -> list[list[int]]:
    """Rows are the right labels, columns what was said, in the policy's order."""
    with sklearn() as metrics:
        matrix = metrics.confusion_matrix(outcomes.gold, outcomes.said, labels=range(len(outcomes.labels)))
    return [[int(count) for count in row] for row in matrix]


def multi_policy_accuracy(right: Iterable[Sequence[bool]]) -> tuple[int, int]:
    """Rows on which every policy's label is right, of all: `right` holds each row's policies."""
    rows = [all(row) for row in right]
    return sum(rows), len(rows)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A p_violates from which on a row violates, with what it gives on these rows."""

    threshold: float
    precision: float
    recall: float


def find_threshold(outcomes: Outcomes, wanted: str, value: float) -> Threshold | None:
    """The threshold of highest recall whose precision is at least `value`, or the other way round; None if none is."""
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
    """What `--effort auto --sure` would give: rows at least so sure without reasoning keep that label."""

    sure: float
    at_once: float  # share of rows
    accuracy: float
    agreement: float  # with full reasoning


def sure_table(quick: Outcomes, full: Outcomes) -> list[Sure]:
    """One line per candidate, from the labels of effort none (`quick`) and those of full reasoning (`full`)."""
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
    """Exact two-sided p of McNemar's test: how likely so lopsided a split of the rows is if A and B are as good."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def agreement(a: Sequence[str], b: Sequence[str]) -> tuple[float, float]:
    """The share of equal labels, and Cohen's kappa (NaN when there is one label only)."""
    with sklearn() as metrics:
        return float(np.mean([x == y for x, y in zip(a, b, strict=True)])), float(metrics.cohen_kappa_score(a, b))
