"""Measures an engine's own speed with a model on this machine, the bound for every schedule."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from safeguard_cli.engine.local.library import load
from safeguard_cli.engine.local.plan import ContextSize, Loading

PROMPT = 512  # tokens of the prompt whose rate is the bound
WARM_UP = 64  # tokens, enough for every expert to be read from the file
PROMPTS, TOKENS = 5, 32  # the most that are measured


def measure(path: Path, *, seconds: float, **loading: Any) -> dict[str, list[float]]:
    """Return tokens/s of some 512-token prompts, each decoded at once, and of some tokens generated after the last.

    Each of the two takes about `seconds` at most and gives at least one figure; `loading` are Loading's fields. Call
    this through probe.Probe, because llama.cpp may crash.
    """
    size = ContextSize(2 * PROMPT, 1, PROMPT, 1)
    with load(path, size, Loading(**loading)) as model:
        ids = np.random.default_rng(0).integers(0, model.vocabulary_size, PROMPT).astype(np.int32)

        def rate(count: int, position: int) -> float:
            model.batch.clear()
            model.batch.add(0, position, ids[:count], (count - 1,))
            begin = time.perf_counter()
            model.decode()
            return count / (time.perf_counter() - begin)

        rate(WARM_UP, 0)
        prompts: list[float] = []
        end = time.monotonic() + seconds
        while not prompts or (len(prompts) < PROMPTS and time.monotonic() < end):
            model.drop(0)
            prompts.append(rate(PROMPT, 0))
        tokens: list[float] = []
        end = time.monotonic() + seconds
        while not tokens or (len(tokens) < TOKENS and time.monotonic() < end):
            tokens.append(rate(1, PROMPT + len(tokens)))
    return {"prompt": prompts, "generation": tokens}
