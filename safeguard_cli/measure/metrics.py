"""Figures of a labeling against a golden set, with 95 % intervals if there are enough rows.

A share has the interval of Clopper and Pearson, which never promises too much: a decision may hang on it. In tables by
slice, which are there to be looked along, it has Wilson's, which is shorter. The other figures are resampled if each
side has enough rows for a resample to tell anything. A figure divided by zero is NaN, never 0.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli import errors
from safeguard_cli.measure.statistics import LEVEL, clopper_pearson, wilson

CALIBRATION_BINS = 10
RESAMPLES = 1000
ENOUGH = 10  # rows on either side: fewer, and resampling does not tell how far a figure can be trusted
MOST_UNDEFINED = 0.05  # of the resamples
ALIKE = 1e-9  # how far rounding alone spreads the resamples of a figure that never moves
METHODS = {
    "shares": "Clopper-Pearson",
    "slices": "Wilson",
    "other figures": f"percentile bootstrap, {RESAMPLES} resamples, from {ENOUGH} rows on either side on",
}
AT_ONCE = 1 << 20  # weights in memory at a time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SHARES = (
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "sensitivity",
    "false_positive_rate",
    "false_negative_rate",
)  # the figures that are shares of rows, those of each label apart
_GRADE = re.compile(r"(?P<name>.*?)(?P<grade>\d{1,3})")


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
    violating: Flags
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
    def truth(self) -> Flags:
        """By row, whether the right label violates."""
        bad = np.array([label in self.violates for label in self.labels], np.bool_)
        truth: Flags = bad[self.gold]
        return truth

    @property
    def right(self) -> Flags:
        same: Flags = self.gold == self.said
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
    label. The Brier score, the calibration error, AUROC and average precision are of p_violates. Only labels that are
    grades have a `weighted_kappa`.
    """
    with sklearn() as metrics:
        labels = range(len(outcomes.labels))
        truth, p = outcomes.truth, outcomes.p_violates
        both = 0 < truth.sum() < len(truth)
        two_labels = len(set(outcomes.gold)) > 1 and len(set(outcomes.said)) > 1
        found = {
            **dict.fromkeys(SHARES, math.nan),
            "f1": math.nan,
            **dict(zip(("macro_f1", "weighted_f1"), _mean_f1(confusion(outcomes)), strict=True)),
            "kappa": metrics.cohen_kappa_score(outcomes.gold, outcomes.said, labels=labels),
            "mcc": metrics.matthews_corrcoef(outcomes.gold, outcomes.said) if two_labels else math.nan,
            "auroc": metrics.roc_auc_score(truth, p) if both else math.nan,
            "average_precision": metrics.average_precision_score(truth, p) if both else math.nan,
            "brier": metrics.brier_score_loss(truth, p, pos_label=True),
            "calibration_error": calibration_error(truth, p),
        }
    if steps := grades(outcomes):
        found["weighted_kappa"] = _weighted_kappa(np.array(confusion(outcomes), np.float64), steps)
    for name, (count, total) in shares(outcomes).items():
        found[name] = count / total if total else math.nan
    for suffix, right, told in _sides(outcomes):
        of = int(right.sum() + told.sum())
        found[f"f1{suffix}"] = 2 * int((right & told).sum()) / of if of else math.nan
    return {name: float(value) for name, value in found.items()}


def shares(outcomes: Outcomes) -> dict[str, tuple[int, int]]:
    """Return the figures that are shares of rows, each as (how many, of how many)."""
    found = {"accuracy": (int(outcomes.right.sum()), len(outcomes))}
    for name, (counted, among) in _rates(outcomes).items():
        found[name] = int((counted & among).sum()), int(among.sum())
    for suffix, right, told in _sides(outcomes):
        both = int((right & told).sum())
        found[f"precision{suffix}"] = both, int(told.sum())
        found[f"recall{suffix}"] = both, int(right.sum())
    return found


def _rates(outcomes: Outcomes) -> dict[str, tuple[Flags, Flags]]:
    """Return the shares of one side of the gold: which rows are counted, and among which.

    Sensitivity is another name for the recall of violating; a rate of errors is 1 less the share that is right.
    """
    bad, told = outcomes.truth, outcomes.violating
    return {
        "specificity": (~told, ~bad),
        "sensitivity": (told, bad),
        "false_positive_rate": (told, ~bad),
        "false_negative_rate": (~told, bad),
    }


def _sides(outcomes: Outcomes) -> list[tuple[str, Flags, Flags]]:
    """Return for violating and for each label: its figures' suffix, where it is right, and where it is said."""
    labels = enumerate(outcomes.labels)
    each = [(f":{label}", outcomes.gold == i, outcomes.said == i) for i, label in labels]
    return [("", outcomes.truth, outcomes.violating), *each]


