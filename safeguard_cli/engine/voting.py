"""The votes on one row: how many are cast next, and the completion that they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from safeguard_cli.prompt.contract import Completion, Contract, Prompt
from safeguard_cli.prompt.votes import elected, wanting


class Votes:
    """The votes `cast` so far on a row, in their order, of `most`; fewer if those left cannot change a label."""

    def __init__(self, contract: Contract, most: int, until_decided: bool) -> None:
        self._most, self._until_decided = most, until_decided
        self._violating = [contract.violating, *(one.violating for one in contract.more)]
        sizes = [len(contract.labels), *(len(one.labels) for one in contract.more)]
        self._starts = np.cumsum(sizes)[:-1]  # of the second question's scores and the following ones'
        self._tallies = [[0] * size for size in sizes]
        self._counted = 0
        self.cast: list[Completion] = []

    def next(self) -> range:
        """Return the numbers of the votes to cast now: no more than are needed to decide every label, or all."""
        begin = len(self.cast)
        if not self._until_decided:
            return range(begin, self._most)
        tallies = self._count()
        needed = (wanting(votes, bad, self._most) for votes, bad in zip(tallies, self._violating, strict=True))
        return range(begin, begin + max(needed))

    def counted(self, prompt: Prompt) -> Completion:
        """Return the row's completion; the first vote that agrees with most of its labels shows its reasoning."""
        tallies, scores = self._count(), np.mean([vote.scores for vote in self.cast], axis=0)
        by_question = zip(tallies, self._split(scores), self._violating, strict=True)
        labels = [elected(votes, part.tolist(), bad) for votes, part, bad in by_question]
        shown = max(self.cast, key=lambda vote: sum(map(int.__eq__, self._named(vote), labels)))
        return Completion(
            prompt,
            tuple(scores.tolist()),
            shown.analysis,
            ended=all(vote.ended for vote in self.cast),
            rationale=shown.rationale,
            generated=sum(vote.generated for vote in self.cast),
            votes=tuple(count for votes in tallies for count in votes),
        )

    def _count(self) -> Sequence[Sequence[int]]:
        """Return the votes for each label of each question."""
        for vote in self.cast[self._counted :]:
            for votes, label in zip(self._tallies, self._named(vote), strict=True):
                votes[label] += 1
        self._counted = len(self.cast)
        return self._tallies

    def _named(self, vote: Completion) -> Iterator[int]:
        return (int(part.argmax()) for part in self._split(np.array(vote.scores)))

    def _split(self, scores: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
        return np.split(scores, self._starts)
