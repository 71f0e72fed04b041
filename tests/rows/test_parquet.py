"""Parquet in and out: the rows and values of any file, and runs that are killed anywhere and resumed."""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import random
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Manifest, Refused
from safeguard_cli.output.merge import merge
from safeguard_cli.output.show import show
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import count_rows, open_source


def read(path: Path, **options: object) -> list[Record]:
    with open_source(path, **options) as source:
        return list(source)


pytestmark = pytest.mark.usefixtures("own_cache")

# Reading

LEAVES: dict[pa.DataType, st.SearchStrategy] = {
    pa.string(): st.text(max_size=20),
    pa.large_string(): st.text(max_size=20),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.decimal128(38, 4): st.decimals(-(10**30), 10**30, places=4),
    pa.binary(): st.binary(max_size=20),
    pa.timestamp("us"): st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
    pa.timestamp("ns", "UTC"): st.integers(-(2**63), 2**63 - 1),
    pa.timestamp("s"): st.integers(-(2**50), 2**50),
    pa.date32(): st.dates(),
    pa.duration("ns"): st.integers(-(2**62), 2**62),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", "b", "ü"]),
    pa.null(): st.none(),
}


def values(kind: pa.DataType) -> st.SearchStrategy:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        found = st.lists(values(kind.value_type), max_size=3)
    elif pa.types.is_map(kind):
        found = st.lists(st.tuples(st.text(max_size=3), values(kind.item_type)), max_size=3)
    elif pa.types.is_struct(kind):
        found = st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    else:
        found = LEAVES[kind]
    return st.none() | found


kinds = st.recursive(
    st.sampled_from(list(LEAVES)),
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(lambda kind: pa.map_(pa.string(), kind))
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{at}", kind) for at, kind in enumerate(kinds)])
        )
    ),
    max_leaves=4,
)


