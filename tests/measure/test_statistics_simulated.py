"""Intervals cover what they say, in thousands of simulated files with fixed seeds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy.stats import binom, hypergeom

from safeguard_cli.measure import statistics
from safeguard_cli.measure.statistics import (
    Draw,
    Interval,
    Reviewed,
    clopper_pearson,
    confidence_sequence,
    corrected_share,
    hypergeometric_interval,
    recall_bound,
)

pytestmark = pytest.mark.promise(
    "Of simulated files of every share 95 in 100 lie within the interval of their sample, also after many looks"
)

FILES = 4000
SHARES = (0.0, 0.005, 0.02, 0.10, 0.50)
ROWS = (50, 200, 400, 1000)
TOTAL = 20_000


def covered(counts: np.ndarray, interval, share: float) -> float:
    """Return in how many of the outcomes the interval holds the share; each distinct outcome is worked out once."""
    values, times = np.unique(counts, return_counts=True)
    return sum(n for k, n in zip(values, times, strict=True) if share in interval(int(k))) / len(counts)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n", ROWS)
def test_the_exact_interval_covers_what_it_says(share, n) -> None:
    rng = np.random.default_rng([n, round(1000 * share), 1])
    bad = round(TOTAL * share)
    counts = rng.hypergeometric(bad, TOTAL - bad, n, FILES)
    assert covered(counts, lambda k: hypergeometric_interval(k, n, TOTAL), share) >= 0.945
    endless = rng.binomial(n, share, FILES)
    assert covered(endless, lambda k: clopper_pearson(k, n), share) >= 0.945


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n", ROWS)
def test_the_exact_interval_covers_no_less_over_all_outcomes(share, n) -> None:
    """Add up the probabilities themselves: 4,000 files can be 0.007 off by chance."""
    bad = round(TOTAL * share)
    for outcomes, interval in (
        (hypergeom(TOTAL, bad, n), lambda k: hypergeometric_interval(k, n, TOTAL)),
        (binom(n, share), lambda k: clopper_pearson(k, n)),
    ):
        likely = [k for k in range(n + 1) if outcomes.pmf(k) > 1e-9]
        assert sum(outcomes.pmf(k) for k in likely if share in interval(k)) >= 0.95 - 1e-6


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("total", [TOTAL, None])
def test_the_sequence_covers_at_all_looks_together(share, total) -> None:
    """Look after each of the first 50 rows, then after every fifth up to 1,000: one wrong look spoils a file."""
    rng = np.random.default_rng([round(1000 * share), total or 0])
    bad = round(TOTAL * share)
    counts, before, right = np.zeros(FILES, np.int64), 0, np.ones(FILES, bool)
    by_rows = {}
    for n in (*range(1, 51), *range(55, 1001, 5)):
        step = n - before
        if total:
            counts = counts + rng.hypergeometric(bad - counts, TOTAL - bad - (before - counts), step)
        else:
            counts = counts + rng.binomial(step, share, FILES)
        values, places = np.unique(counts, return_inverse=True)
        right &= np.array([share in confidence_sequence(int(k), n, total) for k in values])[places]
        before = n
        by_rows[n] = right.mean()
    assert {n: by_rows[n] for n in ROWS if by_rows[n] < 0.95} == {}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("reviewed", [50, 100, 200, 400])
@pytest.mark.parametrize("total", [TOTAL, 1000])
def test_the_rule_of_reviewed_rows_covers_as_a_whole(share, reviewed, total, monkeypatch) -> None:
    """1,000 rows labelled by a model of recall 0.6 that calls 2 % of the others violating; people review some."""
    monkeypatch.setattr(statistics, "sample_interval", cache(statistics.sample_interval))
    rng = np.random.default_rng([reviewed, round(1000 * share), total])
    bad = round(total * share)
    hits, wrong = round(0.6 * bad), round(0.02 * (total - bad))
    sample = rng.multivariate_hypergeometric((hits, wrong, bad - hits, total - bad - wrong), 1000, FILES)
    right = 0
    for row in sample:
        part = rng.multivariate_hypergeometric(row, reviewed)
        said = int((row - part)[:2].sum())
        found = corrected_share(Reviewed(*map(int, part)), (said, 1000 - reviewed), total)
        right += share in found.interval
    assert right / FILES >= 0.935


@pytest.mark.parametrize(("recall", "wrong"), [(0.3, 0.02), (0.6, 0.0), (0.8, 0.01), (0.95, 0.05), (0.99, 0.01)])
def test_the_rule_covers_with_other_models_too(recall, wrong, monkeypatch) -> None:
    monkeypatch.setattr(statistics, "sample_interval", cache(statistics.sample_interval))
    for share, sample, reviewed in ((0.1, 5000, 300), (0.3, 400, 100), (0.5, 1000, 50), (0.8, 1000, 400)):
        rng = np.random.default_rng([reviewed, round(100 * recall)])
        bad = round(TOTAL * share)
        hits, said = round(recall * bad), round(wrong * (TOTAL - bad))
        right = 0
        for row in rng.multivariate_hypergeometric((hits, said, bad - hits, TOTAL - bad - said), sample, 1500):
            part = rng.multivariate_hypergeometric(row, reviewed)
            others = int((row - part)[:2].sum()), sample - reviewed
            right += share in corrected_share(Reviewed(*map(int, part)), others, TOTAL).interval
        assert right / 1500 >= 0.935, (share, sample, reviewed)


@pytest.mark.parametrize("score", ["good", "useless", "misleading"])
def test_what_a_search_has_not_found_is_bounded_whatever_its_score(score) -> None:
    """Of 2,000 rows 60 are flagged; four picks by score, then one by the sample, stopped anywhere and looked at often.

    The score moves with what the sample has shown: a flagged draw raises all rows near it.
    """
    total, flagged, runs = 2000, 60, 1000
    wrong_at_end, wrong_ever = 0, 0
    for run in range(runs):
        rng = np.random.default_rng([run, len(score)])
        draws, found, labelled = searched(score, rng, total, flagged)
        wrong_at_end += recall_bound(draws, found, labelled, total).most < flagged
        looks = (recall_bound(draws[:n], d.found, d.labelled, total) for n in (20, 40, 80) for d in draws[n : n + 1])
        wrong_ever += any(look.most < flagged for look in looks)
    assert 1 - wrong_at_end / runs >= 0.935
    assert 1 - wrong_ever / runs >= 0.935


def searched(score: str, rng: np.random.Generator, total: int, flagged: int) -> tuple[list[Draw], int, int]:
    """Search rows, of which the first `flagged` are flagged, until a random stop."""
    ranks = rng.normal(size=total)
    ranks[:flagged] += {"good": 2.3, "useless": 0.0, "misleading": -2.3}[score]
    order = iter(rng.permutation(total))
    done = np.zeros(total, bool)
    draws: list[Draw] = []
    found = 0
    by_score = iter(np.argsort(-ranks))
    for pick in range(int(rng.integers(100, 700))):
        source = order if pick % 5 == 4 else by_score
        row = next(row for row in source if not done[row])
        if source is order:
            draws.append(Draw(pick, found, bool(row < flagged)))
            if row < flagged:  # the score learns from the sample: what is like this row comes first
                ranks[np.arange(total) % 7 == row % 7] += 0.5
                by_score = iter(np.argsort(-ranks))
        done[row] = True
        found += int(row < flagged)
    return draws, found, int(done.sum())


def test_an_interval_says_whether_it_holds_a_share() -> None:
    assert 0.5 in Interval(0.5, 0.6)
    assert 0.4 not in Interval(0.5, 0.6)
