"""Pick rows to review, and note how each was picked and how likely that was.

Rows are drawn by the smallest keyed hash of the number that stays with them, so that 100 rows contain the 50 that were
drawn before, and the first rows of a session that is left early are a random sample too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedRow, sample_of
from safeguard_cli.review.shown import Said

RANDOM_SHARE = 5  # of the rows picked for being unsure, every fifth is a random one


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of an output that a person could answer: it has a text.

    `unsure` is the distance of its score from the threshold, `asked` whether it is one that the pick is about; both are
    None where the model gave the row no label. `drawn` is False for a row that its output picked by its score.
    """

    row: int
    line: int
    fields: Mapping[str, Any]
    text: str
    proposed: Proposed
    said: tuple[Said, ...] = ()
    unsure: float | None = None
    asked: bool | None = None
    earlier: tuple[str, ...] = ()  # the turns before it, of a row that is a turn of a conversation

    @property
    def sample(self) -> dict[str, Any]:
        return sample_of(self.fields)

    @property
    def key(self) -> int:
        """The number that stays with the row, as that of a ReviewedRow."""
        return self.sample.get("row") or self.row

    @property
    def drawn(self) -> bool:
        return "picked" not in self.sample


@dataclass(frozen=True, slots=True)
class Item:
    """A row to review: a candidate, and how it was picked. `before` has people's answers to it, to be settled."""

    candidate: Candidate
    picked: Picked
    before: ReviewedRow | None = None


def pick_random(candidates: Sequence[Candidate], rows: int, seed: int) -> list[Item]:
    """Draw rows at random, each as likely as any other. What an audit picked by its score is no random row."""
    drawn = [each for each in candidates if each.drawn]
    probability = min(1.0, rows / len(drawn)) if drawn else None
    picked = Picked("random", probability, seed, len(drawn))
    return [Item(each, picked) for each in _in_order(drawn, seed)[:rows]]


def pick_unsure(candidates: Sequence[Candidate], rows: int, seed: int) -> list[Item]:
    """Pick the rows nearest to the threshold, mixed with random ones; nothing in the order tells which is which."""
    random = pick_random(candidates, -(-rows // RANDOM_SHARE), seed)
    taken = {item.candidate.row for item in random}
    scored = [each for each in _in_order(candidates, seed) if each.unsure is not None]
    nearest = sorted((each for each in scored if each.row not in taken), key=lambda each: each.unsure or 0.0)
    picked = Picked("unsure", None, seed, len(scored))
    items = [*random, *(Item(each, picked) for each in nearest[: rows - len(random)])]
    return sorted(items, key=lambda item: _hash(item.candidate.key, seed, b"mixed"))


def pick_asked(how: str, candidates: Sequence[Candidate], rows: int, seed: int) -> list[Item]:
    """Draw among the rows that the pick is about."""
    asked = [each for each in candidates if each.asked]
    return [Item(each, Picked(how, None, seed, len(asked))) for each in _in_order(asked, seed)[:rows]]


def _in_order(candidates: Iterable[Candidate], seed: int) -> list[Candidate]:
    return sorted(candidates, key=lambda each: _hash(each.key, seed, b"drawn"))


def _hash(key: int, seed: int, purpose: bytes) -> bytes:
    """Return the place of a row in an order; one for each seed and purpose, so that none tells of another."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), key=b"safeguard review", person=purpose).digest()