def plain(value: object, kind: pa.DataType) -> object:
    """Return what a value must be in JSON, computed in another way than by the program; `...` if anything will do."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if pa.types.is_struct(kind):
        return {field.name: plain(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [[key, plain(item, kind.item_type)] for key, item in value]
    if pa.types.is_list(kind):
        return [plain(item, kind.value_type) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):
        return float(value)
    return ... if pa.types.is_temporal(kind) else value


def agrees(found: object, expected: object) -> bool:
    if expected is ...:
        return isinstance(found, str)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(agrees(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(agrees, found, expected))
    return found == expected and (isinstance(found, str) == isinstance(expected, str))


@pytest.mark.promise("Every row that goes in comes out once and in order, whatever the rows are.")
@settings(max_examples=150)
@given(st.data())
def test_every_row_of_any_file_comes_out_once_with_its_values(tmp_path_factory, data) -> None:
    columns = data.draw(st.lists(kinds, min_size=1, max_size=3))
    names = [f"c{at}" for at in range(len(columns))]
    rows = data.draw(st.integers(0, 8))
    drawn = [data.draw(st.lists(values(kind), min_size=rows, max_size=rows)) for kind in columns]
    arrays = [pa.array(column, kind) for column, kind in zip(drawn, columns, strict=True)]
    path = tmp_path_factory.mktemp("p") / "in.parquet"
    pq.write_table(
        pa.table(arrays, names),
        path,
        row_group_size=data.draw(st.integers(1, 5)),
        version="2.6",
    )
    records = read(path)
    assert [record.index for record in records] == list(range(rows)) == list(range(count_rows(path)))
    for at, record in enumerate(records):
        assert record.error is None
        assert json.loads(record.raw).keys() == dict.fromkeys(names).keys()
        for name, column, kind in zip(names, drawn, columns, strict=True):
            assert agrees(record.fields[name], plain(column[at], kind)), (kind, column[at], record.fields[name])


def invalid(kind: pa.DataType, values: list[bytes]) -> pa.Array:
    """Return a column of strings made of these bytes, which no library checks when it writes."""
    raw = pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary())
    return pa.Array.from_buffers(kind, len(values), raw.buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_string_that_is_not_utf8_is_a_row_in_error_and_the_others_are_read(tmp_path, kind) -> None:
    texts = invalid(kind, [b"fine", b'bad "\xff\xfe\n', "gr\u00fcn".encode()])
    nested = pa.ListArray.from_arrays([0, 1, 1, 3], invalid(pa.string(), [b"x", b"y", b"\xc3"]))
    pq.write_table(pa.table({"id": [1, 2, 3], "text": texts, "tags": nested}), tmp_path / "a.parquet")
    records = read(tmp_path / "a.parquet")
    assert [record.error and record.error.code for record in records] == [None, "bad_encoding", "bad_encoding"]
    assert records[0].fields == {"id": 1, "text": "fine", "tags": ["x"]}
    assert b'"id":2' in records[1].raw


def test_times_are_iso_text_and_what_python_cannot_hold_is_still_a_row(tmp_path) -> None:
    table = {
        "at": pa.array([1704067200123456789, 0], pa.timestamp("ns")),
        "zone": pa.array([0, 2**55], pa.timestamp("ms", "Europe/Paris")),
        "day": pa.array([0, 2**30], pa.date32()),
        "inner": pa.array(
            [{"at": 1, "day": 2**31 - 1}, {"at": 0, "day": 0}],
            pa.struct([("at", pa.timestamp("ns", "UTC")), ("day", pa.date32())]),
        ),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet", version="2.6")
    first, second = (record.fields for record in read(tmp_path / "a.parquet"))
    assert first["at"] == "2024-01-01T00:00:00.123456789"
    assert first["zone"].startswith("1970-01-01T01:00:00")
    assert (first["day"], first["inner"]["at"]) == ("1970-01-01", "1970-01-01T00:00:00.000000001Z")
    assert second["inner"]["day"] == "1970-01-01"
    assert isinstance(second["day"], str) and isinstance(second["zone"], str)


def test_names_that_come_twice_are_told_apart_and_a_file_may_have_no_rows(tmp_path) -> None:
    pq.write_table(pa.table([pa.array(["x"]), pa.array(["y"])], ["a", "a"]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0].fields == {"a": "x", "a_2": "y"}
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet") == []


def test_a_row_over_the_limit_is_an_error_row_and_the_next_is_read(tmp_path) -> None:
    pq.write_table(pa.table({"text": ["a", "x" * 5000, "b"]}), tmp_path / "a.parquet")
    codes = [record.error and record.error.code for record in read(tmp_path / "a.parquet", max_row_bytes=1000)]
    assert codes == [None, "row_too_big", None]


def test_memory_is_that_of_a_few_rows_not_of_a_row_group(tmp_path) -> None:
    rows = 40_000
    pq.write_table(
        pa.table({"text": [random.Random(i).randbytes(750).hex() for i in range(rows)]}), tmp_path / "a.parquet"
    )
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    with open_source(tmp_path / "a.parquet") as source:
        for _ in source:
            most = max(most, pool.bytes_allocated() - before)
            rows -= 1
    assert rows == 0
    assert most < 15e6  # of 60 MB


def test_what_is_no_parquet_file_is_said(tmp_path) -> None:
    for name, content in (("a", b""), ("b", b"PAR1"), ("c", b"PAR1" + b"\xff" * 50 + b"PAR1"), ("d", b'{"text": 1}\n')):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"{name}.parquet: not a Parquet file"):
            read(path)
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="needs a file"), path.open("rb") as stream:
        open_source(stream, format="parquet")


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_gives_whole_rows_and_then_a_sentence(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "damaged.parquet"
    if not (whole := folder / "whole.parquet").exists():
        texts = [f"row {number} " + "é€" * (number % 7) for number in range(60)]
        table = pa.table({"id": range(60), "text": texts, "tags": [[text, None] for text in texts]})
        pq.write_table(table, whole, row_group_size=20, compression="snappy")
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content)] * 3 + [len(content) // 2]))])
    try:
        for record in read(path, max_row_bytes=1 << 20):
            assert record.error is not None or isinstance(record.fields, dict)
    except SafeguardError as problem:
        assert str(path) in str(problem)
        assert len(str(problem)) < 1000


# Writing


@pytest.fixture
def table(bench) -> pa.Table:
    """Write an input with types that JSON lacks and with error rows; the bench writes Parquet."""
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    rows = 100
    made = pa.table(
        {
            "id": pa.array(range(rows), pa.int32()),
            "text": [None if at % 11 == 0 else f"call me on {at * 7919}" for at in range(rows)],
            "at": pa.array([1704067200123456789 + at for at in range(rows)], pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal(at) / 100 for at in range(rows)], pa.decimal128(9, 2)),
            "raw": [bytes([at]) * 3 for at in range(rows)],
            "tags": pa.array([[{"a": at}] for at in range(rows)], pa.list_(pa.struct([("a", pa.int8())]))),
        }
    ).replace_schema_metadata({"pandas": "{}", "huggingface": "{}"})
    pq.write_table(made, bench.source, row_group_size=30, version="2.6")
    return made


def left_over(bench) -> list[str]:
    return sorted(path.name for path in bench.folder.iterdir() if path.name.startswith(bench.out.name))


def failing_now_and_then(*given: object) -> FakeEngine:
    return FakeEngine(*given, error=lambda prompt: prompt.row % 9 == 5)


FINISHED = ["out.parquet", "out.parquet.manifest.json"]


def test_own_columns_stay_as_they_are_and_verdicts_are_those_of_jsonl(bench, table, no_fsync) -> None:
    assert bench(rationale=False, deterministic=True) == 3
    made = pq.read_table(bench.out)
    assert made.select(table.column_names).equals(table)
    assert set(made.schema.metadata) == {b"pandas"}
    assert left_over(bench) == FINISHED
    bench.out = bench.folder / "out.jsonl"
    assert bench(deterministic=True) == 3
    for line, verdict in zip(bench.out.read_text().splitlines(), made["spam"].to_pylist(), strict=True):
        expected = json.loads(line)["spam"]
        assert {key: value for key, value in verdict.items() if value is not None and key != "windows"} == {
            key: value for key, value in expected.items() if value is not None
        }
    assert {label.type for label in made["spam"].type.field("scores").type} == {pa.float64()}


def test_a_labelled_parquet_file_is_read_back_like_any_other_output(bench, table, no_fsync) -> None:
    bench(policies=("spam", "hate"))
    labels = read_labels(bench.out)
    assert [answers.name for answers in labels.answers] == ["spam", "hate"]
    errors = [row.verdicts["hate"].error for row in labels.rows]
    assert [error is not None for error in errors] == [at % 11 == 0 for at in range(100)]
    assert labels.rows[1].verdicts["spam"].scores.keys() == {"ham", "spam"}
    assert show(bench.out, as_json=False) == 0


def kill_at(bench, nth: int, **options: object) -> bool:
    """Kill a run at the nth step that changes what is on disk; return False if it has fewer steps."""
    child = os.fork()
    if not child:
        steps = iter(range(nth))

        def counted(real):
            def step(*given, **named):
                if next(steps, None) is None:
                    os._exit(9)
                return real(*given, **named)

            return step

        for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "open"), (Manifest, "save"), (os, "fsync")):
            setattr(owner, name, counted(getattr(owner, name)))
        bench(**options)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.promise("A Parquet output appears whole or not at all. A run killed at any step resumes to the same file.")
@pytest.mark.parametrize("first", [{}, {"limit": 40}, {"overwrite": True}])
def test_killed_at_every_step_that_touches_the_disk_it_is_continued_to_the_same_file(
    bench, table, at_once, first
) -> None:
    """This holds too if it resumes a finished file (first run with a limit), and if it replaces one."""
    whole = pq.read_table(bench.folder / "whole.parquet") if bench.whole(deterministic=True) else None
    nth, killed = 0, True
    while killed:
        for name in left_over(bench):
            (bench.folder / name).unlink()
        if first:
            bench(deterministic=True, **({} if "overwrite" in first else first))
        killed = kill_at(bench, nth, deterministic=True, **({"overwrite": True} if "overwrite" in first else {}))
        if bench.out.exists():
            pq.read_table(bench.out)  # the file is never partial
        assert bench(deterministic=True) == 3
        assert pq.read_table(bench.out).equals(whole), nth
        assert left_over(bench) == FINISHED
        nth += 1
    assert nth > 12


@pytest.mark.promise("A Parquet output appears whole or not at all. A run killed at any step resumes to the same file.")
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_killed_at_any_row_is_continued(bench, table, no_fsync, deterministic) -> None:
    bench.whole(deterministic=deterministic)
    for prompts in (0, 1, 40, 88):
        bench.out.unlink(missing_ok=True)
        bench.killed_after(prompts, overwrite=True, deterministic=deterministic)
        assert not bench.out.exists()
        assert show(bench.out, as_json=False) == 0
        assert bench(deterministic=deterministic) == 3
        made = pq.read_table(bench.out)
        assert made["id"].to_pylist() == list(range(100))
        assert not deterministic or made.equals(pq.read_table(bench.folder / "whole.parquet"))


def test_a_finished_file_is_left_alone_or_gone_on_with_as_any_output(bench, table, no_fsync) -> None:
    assert bench(limit=30, engine=failing_now_and_then) == 3
    assert pq.read_table(bench.out).num_rows == 30
    before = bench.state()
    assert bench(limit=30) == 3
    assert bench.state() == before
    with pytest.raises(Refused, match="effort"):
        bench(effort="none")
    assert bench.state() == before
    bench()
    made = pq.read_table(bench.out)["spam"].to_pylist()
    failed = [at for at, verdict in enumerate(made) if verdict["error"] and verdict["error"]["code"] == "engine"]
    assert failed
    bench(retry_errors=True)
    again = pq.read_table(bench.out)["spam"].to_pylist()
    assert [at for at in range(100) if again[at] != made[at]] == failed
    more = pa.concat_tables([table, table.slice(1, 5)])
    pq.write_table(more, bench.source, version="2.6")
    with pytest.raises(Refused, match="--append-input"):
        bench()
    bench(append_input=True)
    made = pq.read_table(bench.out)
    assert made["id"].to_pylist() == more["id"].to_pylist()
    assert made["spam"].to_pylist()[:100] == again
    assert left_over(bench) == FINISHED


def test_a_parquet_file_that_is_not_ours_or_was_changed_is_never_touched(bench, table, no_fsync) -> None:
    pq.write_table(table, bench.out)
    before = bench.state()
    with pytest.raises(Refused, match="not an output of safeguard"):
        bench()
    assert bench.state() == before
    assert bench(overwrite=True) == 3
    with bench.out.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")
    with pytest.raises(Refused, match="changed after it was finished"):
        bench()
    with pytest.raises(UsageError, match="this is the input itself"):
        bench(output=str(bench.source))
    with pytest.raises(UsageError, match="--only"):
        bench(only="violates")


def test_rows_of_json_get_the_type_that_all_values_have_and_the_rest_is_json(bench, no_fsync) -> None:
    bench.source, bench.out = bench.folder / "in.jsonl", bench.folder / "out.parquet"
    lines = [
        '{"id": 9007199254740993, "text": "a", "n": 1, "ok": true, "mixed": "x", "deep": [1], "none": null}',
        '{"id": 2, "text": "b", "n": 2.5, "ok": false, "mixed": 1, "deep": {"k": null}, "later": [2]}',
        "no json",
        "{}",
    ]
    bench.source.write_text("\n".join(lines))
    assert bench() == 3
    made = pq.read_table(bench.out)
    kinds = dict(zip(made.schema.names, map(str, made.schema.types), strict=True))
    kinds.pop("spam")
    assert kinds == {"id": "int64", "n": "double", "ok": "bool"} | dict.fromkeys(
        ["text", "mixed", "deep", "none", "_extra"], "string"
    )
    rows = made.to_pylist()
    assert (rows[0]["id"], rows[0]["mixed"], rows[0]["deep"]) == (2**53 + 1, "x", "[1]")
    assert (rows[1]["mixed"], rows[1]["_extra"]) == ("1", '{"later":[2]}')
    assert json.loads(rows[2]["_extra"]) == {"_line": 3, "_raw": "no json"}
    assert [row["spam"]["error"] and row["spam"]["error"]["code"] for row in rows] == [
        None,
        None,
        "bad_json",
        "no_text",
    ]


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ("1 -9223372036854775808 9223372036854775807", "int64", [1, -(2**63), 2**63 - 1]),
        ("1 9223372036854775808", "string", ["1", "9223372036854775808"]),
        ("-9223372036854775809", "string", ["-9223372036854775809"]),
        ("1 123456789012345678901234567890", "string", ["1", "123456789012345678901234567890"]),
        ("9007199254740992 2.5 1e3", "double", [2.0**53, 2.5, 1000.0]),
        ("9007199254740993 2.5 1.10", "string", ["9007199254740993", "2.5", "1.10"]),
        ('"a" 18446744073709551616 [1.10]', "string", ["a", "18446744073709551616", "[1.10]"]),
        ('{"n":123456789012345678901234567890}', "string", ['{"n":123456789012345678901234567890}']),
        ("null true false", "bool", [None, True, False]),
        ("true 1", "string", ["true", "1"]),
        ("null", "string", [None]),
    ],
)
def test_values_of_json_keep_every_digit(bench, no_fsync, values, kind, found) -> None:
    bench.source, bench.out = bench.folder / "in.jsonl", bench.folder / "out.parquet"
    lines = [f'{{"text":"a","x":0,"x":{value}}}\n' for value in values.split()]  # the last of a repeated key counts
    bench.source.write_text("".join(lines))
    assert bench() == 0
    column = pq.read_table(bench.out)["x"]
    assert (str(column.type), column.to_pylist()) == (kind, found)
    bench.out = bench.folder / "out.csv"
    assert bench() == 0
    cells = [record.fields["x"] for record in read(bench.out)]
    assert cells == ["" if value == "null" else value.strip('"') for value in values.split()]


numbers = st.one_of(
    st.integers().map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(numbers | st.sampled_from(["null", "true", '"é"', "[1, 2.50]", '{"a":1e1}']), min_size=1, max_size=5))
def test_any_values_mean_in_parquet_what_they_meant_in_json(bench, at_once, values) -> None:
    bench.source, bench.out = bench.folder / "in.jsonl", bench.folder / "out.parquet"
    bench.source.write_text("".join(f'{{"text":"a","x":{value}}}\n' for value in values))
    assert bench(overwrite=True) == 0
    column = pq.read_table(bench.out)["x"]
    for value, found in zip(values, column.to_pylist(), strict=True):
        if value == "null" or found is None:
            assert found is None and value == "null"
        elif pa.types.is_string(column.type):
            assert found == (json.loads(value) if value.startswith('"') else value)
        elif pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
            assert found == json.loads(value)
        else:  # an integer must be equal, a fraction the nearest double
            assert found == (int(value) if value.lstrip("-").isdigit() else float(value))


def test_a_field_of_the_policys_name_in_a_later_row_stays(bench, no_fsync) -> None:
    bench.source = bench.folder / "in.jsonl"
    bench.source.write_text('{"id":1,"text":"a"}\n{"id":2,"text":"b","spam":{"label":"MINE"},"hate":1}\n')
    for suffix in ("parquet", "csv"):
        bench.out = bench.folder / f"out.{suffix}"
        assert bench(policies=("spam", "hate")) == 0
        assert read(bench.out)[1].fields["_extra"] == '{"spam":{"label":"MINE"},"hate":1}'
    assert [row["label"] for row in pq.read_table(bench.folder / "out.parquet")["spam"].to_pylist()][1] in (
        "spam",
        "ham",
    )


def odd_columns() -> dict[str, pa.Array]:
    """Return a column of every type in Parquet files, including those that Arrow's `take` does not know."""
    rows = 70  # more than are read at once
    texts = [None if n % 7 == 3 else f"text {n} " + "é" * (n % 20) for n in range(rows)]
    whole = [None if n % 7 == 4 else n for n in range(rows)]
    exact = [None if n is None else Decimal(n) / 4 for n in whole]
    ids = [None if n is None else n.to_bytes(16, "big") for n in whole]
    lists = [None if n is None else [n] * (n % 3) for n in whole]
    extension = pa.ExtensionArray.from_storage
    return {
        "string_view": pa.array(texts, pa.string_view()),
        "binary_view": pa.array([text and text.encode() for text in texts], pa.binary_view()),
        "large_string": pa.array(texts, pa.large_string()),
        "large_binary": pa.array([text and text.encode() for text in texts], pa.large_binary()),
        "fixed_binary": pa.array(ids, pa.binary(16)),
        "dictionary": pa.array(texts).dictionary_encode(),
        "list_view": pa.array(lists, pa.list_view(pa.int32())),
        "large_list_view": pa.array(lists, pa.large_list_view(pa.int16())),
        "large_list": pa.array(lists, pa.large_list(pa.int8())),
        "fixed_list": pa.array([None if n is None else [n, n] for n in whole], pa.list_(pa.int32(), 2)),
        "list_of_views": pa.array([text and [text, None] for text in texts], pa.list_(pa.string_view())),
        "struct_of_views": pa.array([text and {"a": text} for text in texts], pa.struct([("a", pa.string_view())])),
        "map_of_views": pa.array(
            [text and [(text, "v")] for text in texts], pa.map_(pa.string_view(), pa.string_view())
        ),
        "decimal32": pa.array(exact, pa.decimal32(7, 2)),
        "decimal64": pa.array(exact, pa.decimal64(15, 2)),
        "decimal256": pa.array(exact, pa.decimal256(70, 2)),
        "half": pa.array(whole, pa.float32()).cast(pa.float16()),
        "time32": pa.array(whole, pa.time32("ms")),
        "time64": pa.array(whole, pa.time64("ns")),
        "duration": pa.array(whole, pa.duration("s")),
        "date64": pa.array([n and n * 86_400_000 for n in whole], pa.date64()),
        "null": pa.nulls(rows),
        "uuid": extension(pa.uuid(), pa.array(ids, pa.binary(16))),
        "json": extension(pa.json_(pa.string_view()), pa.array([text and "{}" for text in texts], pa.string_view())),
        "bool8": extension(pa.bool8(), pa.array([n and n % 2 for n in whole], pa.int8())),
        "opaque": extension(pa.opaque(pa.string_view(), "t", "v"), pa.array(texts, pa.string_view())),
    }


