"""Outputs that another program has saved again: figures stay the same, or the file is refused, naming the cell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.outputs import manifest, output, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from safeguard_cli.errors import UsageError
from safeguard_cli.measure import compare as compare_module
from safeguard_cli.measure import evaluate as evaluate_module
from safeguard_cli.measure.options import Wanted
from safeguard_cli.output.labelled import LabelSet, read_labels
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.spelled import boolean, is_missing, number, one_of
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.rows.layouts import guard
from safeguard_cli.rows.verdict import COLUMNS
from safeguard_cli.run.settings import Settings

Row = dict[str, Any]
TRUTHS = {"en": ("TRUE", "FALSE"), "de": ("WAHR", "FALSCH"), "fr": ("VRAI", "FAUX"), "es": ("VERDADERO", "FALSO")}


def cells(row: Row, name: str = "spam") -> Row:
    """Return the row as `label` writes it to CSV: the object's parts as columns, objects as JSON."""
    flat = {key: value for key, value in row.items() if key != name}
    for column in COLUMNS:
        value = row[name].get(column)
        if column == "error" and value:
            value = f"{value['code']}: {value['message']}"
        flat[f"{name}_{column}"] = (
            json.dumps(value) if isinstance(value, dict) else guard(value) if isinstance(value, str) else value
        )
    return flat


def inferred(rows: list[Row]) -> list[Row]:
    """Return the cells as `pd.read_csv` reads them: a column of 1 and 0 as integers, as floats if one is missing."""
    flat = [cells(row) for row in rows]
    for key in flat[0]:
        values = [row[key] for row in flat]
        there = [value for value in values if value is not None]
        if there and all(isinstance(value, str) and value.isdigit() for value in there):
            kind = int if len(there) == len(values) else float
        elif there and all(value in ("true", "false") for value in there):
            kind = "true".__eq__
        else:
            continue
        for row in flat:
            row[key] = None if row[key] is None else kind(row[key])
    return flat


def write_csv(path: Path, rows: list[Row], spell: Callable[[Any], str], delimiter: str = ",", **more: Any) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=more.get("line_end", "\n"))
    index = more.get("index", False)
    writer.writerow([*([""] if index else []), *rows[0]])
    for at, row in enumerate(rows):
        writer.writerow([*([at] if index else []), *map(spell, row.values())])
    path.write_text(text.getvalue(), encoding=more.get("encoding", "utf-8"), newline="")
    return path


def ours(path: Path, rows: list[Row]) -> Path:
    def spell(value: Any) -> str:
        return "" if value is None else value if isinstance(value, str) else json.dumps(value)

    return write_csv(path.with_suffix(".csv"), [cells(row) for row in rows], spell)


def pandas_csv(path: Path, rows: list[Row]) -> Path:
    """Save as `pd.read_csv(…).to_csv(…)` does: True, 1.0 and an index column."""
    return write_csv(path.with_suffix(".csv"), inferred(rows), lambda x: "" if x is None else str(x), index=True)


def pandas_of_jsonl(path: Path, rows: list[Row]) -> Path:
    """Save as `pd.read_json(…, lines=True).to_csv(…, na_rep="NaN")` does: objects as Python prints them."""
    return write_csv(path.with_suffix(".csv"), rows, lambda value: "NaN" if value is None else str(value))


def excel(language: str) -> Callable[[Path, list[Row]], Path]:
    """Save as a spreadsheet set to `language` saves "CSV UTF-8"."""
    delimiter, comma = (",", ".") if language == "en" else (";", ",")

    def spell(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool) or value in ("true", "false"):
            return TRUTHS[language][value in (False, "false")]
        if isinstance(value, float):
            shown = f"{value:.9g}" if value == 0 or value >= 1e-4 else f"{value:.8E}"
            return shown.replace(".", comma)
        return str(value)

    def write(path: Path, rows: list[Row]) -> Path:
        flat = [cells(row) for row in rows]
        flat.append(dict.fromkeys(flat[0]))  # an empty row at the end
        more = {"encoding": "utf-8-sig", "line_end": "\r\n"}
        return write_csv(path.with_suffix(".csv"), flat, spell, delimiter, **more)

    return write


