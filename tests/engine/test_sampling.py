"""A token is drawn by its probability, and what is drawn depends on the seeds alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.engine.sampling import BadLogits, drawn, sampler, seeds
from safeguard_cli.prompt.contract import Prompt

TOKENS, DRAWS = 1500, 20_000  # tokens of three blocks


def logits_of(seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, TOKENS).astype(np.float32)
    logits[::7] = -np.inf  # as where only some tokens may stand in a string
    return logits


def chi_squared(chosen: np.ndarray, p: np.ndarray) -> float:
    """Return Pearson's statistic over its degrees of freedom; rare tokens count as one."""
    common = p * DRAWS >= 5
    seen = np.bincount(chosen, minlength=len(p))
    seen, expected = (np.append(each[common], each[~common].sum()) for each in (seen, p * DRAWS))
    return float(((seen - expected) ** 2 / expected).sum() / (len(seen) - 1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_probability_as_with_gumbel_noise_on_each(temperature: float) -> None:
    logits, chance = logits_of(1), np.random.default_rng(2)
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - np.logaddexp.reduce(scaled))
    found = np.array([drawn(logits, temperature, chance.random()) for _ in range(DRAWS)])
    noisy = np.concatenate(
        [(scaled + chance.gumbel(size=(500, TOKENS))).argmax(axis=1) for _ in range(0, DRAWS, 500)]
    )  # the definition
    assert p[found].min() > 0, "a token of no probability is never drawn"
    for chosen in (found, noisy):
        assert 0.6 < chi_squared(chosen, p) < 1.5


@given(
    st.lists(st.floats(-1e4, 1e4, width=32) | st.just(-np.inf), min_size=1, max_size=1200),
    st.sampled_from([1e-300, 1e-9, 0.3, 1.0, 1e3, 1e300]),
    st.floats(0, 1, exclude_max=True),
)
def test_any_logits_give_a_token_that_is_possible(values: list[float], temperature: float, share: float) -> None:
    logits = np.array([*values, 0.0], np.float32)  # numpy's warnings are errors here
    assert logits[drawn(logits, temperature, share)] > -np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(BadLogits):
        sampler(1.0, (0,))(np.full(9, value, np.float32))


def test_a_vote_is_seeded_with_the_text_and_its_number_alone() -> None:
    here, there = Prompt(3, 0, 1, (5, 6), part=2), Prompt(900, 1, 0, (5, 6))
    assert seeds(here, 7, 2) == seeds(there, 7, 2)
    assert len({seeds(here, 7, 2), seeds(here, 7, 3), seeds(here, 8, 2), seeds(Prompt(3, 0, 1, (5, 7)), 7, 2)}) == 4
    assert seeds(here, 7) != seeds(there, 7), "without votes, rows with the same text differ"