@pytest.mark.parametrize("name", odd_columns())
def test_a_column_of_any_type_comes_out_as_it_was(bench, at_once, name) -> None:
    """This holds for a whole run, for a resumed one that had a limit, and for merged shards."""
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    column = odd_columns()[name]
    groups = {} if name == "struct_of_views" else {"row_group_size": 33}  # Arrow cannot cut those itself
    pq.write_table(pa.table({"text": ["hello"] * len(column), "x": column}), bench.source, **groups)
    made = pq.read_table(bench.source)

    def holds(expected: pa.Table) -> None:
        found = pq.read_table(bench.out)
        assert found.select(made.column_names).equals(expected)
        assert [verdict["error"] for verdict in found["spam"].to_pylist()] == [None] * len(expected)

    for limit in (5, 66, None):
        assert bench(limit=limit) == 0
        holds(made.slice(0, limit))
    shards = [bench.folder / f"part{part}.parquet" for part in (1, 2, 3)]
    for part, shard in enumerate(shards, 1):
        assert bench(output=str(shard), shard=(part, 3)) == 0
    assert merge(shards, bench.out, overwrite=True, quiet=True) == 0
    holds(made)
    assert bench() == 0


def test_a_column_that_cannot_be_written_is_refused_before_the_model_loads(bench, table, monkeypatch) -> None:
    def refuse(written: pa.Table, _: object) -> None:
        if written.schema.names == ["price"]:
            raise pa.ArrowNotImplementedError("Unhandled type\nat some line")

    monkeypatch.setattr(pq, "write_table", refuse)
    with pytest.raises(UsageError, match=r"column 'price' of type decimal128\(9, 2\).*\(Unhandled type\): .*--keep"):
        bench(engine=lambda *_: pytest.fail("the engine was started"))
    assert left_over(bench) == []
    assert bench(keep="id,at") == 3