def calibration_bins(truth: Flags, p: Floats) -> list[tuple[int, float, float]]:
    """Return per tenth of p_violates that has rows: how many, their mean p_violates, the share that violates."""
    at = _bins(p)
    masks = (at == i for i in range(CALIBRATION_BINS))
    return [(int(mask.sum()), float(p[mask].mean()), float(truth[mask].mean())) for mask in masks if mask.any()]


def _bins(p: Floats) -> Ints:
    return np.minimum((p * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(truth: Flags, p: Floats) -> float:
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
    if name in ("kappa", "mcc", "macro_f1", "weighted_f1", "weighted_kappa"):
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
        found = {
            "accuracy": hits / total,
            **{
                name: weights @ (counted & among) / (weights @ among)
                for name, (counted, among) in _rates(outcomes).items()
            },
            "kappa": (hits / total - chance / total**2) / (1 - chance / total**2),
            "mcc": np.where(spread > 0, (hits * total - chance) / spread, np.nan),
            "brier": weights @ (p - truth) ** 2 / total,
        }
        found["macro_f1"], found["weighted_f1"] = _mean_f1(table)
        if steps := grades(outcomes):
            found["weighted_kappa"] = _weighted_kappa(table, steps)
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


def slice_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a slice's share by Wilson (1927), for a table; NaN if there are no rows."""
    if not total:
        return math.nan, math.nan
    found = wilson(count, total)
    return found.low, found.high


def grades(outcomes: Outcomes) -> tuple[int, ...]:
    """Return how grave each label is, if labels are grades; empty if not.

    Grades are three labels or more of one name with numbers, as SP0 to SP4, of which the highest violate.
    """
    found = [_GRADE.fullmatch(label) for label in outcomes.labels]
    numbers = {one[0]: int(one["grade"]) for one in found if one}
    worst = sorted(numbers, key=numbers.__getitem__)[-len(outcomes.violates) :]
    is_scale = len(set(numbers.values())) == len(outcomes.labels) >= 3 and set(worst) == set(outcomes.violates)
    return tuple(numbers.values()) if is_scale and len({one["name"] for one in found if one}) == 1 else ()


def distances(outcomes: Outcomes) -> dict[int, int]:
    """Return for labels that are grades how many rows were said so far from the right one; below 0 is too mild."""
    steps = np.array(grades(outcomes), np.int64)
    if not len(steps):
        return {}
    far, counts = np.unique(steps[outcomes.said] - steps[outcomes.gold], return_counts=True)
    return dict(zip(far.tolist(), counts.tolist(), strict=True))


def _weighted_kappa(table: Any, steps: Sequence[int]) -> Any:
    """Return Cohen's weighted kappa (1968) of confusion matrices: a label two grades off counts four times as wrong."""
    wrong = np.subtract.outer(np.array(steps, np.float64), np.array(steps, np.float64)) ** 2
    total = table.sum(axis=(-2, -1))
    chance = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
    with np.errstate(all="ignore"):
        return 1 - (table * wrong).sum(axis=(-2, -1)) * total / (chance * wrong).sum(axis=(-2, -1))


def _mean_f1(table: Any) -> tuple[Any, Any]:
    """Return the macro F1 and the weighted F1 of confusion matrices: over labels that are right or said in any row."""
    table = np.asarray(table, np.float64)
    gold, said = table.sum(axis=-1), table.sum(axis=-2)
    known = gold + said > 0
    f1 = 2 * np.diagonal(table, axis1=-2, axis2=-1) / np.where(known, gold + said, 1)
    return f1.sum(axis=-1) / known.sum(axis=-1), (f1 * gold).sum(axis=-1) / gold.sum(axis=-1)


def confusion(outcomes: Outcomes) -> list[list[int]]:
    """Return the confusion matrix: rows are the right labels, columns the verdicts', in the policy's order."""
    with sklearn() as metrics:
        matrix = metrics.confusion_matrix(outcomes.gold, outcomes.said, labels=range(len(outcomes.labels)))
    return [[int(count) for count in row] for row in matrix]


def multi_policy_accuracy(right: Iterable[Sequence[bool]]) -> tuple[int, int]:
    """Return on how many rows every policy's label is right, and of how many: `right` holds each row's policies."""
    rows = [all(row) for row in right]
    return sum(rows), len(rows)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return McNemar's exact two-sided p: how likely so lopsided a split of the rows is if A and B are equally good."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def agreement(a: Sequence[str], b: Sequence[str]) -> tuple[float, float]:
    """Return the share of equal labels, and Cohen's kappa (NaN when both have only one label)."""
    with sklearn() as metrics:
        return float(np.mean([x == y for x, y in zip(a, b, strict=True)])), float(metrics.cohen_kappa_score(a, b))
