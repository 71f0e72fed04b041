"""Rows of real lengths for the comparison with peers: as long as real ones are, and reasoned about as long as that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.prompts import prefix_of, prompts_of
from hypothesis import given
from hypothesis import strategies as st
from imposed import ImposedPrompt, imposed_engine
from real_lengths import real_lengths, real_work

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine


@given(rows=st.integers(1, 300), cap=st.integers(1, 4096), seed=st.integers(0, 2**32 - 1))
def test_the_seed_decides_pairs_and_order_but_not_the_lengths(rows: int, cap: int, seed: int) -> None:
    drawn, other = real_work(rows, cap, seed), real_work(rows, cap, seed + 1)
    assert drawn == real_work(rows, cap, seed)
    for ours, theirs in zip(zip(*drawn, strict=True), zip(*other, strict=True), strict=True):
        assert sorted(ours) == sorted(theirs)
    assert all(content >= 1 and 1 <= reasoning <= cap for content, reasoning in drawn)


def test_few_rows_have_the_lengths_of_the_table() -> None:
    content, reasoning = np.array(real_work(32, 256)).T
    table = real_lengths()
    assert np.median(content) == pytest.approx(table["content"][50], abs=0.5)
    assert np.median(reasoning) == pytest.approx(table["reasoning"][50], abs=3)
    # Of the 6,407 requests themselves: 164.5 tokens in the mean when cut at 256, as a third of them then are.
    assert reasoning.mean() == pytest.approx(164.5, rel=0.01)
    assert (reasoning == 256).mean() == pytest.approx(0.338, abs=1 / 32)
    assert content.mean() == pytest.approx(31.3, rel=0.05)


def test_longer_texts_have_longer_reasoning_as_in_the_table() -> None:
    ranks = np.array(real_work(4000, 10**6)).argsort(axis=0).argsort(axis=0)
    assert np.corrcoef(ranks.T)[0, 1] == pytest.approx(real_lengths()["rank_correlation"], abs=0.04)


def test_rows_are_reasoned_about_as_long_as_is_imposed_beside_each_other(tiny: Path, harmony) -> None:
    spec = EngineSpec(tiny, (prefix_of(harmony, 60),), Options(40), Plan(3, 2048), Loading(1))
    lengths = [1, 40, 7, 23, 40, 2, 11, 39]
    plain = prompts_of(harmony, [5, 30, 12, 80, 7, 9, 1, 3])
    prompts = [ImposedPrompt(p.row, 0, 0, p.ids, reasoning=n) for p, n in zip(plain, lengths, strict=True)]
    with imposed_engine(spec) as engine:
        done = {one.prompt.row: one for one in engine.complete(prompts)}
    assert engine.deaths == 0
    assert [done[row].generated for row in range(8)] == lengths
    assert [sum(map(len, done[row].analysis)) for row in range(8)] == lengths
    assert all(one.error is None and sum(one.scores) == pytest.approx(1) for one in done.values())


def test_with_the_same_length_for_all_rows_nothing_is_other_than_with_that_budget(tiny: Path, harmony) -> None:
    """The imposed engine decodes what the program's does, if no control token ends a row there."""
    prefix = prefix_of(harmony, 60)
    endless = replace(prefix, contract=replace(prefix.contract, stops=frozenset()))
    plain = prompts_of(harmony, [5, 30, 12, 80])
    prompts = [ImposedPrompt(p.row, 0, 0, p.ids, reasoning=9) for p in plain]
    spec = EngineSpec(tiny, (endless,), Options(9), Plan(2, 2048), Loading(1))
    with LocalEngine(spec) as ours, imposed_engine(spec) as imposed:
        expected = {one.prompt.row: one for one in ours.complete(plain)}
        found = {one.prompt.row: one for one in imposed.complete(prompts)}
        assert ours.decoded_tokens == imposed.decoded_tokens
    assert {row: (one.scores, one.analysis) for row, one in found.items()} == {
        row: (one.scores, one.analysis) for row, one in expected.items()
    }
