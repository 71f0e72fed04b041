"""The figures: scikit-learn's on any labels, within their intervals; hand-worked cases for what it lacks."""

from __future__ import annotations

import math
from collections import Counter
from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from helpers import ROOT
from sklearn import metrics as sk

from safeguard_cli.measure.metrics import (
    Outcomes,
    agreement,
    calibration_error,
    confusion,
    distances,
    figures,
    grades,
    intervals,
    mcnemar,
    multi_policy_accuracy,
    share_interval,
    slice_interval,
    weighted_figures,
)
from safeguard_cli.measure.shown import FIGURES

LABELS = ("ham", "spam", "worse")


def outcomes(rows: list[tuple[str, str, float]], labels: tuple[str, ...] = LABELS) -> Outcomes:
    gold, said, p = zip(*rows, strict=True)
    return Outcomes.of(labels, labels[1:], gold, said, [label != "ham" for label in said], p)


any_rows = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
    min_size=2,
    max_size=40,
)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=40)
@given(any_rows)
def test_figures_equal_scikit_learn(rows) -> None:
    gold, said, p = zip(*rows, strict=True)
    truth, told = [label != "ham" for label in gold], [label != "ham" for label in said]
    found = figures(outcomes(rows))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(gold, said))
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(gold, said, labels=LABELS), nan_ok=True)
    both = len(set(gold)) > 1 and len(set(said)) > 1  # scikit-learn gives 0 for a division by 0
    assert found["mcc"] == (
        pytest.approx(sk.matthews_corrcoef(gold, said)) if both else pytest.approx(nan, nan_ok=True)
    )
    assert found["brier"] == pytest.approx(np.mean((np.array(p) - truth) ** 2))
    safe, called_safe = ([not value for value in side] for side in (truth, told))
    assert found["precision"] == pytest.approx(sk.precision_score(truth, told, zero_division=nan), nan_ok=True)
    assert found["recall"] == pytest.approx(sk.recall_score(truth, told, zero_division=nan), nan_ok=True)
    assert found["specificity"] == pytest.approx(sk.recall_score(safe, called_safe, zero_division=nan), nan_ok=True)
    assert found["f1"] == pytest.approx(sk.f1_score(truth, told, zero_division=nan), nan_ok=True)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(gold, said, average="macro"))
    assert found["weighted_f1"] == pytest.approx(sk.f1_score(gold, said, average="weighted"))
    other_names = {"sensitivity": 1 - found["false_negative_rate"], "recall": found["sensitivity"]}
    other_names["specificity"] = 1 - found["false_positive_rate"]
    assert {name: found[name] for name in other_names} == pytest.approx(other_names, nan_ok=True)
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        each = score(gold, said, labels=LABELS, average=None, zero_division=nan)
        assert [found[f"{name}:{label}"] for label in LABELS] == pytest.approx(list(each), nan_ok=True)
    if 0 < sum(truth) < len(truth):
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, p))
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, p))
    else:
        assert math.isnan(found["auroc"])
    assert confusion(outcomes(rows)) == sk.confusion_matrix(gold, said, labels=LABELS).tolist()


@settings(deadline=None, max_examples=40)
@given(any_rows, st.integers(0, 2**32 - 1))
def test_resampled_figures_are_the_figures_of_the_resampled_rows(rows, seed) -> None:
    whole = outcomes(rows)
    drawn = np.random.default_rng(seed).integers(len(rows), size=len(rows))
    weights = np.bincount(drawn, minlength=len(rows)).astype(float)
    quick = weighted_figures(whole, weights[None, :])
    for name, value in figures(whole.take(drawn)).items():
        assert quick[name][0] == pytest.approx(value, nan_ok=True, abs=1e-9), name


def test_intervals_hold_the_figure_and_repeat() -> None:
    rng = np.random.default_rng(1)
    rows = [("spam" if i % 2 else "ham", "spam" if rng.random() < 0.6 else "ham", rng.random()) for i in range(60)]
    whole = outcomes(rows, ("ham", "spam"))
    bounds = intervals(whole, 200)
    for name, value in figures(whole).items():
        low, high = bounds[name]
        assert low <= value + 1e-9, name
        assert high >= value - 1e-9, name
    assert bounds == intervals(whole, 200)


@settings(max_examples=60)
@given(st.integers(1, 300).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_share_s_interval_is_that_of_clopper_and_pearson(share) -> None:
    """Check the definition: at each end, a count at least this far off has a probability of 2.5 %."""
    from scipy.stats import binom

    count, total = share
    low, high = share_interval(count, total)
    assert low == 0 if count == 0 else binom.sf(count - 1, total, low) == pytest.approx(0.025)
    assert high == 1 if count == total else binom.cdf(count, total, high) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (1, 1, 0.025, 1),
        (7, 7, 0.025 ** (1 / 7), 1),
        (0, 300, 0, 1 - 0.025 ** (1 / 300)),
        (4, 20, 0.05733, 0.43661),  # published, as in Clopper and Pearson's charts and R's binom.test(4, 20)
        (81, 263, 0.2527, 0.3676),  # Newcombe (1998), table I, method 5
    ],
)
def test_share_intervals_known_from_elsewhere(count, total, low, high) -> None:
    assert share_interval(count, total) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_what_rows_cannot_tell_is_not_defined() -> None:
    safe = outcomes([("ham", "ham", 0.1)] * 7, ("ham", "spam"))
    found, bounds = figures(safe), intervals(safe)
    undefined = ("precision", "recall", "f1", "kappa", "mcc", "auroc", "average_precision")
    assert all(math.isnan(found[name]) for name in undefined)
    assert all(math.isnan(end) for name in undefined for end in bounds[name])
    assert [found[f"{name}:spam"] for name in ("precision", "recall", "f1")] == pytest.approx([nan] * 3, nan_ok=True)
    assert (found["accuracy"], found["specificity"], found["recall:ham"]) == (1, 1, 1)
    for name in ("accuracy", "specificity", "recall:ham", "precision:ham"):
        assert bounds[name] == (pytest.approx(0.025 ** (1 / 7)), 1)


