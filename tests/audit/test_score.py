"""The cheap score: the same for every batch, learning from p_violates alone, and judged on rows it has not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from safeguard_cli.audit import score as scoring
from safeguard_cli.audit.score import Grams, auroc, cross_validated_auroc, fit, grams, joined

TEXTS = st.lists(st.text(alphabet=st.characters(), max_size=40), max_size=8)
WORDS = ("cat", "dog", "runs", "home", "soon", "late", "again", "lunch", "meet", "call", "train", "rain", "book")


def made(rows: int, share: float, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Return texts of random words, and which of them offer a prize."""
    rng = np.random.default_rng(seed)
    flagged = rng.random(rows) < share
    texts = [" ".join(rng.choice(WORDS, 9)) + " you won a prize" * bool(flag) for flag in flagged]
    return texts, flagged


def listed(found: Grams) -> list[list[int]]:
    return [found.buckets[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


@given(TEXTS)
def test_a_text_has_the_same_grams_in_every_batch(texts) -> None:
    alone = [grams([text]) for text in texts]
    assert listed(grams(texts)) == [listed(each)[0] for each in alone] == listed(joined(alone))


@given(TEXTS, st.data())
def test_some_of_the_texts_keep_their_grams(texts, data) -> None:
    rows = np.array([data.draw(st.booleans()) for _ in texts], dtype=np.bool_)
    assert listed(grams(texts).chosen(rows)) == listed(grams([t for t, row in zip(texts, rows, strict=True) if row]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Call 0800 now", "call 0999 NOW"),  # case and digits
        ("STRASSE", "straße"),
    ],
)
def test_what_hardly_differs_is_the_same_text(one, other) -> None:
    assert listed(grams([one])) == listed(grams([other]))


def test_words_of_every_script_are_words() -> None:
    for text in ("नमस्ते दुनिया", "สวัสดี ชาวโลก", "привет мир", "مرحبا بالعالم"):
        first, second = text.split()
        both, swapped = listed(grams([f"{first} {second}", f"{second} {first}"]))
        shared = set(both) & set(swapped)
        assert len(shared) >= 2, text  # both words
        assert both != swapped, text


def test_no_more_of_a_long_text_is_read_than_what_is_said() -> None:
    text = "ab " * scoring.MOST_CHARACTERS
    assert listed(grams([text])) == listed(grams([text[: scoring.MOST_CHARACTERS]]))


def test_a_fitted_score_ranks_texts_that_it_has_not_seen() -> None:
    texts, flagged = made(600, 0.1)
    score = fit(grams(texts[:100]), flagged[:100].astype(float))
    assert auroc(score.of(grams(texts[100:])), flagged[100:]) > 0.95


def test_it_learns_from_probabilities_where_no_row_is_flagged() -> None:
    texts, flagged = made(600, 0.1)
    score = fit(grams(texts[:100]), np.where(flagged[:100], 0.3, 0.01))
    assert auroc(score.of(grams(texts[100:])), flagged[100:]) > 0.95


def test_the_same_rows_give_the_same_score() -> None:
    texts, flagged = made(200, 0.2)
    one, other = (fit(grams(texts), flagged.astype(float)) for _ in range(2))
    assert np.array_equal(one.weights, other.weights)


def test_texts_that_are_empty_or_all_alike_are_no_failure() -> None:
    for texts in ([""], ["", "", ""], ["a"] * 5):
        score = fit(grams(texts), np.full(len(texts), 0.5))
        assert np.isfinite(score.of(grams([*texts, "b", ""]))).all()
    assert len(fit(grams([]), np.zeros(0)).of(grams([]))) == 0


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_that_of_scikit_learn(rows) -> None:
    scores, flagged = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if flagged.any() and not flagged.all():
        assert auroc(scores.astype(float), flagged) == pytest.approx(roc_auc_score(flagged, scores))


def test_it_is_judged_on_rows_that_it_has_not_learnt_from() -> None:
    texts, flagged = made(300, 0.3)
    every = np.ones(300, dtype=np.bool_)
    assert cross_validated_auroc(grams(texts), flagged.astype(float), flagged, every) > 0.95
    chance = np.random.default_rng(5).random(300) < 0.3
    assert 0.35 < cross_validated_auroc(grams(texts), chance.astype(float), chance, every) < 0.65


def test_rows_of_one_kind_cannot_be_ranked() -> None:
    texts, _ = made(20, 0.3)
    every = np.ones(20, dtype=np.bool_)
    assert math.isnan(cross_validated_auroc(grams(texts), np.zeros(20), ~every, every))
