"""Which rows are picked, and how likely that was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from helpers.reviews import candidates
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.measure.reviewed import Picked
from safeguard_cli.review.picking import Item, pick_asked, pick_random, pick_unsure


def rows(items: list[Item]) -> list[int]:
    return [item.candidate.row for item in items]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_more_rows_contain_the_fewer(count, few, more, seed) -> None:
    few, more = sorted((few, more))
    first, second = (rows(pick_random(candidates(count), each, seed)) for each in (few, more))
    assert second[: len(first)] == first
    assert len(set(second)) == min(count, more)


def test_a_random_row_has_the_probability_of_the_sample() -> None:
    items = pick_random(candidates(40), 10, 3)
    assert {item.picked for item in items} == {Picked("random", 0.25, 3, 40)}
    assert {item.picked.probability for item in pick_random(candidates(4), 10, 0)} == {1.0}


def test_every_row_is_as_likely_as_any_other() -> None:
    """Over 4,000 seeds each of 20 rows is picked 1,000 times, give or take 4.5 standard deviations."""
    of = candidates(20)
    found = Counter(row for seed in range(4000) for row in rows(pick_random(of, 5, seed)))
    assert set(found) == set(range(1, 21))
    assert max(abs(count - 1000) for count in found.values()) < 4.5 * (4000 * 0.25 * 0.75) ** 0.5


def test_a_row_keeps_its_place_while_the_output_of_an_audit_grows() -> None:
    sampled = [replace(each, fields={**each.fields, "_sample": {"row": each.row * 10}}) for each in candidates(20)]
    before = pick_random(sampled[5:], 4, 0)
    moved = [replace(each, row=each.row + 100) for each in sampled]
    keys = [item.candidate.key for item in pick_random(moved, 20, 0) if item.candidate.key > 50]
    assert keys[:4] == [item.candidate.key for item in before]


def test_a_row_that_an_audit_found_by_its_score_is_no_random_row() -> None:
    found = [replace(each, fields={"_sample": {"row": each.row, "picked": "find"}}) for each in candidates(5)]
    drawn = [replace(each, row=each.row + 5, fields={"_sample": {"row": each.row + 5, "rank": 1}}) for each in found]
    items = pick_random([*found, *drawn], 100, 0)
    assert sorted(rows(items)) == [6, 7, 8, 9, 10]
    assert items[0].picked.of == 5


def test_unsure_rows_are_nearest_to_the_threshold_and_a_fifth_is_random() -> None:
    scored = [replace(each, unsure=abs(each.row - 50) / 100 if each.row != 50 else None) for each in candidates(100)]
    items = pick_unsure(scored, 20, 0)
    random = [item for item in items if item.picked.how == "random"]
    unsure = [item for item in items if item.picked.how == "unsure"]
    assert (len(random), len(unsure)) == (4, 16)
    assert rows(random) and set(rows(random)) == set(rows(pick_random(scored, 4, 0)))
    assert {item.picked for item in random} == {Picked("random", 0.04, 0, 100)}
    assert {item.picked.probability for item in unsure} == {None}
    near = sorted((each for each in scored if each.row not in rows(random) and each.row != 50), key=lambda x: x.unsure)
    assert sorted(item.candidate.unsure for item in unsure) == [each.unsure for each in near[:16]]
    assert [item.picked.how for item in items] != sorted(item.picked.how for item in items), "mixed"


def test_a_pick_is_of_the_rows_that_it_is_about() -> None:
    asked = [replace(each, asked=each.row % 2 == 0 if each.row < 9 else None) for each in candidates(12)]
    items = pick_asked("wrong", asked, 3, 0)
    assert set(rows(items)) < {2, 4, 6, 8} and len(items) == 3
    assert {item.picked for item in items} == {Picked("wrong", None, 0, 4)}
