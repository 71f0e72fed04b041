"""The output holds what the input held, in whole rows only, whatever the formats are."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows.layouts import guard, unguard
from safeguard_cli.rows.sink import check_names, default_output, open_sink, output_format, verdict_columns
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.verdict import RowError, Verdict

SPAM = Verdict("spam", True, 0.98, {"spam": 0.98, "ham": 0.02}, "low")
HAM = Verdict("ham", False, 0.02, {"spam": 0.02, "ham": 0.98}, "low")
COLUMNS = verdict_columns()


def write(data, format="jsonl", *, source_format=None, verdicts=None, **options):
    """Return the whole output for an input, with each readable row labelled ham."""
    out = io.BytesIO()
    with open_source(io.BytesIO(data), format=source_format) as source:
        options = {"names": ["spam"], "columns": COLUMNS, **options}
        with open_sink(out, source=source, format=format, **options) as sink:
            for record in source:
                sink.write(record, verdicts or {"spam": Verdict(error=record.error) if record.error else HAM})
    return out.getvalue()


def table(data, delimiter=","):
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


def dicts(data, delimiter=","):
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMES = st.text(st.sampled_from('ab_"\\{},é'), min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=5)
DUMPS = st.sampled_from(
    [
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        lambda value: " " + json.dumps(value, separators=(" , ", " :\t"))[:-1] + " } ",
    ]
)


@given(ROWS, DUMPS)
def test_jsonl_rows_keep_their_bytes(rows, dumps):
    lines = [dumps(row).encode() for row in rows]
    out = write(b"\n".join(lines), source_format="jsonl").split(b"\n")
    assert out.pop() == b"" and len(out) == len(lines)
    for row, before, after in zip(rows, lines, out, strict=True):
        assert after.startswith(before.rstrip()[:-1].rstrip())
        assert json.loads(after) == row | {"spam": HAM.as_dict()}


@given(ROWS, DUMPS)
def test_jsonl_to_csv_keeps_the_values(rows, dumps):
    out = dicts(write("\n".join(map(dumps, rows)).encode(), "csv", source_format="jsonl"))
    for row, cells in zip(rows, out, strict=True):
        extra = json.loads(cells["_extra"] or "{}")
        assert set(extra) == set(row) - set(rows[0])
        for name, value in row.items():
            if name in extra:
                assert extra[name] == value
            elif isinstance(value, str) or value is None:
                assert cells[name] == (value or "")
            else:
                assert json.loads(cells[name]) == value


@given(ROWS, DUMPS, st.sets(NAMES, max_size=3))
def test_keep_leaves_only_what_it_names(rows, dumps, keep):
    data = "\n".join(map(dumps, rows)).encode()
    keep |= set(list(rows[0])[:1])
    for row, line in zip(rows, write(data, source_format="jsonl", keep=list(keep)).splitlines(), strict=True):
        assert json.loads(line) == {name: row[name] for name in row if name in keep} | {"spam": HAM.as_dict()}
    header = table(write(data, "csv", source_format="jsonl", keep=list(keep)))[0]
    assert header == [name for name in rows[0] if name in keep] + [f"spam_{column}" for column in COLUMNS]


CELLS = st.lists(
    st.lists(st.text(st.sampled_from('ab ,;"\r\n\t\0é=-'), max_size=5), min_size=3, max_size=3), max_size=6
)


@given(CELLS, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]))
def test_csv_to_csv_keeps_values_delimiter_and_line_ending(rows, delimiter, line_ending):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_ending, quoting=csv.QUOTE_ALL).writerows(
        [["a", "a", "text"], *rows]
    )
    out = write(text.getvalue().encode(), "csv", source_format="csv")
    assert out.endswith(line_ending.encode())
    # This program's own reader reads it back too: csv.reader of Python 3.10 refuses NUL.
    with open_source(io.BytesIO(out), format="csv") as source:
        assert source.header == ("a", "a", "text", *(f"spam_{column}" for column in COLUMNS))
        assert source.delimiter == delimiter and source.line_ending == line_ending
        assert [list(record.cells[:3]) for record in source] == rows
    assert [row[:3] for row in table(out.replace(b"\0", b"0"), delimiter)[1:]] == [
        [cell.replace("\0", "0") for cell in row] for row in rows
    ]


@given(CELLS)
def test_csv_to_jsonl_keeps_the_values(rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "a", "text"], *rows])
    out = [json.loads(line) for line in write(text.getvalue().encode(), source_format="csv").split(b"\n")[:-1]]
    assert out == [dict(zip(("a", "a_2", "text"), row, strict=True), spam=HAM.as_dict()) for row in rows]


@given(st.binary(max_size=150), st.sampled_from(["jsonl", "csv"]), st.sampled_from(["jsonl", "csv"]))
def test_one_row_out_for_every_row_in(data, source_format, format):
    try:
        with open_source(io.BytesIO(data), format=source_format, max_row_bytes=60) as source:
            records = list(source)
        out = write(data, format, source_format=source_format)
    except SafeguardError:
        return
    if format == "csv":
        with open_source(io.BytesIO(out), format="csv") as source:
            rows = list(source)
            assert all(len(row.cells) == len(source.header) for row in rows)
        assert len(rows) == len(records)
    else:
        assert all(json.loads(line)["spam"] for line in out.split(b"\n")[:-1])


def test_numbers_and_duplicate_keys_stay_as_they_are():
    row = b'{"id":123456789012345678901234567890,"x":1.10,"x":2.50,"text":"a","e":1e300}'
    assert write(row).startswith(row[:-1] + b',"spam":{')
    assert write(row, keep=["x", "id"]).startswith(row[: row.index(b',"text"')] + b',"spam":{')
    cells = dicts(write(row, "csv"))[0]
    assert cells["id"] == "123456789012345678901234567890" and cells["x"] == "2.50" and cells["e"] == "1e300"


def test_an_object_without_members_gets_no_comma():
    assert json.loads(write(b"{ }")) == {"spam": HAM.as_dict()}
    assert json.loads(write(b'{"a":"{"}', keep=[])) == {"spam": HAM.as_dict()}


def test_several_verdicts_stand_side_by_side():
    out = json.loads(write(b'{"a":1}', names=["x", "y"], verdicts={"x": HAM, "y": SPAM}))
    assert out == {"a": 1, "x": HAM.as_dict(), "y": SPAM.as_dict()}


def test_an_unreadable_line_comes_out_with_its_number_and_text():
    error = {"label": None, "error": {"code": "bad_row", "message": "line 2: the JSON value is not an object"}}
    data = b'{"text":"a"}\n[1,"\xc3\xa9"]\n{"a\xff'
    out = [json.loads(line) for line in write(data).splitlines()]
    assert out[1] == {"_line": 2, "_raw": '[1,"é"]', "spam": error} and out[2]["_raw"] == '{"a�'
    assert json.loads(dicts(write(data, "csv"))[1]["_extra"]) == {"_line": 2, "_raw": '[1,"é"]'}
    assert json.loads(write(data, keep=["text"]).splitlines()[1]) == {"_line": 2, "spam": error}
    assert dicts(write(data, "csv", keep=["text"]))[1] == {
        "text": "",
        **dict.fromkeys((f"spam_{column}" for column in COLUMNS), ""),
        "spam_error": "bad_row: line 2: the JSON value is not an object",
    }


def test_a_row_over_the_limit_shows_its_beginning():
    out = io.BytesIO()
    with open_source(io.BytesIO(b"{" + b"x" * 10_000), max_row_bytes=8000) as source:
        sink = open_sink(out, source=source, format="jsonl", names=["spam"], columns=COLUMNS)
        for record in source:
            sink.write(record, {"spam": Verdict(error=record.error)})
    row = json.loads(out.getvalue())
    assert row["_raw"] == "{" + "x" * 4095 + "…" and row["spam"]["error"]["code"] == "row_too_big"


def test_ragged_csv_rows_lose_nothing():
    data = b'id,text,n\r\n1,short\r\n2,x,y,"z,z"\r\n3,"never closed,c\r\n4,\xff,d\r\n'
    rows = table(write(data, "csv"))
    assert [row[:3] for row in rows[1:]] == [
        ["1", "short", ""],
        ["2", "x", 'y,"z,z"'],
        ['3,"never closed,c', "", ""],
        ["4", "�", "d"],
    ]
    assert [row[-1].partition(":")[0] for row in rows] == ["spam_error", "", "bad_row", "bad_row", "bad_encoding"]
    out = [json.loads(line) for line in write(data).splitlines()]
    assert out[0] | {"spam": 0} == {"id": "1", "text": "short", "spam": 0}
    assert out[1] | {"spam": 0} == {"id": "2", "text": "x", "n": "y", "_extra": ["z,z"], "spam": 0}
    assert out[2] | {"spam": 0} == {"_line": 4, "_raw": '3,"never closed,c', "spam": 0}


def test_csv_columns_are_those_asked_for():
    columns = verdict_columns(windows=True, truncated=True, rationale=True, reasoning=True)
    assert columns == (*COLUMNS[:-1], "windows", "truncated", "rationale", "reasoning", "error")
    assert COLUMNS == ("label", "violates", "p_violates", "score", "scores", "effort", "error")
    verdict = Verdict(
        "spam",
        True,
        0.5,
        {"spam": 0.5, "ham": 0.5},
        "low",
        windows=3,
        truncated=True,
        rationale="=1+1",
        reasoning="thought",
    )
    row = dicts(write(b"text\n=a\n", "csv", columns=columns, verdicts={"spam": verdict}))[0]
    assert list(row.values()) == [
        *("=a", "spam", "true", "0.5", "0.5", '{"spam":0.5,"ham":0.5}', "low", "3", "true", "'=1+1", "thought", ""),
    ]


@pytest.mark.parametrize("text", [mark + "a" for mark in "=+-@\t\r\n＝＋－＠"] + ["'=a", "''@a"])
def test_csv_safe_guards_every_column(text):
    data = json.dumps({"text": text, "n": -5}).encode()
    assert dicts(write(data, "csv"))[0]["text"] == text
    row = dicts(write(data, "csv", csv_safe=True))[0]
    assert row["text"] == "'" + text and row["n"] == "'-5"


@given(st.text("'=＝a -\n", max_size=6))
def test_what_guards_a_cell_can_be_taken_away_again(cell):
    assert unguard(guard(cell)) == cell
    assert guard(cell)[:1] not in tuple("=+-@\t\r\n＝＋－＠")


def test_a_label_that_begins_like_a_formula_is_read_as_it_was(tmp_path):
    verdict = Verdict("＝1", True, 0.5, {"＝1": 0.5, "'=1": 0.5}, "low")
    row = dicts(write(b"text\na\n", "csv", verdicts={"spam": verdict}))[0]
    assert row["spam_label"] == "'＝1"
    assert unguard(row["spam_label"]) == "＝1"


def test_only_violating_drops_the_rest_but_no_error():
    error = Verdict(error=RowError("engine", "x"))
    out = io.BytesIO()
    with open_source(io.BytesIO(b'{"i":0}\n{"i":1}\n{"i":2}\n{"i":3}\n')) as source:
        sink = open_sink(out, source=source, format="jsonl", names=["x"], columns=COLUMNS, only_violating=True)
        results = [[HAM, HAM], [HAM, SPAM], [HAM, error], [SPAM, SPAM]]
        written = [
            sink.write(row, dict(zip("xy", pair, strict=True))) for row, pair in zip(source, results, strict=True)
        ]
    assert written == [False, True, True, True]
    assert [json.loads(line)["i"] for line in out.getvalue().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "format", "keep", "refused"),
    [
        (b'{"spam":1,"text":"a"}', "jsonl", None, "'spam'.*--as"),
        (b'{"spam":1,"text":"a"}', "csv", None, None),
        (b'{"spam":1,"text":"a"}', "jsonl", ["text"], None),
        (b"spam_label,text\n1,a\n", "csv", None, "'spam_label'.*--as"),
        (b"spam,text\n1,a\n", "jsonl", None, "'spam'.*--as"),
        (b"spam,text\n1,a\n", "csv", None, None),
        (b"a,text\n1,a\n", "csv", ["text", "b"], "'b'.*'a', 'text'"),
        (b'{"text":"a"}', "jsonl", ["b"], "'b'.*'text'"),
        (b'{"text":"a"}', "jsonl", ["b", "text"], "'b' for --keep.*'text'"),
        (b'{"text":"a"}\n{"text":"a","b":1}', "jsonl", ["b", "text"], None),
        (b'{"text":"a","id":1}', "jsonl", ["id", "txet"], "'txet' for --keep.*did you mean 'text'"),
        (b'{"text":"a"}', "jsonl", [], None),
        (b"", "jsonl", ["b"], None),
    ],
)
def test_names_already_taken_or_missing_are_refused(data, format, keep, refused):
    with open_source(io.BytesIO(data)) as source:
        if refused is None:
            check_names(source, format, ["spam"], COLUMNS, keep)
        else:
            with pytest.raises(UsageError, match=refused):
                check_names(source, format, ["spam"], COLUMNS, keep)


def test_policies_whose_columns_coincide_are_refused():
    with open_source(io.BytesIO(b"text\n")) as source, pytest.raises(UsageError, match="a_p_violates"):
        check_names(source, "csv", ["a", "a_p"], COLUMNS)


def test_the_output_follows_its_extension_else_the_input():
    for name, format in [
        *(("x.csv", "csv"), ("x.TSV", "csv"), ("x.ndjson", "jsonl"), ("x.JSONL", "jsonl"), ("x.parquet", "parquet")),
        *((".csv", "csv"), ("labels", "csv"), ("labels.", "csv"), ("dir.json/labels", "csv")),
    ]:
        assert output_format(Path(name), "csv") == format
    assert output_format(None, "jsonl") == output_format(Path("labels"), "jsonl") == "jsonl"


@pytest.mark.parametrize(
    "ending", ["json.gz", "gz", "jsonl.gz", "xls", "zst", "csv.zst", "txt", "parquet.bz2", "2024-01"]
)
def test_a_format_that_is_not_written_is_refused_naming_those_that_are(ending):
    with pytest.raises(UsageError, match=r"\*\.jsonl, \*\.ndjson, \*\.json, \*\.csv, \*\.tsv, \*\.parquet, \*\.xlsx"):
        output_format(Path(f"x.{ending}"), "csv")


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a.b.jsonl", "a.b.labels.jsonl"),
        ("a.tsv", "a.labels.tsv"),
        ("a.csv", "a.labels.csv"),
        ("a.ndjson", "a.labels.jsonl"),
    ],
)
def test_the_default_output_stands_beside_the_input(tmp_path, name, out):
    (tmp_path / name).write_bytes(b"")
    with open_source(tmp_path / name) as source:
        assert default_output(source) == tmp_path / out


def test_the_delimiter_follows_the_outputs_extension(tmp_path):
    for name, data, first in [
        ("a.tsv", b"a,b\n", b"a\tb\t"),
        ("b.csv", b"a\tb\n", b"a,b,"),
        ("c.csv", b"a;b\n", b"a;b;"),
    ]:
        with open_source(io.BytesIO(data), format="csv") as source:
            open_sink(tmp_path / name, source=source, format="csv", names=["spam"], columns=COLUMNS).close()
        assert (tmp_path / name).read_bytes().startswith(first)


def one_record():
    with open_source(io.BytesIO(b'{"text":"a"}')) as source:
        return source, next(iter(source))


def test_rows_are_on_file_as_soon_as_they_are_written_and_can_be_appended_to(tmp_path):
    source, record = one_record()
    for append in (False, True):
        sink = open_sink(tmp_path / "o", source=source, format="csv", names=["s"], columns=COLUMNS, append=append)
        sink.write(record, {"s": HAM})
        assert len((tmp_path / "o").read_bytes().splitlines()) == 2 + append
        sink.close()


@pytest.mark.parametrize("taken", [0, 7])
def test_a_full_disk_leaves_whole_rows_and_a_sentence(tmp_path, monkeypatch, taken):
    source, record = one_record()
    sink = open_sink(tmp_path / "o.jsonl", source=source, format="jsonl", names=["s"], columns=COLUMNS)
    sink.write(record, {"s": HAM})
    whole = (tmp_path / "o.jsonl").read_bytes()
    real, turns = os.write, iter([taken, 0])

    def full(descriptor, data):
        if size := next(turns):
            return real(descriptor, data[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(SafeguardError, match=r"o\.jsonl: writing failed: No space left"):
            sink.write(record, {"s": HAM})
    assert (tmp_path / "o.jsonl").read_bytes() == whole
    sink.write(record, {"s": HAM})
    sink.close()
    assert (tmp_path / "o.jsonl").read_bytes() == whole * 2


def test_a_closed_pipe_is_the_callers_business():
    source, record = one_record()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        sink = open_sink(pipe, source=source, format="jsonl", names=["s"], columns=COLUMNS)
        with pytest.raises(BrokenPipeError):
            sink.write(record, {"s": HAM})


def test_an_output_that_cannot_be_opened_is_named(tmp_path):
    source, _ = one_record()
    with pytest.raises(SafeguardError, match="cannot be written"):
        open_sink(tmp_path, source=source, format="jsonl", names=["s"], columns=COLUMNS)


def test_short_rows_pass_at_speed(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b'{"id":%d,"text":"see you at noon tomorrow"}\n' % i for i in range(30_000)))
    started = time.perf_counter()
    with open_source(path) as source:
        sink = open_sink(tmp_path / "out.jsonl", source=source, format="jsonl", names=["spam"], columns=COLUMNS)
        for record in source:
            sink.write(record, {"spam": HAM})
        sink.close()
    # An idle core makes 100,000 rows/s and more; a test machine may be busy.
    assert 30_000 / (time.perf_counter() - started) > 10_000
