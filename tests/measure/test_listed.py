"""Gold cells that list violated policies: whatever stands in them, each word is known or its row is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.listed import Listing, right_label
from safeguard_cli.output.labelled import LabelSet

SPAM, HATE = LabelSet("spam", ("ham", "bad"), ("bad",)), LabelSet("hate", ("fine", "hateful"), ("hateful",))
LISTING = Listing.of("violated", (SPAM, HATE), {"SP4": "spam", "other": "none", "": "none"})

cells = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(cells)
def test_any_cell_is_read_or_its_row_is_left_out(cell) -> None:
    found = LISTING.violated([*Listing.words(cell)])
    assert "is no policy asked for" in found if isinstance(found, str) else found <= {"spam", "hate"}


@given(st.sets(st.sampled_from(["spam", "hate"])), st.sampled_from([",", ";", " | ", "\n", ", "]))
def test_what_is_listed_is_violated_however_it_is_written(names, between) -> None:
    words = sorted(names)
    for cell in (
        words,
        between.join(words),
        str(words),
        between.join([*words, "Fine", "none", "other"]),
        [*words, None],
    ):
        assert LISTING.violated([*Listing.words(cell)]) == names


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("HATE", {"hate"}),
        ("hateful", {"hate"}),
        ("SP4", {"spam"}),
        ("bad,ham", {"spam"}),
        ("[]", set()),
        ("safe", set()),
    ],
)
def test_a_word_is_a_policy_or_a_label_or_what_map_makes_of_it(cell, found) -> None:
    assert LISTING.violated([*Listing.words(cell)]) == found


def test_a_label_that_several_policies_violate_is_no_policy_s() -> None:
    same = [LabelSet(name, ("ok", "violating"), ("violating",)) for name in ("a", "b")]
    assert "'violating' is no policy" in str(Listing.of("v", same, {}).violated(["violating"]))
    assert [right_label(same[0], violated) for violated in (True, False)] == ["violating", "ok"]


def test_a_policy_with_three_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="grade has the labels 0, 1, 2"):
        Listing.of("v", (LabelSet("grade", ("0", "1", "2"), ("2",)),), {})
