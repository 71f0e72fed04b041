"""Prompts and prefixes of any length, and the markers in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prefix, Prompt
from safeguard_cli.prompt.harmony import Harmony, Marker

S, M, E = Marker.START, Marker.MESSAGE, Marker.END
PREFIX_MARKERS = [S, M, E, S, M, E, S, M]
CONTENT_MARKERS = [E, S]


def prefix_of(harmony: Harmony, length: int, labels: Sequence[str] = ("ham", "spam"), seed: int = 0) -> Prefix:
    """Return a prefix of exactly `length` tokens with a real contract."""
    policy = Policy("p", "x", tuple(labels), (labels[-1],))
    ids = np.random.default_rng(seed).integers(0, 300, length).tolist()
    return replace(harmony.prefix(policy, "low"), ids=tuple(ids))


def prompts_of(harmony: Harmony, lengths: Sequence[int], policies: int = 1) -> list[Prompt]:
    rng = np.random.default_rng(1)
    contents = [rng.integers(0, 300, n).tolist() for n in lengths]
    return [Prompt(i, p, 0, harmony.content_ids(c)) for i, c in enumerate(contents) for p in range(policies)]


def markers(harmony: Harmony, ids: tuple[int, ...]) -> list[Marker]:
    """Return the control tokens among the ids, in order."""
    spelling = {i: text for text, i in harmony.tokenizer.control.items()}
    return [Marker(spelling[i]) for i in ids if harmony.tokenizer.has_control([i])]
