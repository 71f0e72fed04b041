"""Examples are all different: identical and nearly identical texts are folded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.measure.report.examples import Example, fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("WIN a prize at http://a.example/x1", "win a prize at https://b.example/y2!"),
        ("Call 0800 123 now", "call 0800 999 now…"),
        (
            "Your parcel number 12 waits at the station, pay today",
            "Your parcel number 99 waits at the station, pay TODAY",
        ),
        (
            "Dear Anna, I have seen your profile and would love to meet you for a coffee in town tomorrow",
            "Dear Berta, I have seen your profile and would love to meet you for a coffee in town tomorrow",
        ),
        ("恭喜您获得大奖请立即点击领取您的奖品", "恭喜您获得大奖请立即点击领取您的奖金"),
    ],
)
def test_near_copies_are_one_example(one, other) -> None:
    assert fold([one, other, "something else entirely"], 5) == [Example(0, 1), Example(2, 0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("see you at noon", "see you at the lake"),
        ("", "!!!"),
        ("a", "b"),
        (
            "The meeting is moved to Friday at nine in the large room",
            "The lunch is moved to Monday at two in a hall",
        ),
    ],
)
def test_different_texts_are_two_examples(one, other) -> None:
    assert [example.place for example in fold([one, other], 5)] == [0, 1]


@given(st.lists(st.text(max_size=30), max_size=40), st.integers(0, 10))
def test_the_first_texts_are_shown_in_their_order_and_none_twice(texts, most) -> None:
    found = fold(texts, most)
    places = [example.place for example in found]
    assert places == sorted(set(places))
    assert len(found) <= most
    assert len({texts[place] for place in places}) == len(places)
    assert sum(1 + example.more for example in found) <= len(texts)
    if texts and most:
        assert places[0] == 0
    assert fold([*texts, *texts], most)[: len(found)] == [
        Example(example.place, 2 * example.more + 1) for example in found
    ]


def test_a_hundred_thousand_texts_are_gone_through() -> None:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghij", k=6)) for _ in range(500)]
    texts = (" ".join(chance.choices(words, k=12)) for _ in range(100_000))
    assert len(fold(texts, 25)) == 25