def flat_jsonl(path: Path, rows: list[Row]) -> Path:
    """Save as `pd.read_csv(…).to_json(…, orient="records", lines=True)` does."""
    return output(path, inferred(rows))


def parquet_of_csv(path: Path, rows: list[Row]) -> Path:
    pa = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pa.write_table(pyarrow.Table.from_pylist(inferred(rows)), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def parquet_of_jsonl(path: Path, rows: list[Row]) -> Path:
    pa = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pa.write_table(pyarrow.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


WAYS = {
    "csv of ours": ours,
    "pandas": pandas_csv,
    "pandas of JSONL": pandas_of_jsonl,
    **{f"Excel {language}": excel(language) for language in TRUTHS},
    "flat JSONL": flat_jsonl,
    "Parquet of CSV": parquet_of_csv,
    "Parquet of JSONL": parquet_of_jsonl,
}


@st.composite
def outputs(draw: st.DrawFn) -> list[Row]:
    """Generate rows of an output with gold labels, at least one row labelled; 1 and 0 may be labels."""
    labels = draw(st.sampled_from([("ham", "spam"), ("0", "1"), ("false", "true"), ("=ham", "-spam")]))
    shares = st.sampled_from([0.0, 0.00001, 0.25, 0.5, 0.9, 0.999987, 1.0])
    rows: list[Row] = []
    for i, (p, gold, failed) in enumerate(
        draw(st.lists(st.tuples(shares, st.sampled_from(labels), st.booleans()), min_size=1, max_size=12))
    ):
        said = verdict(labels[p > 0.5], p, labels=labels)
        error = {"label": None, "error": {"code": "too_long", "message": f"line {i}: a, b; c"}}
        own = {"id": i, "text": f'row {i}; with "quotes", too', "label": gold}
        rows.append(own | {"spam": error if failed and i else said})
    return rows


def told(result: Row) -> Row:
    """Return what `eval` prints, without what depends on the file: its name, its line numbers, its blank rows."""
    spam = result["policies"]["spam"]
    wrong = [(row["row"], row["gold"], row["label"], row["text"]) for row in spam["wrong"]]
    ends = ("value", "low", "high")  # a spreadsheet shows nine digits
    figures = {
        name: [value and round(value, 6) for value in map(part.get, ends)] for name, part in spam["figures"].items()
    }
    return {
        "exit": result["exit"],
        "rows": (result["rows"], spam["rows"], spam["rows_in_error"]),
        "labels": (spam["labels"], spam["violates"]),
        "figures": figures,
        "confusion": spam["confusion"],
        "wrong": wrong,
    }


def evaluated(path: Path) -> Row:
    said: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "print_json", said.append)
        code = evaluate_module.evaluate(Settings(str(path), (), text_fields=("text",)), Wanted(json=True))
    return {"exit": code, **said[0]}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(rows=outputs())
def test_figures_do_not_depend_on_how_the_file_was_saved(way: str, rows: list[Row], tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    assert told(evaluated(WAYS[way](folder / "b.jsonl", rows))) == told(evaluated(output(folder / "a.jsonl", rows)))


# A cell that holds no valid value is refused by name


ROWS: list[Row] = [
    {"id": 1, "text": "win a prize", "label": "spam", "spam": verdict("spam", 0.9)},
    {"id": 2, "text": "see you", "label": "ham", "spam": verdict("ham", 0.1)},
]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("spam_violates", "maybe", "true or false"),
        ("spam_violates", "2", "true or false"),
        ("spam_violates", "", "true or false"),
        ("spam_p_violates", "98 %", "a number from 0 to 1"),
        ("spam_p_violates", "01. Mai", "a number from 0 to 1"),
        ("spam_p_violates", "123", "a number from 0 to 1"),
        ("spam_p_violates", "-0.1", "a number from 0 to 1"),
        ("spam_score", "1.5", "a number from 0 to 1"),
        ("spam_scores", '{"ham":0.1,"spam":9}', "a number from 0 to 1"),
        ("spam_scores", "0.9", "an object with the score of each label"),
        ("spam_label", "spma", "one of the labels ham, spam"),
        ("spam_label", "", "one of the labels ham, spam"),
        ("spam_effort", "huge", "one of none, low, medium, high"),
        ("spam_error", "it failed", "an error of ours"),
        ("spam_windows", "1.5", "a whole number"),
    ],
)
def test_a_cell_that_is_no_value_is_refused_by_file_line_and_column(tmp_path, column, value, expected) -> None:
    path = ours(tmp_path / "out.jsonl", ROWS)
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    lines[1][column] = value
    write_csv(path, lines, str)
    with pytest.raises(UsageError) as refused:
        read_labels(path)
    shown = "9" if value.startswith("{") else value
    assert f"{path}, line 3, column {column}: {shown!r} is not {expected}" in str(refused.value)


