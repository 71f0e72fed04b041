"""Which row to label next, to find what the model flags: the likeliest rows, and between them a uniform sample.

The uniform sample is the file's rows in one random order, fixed by the seed before anything is known; a row of it that
the score has picked before is passed over. The bound on what is left comes from this sample alone (`recall_bound`), so
it holds whatever the score is worth. Nothing here knows texts, files or models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safeguard_cli.measure.statistics import Draw, RecallBound, recall_bound

FIRST = 100  # rows of the uniform sample alone, before anything is ranked
EVERY = 4  # then every fourth row is one of the uniform sample; three of four after a round whose picks found nothing
LEAST, GROWTH, MOST = 50, 4, 5000  # a round has a quarter as many rows as were labelled before it, within bounds
ENOUGH = 0.9  # the part of what is to be found that must be shown to be found, where no budget ends the search

Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pick:
    """A row to label, counted from 0, and its rank in the uniform sample, from 0; None if the score picked it."""

    row: int
    rank: int | None = None


def round_end(asked: int) -> int:
    """Return how many rows are asked when the round under way ends; the score learns from whole rounds only.

    It depends on nothing else, so that a stopped search takes up the round that it was in.
    """
    end = FIRST
    while end <= asked:
        end += min(MOST, max(LEAST, end // GROWTH))
    return end


def round_start(asked: int) -> int:
    """Return how many rows were asked when the round under way began."""
    start, end = 0, FIRST
    while end <= asked:
        start, end = end, round_end(end)
    return start


class Search:
    """The state of a search: which rows were asked, in order, and what the model said of the first of them.

    `order` has the file's rows by rank. Rows enter by `next_rows` or, when a search is resumed, by `restore`; what the
    model said of them enters by `learn`, in the same order.
    """

    def __init__(self, order: Ints) -> None:
        self.total = len(order)
        self.picks: list[Pick] = []
        self.flags: list[bool] = []  # of the first picks
        self.draws: list[Draw] = []  # of the uniform sample, as far as flags are known
        self.found = 0
        self.asked = np.zeros(len(order), dtype=np.bool_)
        self._order, self._rank = order, 0  # the next rank

    def next_rows(self, count: int, scores: Scores | None) -> list[Pick]:
        """Return the next `count` rows to label, fewer if the file has no more; they count as asked from now on.

        Without `scores`, all are of the uniform sample. A row of the score -inf is never picked for its score.
        """
        likeliest = iter(self._likeliest(count, scores)) if scores is not None else iter(())
        begin, exhausted = len(self.picks), self._found_nothing()
        while len(self.picks) < min(begin + count, self.total):
            row = next(likeliest, None) if (len(self.picks) % EVERY == 0) is exhausted else None
            if row is None:
                self._take_up(self._next_of_sample())
            elif not self.asked[row]:
                self._take_up(Pick(row))
        return self.picks[begin:]

    def restore(self, picks: Iterable[Pick]) -> None:
        """Take up rows that were asked before."""
        for pick in picks:
            self._take_up(pick)

    def learn(self, flags: Sequence[bool]) -> None:
        """Note whether the model flagged each of the next rows that were asked."""
        for flagged in flags:
            labelled = len(self.flags)
            if self.picks[labelled].rank is not None:
                self.draws.append(Draw(labelled, self.found, flagged))
            self.flags.append(flagged)
            self.found += flagged

    def bound(self) -> RecallBound:
        """Return what was found, and how many rows the model would flag at most in the whole file."""
        return recall_bound(self.draws, self.found, len(self.flags), self.total)

    def first_ranks(self) -> dict[int, int]:
        """Return the ranks, from 0, of the rows of the uniform sample up to the first that was not asked."""
        left = np.flatnonzero(~self.asked[self._order])
        first = self._order[: left[0] if len(left) else None]
        return dict(zip(first.tolist(), range(len(first)), strict=True))

    def _found_nothing(self) -> bool:
        """Return whether the score picked rows in the last whole round, and the model flagged none of them."""
        end = round_start(len(self.picks))
        start = round_start(end - 1) if end else 0
        of_score = [
            flag for pick, flag in zip(self.picks[start:end], self.flags[start:end], strict=True) if pick.rank is None
        ]
        return bool(of_score) and not any(of_score)

    def _take_up(self, pick: Pick) -> None:
        self.picks.append(pick)
        self.asked[pick.row] = True
        if pick.rank is not None:
            self._rank = pick.rank + 1

    def _next_of_sample(self) -> Pick:
        while self.asked[self._order[self._rank]]:
            self._rank += 1
        return Pick(int(self._order[self._rank]), self._rank)

    def _likeliest(self, count: int, scores: Scores) -> list[int]:
        """Return the rows of the highest scores among those not asked; of equals, the first in the file.

        It must know nothing of ranks still to come: the bound rests on that.
        """
        rows = np.flatnonzero(~self.asked & (scores > -np.inf))
        best = rows[np.argsort(-scores[rows], kind="stable")[:count]]
        return [int(row) for row in best]
