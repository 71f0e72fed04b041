"""Agreement figures equal those of other packages and of papers; no interval claims what rows cannot show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")

from safeguard_cli.measure.agreement import cohen_kappa, gwet_ac1, krippendorff_alpha, raw_agreement

LABELS = ("allowed", "hateful", "unclear")


def rows(text: str) -> list[list[str | None]]:
    return [[None if mark == "-" else mark for mark in row.split()] for row in text.split("|")]


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C; Gwet's irrCAC as cac.raw4raters.
TWELVE = rows(
    "1 1 - 1|2 2 3 2|3 3 3 3|3 3 3 3|2 2 2 2|1 2 3 4|4 4 4 4|1 1 2 1|2 2 2 2|- 5 5 5|- - 1 1|- - 3 -",
)
# Of irrCAC 0.4.4 for Python.
THIRTY = rows(
    "s s h|h h h|h h h|- h h|h - s|s h h|h h h|h s h|h s h|s s h|s h h|h h h|s h h|h h s|h h s|h h h|h - h|s h -"
    "|h - h|h s h|h h h|h h h|h h s|h h s|h s h|- - s|s h s|s h h|h - h|h h h"
)


def test_published_figures() -> None:
    assert raw_agreement(TWELVE).value == pytest.approx(0.81818, abs=5e-6)
    assert gwet_ac1(TWELVE).value == pytest.approx(0.77544, abs=5e-6)
    assert krippendorff_alpha(TWELVE).value == pytest.approx(0.743, abs=5e-4)
    assert raw_agreement(TWELVE).rows == 11
    assert raw_agreement(THIRTY).value == pytest.approx(0.58621, abs=5e-6)
    assert gwet_ac1(THIRTY).value == pytest.approx(0.32041, abs=5e-6)
    assert krippendorff_alpha(THIRTY).value == pytest.approx(-0.11475, abs=5e-6)


def test_kappa_and_its_interval_are_near_those_of_statsmodels() -> None:
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen_kappa(pairs)
    assert found.value == pytest.approx(0.4)
    assert found.low == pytest.approx(0.151, abs=0.05)  # statsmodels 0.15: 0.151 to 0.649, by the delta method
    assert found.high == pytest.approx(0.649, abs=0.05)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_kappa_equals_scikit_learn_s(pairs) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    expected = sk.cohen_kappa_score(*zip(*pairs, strict=True))
    assert cohen_kappa(pairs).value == pytest.approx(expected, nan_ok=True, abs=1e-12)


answers = st.one_of(st.none(), st.sampled_from(LABELS))
several = st.integers(2, 5).flatmap(
    lambda people: st.lists(st.lists(answers, min_size=people, max_size=people), min_size=1, max_size=25)
)


@settings(deadline=None, max_examples=150)
@given(several)
def test_alpha_equals_the_package_krippendorff_s(labels) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    pairable = [row for row in labels if sum(label is not None for label in row) > 1]
    assume(len({label for row in pairable for label in row} - {None}) > 1)
    codes = [[math.nan if label is None else LABELS.index(label) for label in row] for row in labels]
    expected = krippendorff.alpha(np.array(codes).T, level_of_measurement="nominal")
    assert krippendorff_alpha(labels).value == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(several)
def test_an_interval_holds_its_figure_and_has_some_width(labels) -> None:
    two = [row[:2] for row in labels]
    for found in (raw_agreement(labels), gwet_ac1(labels), krippendorff_alpha(labels), cohen_kappa(two)):
        if not math.isnan(found.value):
            assert found.low - 1e-9 <= found.value <= found.high + 1e-9
            assert found.high - found.low > 0.05
            assert -1 <= found.low <= found.high <= 1
        else:
            assert math.isnan(found.low)
            assert math.isnan(found.high)


def test_seven_of_seven_is_no_proof() -> None:
    alike = [("spam", "spam")] * 4 + [("ham", "ham")] * 3
    for figure in (raw_agreement, cohen_kappa, gwet_ac1, krippendorff_alpha):
        found = figure(alike)
        assert found.value == found.high == 1
        assert found.low < 0.6
    many = [("spam", "spam")] * 200 + [("ham", "ham")] * 200
    assert cohen_kappa(many).low > 0.95


def test_kappa_is_misleading_where_one_label_is_nearly_all_there_is_and_ac1_is_not() -> None:
    """Gwet (2002), "Kappa statistic is not satisfactory": 118 of 125 rows agree, yet kappa is about 0."""
    pairs = [("no", "no")] * 118 + [("no", "yes")] * 5 + [("yes", "no")] * 2
    assert raw_agreement(pairs).value == pytest.approx(0.944)
    assert cohen_kappa(pairs).value == pytest.approx(-0.0234, abs=5e-4)
    assert gwet_ac1(pairs).value == pytest.approx(0.9408, abs=5e-4)


def test_what_rows_cannot_tell_is_not_a_figure() -> None:
    one_label = [("ham", "ham")] * 5
    assert math.isnan(cohen_kappa(one_label).value)
    assert math.isnan(krippendorff_alpha(one_label).value)
    assert gwet_ac1(one_label).value == 1
    alone = [("ham", None), (None, "spam")]
    for figure in (raw_agreement, cohen_kappa, gwet_ac1, krippendorff_alpha):
        assert math.isnan(figure(alone).value)
        assert math.isnan(figure([]).value)


@pytest.mark.parametrize(("share", "right"), [(0.5, 0.9), (0.1, 0.95), (0.1, 0.8)])
@pytest.mark.parametrize("figure", [raw_agreement, cohen_kappa, gwet_ac1, krippendorff_alpha])
def test_intervals_cover_in_simulated_reviews(figure, share, right) -> None:
    """Two people who are right independently of each other, on 60 rows; the figure of very many rows is the truth."""
    rng = np.random.default_rng([round(100 * share), round(100 * right)])

    def reviews(count: int) -> list[tuple[str, str]]:
        truth = rng.random(count) < share
        said = np.where(rng.random((count, 2)) < right, truth[:, None], ~truth[:, None])
        return [("spam" if a else "ham", "spam" if b else "ham") for a, b in said]

    truth = figure(reviews(60_000)).value
    found = [figure(reviews(60)) for _ in range(800)]
    assert np.mean([each.low <= truth <= each.high or math.isnan(each.value) for each in found]) >= 0.935