def test_a_violating_row_that_is_missed_makes_recall_0_and_leaves_precision_open() -> None:
    found = figures(outcomes([("spam", "ham", 0.1), ("ham", "ham", 0.2)], ("ham", "spam")))
    assert (found["recall"], found["f1"]) == (0, 0)
    assert math.isnan(found["precision"])


def test_resampling_takes_ten_rows_on_either_side_and_figures_that_move() -> None:
    few = [("spam", "spam", 0.9)] * 8 + [("spam", "ham", 0.4)] + [("ham", "spam", 0.6)] * 3 + [("ham", "ham", 0.2)] * 9
    resampled = ("f1", "f1:spam", "kappa", "mcc", "auroc", "average_precision")
    bounds = intervals(outcomes(few, ("ham", "spam")), 200)
    assert all(math.isnan(bounds[name][0]) for name in resampled)
    bounds = intervals(outcomes([*few, ("spam", "ham", 0.3)], ("ham", "spam")), 200)
    assert all(bounds[name][0] < bounds[name][1] for name in resampled)
    perfect = intervals(outcomes([("spam", "spam", 1.0)] * 20 + [("ham", "ham", 0.0)] * 20, ("ham", "spam")), 200)
    assert all(math.isnan(perfect[name][0]) for name in (*resampled, "brier", "calibration_error"))
    assert perfect["recall"] == (pytest.approx(0.025 ** (1 / 20)), 1)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=40)
@given(any_rows, st.integers(0, 2**32 - 1))
def test_weighted_kappa_of_grades_equals_scikit_learn_and_resamples(rows, seed) -> None:
    names = {"ham": "SP0", "spam": "SP1", "worse": "SP4"}
    grades_of = {"SP0": 0, "SP1": 1, "SP4": 4}
    rows = [(names[gold], names[said], p) for gold, said, p in rows]
    whole = outcomes(rows, tuple(grades_of))
    numbers = [[grades_of[row[side]] for row in rows] for side in (0, 1)]
    expected = sk.cohen_kappa_score(*numbers, labels=range(5), weights="quadratic")
    assert figures(whole)["weighted_kappa"] == pytest.approx(expected, nan_ok=True)
    counted = Counter(said - gold for gold, said in zip(*numbers, strict=True))
    assert distances(whole) == dict(counted)
    drawn = np.random.default_rng(seed).integers(len(rows), size=len(rows))
    weights = np.bincount(drawn, minlength=len(rows)).astype(float)
    quick = weighted_figures(whole, weights[None, :])["weighted_kappa"][0]
    assert quick == pytest.approx(figures(whole.take(drawn))["weighted_kappa"], nan_ok=True, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "violates", "found"),
    [
        (("SP0", "SP1", "SP2"), ("SP1", "SP2"), (0, 1, 2)),
        (("DC3", "DC0", "DC1"), ("DC3",), (3, 0, 1)),
        (("0", "1", "2"), ("2",), (0, 1, 2)),
        (("0", "1"), ("1",), ()),  # a label of two is right or wrong, not near
        (("S1", "S2", "S3"), ("S1", "S3"), ()),  # categories
        (("safe", "S1", "S2"), ("S1", "S2"), ()),
        (("A0", "B1", "B2"), ("B2",), ()),
        (("ham", "spam", "worse"), ("spam", "worse"), ()),
    ],
)
def test_labels_are_grades_if_they_are_numbers_of_one_name_and_the_highest_violate(labels, violates, found) -> None:
    assert grades(Outcomes.of(labels, violates, [labels[0]], [labels[1]], [True], [0.5])) == found


def test_a_slice_has_wilson_s_interval() -> None:
    assert slice_interval(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))  # Newcombe
    assert all(math.isnan(end) for end in slice_interval(0, 0))


def test_multi_policy_accuracy_counts_rows_that_are_right_on_every_policy() -> None:
    # three rows, two policies: both right, one right, both right
    assert multi_policy_accuracy([(True, True), (True, False), (True, True)]) == (2, 3)


def test_calibration_error_of_a_hand_worked_case() -> None:
    # p 0.95 on two rows of which one violates, 0.05 on two that do not: (2·0.45 + 2·0.05) / 4
    truth, p = np.array([True, False, False, False]), np.array([0.95, 0.95, 0.05, 0.05])
    assert calibration_error(truth, p) == pytest.approx(0.25)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == pytest.approx(1)
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)


def test_agreement_is_the_share_and_kappa() -> None:
    share, kappa = agreement(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    assert (share, kappa) == (0.75, pytest.approx(0.5))


def test_every_figure_that_is_shown_stands_in_the_manual() -> None:
    page = (ROOT / "safeguard_cli/measure/FIGURES.md").read_text()
    shown = {*FIGURES, *(f"{name}:LABEL" for name in ("precision", "recall", "f1")), "sensitivity"}
    assert [name for name in shown if f"`{name}`" not in page] == []
    graded = Outcomes.of(("0", "1", "2"), ("2",), ["0", "2"], ["0", "1"], [False, False], [0.1, 0.2])
    assert {name.partition(":")[0] for name in figures(graded)} == {name.partition(":")[0] for name in shown}
