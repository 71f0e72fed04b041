"""What the model sees of a row."""

from __future__ import annotations

import io
import json

import pytest

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.text import make_selector, say_text

CHAT = [
    {"role": "user", "content": "hi\nthere"},
    {"role": "assistant", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    {"role": "assistant", "content": None, "tool_calls": []},
]


def select(*rows, format="jsonl", **options):
    """Return what is selected of each row: its text, or the code of its error."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    with open_source(io.BytesIO("\n".join(lines).encode()), format=format) as source:
        selector = make_selector(source, **options)
        results = [selector.select(record) for record in source]
    return [result if isinstance(result, str) else result.code for result in results]


def test_the_default_is_the_field_text():
    assert select({"id": "7", "text": "a"}, {"id": "8", "text": ""}, {"id": "9"}) == ["a", "no_text", "no_text"]


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


def test_images_and_calls_of_tools_are_named_and_left_out(capsys):
    image, call = {"type": "image_url", "image_url": {"url": "x"}}, {"id": "1", "function": {"name": "f"}}
    parts = [{"type": "input_text", "text": "look"}, image, {"type": "output_text", "text": "there"}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = "user: look\n[image_url left out]\nthere\n\nassistant: [tool_calls left out]"
    assert select({"text": chat}) == [text]
    assert select({"text": parts}) == ["look\n[image_url left out]\nthere"]
    assert select({"text": [image]}) == ["not_text"]
    assert select({"text": [{"role": "user", "content": [{"type": "\x1b[2J", "x": 1}, *parts[:1]]}]}) == [
        "user: [part left out]\nlook"
    ]
    with open_source(io.BytesIO(json.dumps({"messages": chat}).encode())) as source:
        say_text(make_selector(source), source)
    assert capsys.readouterr().err == "text: messages (without image_url, tool_calls)\n"


def test_dialogues_of_label_studio_are_chats():
    assert select({"text": [{"author": "Ann", "text": "hi"}, {"author": "Ben", "text": "ho"}]}) == [
        "Ann: hi\n\nBen: ho"
    ]


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


def test_a_short_csv_row_and_an_empty_cell_have_no_text():
    assert select("id,text", "1", "2,", "3,c", "4, ", format="csv") == ["no_text", "no_text", "c", "no_text"]
    fields = {"text_fields": ["title", "text"]}
    assert select("id,title,text", "1,,c", "2,t", "3", format="csv", **fields) == ["c", "t", "no_text"]
    assert select("id,title,text", "1,,c", "2,t", "3", format="csv", template="{title}/{text}") == [
        "/c",
        "t/",
        "no_text",
    ]


@pytest.mark.parametrize(("content", "format"), [("", "jsonl"), ("", "csv"), ("{", "jsonl"), ("{}", "jsonl")])
def test_an_input_without_a_readable_row_is_no_usage_error(content, format):
    assert select(content, format=format, text_fields=["body"]) in ([], ["bad_json"], ["no_text"])


def test_a_sharegpt_chat_is_rendered_with_the_usual_roles():
    chat = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "ok"}]
    assert select({"conversations": chat}) == ["system: be kind\n\nuser: hi\n\nassistant: ok"]
    assert select({"text": [{"from": 1, "value": "a"}]}) == ["not_text"]


def test_a_field_is_that_of_its_exact_name_else_where_a_dotted_path_leads():
    rows = [
        {"a.b": "exact", "a": {"b": "path"}},
        {"a": {"b": "path"}},
        {"a": {"b": None}},
        {"a": {}},
        {"a": [1]},
        {"a": {"b": 5}},
    ]
    assert select(*rows, text_fields=["a.b"]) == ["exact", "path", "no_text", "no_text", "no_text", "not_text"]
    batch = {"response": {"body": {"choices": [{"message": {"content": "hi"}}]}}}
    assert select(batch, text_fields=["response.body.choices.0.message.content"]) == ["hi"]
    assert select(batch, template="<{response.body.choices.0.message.content}>") == ["<hi>"]
    parts = {"result": {"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}}
    assert select(parts, text_fields=["result.content"]) == ["one\ntwo"]
    for path in ("response.body.choices.1", "response.choices", "response.", ".response", "response.body.choices.x"):
        with pytest.raises(UsageError, match="no field"):
            select(batch, text_fields=[path])


def test_a_field_may_be_missing_in_the_first_rows():
    rows = [{"id": 1, "title": "T"}, {"id": 2, "title": "T", "body": "B"}, {"id": 3, "title": ""}]
    assert select(*rows, text_fields=["title", "body"]) == ["T", "T\n\nB", "no_text"]
    assert select(*rows, template="{title}: {body}") == ["no_text", "T: B", "no_text"]


def test_a_field_in_none_of_the_first_rows_is_refused_with_the_one_that_is_near():
    for options in ({"text_fields": ["Body"]}, {"template": "{ body }"}, {"text_fields": ["bdoy"]}):
        with pytest.raises(UsageError, match="did you mean 'body'"):
            select({"id": 1}, {"body": "a"}, **options)


@pytest.mark.parametrize("blank", ["", "  \n\t", "\u3000"])
def test_a_blank_text_is_none(blank):
    assert select({"id": 1, "text": blank}) == ["no_text"]
    assert select({"id": 1, "text": blank}, template="{text}!") == ["no_text"]
    assert select({"id": 1, "title": blank, "text": " a "}, text_fields=["title", "text"]) == [" a "]
    assert select({"id": 1, "text": blank}, template="{id}: {text}") == [f"1: {blank}"]


def test_a_row_that_is_blank_throughout_says_so():
    rows = b'{"id":null,"text":" "}\n{"id":0,"text":" "}\n{}\n'
    for options in ({}, {"template": "{id}: {text}"}):
        with open_source(io.BytesIO(rows)) as source:
            selector = make_selector(source, **options)
            found = [selector.select(record) for record in source]
        assert [(error.code, error.blank) for error in found if not isinstance(error, str)][-1] == ("no_text", True)
        assert isinstance(found[1], str) or not found[1].blank
        assert found[0].message == "line 1: the row is blank"


def test_a_template_shows_all_digits_of_an_integer():
    number = "123456789012345678901234567890"
    row = f'{{"id":{number},"ids":[{number}, {{"a":"é"}}],"text":"hi"}}'
    assert select(row, template="{id} {ids} {text}") == [f'{number} [{number},{{"a":"é"}}] hi']


def test_json_that_is_nested_deeper_than_it_can_be_written_is_no_text_of_a_template():
    deep, less = ('{"text":"hi","x":' + "[" * n + "]" * n + "}" for n in (1_000, 300))
    assert select(deep, less, template="{text}: {x}") == ["not_text", "hi: " + "[" * 300 + "]" * 300]
    with pytest.raises(UsageError, match=r"'x' \(nested too deep\)"):
        select('{"x":' + "[" * 1_000 + "]" * 1_000 + "}")


@pytest.mark.parametrize("template", ["{{a}}: {b}", "{b} {{ a }}", "{b}{{a}}"])
def test_doubled_braces_around_a_field_are_refused_for_they_stand_for_themselves(template):
    with pytest.raises(UsageError, match=r"write \{a\}"):
        select({"a": "x", "b": "y"}, template=template)
    assert select({"c": "x", "b": "y"}, template=template)


def test_the_choice_of_an_earlier_session_is_kept_while_its_fields_are_there():
    rows = [{"body": "see you at lunch", "title": "a new field"}]
    assert select(*rows, before=["body"]) == ["see you at lunch"]
    with pytest.raises(UsageError, match="which field"):
        select(*rows, before=["gone"])
    assert select(*rows, before=["body"], text_fields=["title"]) == ["a new field"]
    assert select(*rows, before=["body"], gold=["body"]) == ["a new field"]