def test_a_part_of_an_object_is_refused_by_its_name(tmp_path) -> None:
    bad = {"id": 3, "text": "x", "spam": verdict("ham", 0.2) | {"violates": "no idea"}}
    path = output(tmp_path / "out.jsonl", [*ROWS, bad])
    with pytest.raises(UsageError, match=r"line 3, field spam\.violates: 'no idea' is not true or false"):
        read_labels(path)


def test_a_file_in_another_encoding_is_refused_with_what_helps(tmp_path) -> None:
    rows = [ROWS[0] | {"text": "très bien"}]
    path = excel("de")(tmp_path / "out.jsonl", rows)
    path.write_bytes(path.read_text("utf-8-sig").encode("cp1252"))
    with pytest.raises(UsageError, match="--encoding, such as cp1252"):
        read_labels(path)
    assert read_labels(path, encoding="cp1252").rows[0].fields["text"] == "très bien"


def test_a_row_of_parquet_that_is_not_valid_utf_8_is_one_in_error(tmp_path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = pa.Table.from_pylist([*ROWS, ROWS[0]])
    offsets = b"".join(at.to_bytes(4, "little") for at in (0, 1, 2, 3))
    text = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(b"ab\xff"))
    pyarrow.parquet.write_table(
        rows.set_column(rows.column_names.index("text"), "text", text), tmp_path / "out.parquet"
    )
    found = read_labels(tmp_path / "out.parquet")
    errors = [row.verdicts["spam"].error for row in found.rows]
    assert [error and error.code for error in errors] == [None, None, "bad_encoding"]


@pytest.mark.parametrize("way", WAYS)
def test_compare_takes_a_file_saved_again_for_the_rows_that_it_has(tmp_path, monkeypatch, way) -> None:
    said: list[Any] = []
    monkeypatch.setattr(compare_module, "print_json", said.append)
    first, second = output(tmp_path / "a.jsonl", ROWS), WAYS[way](tmp_path / "b.jsonl", ROWS)
    for id_field in (None, "id"):
        settings_ = Settings(str(first), (), id_field=id_field)
        assert compare_module.compare(settings_, str(second), Wanted(json=True), {}, 0) == 0
    assert [(result["rows"], result["agreement"], result["gold"]["accuracy_b"]) for (result,) in said] == [
        (2, 1, 1)
    ] * 2


def test_labels_that_violate_are_told_by_scores_where_a_threshold_moved_what_violates(tmp_path) -> None:
    low = {"id": 3, "text": "x", "label": "ham", "spam": verdict("ham", 0.4) | {"violates": True}}
    assert read_labels(output(tmp_path / "a.jsonl", [*ROWS, low])).answers[0].violates == ("spam",)
    without = [row | {"spam": {k: v for k, v in row["spam"].items() if k != "scores"}} for row in [*ROWS, low]]
    with pytest.raises(UsageError, match="rows with the label 'ham' violate and others do not: name the policy"):
        read_labels(output(tmp_path / "b.jsonl", without))


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        *((spelling, True) for spelling in ("true", "True", "TRUE", "WAHR", "Vrai", "t", "1", "1.0", "1,0", 1, 1.0)),
        *((spelling, False) for spelling in ("false", "FALSCH", "FAUX", "FALSO", "ЛОЖЬ", "f", "0", 0, 0.0)),
        *((spelling, None) for spelling in ("", "yes!", "wahrscheinlich", "2", 2, 0.5, None, "nan", [], {})),
    ],
)
def test_truths_are_a_closed_list(value, truth) -> None:
    assert boolean(value) is truth


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("0.5", 0.5), ("0,5", 0.5), (" 1 ", 1.0), ("1E-05", 1e-5), ("1,00E-05", 1e-5), (".5", 0.5), (1, 1.0)),
        *(
            (text, None)
            for text in ("", "1.234,5", "1 000", "98%", "0x1", "١", "1_0", "inf", "nan", "1e999", True, None)
        ),
    ],
)
def test_numbers_are_read_strictly(value, expected) -> None:
    assert number(value) == expected


