"""A threshold of p_violates that holds: one half of the golden rows chooses it, the other half says what it is worth.

A threshold that is measured on the rows it was chosen on looks better than it is. Here the second half knows nothing of
the choice, so that its flagged rows are as good as new ones: the one-sided bound of Clopper and Pearson is for exactly
this threshold. The halves exchanged show how far another draw of the rows would have led elsewhere. `sure_table` does
the like for --sure, which is chosen by eye.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli.measure.metrics import Floats, Ints, Outcomes
from safeguard_cli.measure.statistics import LEVEL, clopper_pearson

ENOUGH_FLAGGED = 20  # rows in each half: fewer, and a threshold is luck
METHOD = "Clopper-Pearson, one-sided, of the half that did not choose the threshold"
MOST_POINTS = 101  # of a curve in a result
_SEED = 0
SURE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """For each p_violates that rows have, from the highest down: how many rows reach it, and how many of them violate.

    `violating` of all `rows` violate.
    """

    at: Floats
    flagged: Ints
    right: Ints
    violating: int
    rows: int

    @classmethod
    def of(cls, outcomes: Outcomes) -> Curve:
        order = np.argsort(-outcomes.p_violates, kind="stable")
        p, right = outcomes.p_violates[order], outcomes.truth[order].cumsum()
        ends = np.append(np.flatnonzero(np.diff(p)), len(p) - 1) if len(p) else np.zeros(0, np.int64)
        return cls(p[ends], ends + 1, right[ends], int(outcomes.truth.sum()), len(p))

    @property
    def precision(self) -> Floats:
        found: Floats = self.right / self.flagged
        return found

    @property
    def recall(self) -> Floats:
        return self.right / self.violating if self.violating else np.full(len(self.at), math.nan)

    def choose(self, wanted: str, value: float) -> float | None:
        """Return the threshold of highest recall with a precision of at least `value`, or the other way round.

        None if there is no such threshold, or if no row violates: there is nothing to find then.
        """
        if wanted == "precision":
            fits = (self.precision >= value) & (self.right > 0)
            best = np.lexsort((self.precision, self.right, fits))
        else:
            fits = self.recall >= value
            best = np.lexsort((self.at, self.precision, fits))
        return float(self.at[best[-1]]) if fits.any() and self.violating else None

    def points(self, most: int = MOST_POINTS) -> list[dict[str, float | None]]:
        """Return the curve for a result, thinned to `most` thresholds, as even as may be in flagged rows."""
        kept = np.arange(len(self.at))
        if len(kept) > most:
            kept = np.unique(np.searchsorted(self.flagged, np.linspace(1, self.rows, most)))
        return [
            {
                "threshold": float(self.at[i]),
                "flagged": float(self.flagged[i] / self.rows),
                "precision": float(self.precision[i]),
                "recall": float(self.recall[i]) if self.violating else None,
            }
            for i in kept
        ]


@dataclass(frozen=True, slots=True)
class Held:
    """A threshold, and what the half of the rows that did not choose it says of it.

    Of that half's `rows`, `flagged` reach the threshold, `violating` violate, and `right` do both. What is wanted is at
    least `bound`, with 95 % confidence.
    """

    threshold: float
    rows: int
    flagged: int
    violating: int
    right: int
    bound: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "bound": self.bound,
            "rows": self.rows,
            "flagged": self.flagged,
            "violating": self.violating,
            "right": self.right,
            "precision": self.right / self.flagged,
            "recall": self.right / self.violating if self.violating else None,
        }


@dataclass(frozen=True, slots=True)
class Search:
    """What was found for a wanted precision or recall: a threshold that holds, or in its place why there is none.

    `exchanged` is what the halves give in each other's place.
    """

    wanted: str
    value: float
    found: Held | str
    exchanged: Held | str

    def as_dict(self) -> dict[str, Any]:
        found, exchanged = (
            {"none": one} if isinstance(one, str) else {"none": None} | one.as_dict()
            for one in (self.found, self.exchanged)
        )
        return {
            "wanted": [self.wanted, self.value],
            **found,
            "level": LEVEL,
            "method": METHOD,
            "proof": proof(self.value),
            "exchanged": exchanged,
        }


def search(outcomes: Outcomes, wanted: str, value: float, same: Sequence[Hashable] | None = None) -> Search:
    """Return a threshold for a wanted precision or recall. Rows that are the `same` come into the same half."""
    first = _halves(range(len(outcomes)) if same is None else same)
    one, other = outcomes.take(first), outcomes.take(~first)
    return Search(wanted, value, held(one, other, wanted, value), held(other, one, wanted, value))


def held(chooses: Outcomes, judges: Outcomes, wanted: str, value: float) -> Held | str:
    """Return the threshold that some rows choose, judged by others; a sentence if there is none to offer."""
    threshold = Curve.of(chooses).choose(wanted, value)
    if threshold is None:
        return f"no threshold gives {wanted} at least {value:g} on the half that chooses, {len(chooses):,} rows"
    flagged = judges.p_violates >= threshold
    seen, violating = int(flagged.sum()), int(judges.truth.sum())
    fewest = min(seen, int((chooses.p_violates >= threshold).sum()))
    if fewest < ENOUGH_FLAGGED:
        return f"only {fewest} rows of a half are flagged at {threshold:g}; it takes {ENOUGH_FLAGGED} in each"
    if wanted == "recall" and violating < ENOUGH_FLAGGED:
        return f"only {violating} rows of a half violate; it takes {ENOUGH_FLAGGED} in each"
    right = int((flagged & judges.truth).sum())
    bound = at_least(right, seen if wanted == "precision" else violating)
    return Held(threshold, len(judges), seen, violating, right, bound)


def at_least(count: int, total: int) -> float:
    """Return what a share is at least, with 95 % confidence: the low end of the interval that leaves 5 % on a side."""
    return clopper_pearson(count, total, 2 * LEVEL - 1).low


def proof(value: float) -> int | None:
    """Return how many rows, all of them right, prove a share of at least `value`; None if no number does."""
    return math.ceil(math.log(1 - LEVEL) / math.log(value)) if 0 < value < 1 else None


def _halves(same: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """Return which rows are in the first half: drawn at random, and the same ones at every call."""
    names = {one: place for place, one in enumerate(sorted(set(same), key=repr))}
    order = np.random.default_rng(_SEED).permutation(len(names))
    half: npt.NDArray[np.bool_] = order[[names[one] for one in same]] < len(names) / 2
    return half


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
