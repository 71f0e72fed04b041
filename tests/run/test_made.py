"""Outputs that are made at the end, JSON and workbooks, hold every row whole, wherever the run was killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import openpyxl
import pytest
from helpers.runs import Bench

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.merge import merge
from safeguard_cli.output.show import show
from safeguard_cli.run import to_sheet

pytestmark = [
    pytest.mark.usefixtures("own_cache", "no_fsync"),
    pytest.mark.promise(
        "A JSON or Excel output appears whole or not at all. A run killed at any row resumes to the same file."
    ),
]

TEXTS = ("see you at noon", 'say "hi"', "two\nlines", "=1+1", "é€😀 tail")
ROWS = 60


def filled(bench: Bench, suffix: str) -> None:
    """Fill the bench's input with rows: of numbers, texts, dates and empty cells, one of them without a text."""
    bench.source = bench.folder / f"in.{suffix}"
    rows = [[number, f"{TEXTS[number % 5]} {number}" if number % 11 else None, number / 8] for number in range(ROWS)]
    if suffix == "xlsx":
        book = openpyxl.Workbook()
        book.active.append(["id", "text", "share"])
        for row in rows:
            book.active.append(row)
        for cell in book.active["B"]:
            cell.data_type = "s" if cell.value else cell.data_type
        book.save(bench.source)
        return
    objects = [dict(zip(("id", "text", "share"), row, strict=True)) for row in rows]
    if suffix == "txt":
        bench.source.write_text("".join(f"a text of number {number}\n" for number in range(ROWS)))
    elif suffix == "csv":
        lines = [
            "id,text,share",
            *(f'{row[0]},"{(row[1] or "").replace(chr(34), chr(34) * 2)}",{row[2]}' for row in rows),
        ]
        bench.source.write_text("\n".join(lines))
    else:
        bench.source.write_text(json.dumps(objects, indent=1))


def made(path: Path) -> list[dict]:
    """Return the rows of an output as another program reads them."""
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    header, *rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def left(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.folder.iterdir() if path.name.startswith("out."))


@pytest.mark.parametrize("out", ["json", "xlsx"])
@pytest.mark.parametrize("suffix", ["json", "xlsx", "txt", "csv"])
def test_a_run_killed_at_any_row_is_continued_to_the_same_rows(bench, suffix, out):
    filled(bench, suffix)
    bench.out = bench.folder / f"out.{out}"
    bench.whole(deterministic=True)
    whole = made(bench.folder / f"whole.{out}")
    assert len(whole) == ROWS
    for prompts in (0, 17, 50):
        bench.killed_after(prompts, overwrite=True, deterministic=True)
        assert bench(deterministic=True) == (0 if suffix == "txt" else 3)
        assert made(bench.out) == whole
        assert left(bench) == [f"out.{out}", f"out.{out}.manifest.json"]
        bench.out.unlink()


@pytest.mark.parametrize("out", ["json", "xlsx"])
def test_a_finished_file_is_left_alone_or_gone_on_with(bench, out, monkeypatch):
    filled(bench, "xlsx")
    bench.out = bench.folder / f"out.{out}"
    assert bench(limit=20) == 3
    before = bench.state()
    assert bench(limit=20) == 3
    assert bench.state() == before
    with pytest.raises(Refused, match="effort"):
        bench(effort="none")
    with pytest.raises(Refused, match="sheet"):
        bench(sheet="1")
    assert bench() == 3
    assert [int(row["id"]) for row in made(bench.out)] == [*range(ROWS)]
    assert bench(retry_errors=True) == 3
    assert len(made(bench.out)) == ROWS
    bench.out.write_bytes(bench.out.read_bytes() + b" ")
    with pytest.raises(Refused, match="was changed"):
        bench(retry_errors=True)


def test_the_cells_of_a_workbook_keep_their_values_and_formulas_are_texts(bench):
    filled(bench, "xlsx")
    bench.out = bench.folder / "out.xlsx"
    assert bench(keep="id,text", limit=10) == 3
    rows = made(bench.out)
    assert [row["id"] for row in rows] == [*range(10)]
    assert [row["text"] for row in rows[1:4]] == [f"{TEXTS[at]} {at}" for at in (1, 2, 3)]
    assert "share" not in rows[0]
    assert isinstance(rows[1]["spam_violates"], bool)
    assert isinstance(rows[1]["spam_p_violates"], float)
    assert rows[0]["spam_error"].startswith("no_text: line 2: ")


