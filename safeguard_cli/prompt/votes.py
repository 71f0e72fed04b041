"""Counts votes: each is the label that one sampled reasoning of a row led to.

The side that most votes are on wins, violating or not, and on it the label that most of them name. So a row violates
exactly if most of its votes do, also where several labels violate. An odd number of votes leaves no tie between sides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """The winning side: the places of its labels, and how many votes it has."""

    labels: tuple[int, ...]
    votes: int


def winning(votes: Sequence[int], violating: Collection[int]) -> Side:
    """Return the side with most votes; `votes` are by label, `violating` the places of the labels that violate."""
    bad = tuple(i for i in range(len(votes)) if i in violating)
    good = tuple(i for i in range(len(votes)) if i not in violating)
    return max((Side(side, sum(votes[i] for i in side)) for side in (good, bad) if side), key=lambda side: side.votes)


def elected(votes: Sequence[int], scores: Sequence[float], violating: Collection[int]) -> int:
    """Return the place of the label that is elected; between labels of the winning side the scores break a tie."""
    return max(winning(votes, violating).labels, key=lambda i: (votes[i], scores[i]))


def wanting(votes: Sequence[int], violating: Collection[int], most: int) -> int:
    """Return the least number of further votes that can decide the label, of `most` in all; 0 if it is decided.

    A label is decided when no further votes can change it: a row that stops there has the label that all votes give it.
    """
    left = most - sum(votes)
    if not left:
        return 0
    side, needed = winning(votes, violating), most // 2 + 1
    if side.votes < needed:
        return needed - side.votes
    first, second, *_ = sorted((*(votes[i] for i in side.labels), 0), reverse=True)
    lead = first - second
    return 0 if lead > left else (left - lead) // 2 + 1


def p_votes(violating: int, votes: int) -> float:
    """Return the probability that a row violates, as its votes tell it: Laplace's rule, never 0 or 1."""
    return (violating + 1) / (votes + 2)
