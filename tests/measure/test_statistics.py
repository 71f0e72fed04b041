"""Intervals equal published ones, other implementations and their own definitions, and never claim what rows lack."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")
from scipy.stats import betabinom, hypergeom

from safeguard_cli.measure.statistics import (
    ALONE,
    PPI,
    Draw,
    Interval,
    Reviewed,
    clopper_pearson,
    confidence_sequence,
    corrected_share,
    hypergeometric_interval,
    needed_rows,
    ppi_mean,
    recall_bound,
    sample_interval,
    wilson,
)

drawn = st.integers(1, 60).flatmap(
    lambda total: st.integers(0, total).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n), st.just(total)),
    )
)


@pytest.mark.parametrize(
    ("k", "n", "score", "exact"),
    [  # Newcombe (1998), table I, methods 3 and 5
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_intervals_are_those_published(k, n, score, exact) -> None:
    assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx(score, abs=5e-5)
    assert (clopper_pearson(k, n).low, clopper_pearson(k, n).high) == pytest.approx(exact, abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(drawn)
def test_the_exact_interval_holds_all_that_its_tests_do_not_reject(row) -> None:
    """Compare with counting by whole numbers, over every possible file."""
    k, n, total = row

    def chance(seen: int, count: int) -> Fraction:
        return Fraction(math.comb(count, seen) * math.comb(total - count, n - seen), math.comb(total, n))

    kept = [
        count
        for count in range(k, total - (n - k) + 1)
        if min(sum(chance(x, count) for x in range(k + 1)), sum(chance(x, count) for x in range(k, n + 1))) > 0.025
    ]
    assert hypergeometric_interval(k, n, total) == Interval(kept[0] / total, kept[-1] / total)


@settings(deadline=None, max_examples=60)
@given(drawn)
def test_the_sequence_holds_all_whose_prior_posterior_ratio_is_small(row) -> None:
    """Compare with the definition: Waudby-Smith and Ramdas (2020), theorem 2.1."""
    k, n, total = row
    assume(n)
    counts = np.arange(k, total - (n - k) + 1)
    ratio = betabinom.pmf(counts, total, 0.5, 0.5) / betabinom.pmf(counts - k, total - n, 0.5 + k, 0.5 + n - k)
    kept = counts[ratio < 20]
    assert confidence_sequence(k, n, total) == Interval(kept[0] / total, kept[-1] / total)


def test_the_sequence_of_an_endless_file_is_that_of_a_very_long_one() -> None:
    for k, n in ((0, 400), (8, 400), (3, 3), (500, 1000)):
        endless, long = confidence_sequence(k, n, None), confidence_sequence(k, n, 10**9)
        assert (endless.low, endless.high) == pytest.approx((long.low, long.high), abs=2e-6)


@pytest.mark.parametrize("k", [0, 8, 200, 400])
def test_a_file_of_a_thousand_million_rows_is_no_slower(k) -> None:
    exact = hypergeometric_interval(k, 400, 10**9)
    other = clopper_pearson(k, 400)
    assert (exact.low, exact.high) == pytest.approx((other.low, other.high), abs=1e-6)


def test_nothing_drawn_tells_nothing_and_everything_drawn_tells_all() -> None:
    for total in (None, 10):
        assert sample_interval(0, 0, total) == sample_interval(0, 0, total, sequence=True) == Interval(0, 1)
    for k in range(11):
        assert sample_interval(k, 10, 10) == sample_interval(k, 10, 10, sequence=True) == Interval(k / 10, k / 10)
    assert wilson(0, 0) == clopper_pearson(0, 0) == Interval(0, 1)


@pytest.mark.parametrize(("rows", "most"), [(300, 0.010), (500, 0.006), (1000, 0.003)])
def test_none_among_so_many_rows_leaves_so_much(rows, most) -> None:
    """The rule of three, one-sided."""
    assert clopper_pearson(0, rows, 0.90).high == pytest.approx(most, abs=5e-4)


@settings(deadline=None, max_examples=60)
@given(drawn)
def test_an_interval_that_may_be_looked_at_any_time_holds_the_exact_one(row) -> None:
    exact, anytime = sample_interval(*row), sample_interval(*row, sequence=True)
    assert anytime.low <= exact.low
    assert exact.high <= anytime.high


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("total", [None, 3000, 10**6])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_so_many_rows_are_enough_and_hardly_more_than_needed(share, total, sequence) -> None:
    n = needed_rows(share, 0.02, total, sequence=sequence)

    def reach(rows: int) -> float:
        return sample_interval(round(share * rows), rows, total, sequence=sequence).reach(round(share * rows) / rows)

    assert reach(n) <= 0.02
    assert reach(round(n * 0.85)) > 0.02


def test_a_share_cannot_be_known_to_more_than_a_thousand_million_rows_tell() -> None:
    assert needed_rows(0.5, 1e-9, None) is None
    assert needed_rows(0.5, 0.0, 5000) == 5000


@pytest.mark.parametrize(
    ("reviewed", "others", "mean", "error"),
    [  # glide-py 0.11.0, by tests/tools/glide_figures.py
        ((12, 5, 8, 75), (160, 900), 0.204170169267, 0.0337802569974),
        ((60, 10, 40, 290), (90, 600), 0.238123909103, 0.0186176042035),
        ((30, 60, 20, 90), (4000, 9000), 0.249170579812, 0.0302370120921),
        ((200, 1, 1, 198), (50, 100), 0.502004756462, 0.0224606749147),
        ((5, 20, 15, 10), (300, 500), 0.36169544741, 0.0644489554084),
    ],
)
def test_the_corrected_mean_is_that_of_ppi(reviewed, others, mean, error) -> None:
    assert ppi_mean(Reviewed(*reviewed), others) == pytest.approx((mean, error), rel=1e-10)


cells = st.tuples(*[st.integers(0, 60)] * 4).map(lambda four: Reviewed(*four))
rest = st.integers(0, 2000).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size)))


@settings(deadline=None, max_examples=300)
@example(Reviewed(0, 0, 0, 39), (0, 1), True)
@given(cells, rest, st.booleans())
def test_a_corrected_share_always_has_an_interval_of_some_width(reviewed, others, whole) -> None:
    size = reviewed.rows + others[1]
    assume(size)
    found = corrected_share(reviewed, others, size if whole else None)
    if others[1] or not whole:
        assert found.interval.width > 0
    if reviewed.rows:
        assert found.share in found.interval
    assert found.method == (ALONE if found.why else PPI)


def test_the_model_s_labels_are_used_from_twenty_violating_rows_and_three_disagreements_on() -> None:
    others = (90, 800)
    assert corrected_share(Reviewed(14, 1, 6, 179), others, 10**6).method == PPI
    few = corrected_share(Reviewed(13, 1, 6, 180), others, 10**6)
    assert few.method == ALONE
    assert "19 reviewed rows violate" in few.why
    assert few.interval == hypergeometric_interval(19, 200, 10**6)
    alike = corrected_share(Reviewed(20, 1, 1, 178), others, None)
    assert "differ on 2 reviewed rows" in alike.why
    assert alike.interval == clopper_pearson(21, 200)
    assert "most of the sample" in corrected_share(Reviewed(14, 1, 6, 179), (2, 100), None).why
    assert "no row violating" in corrected_share(Reviewed(0, 0, 20, 180), (0, 800), None).why


def test_a_good_model_makes_the_reviewed_rows_worth_more() -> None:
    good = corrected_share(Reviewed(38, 2, 2, 158), (160, 800), 10**6)
    useless = corrected_share(Reviewed(8, 32, 32, 128), (160, 800), 10**6)
    alone = hypergeometric_interval(40, 200, 10**6)
    assert good.interval.width < 0.7 * alone.width
    assert useless.interval.width < 1.1 * alone.width


def test_a_search_that_has_labelled_all_has_found_all() -> None:
    draws = [Draw(i, i // 2, bool(i % 2)) for i in range(10)]
    assert recall_bound(draws, 5, 10, 10).most == 5
    assert recall_bound(draws, 5, 10, 10).recall == 1


def test_without_a_draw_every_row_not_labelled_may_be_flagged() -> None:
    assert recall_bound([], 3, 10, 100).most == 93


def test_draws_without_a_flagged_row_bound_what_is_left() -> None:
    """A hundred misses in a row leave 4 or 5 % of the rest; looked at once they would leave 3 %."""
    found = recall_bound([Draw(1000 + i, 50, False) for i in range(100)], 50, 1100, 100_000)
    assert 0.03 * 98_900 < found.most - 50 < 0.05 * 98_900
    assert found.recall == 50 / found.most


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40))
def test_the_bound_holds_what_was_found_and_no_more_than_may_be(flags, more) -> None:
    draws = [Draw(i, sum(flags[:i]), flag) for i, flag in enumerate(flags)]
    total = len(flags) + more
    found = recall_bound(draws, sum(flags), len(flags), total)
    assert sum(flags) <= found.most <= sum(flags) + more


def test_the_bound_grows_with_what_is_not_known() -> None:
    """A row under way, which is counted as found where it was picked before a draw, makes the bound no smaller."""
    draws = [Draw(5 * i, i // 4, i % 4 == 3) for i in range(80)]
    careful = [Draw(draw.labelled, draw.found + 2, draw.flagged) for draw in draws]
    assert recall_bound(careful, 20, 400, 5000).most >= recall_bound(draws, 20, 400, 5000).most


def test_hypergeometric_tails_of_large_files_are_good_enough() -> None:
    """scipy's sums lose some digits at 10^9 rows; seven are left."""
    assert hypergeom.cdf(8, 10**9, 2 * 10**7, 400) == pytest.approx(0.5925475, abs=1e-5)