@pytest.mark.parametrize("out", ["json", "xlsx"])
def test_such_an_output_is_read_back_and_shown_without_its_manifest_too(bench, out):
    filled(bench, "json")
    bench.out = bench.folder / f"out.{out}"
    bench(policies=("spam", "hate"))
    for _ in range(2):
        labels = read_labels(bench.out)
        assert [answers.name for answers in labels.answers] == ["spam", "hate"]
        errors = [row.verdicts["hate"].error for row in labels.rows]
        assert [error is not None for error in errors] == [at % 11 == 0 for at in range(ROWS)]
        assert labels.rows[1].fields.keys() == {"id", "text", "share"}
        assert show(bench.out, as_json=False) == 0
        bench.out.with_name(f"{bench.out.name}.manifest.json").unlink(missing_ok=True)


def test_no_digit_is_lost_in_a_workbook_and_a_long_text_says_that_it_is_cut(bench, capsys):
    bench.source.write_text(
        json.dumps({"id": 12345678901234567890, "text": "a b", "x": 0.1, "n": {"a": [1]}, "b": True, "z": None})
        + "\n"
        + '{"id": 1, "text": "'
        + "wörd 😀 " * 6000
        + '", "x": 0.12345678901234567, "more": 1.10}\nno json\n'
    )
    bench.out = bench.folder / "out.xlsx"
    assert bench(quiet=False, progress="none") == 3
    first, second, third = made(bench.out)
    assert (first["id"], first["x"], first["n"], first["b"], first["z"]) == (
        "12345678901234567890",
        0.1,
        '{"a": [1]}',
        True,
        None,
    )
    assert (second["x"], second["_extra"]) == ("0.12345678901234567", '{"more":1.10}')
    assert second["text"].endswith("… [cut: 42,000 characters]")
    assert len(second["text"].encode("utf-16-le")) // 2 <= 32_767
    assert json.loads(third["_extra"]) == {"_line": 3, "_raw": "no json"}
    assert "1 cell holds more than the 32,767 characters that Excel allows" in " ".join(capsys.readouterr().err.split())


def test_more_rows_than_a_sheet_holds_are_refused_before_anything_is_loaded(bench, monkeypatch):
    monkeypatch.setattr(to_sheet, "MOST_ROWS", 50)
    filled(bench, "json")
    bench.out = bench.folder / "out.xlsx"
    with pytest.raises(UsageError, match=r"there are 60 rows, and a \.xlsx holds 49"):
        bench()
    assert bench(limit=49) == 3


def test_what_has_no_effect_on_such_an_output_is_refused(bench):
    filled(bench, "json")
    for out in ("json", "xlsx"):
        bench.out = bench.folder / f"out.{out}"
        for option, said in (
            ({"only": "violates"}, "--only"),
            ({"csv_safe": True}, "--csv-safe"),
            ({"bom": True}, "--bom"),
        ):
            with pytest.raises(UsageError, match=said):
                bench(**option)
    bench.source.write_text('[{"text": "a b", "spam_label": 1}]')
    with pytest.raises(UsageError, match="already has 'spam_label'"):
        bench()


def test_shards_of_json_are_merged_and_shards_of_workbooks_are_refused(bench):
    filled(bench, "json")
    for out in ("json", "xlsx"):
        bench.out = bench.folder / f"whole.{out}"
        bench(deterministic=True)
        parts = []
        for part in (1, 2, 3):
            bench.out = bench.folder / f"part{part}.{out}"
            bench(shard=(part, 3), deterministic=True)
            parts.append(bench.out)
        merged = bench.folder / f"merged.{out}"
        if out == "xlsx":
            with pytest.raises(UsageError, match="workbooks are not merged"):
                merge(parts, merged, overwrite=False, quiet=True)
            continue
        assert merge(parts, merged, overwrite=False, quiet=True) == 3
        assert [row["id"] for row in made(merged)] == [*range(ROWS)]
        bench.out = merged
        assert bench(deterministic=True) == 3  # it is finished


def test_a_byte_order_mark_is_kept_or_added_once(bench):
    bench.source, bench.out = bench.folder / "in.csv", bench.folder / "out.csv"
    for mark, options in (("\ufeff", {}), ("", {"bom": True})):
        bench.source.write_text(f'{mark}"text, all",id\n' + "".join(f"é {number},{number}\n" for number in range(30)))
        bench.whole(deterministic=True, **options)
        bench.killed_after(11, overwrite=True, deterministic=True, **options)
        assert bench(deterministic=True, **options) == 0
        data = bench.out.read_bytes()
        assert data == (bench.folder / "whole.csv").read_bytes()
        assert data.startswith(b"\xef\xbb\xbf") and data.count(b"\xef\xbb\xbf") == 1
        assert len(read_labels(bench.out).rows) == 30
    with pytest.raises(Refused, match="bom"):
        bench(deterministic=True)


def test_without_the_package_the_extra_is_named(bench, monkeypatch):
    filled(bench, "json")
    bench.out = bench.folder / "out.xlsx"
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(SafeguardError, match=r"pip install '.*\[excel\]'"):
        bench()
