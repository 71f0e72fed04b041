"""A cheap score of how likely the model is to flag a text: hashed n-grams and a logistic regression on its p_violates.

The score only says which rows to label first; no figure rests on it. Texts become counts of hashed n-grams of
characters and words, in numpy, so that a file is scored in passes over it, with nothing kept but a number for a row.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BITS = 18
MOST_CHARACTERS = 2000  # of a text that are looked at; what violates further on does not count for the score
BATCH_CHARACTERS = 1 << 18  # texts are hashed in batches of about this size
CHARACTER_GRAMS = (3, 5)
STRENGTH = 30.0  # the inverse of the regularisation, for rows of norm 1
FOLDS = 5

_U64 = np.uint64
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD], _U64
)
_POWERS = np.cumprod(np.full(3 * MOST_CHARACTERS + 2, _ODD[0]))
_OTHER, _LETTER, _DIGIT, _UNKNOWN = range(4)
_kinds_of = np.full(0x110000, _UNKNOWN, dtype=np.uint8)  # by code point, filled as they are met


@dataclass(frozen=True, slots=True)
class Grams:
    """The hashed n-grams of some texts, those of text i at `offsets[i]:offsets[i + 1]`; one that recurs is repeated."""

    buckets: npt.NDArray[np.int32]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def chosen(self, rows: Bools) -> Grams:
        """Return the n-grams of some of the texts."""
        sizes = np.diff(self.offsets)
        return Grams(self.buckets[np.repeat(rows, sizes)], np.concatenate(([0], np.cumsum(sizes[rows]))))


def joined(parts: Sequence[Grams]) -> Grams:
    """Return the n-grams of several lots of texts as those of one."""
    sizes = [np.diff(part.offsets) for part in parts]
    buckets = np.concatenate([np.zeros(0, np.int32), *(part.buckets for part in parts)])
    return Grams(buckets, np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes])))))


def grams(texts: Sequence[str]) -> Grams:
    """Return the hashed n-grams of texts: of characters, of words, and of pairs of words."""
    cut = [f"\n{text[:MOST_CHARACTERS].casefold()}\n" for text in texts]
    codes = np.frombuffer("".join(cut).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(cut)), [len(text) for text in cut])
    kinds = _kinds(codes)
    wide = np.where(kinds == _DIGIT, _U64(ord("0")), codes.astype(_U64))  # one digit is as good as another
    found = [_characters(wide, owner, size) for size in CHARACTER_GRAMS]
    words, of = _words(wide, kinds, owner)
    pair = of[1:] == of[:-1]
    found += [(_bucket(words), of), (_bucket((words[:-1] * _ODD[3] + words[1:])[pair]), of[1:][pair])]
    buckets, by = (np.concatenate(parts) for parts in zip(*found, strict=True))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(by, minlength=len(cut)))))
    return Grams(buckets[np.argsort(by, kind="stable")], offsets.astype(np.int64))


def _kinds(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    kinds = _kinds_of[codes]
    for code in np.unique(codes[kinds == _UNKNOWN]):
        category = unicodedata.category(chr(code))
        _kinds_of[code] = _DIGIT if category == "Nd" else _LETTER if category[0] in "LMN" else _OTHER
    return _kinds_of[codes]


def _characters(wide: npt.NDArray[_U64], owner: Ints, size: int) -> tuple[npt.NDArray[np.int32], Ints]:
    """Return the buckets of all runs of `size` characters within a text, and whose they are."""
    count = max(0, len(wide) - size + 1)
    within = owner[:count] == owner[size - 1 : size - 1 + count]
    found = np.zeros(count, dtype=_U64)
    for step in range(size):
        found = (found + wide[step : step + count]) * _ODD[step]
    return _bucket(found[within]), owner[:count][within]


def _words(wide: npt.NDArray[_U64], kinds: npt.NDArray[np.uint8], owner: Ints) -> tuple[npt.NDArray[_U64], Ints]:
    """Return a hash of every word, and whose it is; a text begins and ends with a character that is in no word."""
    inside = np.flatnonzero(kinds != _OTHER)
    if not len(inside):
        return np.zeros(0, dtype=_U64), np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.diff(inside, prepend=-2) != 1)
    place = np.arange(len(inside)) - np.repeat(first, np.diff(first, append=len(inside)))
    return np.add.reduceat(wide[inside] * _POWERS[place], first), owner[inside[first]]


def _bucket(hashes: npt.NDArray[_U64]) -> npt.NDArray[np.int32]:
    mixed = (hashes ^ (hashes >> _U64(29))) * _ODD[1]
    return np.asarray((mixed ^ (mixed >> _U64(32))) & _U64((1 << BITS) - 1), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Score:
    """A fitted score: the higher, the likelier the model flags the text. Only its order means something."""

    weights: npt.NDArray[np.float32]

    def of(self, found: Grams) -> npt.NDArray[np.float32]:
        """Return the score of each text."""
        sums = np.concatenate(([0.0], np.cumsum(self.weights[found.buckets], dtype=np.float64)))
        return np.asarray((sums[found.offsets[1:]] - sums[found.offsets[:-1]]) / _norms(found), dtype=np.float32)


def fit(found: Grams, p_violates: Floats, strength: float = STRENGTH) -> Score:
    """Fit a logistic regression with a quadratic penalty on the model's p_violates, not on its labels alone.

    So it learns from the first rows on, where few or none are flagged. The same rows give the same score.
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix
    from scipy.special import expit
    from threadpoolctl import threadpool_limits

    met, buckets = np.unique(found.buckets, return_inverse=True)
    values = np.repeat(1 / _norms(found), np.diff(found.offsets))
    rows = csr_matrix((values, buckets, found.offsets), shape=(len(found), len(met)))
    by_bucket = rows.T.tocsr()

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = rows @ weights[:-1] + weights[-1]
        penalty = weights[:-1] / strength
        value = float(np.sum(np.logaddexp(0, z) - p_violates * z) + penalty @ weights[:-1] / 2)
        away = expit(z) - p_violates
        return value, np.append(by_bucket @ away + penalty, away.sum())

    with threadpool_limits(1):  # several threads are slower for vectors of this size, and the model needs the cores
        start, options = np.zeros(len(met) + 1), {"maxiter": 100, "ftol": 1e-5}
        best = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    weights = np.zeros(1 << BITS, dtype=np.float32)
    weights[met] = best.x[:-1]
    return Score(weights)


