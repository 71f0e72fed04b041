"""What a sample tells about a file: shares with their intervals, each with its source. Imports numpy and scipy only.

All shares and levels are 0 to 1. scipy is imported inside functions: it comes with an extra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
MOST_ROWS = 10**9  # up to which `needed_rows` looks where the file's size is not known
# The prior of the confidence sequence, Jeffreys': narrow for rare labels too, and for no share far from the best.
_PRIOR = (0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of a share, from 0 to 1."""

    low: float
    high: float

    def __contains__(self, share: float) -> bool:
        return self.low <= share <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low

    def reach(self, share: float) -> float:
        """Return how far the interval goes from a share, on the longer side."""
        return max(self.high - share, share - self.low)


ALL = Interval(0.0, 1.0)


def wilson(k: float, n: float, level: float = LEVEL) -> Interval:
    """Return the score interval (Wilson 1927), which is short and covers `level` on average over shares, not each."""
    if not n:
        return ALL
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    share, spread = k / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread * spread / 4) / (1 + spread)
    return Interval(0.0 if k == 0 else max(0.0, middle - half), 1.0 if k == n else min(1.0, middle + half))


def clopper_pearson(k: float, n: float, level: float = LEVEL) -> Interval:
    """Return the exact interval of a share of rows drawn with replacement (Clopper and Pearson 1934).

    `k` and `n` may be fractions, as of shared or weighted rows: the formula by the beta distribution stays.
    """
    if not n:
        return ALL
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return Interval(low, high)


def hypergeometric_interval(k: int, n: int, total: int, level: float = LEVEL) -> Interval:
    """Return the exact, equal-tailed interval of the share of `total` rows, of which `n` were drawn and `k` count.

    It holds every number of rows under which as many as `k`, and as few, have a probability above half of 1 - `level`
    (Konijn 1973; Buonaccorsi 1987): the tests of the hypergeometric distribution, turned round. The two ends are found
    by bisection, as the tails move one way. It covers at least `level` for every file.
    """
    from scipy.stats import hypergeom

    _check(k, n, total)
    tail = (1 - level) / 2
    at = _likeliest(k, n, total)
    low = _first(k, at, lambda count: float(hypergeom.sf(k - 1, total, count, n)) > tail)
    high = _last(at, total - (n - k), lambda count: float(hypergeom.cdf(k, total, count, n)) > tail)
    return Interval(low / total, high / total)


def sample_interval(k: int, n: int, total: int | None, *, sequence: bool = False, level: float = LEVEL) -> Interval:
    """Return the interval of a random sample's share: exact, or a confidence sequence if it was looked at before."""
    if sequence:
        return confidence_sequence(k, n, total, level)
    return clopper_pearson(k, n, level) if total is None else hypergeometric_interval(k, n, total, level)


def confidence_sequence(k: int, n: int, total: int | None, level: float = LEVEL) -> Interval:
    """Return the interval of a share that may be looked at after every row: all looks together cover `level`.

    It is the set of shares whose prior-posterior ratio stays below 1 / (1 - `level`): the ratio is a martingale for the
    true share, and Ville's inequality bounds it at all times (Waudby-Smith and Ramdas 2020, arXiv 2006.04347, theorem
    2.1; the beta-binomial prior without replacement). By Bayes' rule the ratio is the probability of the rows
    under the prior, divided by that under the share. With `total` None rows are drawn with replacement. Stop for any
    reason: when it is narrow enough, by the clock, by hand. It is 1.6 to 1.8 times as wide as an exact interval.
    """
    from scipy.special import betaln, xlog1py, xlogy

    if not n:
        return ALL
    a, b = _PRIOR
    # The logarithm of the least probability of the rows (in their order) under a share that the interval keeps.
    least = float(betaln(a + k, b + n - k) - betaln(a, b)) + math.log(1 - level)
    if total is None:

        def keeps_share(share: float) -> bool:
            return float(xlogy(k, share) + xlog1py(n - k, -share)) > least

        return Interval(_edge(0.0, k / n, keeps_share), _edge(1.0, k / n, keeps_share))
    _check(k, n, total)

    def keeps(count: int) -> bool:
        return _ways(k, count) + _ways(n - k, total - count) - _ways(n, total) > least

    at = _likeliest(k, n, total)
    return Interval(_first(k, at, keeps) / total, _last(at, total - (n - k), keeps) / total)


