"""What a search says it has found at least holds, with a good score, a useless and a misleading one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.audit.search import EVERY, FIRST, LEAST, MOST, Search, round_end, round_start

RUNS = 1000
SCORES = {"good": 2.33, "useless": 0.0, "misleading": -3.0}  # by how much a flagged row's score is higher on average


def ask(search: Search, flagged: np.ndarray, scores: np.ndarray, rows: int) -> None:
    """Go on with a search, round by round, until so many rows are labelled."""
    while (asked := len(search.picks)) < rows:
        count = min(round_end(asked), rows) - asked
        picks = search.next_rows(count, scores if round_start(asked) else None)
        search.learn([bool(flagged[pick.row]) for pick in picks])


def made(seed: int, total: int = 600, kind: str = "good", share: float = 0.05) -> tuple[Search, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    flagged = rng.random(total) < share
    scores = (rng.normal(size=total) + SCORES[kind] * flagged).astype(np.float32)
    return Search(rng.permutation(total)), flagged, scores


@pytest.mark.promise("`audit --find`: what it has found at least holds in 95 of 100 runs, whatever its score is worth.")
@pytest.mark.parametrize("kind", SCORES)
def test_the_bound_holds_wherever_the_run_is_stopped(kind) -> None:
    failed = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed + 10**6)
        search, flagged, scores = made(seed, 500, kind, (0.01, 0.05, 0.2)[seed % 3])
        wrong = False
        for stop in sorted(rng.integers(30, 500, 3)):
            ask(search, flagged, scores, stop)
            bound = search.bound()
            assert bound.found == flagged[[pick.row for pick in search.picks]].sum()
            wrong |= bound.most < flagged.sum()
        failed += wrong
    assert failed <= 0.065 * RUNS


def test_a_good_score_finds_most_of_it_early_and_the_bound_shows_it() -> None:
    search, flagged, scores = made(1, 4000)
    ask(search, flagged, scores, 1000)
    assert search.found > 0.9 * flagged.sum()
    assert search.bound().recall > 0.6
    ask(search, flagged, scores, 4000)
    assert search.bound().recall == 1
    assert search.bound().most == flagged.sum()


@given(st.integers(0, 600), st.integers(0, 5))
def test_a_search_that_is_stopped_anywhere_asks_about_the_same_rows(stop, seed) -> None:
    whole, flagged, scores = made(seed)
    ask(whole, flagged, scores, 600)
    again = Search(whole._order)
    again.restore(whole.picks[:stop])
    again.learn(whole.flags[:stop])
    ask(again, flagged, scores, 600)
    assert again.picks == whole.picks
    assert again.draws == whole.draws


@given(st.integers(100, 500), st.integers(0, 5))
def test_what_the_score_picks_depends_on_no_rank_that_is_still_to_come(rows, seed) -> None:
    search, flagged, scores = made(seed)
    ask(search, flagged, scores, rows)
    seen = max(pick.rank for pick in search.picks if pick.rank is not None) + 1
    order = search._order.copy()
    np.random.default_rng(seed).shuffle(order[seen:])
    other = Search(order)
    ask(other, flagged, scores, rows)
    assert other.picks == search.picks


def test_every_row_is_asked_about_once_and_every_fourth_is_drawn_at_random() -> None:
    search, flagged, scores = made(3)
    ask(search, flagged, scores, 600)
    assert sorted(pick.row for pick in search.picks) == list(range(600))
    assert all(pick.rank is not None for pick in search.picks[:FIRST])
    second = search.picks[FIRST : round_end(FIRST)]
    assert [pick.rank is not None for pick in second] == [at % EVERY == 0 for at in range(FIRST, round_end(FIRST))]
    ranks = [pick.rank for pick in search.picks if pick.rank is not None]
    assert ranks == sorted(ranks)


def test_a_round_whose_picks_find_nothing_is_followed_by_one_that_draws_more() -> None:
    search, flagged, scores = made(4, share=0.0)
    ask(search, flagged, scores, round_end(FIRST))
    following = search.next_rows(40, scores)
    assert sum(pick.rank is not None for pick in following) == 30


def test_a_row_that_must_not_be_picked_comes_only_at_random() -> None:
    search, flagged, scores = made(5)
    scores[::2] = -np.inf
    ask(search, flagged, scores, 600)
    assert all(pick.row % 2 or pick.rank is not None for pick in search.picks)


@given(st.integers(0, 10**6))
def test_rounds_grow_by_a_quarter(asked) -> None:
    start, end = round_start(asked), round_end(asked)
    assert start <= asked < end
    assert end - start == (FIRST if not start else min(MOST, max(LEAST, start // 4)))


def test_the_first_ranks_are_those_that_are_all_labelled() -> None:
    search, flagged, scores = made(6)
    ask(search, flagged, scores, 300)
    ranks = search.first_ranks()
    assert [ranks[int(row)] for row in search._order[: len(ranks)]] == list(range(len(ranks)))
    assert search.asked[search._order[: len(ranks)]].all()
    assert not search.asked[search._order[len(ranks)]]