def test_a_label_is_meant_only_where_it_is_the_only_one() -> None:
    assert [one_of(value, ("0", "1")) for value in ("1", "1.0", 1.0, 1, "1,0", "True", "2", "")] == ["1"] * 5 + [
        None
    ] * 3
    assert [one_of(value, ("false", "true")) for value in ("TRUE", True, "WAHR", "1", 1)] == ["true"] * 3 + [None] * 2
    assert one_of("1.0", ("1", "01")) is None
    assert one_of("none", ("none", "some")) == "none"
    assert not is_missing("none")


# Resuming is stricter: the bytes must be as they were written


@pytest.mark.parametrize(
    ("suffix", "old", "new", "told"),
    [
        ("csv", ",true,", ",True,", r"spam_violates: 'True' is not as the run wrote it"),
        ("csv", ",spam,", ",Spam,", r"spam_label: 'Spam' is not one of the labels ham, spam"),
        ("csv", '""spam"":0', '""spam"":7', r"spam_scores: '7\.\d+' is not a number from 0 to 1"),
        ("jsonl", '"label":"spam"', '"label":"scam"', r"spam\.label: 'scam' is not one of the labels ham, spam"),
        ("jsonl", '"label":"spam","violates":true', '"label":"ham","violates":true', r"spam\.score"),
        ("jsonl", '"p_violates":0', '"p_violates":3', r"spam\.p_violates: '3\.\d+' is not a number from 0 to 1"),
        ("jsonl", '"effort":"low"', '"effort":"low","note":1', r"spam\.note: '1' is not as the run wrote it"),
        ("jsonl", '"violates":true', '"violates":1', r"spam\.violates: '1' is not as the run wrote it"),
    ],
)
def test_a_run_does_not_go_on_with_verdicts_that_were_changed(bench, suffix, old, new, told) -> None:
    bench.fill(20, suffix)
    bench(limit=10)
    before = bench.out.read_bytes()
    assert old.encode() in before
    edited = before.replace(old.encode(), new.encode(), 1)
    bench.out.write_bytes(edited)
    manifest = bench.out.with_name(bench.out.name + ".manifest.json")
    manifest.write_bytes(
        manifest.read_bytes().replace(b'"output_bytes": %d' % len(before), b'"output_bytes": %d' % len(edited))
    )
    with pytest.raises(Refused, match=told):
        bench()
    assert bench.out.read_bytes() == edited


def test_policies_that_changed_since_are_refused(tmp_path, bench) -> None:
    bench.fill(5)
    bench()
    other = tmp_path / "spam.md"
    other.write_text("---\nname: spam\nlabels: [ham, spam]\nviolates: [ham]\n---\n# Spam\n\nham, spam\n")
    policy = load_policy(str(other))
    known = (LabelSet(policy.name, policy.labels, policy.violates),)
    with pytest.raises(UsageError, match=r"violating: ham\); .* \(violating: spam"):
        read_labels(bench.out, known=known)


@pytest.mark.parametrize("missing", [4, 40])  # behind the scores, and within them, whose quotes are open then
def test_a_row_that_is_being_written_is_no_row_yet(tmp_path, missing) -> None:
    path = ours(tmp_path / "out.jsonl", [*ROWS, ROWS[0] | {"id": 3}])
    path.write_bytes(path.read_bytes()[:-missing])
    manifest(path, finished=False)
    result = evaluated(path)
    assert result["doubts"] == [
        "this run is not finished: 2 rows are labelled so far, the first ones, which are no sample of the file"
    ]
    assert (result["rows"], sum(result["rows_not_used"].values())) == (2, 1)
