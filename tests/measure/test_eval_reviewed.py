"""`eval` takes golden files of `review` as they are, and lets no row picked for its label pass for a random one."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import safeguard

pytest.importorskip("sklearn")

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.golden import read_golden
from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedRow, columns
from safeguard_cli.output.labelled import LabelSet

SPAM = LabelSet("spam", ("ham", "spam"), ("spam",))
YES = LabelSet("yes", ("true", "false"), ("true",))
DEMO = ("--policy", "spam", "--model", "demo", "--effort", "none", "-q")


def row(number: int, label: str | None, how: str = "random", **more: object) -> ReviewedRow:
    made = ReviewedRow(
        number,
        number,
        {"id": number, "text": f"Win a free prize, call {number}" if number % 2 else f"See you at noon, {number}"},
        label,
        {"anna": label} if label else {},
        note="a note that is longer than the text of this row, and reads like one too",
        picked=Picked(how, 0.25 if how == "random" else None, 0, 40),
        proposed=Proposed("ham", False, 0.125, "spam"),
        blind=True,
    )
    return replace(made, **more)  # type: ignore[arg-type]


# Row 1 is answered twice, row 3 skipped; rows 5 and 6 were picked as unsure.
ANSWERS = [
    row(1, "ham"),
    row(2, "ham"),
    row(3, None, skipped=True),
    row(4, "ham"),
    row(5, "spam", "unsure"),
    row(6, "spam", "unsure"),
    row(1, "spam"),
]


SAID = [(1, "good", "good"), (2, "bad", "good"), (3, "bad", "bad")]


def jsonl(path: Path, rows: list[ReviewedRow]) -> Path:
    path.write_text("".join(json.dumps(each.as_dict()) + "\n" for each in rows))
    return path


def as_csv(path: Path, rows: list[ReviewedRow], delimiter: str = ",", bom: bool = True, **spelling: str) -> Path:
    """Write a golden file as CSV, with each value spelled otherwise if `spelling` says so."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(("id", "text", *columns(["anna"])))
    for each in rows:
        writer.writerow(spelling.get(cell, cell) for cell in each.as_cells(("id", "text"), ["anna"]))
    path.write_bytes(b"\xef\xbb\xbf" * bom + text.getvalue().encode())
    return path


def excel(path: Path, rows: list[ReviewedRow]) -> Path:
    """Write the file as a German Excel saves it again."""
    return as_csv(path, rows, ";", **{"true": "WAHR", "false": "FALSCH", "0.25": "0,25", "0.125": "0,125"})


def pandas_saved(path: Path, rows: list[ReviewedRow]) -> Path:
    pd = pytest.importorskip("pandas")
    pd.read_csv(as_csv(path, rows)).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("write", [jsonl, as_csv, excel, pandas_saved])
def test_the_last_answer_to_each_row_counts_and_skipped_rows_are_left_out(tmp_path, write) -> None:
    path = write(tmp_path / ("g.jsonl" if write is jsonl else "g.csv"), ANSWERS)
    golden = read_golden(path, [SPAM], {"spam": "label"})
    assert [(each.fields["id"], each.gold["spam"], each.picked) for each in golden.rows] in (
        [(2, "ham", ""), (4, "ham", ""), (5, "spam", "unsure"), (6, "spam", "unsure"), (1, "spam", "")],
        [("2", "ham", ""), ("4", "ham", ""), ("5", "spam", "unsure"), ("6", "spam", "unsure"), ("1", "spam", "")],
    )
    assert {reason: n for reason, n in golden.unused.items() if n} == {"skipped by people": 1}
    assert golden.rows[0].text == "See you at noon, 2"


def test_labels_that_spreadsheets_respell_are_understood(tmp_path) -> None:
    rows = [row(1, "true"), row(2, "false")]
    path = as_csv(tmp_path / "g.csv", rows, true="TRUE", false="FALSE")
    assert [each.gold["yes"] for each in read_golden(path, [YES], {"yes": "label"}).rows] == ["true", "false"]


def test_a_label_of_another_policy_is_refused_with_its_line_and_translated_with_a_map(tmp_path) -> None:
    path = jsonl(tmp_path / "g.jsonl", [row(1, "spam"), row(2, "SP0")])
    with pytest.raises(UsageError, match=r"g.jsonl, line 2: label is 'SP0', which is not one of the labels ham, spam"):
        read_golden(path, [SPAM], {"spam": "label"})
    golden = read_golden(path, [SPAM], {"spam": "label"}, mapping={"SP0": "ham"})
    assert [each.gold["spam"] for each in golden.rows] == ["spam", "ham"]


def test_a_line_that_was_cut_off_counts_as_not_there(tmp_path) -> None:
    path = jsonl(tmp_path / "g.jsonl", ANSWERS)
    path.write_bytes(path.read_bytes() + b'{"id": 7, "text": "cut o')
    assert len(read_golden(path, [SPAM], {"spam": "label"}).rows) == 5


