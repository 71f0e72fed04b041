"""A golden set in a spreadsheet is read like one in CSV: with titles above its header, sections and merged cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.golden import read_golden
from safeguard_cli.output.labelled import LabelSet

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("python_calamine")

SPAM = LabelSet("spam", ("ham", "spam"), ("spam",))
ROWS = [
    ["Spam golden set, version 2"],
    [],
    ["id", "message", "label"],
    ["Section A"],
    [1, "free prize, call now", "spam"],
    [2, "WIN again and again", None],
    [3, "see you at noon", "ham"],
    [],
]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.active.merge_cells("A1:C1")
    book.active.merge_cells("C5:C6")
    book.create_sheet("Notes").append(["nothing here"])
    book.save(tmp_path / "golden.xlsx")
    return tmp_path / "golden.xlsx"


@pytest.mark.parametrize("skip", [None, 1, 2])
def test_a_golden_sheet_is_found_below_its_title_and_merged_labels_count_in_each_row(golden: Path, skip) -> None:
    found = read_golden(golden, [SPAM], {"spam": "label"}, skip_rows=skip)
    assert [(row.line, row.text, row.gold["spam"]) for row in found.rows] == [
        (5, "free prize, call now", "spam"),
        (6, "WIN again and again", "spam"),
        (7, "see you at noon", "ham"),
    ]


def test_another_sheet_without_the_gold_field_is_refused(golden: Path) -> None:
    with pytest.raises(UsageError, match="label"):
        read_golden(golden, [SPAM], {"spam": "label"}, sheet="Notes")
