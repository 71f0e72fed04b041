"""What a person sees of a row: laid out, harmless, and without labels where they are kept back."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.review.shown import MOST_CHARACTERS, Block, Layout, Said, said_lines, text_lines

DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
ANY = st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"]))


@given(ANY, ANY, st.lists(st.dictionaries(st.sampled_from(["role", "content"]), ANY, min_size=2)))
def test_no_line_holds_a_control_or_format_character(text, name, messages) -> None:
    fields = {"text": text, name: text, "messages": messages}
    blocks = Layout(("text", "messages")).blocks(fields, text, (text,), with_labels=True)
    lines = [line for block in blocks for line in (block.head, *block.lines)]
    lines += said_lines([Said(name, text, text, text)])
    assert not {unicodedata.category(char) for line in lines for char in line} & DANGEROUS


def test_a_conversation_has_a_block_for_each_message() -> None:
    messages = [{"role": "user", "content": "a\nb"}, {"from": "gpt", "value": "c: d"}]
    expected = (Block("user", ("a", "b")), Block("assistant", ("c: d",)))
    assert Layout(("messages",)).blocks({"messages": messages}, "x", with_labels=True) == expected
    assert Layout(("messages",)).blocks({"messages": json.dumps(messages)}, "x", with_labels=True) == expected, "CSV"


def test_a_title_stands_above_the_text_and_other_fields_below() -> None:
    fields = {"id": 7, "text": "a", "title": "T", "empty": None, "_sample": {"row": 1}}
    shown = Layout(("text",)).blocks(fields, "a", with_labels=True)
    assert shown == (Block("T", ()), Block("", ("a",)), Block("", ("id: 7",), minor=True))
    both = Layout(("title", "text")).blocks(fields, "T\n\na", with_labels=True)
    assert both[:2] == (Block("title", ("T",)), Block("text", ("a",)))


def test_a_template_is_shown_as_the_model_saw_it() -> None:
    shown = Layout((), template=True).blocks({"x": "a"}, "filled in", with_labels=True)
    assert shown[0] == Block("", ("filled in",))


def test_fields_that_may_hold_a_label_are_kept_back() -> None:
    kept_back = ("label", "gold", "label_before", "spam_gold", "category", "mine", "annotator_1")
    fields = {"text": "a", "topic": "t", **dict.fromkeys(kept_back, "spam")}
    layout = Layout(("text",), gold=("mine",))
    assert layout.blocks(fields, "a", with_labels=False)[1].lines == ("topic: t",)
    assert len(layout.blocks(fields, "a", with_labels=True)[1].lines) == 1 + len(kept_back)


def test_a_huge_text_says_that_there_is_more() -> None:
    lines = text_lines("x" * (MOST_CHARACTERS + 1234))
    assert len(lines[0]) == MOST_CHARACTERS
    assert lines[1] == "… and 1,234 more characters, which are not shown"
