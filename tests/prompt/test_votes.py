"""Votes are counted so that a row violates exactly if most of its votes do, and stop only when nothing can change."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.prompt.votes import elected, p_votes, wanting

LABELS = 4
BALLOTS = st.integers(0, 5).flatmap(
    lambda n: st.lists(st.integers(0, LABELS - 1), min_size=2 * n + 1, max_size=2 * n + 1)
)
VIOLATING = st.sets(st.integers(0, LABELS - 1))
SCORES = st.lists(st.floats(0, 1), min_size=LABELS, max_size=LABELS)


def tally(ballots: list[int]) -> list[int]:
    return [ballots.count(label) for label in range(LABELS)]


@given(BALLOTS, VIOLATING, SCORES)
def test_a_row_violates_exactly_if_most_of_its_votes_do(ballots, violating, scores) -> None:
    bad = sum(label in violating for label in ballots)
    label = elected(tally(ballots), scores, violating)
    assert (label in violating) == (bad > len(ballots) / 2)
    same_side = [ballots.count(other) for other in range(LABELS) if (other in violating) == (label in violating)]
    assert ballots.count(label) == max(same_side)


@pytest.mark.promise("With `--until-decided`, a row has the label that all its votes would have given it.")
@given(BALLOTS, VIOLATING, SCORES)
def test_votes_that_are_left_out_cannot_change_the_label(ballots, violating, scores) -> None:
    cast = 0
    while more := wanting(tally(ballots[:cast]), violating, len(ballots)):
        cast += more
        assert cast <= len(ballots)
    assert elected(tally(ballots[:cast]), scores, violating) == elected(tally(ballots), scores, violating)


@given(BALLOTS, st.integers(0, 11), VIOLATING)
def test_no_more_votes_are_asked_for_at_a_time_than_can_decide(ballots, cast, violating) -> None:
    begun, most = tally(ballots[:cast]), len(ballots)
    needed = wanting(begun, violating, most)
    if needed > 1:
        for more in combinations_with_replacement(range(LABELS), needed - 1):
            assert wanting([a + b for a, b in zip(begun, tally([*more]), strict=True)], violating, most)


def test_p_votes_is_laplaces_rule() -> None:
    assert [p_votes(n, 3) for n in range(4)] == [0.2, 0.4, 0.6, 0.8]
