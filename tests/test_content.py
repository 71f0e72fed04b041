"""What of a row the model sees."""

from __future__ import annotations

import io
import json

import pytest

from safeguard_cli.content import make_selector
from safeguard_cli.errors import UsageError
from safeguard_cli.records import open_source

CHAT = [
    {"role": "user", "content": "hi\nthere"},
    {"role": "assistant", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    {"role": "assistant", "content": None, "tool_calls": []},
]


def select(*rows, format="jsonl", **options):
    """What is selected of each row: its text, or the code of its error."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    with open_source(io.BytesIO("\n".join(lines).encode()), format=format) as source:
        selector = make_selector(source, **options)
        results = [selector.select(record) for record in source]
    return [result if isinstance(result, str) else result.code for result in results]


def test_the_default_is_the_field_text():
    assert select({"id": "7", "text": "a"}, {"text": ""}, {"id": "8"}) == ["a", "", "no_text"]


def test_else_it_is_the_only_string_field():
    assert select({"id": 7, "body": "a"}) == ["a"]
    assert select("message", "a", format="csv") == ["a"]


@pytest.mark.parametrize("row", [{"id": "7", "body": "a"}, {"id": 7}])
def test_else_the_fields_are_listed(row):
    with pytest.raises(UsageError, match=r"--text-field.*'id'"):
        select(row)


def test_csv_without_a_text_column_lists_its_columns():
    with pytest.raises(UsageError, match="'id', 'body'"):
        select("id,body", "1,a", format="csv")


@pytest.mark.parametrize("value", [12, 1.5, True, {"a": 1}, [1], [], ["a"], [{"role": "user"}]])
def test_what_is_no_text_is_an_error(value):
    assert select({"text": "first"}, {"text": value}) == ["first", "not_text"]


def test_null_is_no_text_and_errors_of_reading_stay():
    assert select({"text": None}, "{", "[1]", {"text": "a\0b"}) == ["no_text", "bad_json", "bad_row", "a\0b"]


def test_the_error_names_the_line_and_the_field_and_not_the_content():
    with open_source(io.BytesIO(b'{"text":"a"}\n{"text":123456}\n')) as source:
        selector = make_selector(source)
        message = [selector.select(record) for record in source][1].message
    assert message == "line 2: the field 'text' holds a number"


def test_several_fields_are_joined_by_blank_lines_without_those_missing():
    rows = [{"title": "T", "body": "B"}, {"title": None, "body": "B"}, {"title": "T"}, {}, {"title": 1, "body": "B"}]
    assert select(*rows, text_fields=["title", "body"]) == ["T\n\nB", "B", "T", "no_text", "not_text"]


def test_a_chat_is_rendered_as_a_conversation():
    rendered = "user: hi\nthere\n\nassistant: one\ntwo\n\nassistant: "
    assert select({"text": CHAT}) == [rendered]
    assert select({"m": CHAT}, text_fields=["m"]) == [rendered]
    assert select({"m": CHAT}, template="<{m}>") == [f"<{rendered}>"]


def test_a_chat_with_what_is_no_text_is_an_error():
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert select({"text": image}) == ["not_text"]


def test_a_template_is_filled():
    template = r"{{{post title}}}\n{n}\t{tags}\\n"
    rows = [{"post title": "{n} \\n", "n": 5, "tags": ["a"]}, {"post title": "T", "n": None, "tags": []}]
    assert select(*rows, template=template) == ['{{n} \\n}\n5\t["a"]\\n', "no_text"]


def test_a_field_that_is_not_there_is_a_usage_error():
    for options in ({"text_fields": ["body"]}, {"template": "{body}"}, {"text_fields": ["text", "body"]}):
        with pytest.raises(UsageError, match=r"'body'.*'id', 'text'"):
            select({"id": 1, "text": "a"}, **options)
        with pytest.raises(UsageError, match=r"'body'.*'id', 'text'"):
            select("id,text", "1,a", format="csv", **options)


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "no field", "{{a}}", "", "{a}\udcff"])
def test_a_template_that_cannot_be_meant_is_a_usage_error(template):
    with pytest.raises(UsageError, match="--template"):
        select({"a": "x"}, template=template)


def test_text_fields_and_template_exclude_each_other():
    with pytest.raises(UsageError, match="exclude"):
        select({"a": "x"}, text_fields=["a"], template="{a}")


def test_a_short_csv_row_has_no_text_and_an_empty_cell_is_a_text():
    assert select("id,text", "1", "2,", "3,c", format="csv") == ["no_text", "", "c"]


@pytest.mark.parametrize(("content", "format"), [("", "jsonl"), ("", "csv"), ("{", "jsonl"), ("{}", "jsonl")])
def test_an_input_without_a_readable_row_is_no_usage_error(content, format):
    assert select(content, format=format, text_fields=["body"]) in ([], ["bad_json"], ["no_text"])