def _ways(n: int, total: int) -> float:
    """Return the logarithm of how many ways there are to draw `n` of `total` rows one after another."""
    return math.lgamma(total + 1) - math.lgamma(total - n + 1)


def _check(k: int, n: int, total: int) -> None:
    if not 0 <= k <= n <= total or not total:
        raise ValueError(f"{k} of {n} of {total} rows")


def _likeliest(k: int, n: int, total: int) -> int:
    """Return a number of rows that count in the file under which `k` of `n` is likeliest, or nearly so."""
    return min(max(k * (total + 1) // n if n else 0, k), total - (n - k))


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the first number from `low` to `high` that holds; `high` does, and so do all between."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the last number from `low` to `high` that holds; `low` does, and so do all between."""
    return -_first(-high, -low, lambda number: holds(-number))


def _edge(outer: float, inner: float, holds: Callable[[float], bool]) -> float:
    """Return where a share stops to hold between `inner`, which does, and `outer`, rounded outwards."""
    if holds(outer):
        return outer
    for _ in range(60):
        middle = (outer + inner) / 2
        outer, inner = (outer, middle) if holds(middle) else (middle, inner)
    return outer


def needed_rows(
    share: float, within: float, total: int | None, *, sequence: bool = False, level: float = LEVEL
) -> int | None:
    """Return about how many rows, drawn at random, bring both ends of the interval to within `within` of a share.

    It is a forecast: `share` is what is seen until now, and is taken to stay. None if more than 10^9 would be needed.
    """

    def reaches(n: int) -> bool:
        k = round(share * n)
        return sample_interval(k, n, total, sequence=sequence, level=level).reach(k / n) <= within

    most = total or MOST_ROWS
    return _first(1, most, reaches) if reaches(most) else None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """How many reviewed rows violate by the model (first word) and by people (second word)."""

    both: int
    only_model: int
    only_people: int
    neither: int

    @property
    def rows(self) -> int:
        return self.both + self.only_model + self.only_people + self.neither

    @property
    def violating(self) -> int:
        """By people."""
        return self.both + self.only_people

    @property
    def said(self) -> int:
        """By the model."""
        return self.both + self.only_model


@dataclass(frozen=True, slots=True)
class Corrected:
    """A share that people's answers correct. `method` is PPI or ALONE; `why` says why it is not PPI."""

    share: float
    interval: Interval
    method: str
    why: str


PPI, ALONE = "PPI++", "exact, of the reviewed rows alone"
ENOUGH_VIOLATING = 20  # reviewed rows on either side: with fewer, PPI++ covers far less than it says
ENOUGH_DISAGREEMENTS = 3  # with none, its interval would have no width


def corrected_share(
    reviewed: Reviewed, others: tuple[int, int], total: int | None = None, level: float = LEVEL
) -> Corrected:
    """Return the share of a file that violates by people's judgement, from rows that only the model labelled too.

    The reviewed rows are a random part of a random sample; `others` are the sample's other rows: (how many the model
    calls violating, of how many). `total` is the file's rows, None if not known. The share is the power-tuned mean of
    PPI++. Its normal interval covers too little where few rows violate or people and the model seldom differ (0.91 at
    50 reviewed rows), so it is that of Clopper and Pearson for as many rows as would have the same standard error
    (Korn and Graubard 1998), with one more disagreement of each kind than was seen. With too few rows for that, or
    with so many that the model adds little, it is the exact interval of the reviewed rows. In some 500
    kinds of simulated files, with models of recall 0.3 to 1, the whole rule covers at least 0.935.
    """
    k, n = reviewed.violating, reviewed.rows
    if why := _too_few(reviewed, others):
        return Corrected(k / n if n else math.nan, _with_width(k, n, total, level), ALONE, why)
    share, _ = ppi_mean(reviewed, others)
    share = min(max(share, 0.0), 1.0)
    square = _careful_square(reviewed, others, total)
    rows = share * (1 - share) / square
    return Corrected(share, clopper_pearson(share * rows, rows, level), PPI, "")


def _with_width(k: int, n: int, total: int | None, level: float) -> Interval:
    """Return the exact interval; where it has no width although rows are left, what these rows leave possible."""
    found = sample_interval(k, n, total, level=level)
    if total is not None and n < total and found.width <= 0:
        return Interval(k / total, (k + total - n) / total)
    return found


def _too_few(reviewed: Reviewed, others: tuple[int, int]) -> str:
    """Return why PPI++ cannot be used, empty if it can."""
    for count, what in ((reviewed.violating, "violate"), (reviewed.rows - reviewed.violating, "do not violate")):
        if count < ENOUGH_VIOLATING:
            return f"{count:,} reviewed rows {what}; from {ENOUGH_VIOLATING} on, the model's labels can be used too"
    differ = reviewed.only_model + reviewed.only_people
    if differ < ENOUGH_DISAGREEMENTS:
        return f"people and the model differ on {differ} reviewed rows, too few to tell how far to trust the model"
    if reviewed.rows > others[1]:
        return "most of the sample is reviewed"
    return "" if reviewed.said + others[0] else "the model calls no row violating"


def _careful_square(reviewed: Reviewed, others: tuple[int, int], total: int | None) -> float:
    """Return the square of the share's standard error, with one more disagreement of each kind.

    It has two parts, as in sampling twice (Cochran 1977, section 12.6): how far the reviewed rows tell of the sample,
    by what the model's labels leave open, and how far the sample tells of the file.
    """
    n, sample = reviewed.rows, reviewed.rows + others[1]
    slope = _weight(reviewed, others) * sample / others[1]
    doubted = Reviewed(reviewed.both, reviewed.only_model + 1, reviewed.only_people + 1, reviewed.neither)
    y, f = doubted.violating / doubted.rows, doubted.said / doubted.rows
    rest = _mean_square(doubted, slope) - (y - slope * f) ** 2
    of_sample = 1 / sample - (1 / total if total else 0.0)
    return (1 / n - 1 / sample) * rest * n / (n - 1) + of_sample * y * (1 - y)


def ppi_mean(reviewed: Reviewed, others: tuple[int, int]) -> tuple[float, float]:
    """Return the power-tuned mean and its standard error (Angelopoulos, Duchi, Zrnic 2023, arXiv 2311.01453, PPI++).

    mean = λ f̄(others) + ȳ - λ f̄(reviewed), with λ = cov(y, f) / ((1 + n / N) var(f)); y is what people say, f what the
    model says, n reviewed rows, N others.
    """
    n, (hits, size) = reviewed.rows, others
    y, f, g = reviewed.violating / n, reviewed.said / n, hits / size
    weight = _weight(reviewed, others)
    var_rest = (_mean_square(reviewed, weight) - (y - weight * f) ** 2) * n / (n - 1)
    var_others = weight**2 * g * (1 - g) * size / (size - 1)
    return weight * g + y - weight * f, math.sqrt(var_rest / n + var_others / size)


def _weight(reviewed: Reviewed, others: tuple[int, int]) -> float:
    """Return λ of PPI++."""
    n, (hits, size) = reviewed.rows, others
    said = (reviewed.said + hits) / (n + size)
    var = said * (1 - said) * (n + size) / (n + size - 1)
    cov = (reviewed.both / n - reviewed.violating * reviewed.said / n**2) * n / (n - 1)
    return cov / ((1 + n / size) * var) if var else 0.0


def _mean_square(reviewed: Reviewed, weight: float) -> float:
    """Return the mean of (y - weight f) squared over the reviewed rows."""
    squares = reviewed.both * (1 - weight) ** 2 + reviewed.only_people + reviewed.only_model * weight**2
    return squares / reviewed.rows


@dataclass(frozen=True, slots=True)
class Draw:
    """A row that the uniform sample brought, of those not labelled before, and what was known before it.

    `labelled` rows were labelled or under way, by the score or by the sample, and `found` of these are flagged by the
    model. `flagged` is whether this row is.
    """

    labelled: int
    found: int
    flagged: bool


@dataclass(frozen=True, slots=True)
class RecallBound:
    """At most `most` rows of the file would be flagged; `found` are, which is at least `recall` of them."""

    found: int
    most: int
    recall: float


# The alternatives to "the model would flag M rows": such a part of M. With the weight of each in the mean.
_PARTS = {0.0: 0.15, 0.4: 0.2, 0.6: 0.25, 0.75: 0.2, 0.85: 0.1, 0.92: 0.07, 0.96: 0.03}


def recall_bound(draws: Sequence[Draw], found: int, labelled: int, total: int, level: float = LEVEL) -> RecallBound:
    """Return how many rows of a file the model would flag at most, from a search that labels the likeliest rows first.

    Between the rows that a score picks goes a uniform sample: the file's rows in one random order, fixed beforehand.
    A row of it that was picked before is passed over. Whatever the score has learnt, and from whatever rows, the order
    of the rows not picked yet is still random. So if the model would flag M rows in all, the next draw is flagged with
    probability p = (M - found) / (total - labelled), of which all is known but M. For M rows too many, draws are
    flagged too seldom: the product over all draws of q / p (flagged) or (1 - q) / (1 - p) (not flagged), where q is p
    for a smaller M, is a martingale if M is true; so is the mean of several such, and by Ville's inequality it ever
    reaches 1 / (1 - `level`) with probability 1 - `level` at most (a mixture of likelihood ratios, Robbins 1970; for
    drawing without replacement, Waudby-Smith and Ramdas 2020, arXiv 2010.09686, section 5). It grows with M, which is
    found by bisection.

    The bound holds at every time at once, so also after a stop by the clock, by hand or by the result, for a good
    score, a useless and a misleading one. Give the longest beginning of draws (in the order in which they were picked)
    all of whose labels are known. Where a label of a row picked before is not known, count it in `found`: that errs on
    the safe side. `found` and `labelled` are the numbers at the end.
    """
    before = np.array([[draw.labelled, draw.found, draw.flagged] for draw in draws], np.float64).reshape(-1, 3)
    most = _last(found, found + total - labelled, lambda count: _against(before, count, total) < -math.log(1 - level))
    return RecallBound(found, most, found / most if most else math.nan)


def _against(draws: npt.NDArray[np.float64], count: int, total: int) -> float:
    """Return the logarithm of the evidence that fewer than `count` of `total` rows are flagged; inf if not so many."""
    labelled, found, flagged = draws.T
    left, rest = total - labelled, count - found
    if (rest < flagged).any():
        return -math.inf  # that many were seen: `count` is too small, not too large
    if (left - rest < 1 - flagged).any():
        return math.inf
    parts, weights = np.array([*_PARTS])[:, None], np.array([*_PARTS.values()])
    fewer = np.maximum(parts * count - found, 0.0)
    with np.errstate(divide="ignore"):
        ratios = np.where(flagged == 1, fewer / np.maximum(rest, 1), (left - fewer) / np.maximum(left - rest, 1))
        bets = np.log(ratios).sum(axis=1)
    return float(np.logaddexp.reduce(bets + np.log(weights)))
