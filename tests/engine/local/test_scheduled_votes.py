"""Votes on rows: the text is decoded once, slots are shared, and what a vote says depends on its text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_model
from helpers.prompts import prefix_of, prompts_of

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local import scheduler as scheduling
from safeguard_cli.engine.local.llama import LlamaModel
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.scheduler import Scheduler
from safeguard_cli.prompt.contract import Completion
from safeguard_cli.prompt.votes import elected

VOTED = Options(8, temperature=1.0, seed=3, votes=5)
LENGTHS = [20, 90, 5, 300, 41, 12, 8, 150]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("exact") / "model.gguf", dense="F32")


def run(path: Path, harmony, options: Options, slots: int = 4, cells: int = 4096, **prefix) -> list[Completion]:
    prefixes, prompts = [prefix_of(harmony, 100, **prefix)], prompts_of(harmony, LENGTHS)
    plan = Plan(slots, cells, votes=bool(options.votes))
    with LlamaModel(path, plan.context(1), Loading(1)) as model:
        scheduler = Scheduler(model, prefixes, options, plan)
        done = [*scheduler.complete(prompts)]
        assert sorted(scheduler._free) == [*range(1, plan.context(1).sequences)], "every sequence is given back"
        run.decoded = scheduler.decoded_tokens  # type: ignore[attr-defined]
    return sorted(done, key=lambda c: c.prompt.row)


def test_a_row_has_as_many_votes_as_were_asked_for_and_scores_that_are_their_mean(exact, harmony, monkeypatch) -> None:
    cast: dict[int, list[Completion]] = {}
    inner = Scheduler._cast

    def watched(self, row, number, vote):
        cast.setdefault(row.prompt.row, []).append(vote)
        return inner(self, row, number, vote)

    monkeypatch.setattr(scheduling.Scheduler, "_cast", watched)
    done = run(exact, harmony, VOTED)
    assert [c.prompt.row for c in done] == [*range(len(LENGTHS))]
    for row in done:
        votes = cast[row.prompt.row]
        assert sum(row.votes) == len(votes) == 5
        assert len({vote.analysis for vote in votes}) > 1, "votes are sampled apart"
        assert row.scores == pytest.approx(np.mean([vote.scores for vote in votes], axis=0))
        assert row.generated == sum(vote.generated for vote in votes)


def test_the_text_is_decoded_once_for_all_votes(exact, harmony) -> None:
    run(exact, harmony, replace(VOTED, votes=1))
    once = run.decoded
    run(exact, harmony, replace(VOTED, votes=9))
    assert run.decoded - once < 8 * len(LENGTHS) * 60, "a vote decodes its reasoning and the answer around it"


def said(done: Sequence[Completion]) -> list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]]:
    return [(row.votes, row.analysis) for row in done]


def test_votes_do_not_depend_on_slots_or_room(exact, harmony) -> None:
    whole = run(exact, harmony, VOTED)
    for slots, cells in ((1, 4096), (16, 4096), (8, 768)):
        other = run(exact, harmony, VOTED, slots, cells)
        same = sum(a == b for a, b in zip(said(whole), said(other), strict=True))
        # Other batches move logits in the last digits, and with so flat ones now and then one of 40 tokens of a row.
        assert same > len(LENGTHS) / 2


def test_a_row_that_is_decided_has_fewer_votes_and_the_same_label(exact, harmony) -> None:
    labels = ("a", "b", "c", "d")
    every = run(exact, harmony, VOTED, 1, labels=labels)
    early = run(exact, harmony, replace(VOTED, until_decided=True), 1, labels=labels)
    assert sum(sum(row.votes) for row in early) < sum(sum(row.votes) for row in every)
    for one, other in zip(every, early, strict=True):
        assert elected(one.votes, one.scores, (3,)) == elected(other.votes, other.scores, (3,))


def test_a_vote_without_numbers_makes_an_error_row(exact, harmony, monkeypatch) -> None:
    inner, seen = LlamaModel.decode, iter(range(10_000))

    def broken(self):
        logits = inner(self)
        return np.full_like(logits, np.nan) if next(seen) == 12 else logits

    monkeypatch.setattr(LlamaModel, "decode", broken)
    done = run(exact, harmony, VOTED)
    assert len(done) == len(LENGTHS)
    assert any(row.error for row in done) and not all(row.error for row in done)


def test_auto_holds_votes_only_on_rows_that_are_not_clear_at_once(exact, harmony) -> None:
    sure = float(np.median([max(c.scores) for c in run(exact, harmony, Options(0))]))
    done = run(exact, harmony, replace(VOTED, sure=sure))
    assert {bool(row.votes) for row in done} == {True, False}
    assert all(bool(row.votes) != row.at_once for row in done)