def test_a_disk_that_is_full_at_the_end_keeps_the_labels_and_the_same_command_goes_on(
    bench, table, no_fsync, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    with monkeypatch.context() as patch:
        patch.setattr("safeguard_cli.run.to_parquet.write_parquet", full)
        with pytest.raises(
            SafeguardError, match=r"out\.parquet: cannot be written: File too large; the labels are in"
        ) as it:
            bench()
    assert it.value.exit_code == 1
    assert "out.parquet" not in left_over(bench)
    assert bench(engine=failing_now_and_then) == 3  # no row is labelled again
    assert {
        verdict["error"] and verdict["error"]["code"] for verdict in pq.read_table(bench.out)["spam"].to_pylist()
    } == {*("no_text", None)}
    assert left_over(bench) == FINISHED


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_keep_chooses_the_columns(bench, table, no_fsync, suffix) -> None:
    if suffix != "parquet":
        bench.fill(20, suffix)
    for keep, names in (("id", ["id", "spam"]), ("none", ["spam"])):
        bench.out = bench.folder / f"{keep}.parquet"
        assert bench(keep=keep, limit=20) == 3
        made = pq.read_table(bench.out)
        assert (made.schema.names, made.num_rows) == (names, 20)
        assert bench(keep=keep, limit=20) == 3


def test_parquet_goes_to_jsonl_and_csv_too(bench, table, no_fsync) -> None:
    for suffix in ("jsonl", "csv"):
        bench.out = bench.folder / f"out.{suffix}"
        bench.killed_after(40)
        assert bench() == 3
        assert ids(bench.out.read_bytes(), suffix) == list(range(100))
    assert '"price":0.12' in (bench.folder / "out.jsonl").read_text()


def test_without_pyarrow_the_extra_is_named(bench, table, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SafeguardError, match=r"pip install '\.\[parquet\]'"):
        bench()
