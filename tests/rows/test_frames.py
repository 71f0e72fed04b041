"""Values and tables in memory give the same texts as rows do, and verdicts become columns."""

from __future__ import annotations

import io
import json
import sys
from decimal import Decimal

import numpy as np
import orjson
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows import frames
from safeguard_cli.rows.frames import columns_of, names_of, table_of, text_of, values_of, with_columns
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.text import make_selector
from safeguard_cli.rows.verdict import RowError, Verdict

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
CHATS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text() | st.none()})
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8) | CHATS


def as_row(value: object, line: int) -> str | RowError:
    """Return what the command takes for the text of a JSONL row that holds the value."""
    rows = b'{"text": "before"}\n' * (line - 1) + json.dumps({"text": value}).encode() + b"\n"
    with open_source(io.BytesIO(rows)) as source:
        selector = make_selector(source, text_fields=["text"])
        return [record.error or selector.select(record) for record in source][line - 1]


@given(JSON, st.integers(1, 3))
def test_a_value_is_what_a_row_of_it_is(value, line) -> None:
    try:
        orjson.dumps(value)
    except TypeError:  # nested integers beyond 64 bits, which only rows can hold
        return
    found = text_of(value, line)
    expected = as_row(value, line)
    if isinstance(expected, RowError) and not isinstance(value, str):
        assert isinstance(found, RowError) and (found.code, found.blank) == (expected.code, expected.blank)
        assert found.message.startswith(f"line {line}: ")
    else:
        assert found == expected


class Strange:
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __eq__ = __ne__ = __bool__ = __len__ = __hash__ = __repr__


@given(
    st.recursive(
        st.floats() | st.decimals() | st.complex_numbers() | st.binary() | st.dates() | st.builds(Strange)
        | st.text(st.characters(categories=["Cs", "L"])) | st.fractions() | st.just(range(3)) | st.just(np.arange(2)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=5,
    )
)  # fmt: skip
def test_no_value_raises_and_what_is_a_text_can_be_encoded(value) -> None:
    found = text_of(value, 1)
    assert isinstance(found, RowError) or found.encode()


@pytest.mark.parametrize(
    ("value", "code", "blank"),
    [
        (None, "no_text", True),
        (" \n", "no_text", True),
        (float("nan"), "no_text", True),
        (np.float32("nan"), "no_text", True),
        (Decimal("sNaN"), "no_text", True),
        (np.int64(7), "not_text", False),
        (Decimal("1.5"), "not_text", False),
        (float("inf"), "not_text", False),
        (True, "not_text", False),
        (b"\xff", "bad_encoding", False),
        ("\ud800", "not_text", False),
        (object(), "not_text", False),
        ([object()], "not_text", False),
        ([{"role": "user", "content": "\ud800"}], "not_text", False),
    ],
)
def test_what_is_no_text_is_an_error(value, code, blank) -> None:
    error = text_of(value, 3)
    assert (error.code, error.blank) == (code, blank) and error.message.startswith("line 3: ")
    if blank:  # a missing text beside another field is an error like any other
        assert not text_of(value, 3, "body", alone=False).blank


def test_bytes_and_numpys_and_arrows_strings_are_texts() -> None:
    values = (b"caf\xc3\xa9", np.str_("café"), pyarrow.scalar("café"), pyarrow.scalar("café", pyarrow.large_string()))
    assert [text_of(value, 1) for value in values] == ["café"] * 4
    assert type(text_of(np.str_("a"), 1)) is str


class Stream:
    """A stand-in for another package's frame: it gives an Arrow stream, once."""

    def __init__(self, table: pyarrow.Table) -> None:
        self.reader = table.to_reader()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.reader.__arrow_c_stream__(requested_schema)


TABLE = pyarrow.table({"id": [1, 2, 3], "body": ["a", None, "c"]})


@pytest.mark.parametrize("give", [lambda table: table, Stream, lambda table: table.to_batches()[0]])
def test_what_gives_arrows_stream_is_a_table(give) -> None:
    table = table_of(give(TABLE))
    assert table.equals(TABLE) and names_of(table) == ["id", "body"]
    assert values_of(table, "body") == ["a", None, "c"]


@pytest.mark.parametrize(
    "kind", [pyarrow.large_string(), pyarrow.string_view(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())]
)
def test_texts_of_every_type_are_read(kind) -> None:
    column = pyarrow.array(["a", None, "c"]).cast(kind)
    assert values_of(pyarrow.table({"body": column}), "body") == ["a", None, "c"]


def test_a_string_that_is_not_valid_spoils_its_row_only() -> None:
    bad = pyarrow.array([b"fine", b"\xff", None]).cast(pyarrow.binary()).view(pyarrow.string())
    found = [text_of(value, 1) for value in values_of(pyarrow.table({"body": bad}), "body")]
    assert found[0] == "fine" and (found[1].code, found[2].code) == ("bad_encoding", "no_text")


@pytest.mark.parametrize("frame", [None, "text", {"body": ["a"]}, [TABLE], TABLE.column("body")])
def test_what_is_no_table_is_refused(frame) -> None:
    with pytest.raises(UsageError, match="this is not a table, but of type"):
        table_of(frame)


@pytest.mark.parametrize(
    ("name", "said"), [("Bodi", "did you mean 'body'"), ("zzz", "its columns are 'id', 'body'"), (3, "no column 3")]
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(name, said) -> None:
    with pytest.raises(UsageError, match=said):
        values_of(TABLE, name)


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="2 columns named 'body'"):
        values_of(pyarrow.Table.from_arrays([TABLE["id"], TABLE["body"]], names=["body", "body"]), "body")


def test_verdicts_become_columns_with_types() -> None:
    scores = {"ham": 0.25, "spam": 0.75}
    good = Verdict("spam", True, 0.75, scores, "low", 2, truncated=True, rationale="why")
    verdicts = [{"s": good}, {"s": Verdict(error=RowError("no_text", "line 2: blank"))}]
    names = ("label", "violates", "p_violates", "score", "scores", "effort", "windows", "truncated", "rationale")
    added = columns_of(verdicts, ["s"], [*names, "reasoning", "error"])
    text = pyarrow.string()
    assert [field.type for field in added.schema] == [
        *(text, pyarrow.bool_(), pyarrow.float64(), pyarrow.float64(), text, text, pyarrow.int32(), pyarrow.bool_()),
        *(text, text, text),
    ]
    first, second = added.to_pylist()
    assert list(first.values()) == ["spam", True, 0.75, 0.75, json.dumps(scores, separators=(",", ":")), "low", 2, True,
                                    "why", None, None]  # fmt: skip
    assert list(second.values()) == [None] * 10 + ["no_text: line 2: blank"]
    whole = with_columns(TABLE.slice(0, 2), added)
    assert whole.schema.names == ["id", "body", *added.schema.names]


def test_the_package_that_is_missing_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SafeguardError, match=r"pip install '\.\[parquet\]'"):
        frames.table_of(object())