def _norms(found: Grams) -> Floats:
    return np.sqrt(np.maximum(1, np.diff(found.offsets)))


def cross_validated_auroc(found: Grams, p_violates: Floats, flagged: Bools, judged: Bools) -> float:
    """Return how well a score ranks rows that it has not learnt from: 0.5 is as good as chance, 1 perfect.

    Judged are only the rows `judged`, a random sample of the file: rows picked by a score are the hard ones among all.
    It is the probability that a flagged row has a higher score than another, averaged over the folds; NaN if no fold
    has both kinds.
    """
    fold = np.arange(len(found)) % FOLDS
    areas, weights = [], []
    for held in range(FOLDS):
        out = fold == held
        asked = out & judged
        yes = int(flagged[asked].sum())
        if pairs := yes * (int(asked.sum()) - yes):
            score = fit(found.chosen(~out), p_violates[~out])
            areas.append(auroc(score.of(found.chosen(asked)), flagged[asked]))
            weights.append(pairs)
    return float(np.average(areas, weights=weights)) if areas else math.nan


def auroc(scores: npt.NDArray[np.floating[Any]], flagged: Bools) -> float:
    """Return the area under the ROC curve, by ranks (Mann and Whitney 1947); ties count half."""
    values, of = np.unique(scores, return_inverse=True)
    yes, no = np.bincount(of[flagged], minlength=len(values)), np.bincount(of[~flagged], minlength=len(values))
    return float(yes @ (np.cumsum(no) - no / 2) / (yes.sum() * no.sum()))