def test_a_row_that_an_audit_s_search_picked_is_not_a_random_one(tmp_path) -> None:
    fields = {"text": "x", "_sample": {"seed": 0, "row": 9, "picked": "find"}}
    path = jsonl(tmp_path / "g.jsonl", [row(1, "spam"), row(2, "spam", fields=fields)])
    assert [each.picked for each in read_golden(path, [SPAM], {"spam": "label"}).rows] == ["", "find"]


@pytest.mark.parametrize("write", [jsonl, as_csv, excel])
def test_figures_are_of_the_random_rows_and_the_others_stand_apart(tmp_path, write) -> None:
    path = write(tmp_path / ("g.jsonl" if write is jsonl else "g.csv"), ANSWERS)
    done = safeguard("eval", path, *DEMO, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 3
    assert found["rows_not_used"]["skipped by people"] == 1
    assert found["doubts"] == [
        "the figures are of the 3 rows picked at random; 2 picked as unsure are shown apart",
    ]
    spam = found["policies"]["spam"]
    assert sum(map(sum, spam["confusion"])) == 3
    (apart,) = spam["apart"]
    assert (apart["picked"], apart["rows"]) == ("unsure", 2)
    assert apart["accuracy"] == pytest.approx(1 - len(apart["wrong"]) / 2)
    shown = safeguard("eval", path, *DEMO).stdout.decode()
    assert "the figures are of the 3 rows picked at random; 2 picked as unsure are shown apart" in shown
    assert "not picked at random" in shown
    assert "rows not used: 1 (1 skipped by people)" in shown


def test_where_no_row_was_picked_at_random_the_figures_say_so(tmp_path) -> None:
    path = jsonl(tmp_path / "g.jsonl", [row(1, "spam", "wrong"), row(2, "ham", "disagree"), row(4, "ham", "")])
    found = json.loads(safeguard("eval", path, *DEMO, "--json").stdout)
    assert found["rows"] == 3
    (doubt,) = found["doubts"]
    assert "no row was picked at random (1 picked as wrong, 1 picked as disagree, 1 picked as unknown)" in doubt
    assert "apart" not in found["policies"]["spam"]


@pytest.mark.parametrize("write", [jsonl, as_csv, excel])
def test_without_a_policy_what_the_model_had_said_is_measured(tmp_path, write) -> None:
    spam = Proposed("spam", True, 0.875, "spam")
    rows = [*ANSWERS, row(7, "spam", proposed=spam), row(8, "ham", proposed=Proposed(None, None, None, "spam"))]
    done = safeguard("eval", write(tmp_path / ("g.jsonl" if write is jsonl else "g.csv"), rows), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 4  # ham ham, ham ham, spam ham, spam spam
    assert found["policies"]["spam"]["confusion"] == [[2, 0], [1, 1]]
    assert found["policies"]["spam"]["figures"]["recall"]["value"] == 0.5
    assert found["policies"]["spam"]["figures"]["brier"]["value"] == pytest.approx((3 * 0.125**2 + 0.875**2) / 4)
    assert found["rows_not_used"]["no label by the model"] == 1
    assert "what the model had said in the output that was reviewed" in found["doubts"][0]


def test_of_a_policy_that_is_not_at_hand_the_labels_are_those_that_were_given(tmp_path) -> None:
    rows = [row(n, label, proposed=Proposed(said, said == "bad", 0.5, "mine")) for n, label, said in SAID]
    found = json.loads(safeguard("eval", jsonl(tmp_path / "g.jsonl", rows), "--json").stdout)
    assert found["policies"]["mine"]["violates"] == ["bad"]
    assert found["policies"]["mine"]["figures"]["accuracy"]["value"] == pytest.approx(2 / 3)
    done = safeguard("eval", jsonl(tmp_path / "h.jsonl", [*rows, row(4, "worse")]))
    assert done.returncode == 2
    done = safeguard("eval", jsonl(tmp_path / "h.jsonl", [replace(each, label="worse") for each in rows]))
    assert (done.returncode, b"the model never said 'worse'" in done.stderr) == (2, True)


def test_options_of_a_run_have_no_effect_on_what_was_said_before(tmp_path) -> None:
    path = jsonl(tmp_path / "g.jsonl", ANSWERS)
    done = safeguard("eval", path, "--effort", "high")
    assert (done.returncode, b"--effort has no effect" in done.stderr) == (2, True)


def test_figures_of_a_golden_set_that_no_review_wrote_are_of_all_its_rows(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"text": "free prize", "label": "spam"}\n{"text": "see you", "label": "ham"}\n')
    found = json.loads(safeguard("eval", path, *DEMO, "--json").stdout)
    assert (found["rows"], found["doubts"]) == (2, [])
    assert "apart" not in found["policies"]["spam"]
