"""A row that holds nothing comes out in its place, is counted apart, and is no error, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import safeguard
from helpers.runs import Bench

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError
from safeguard_cli.measure.measured import usable_rows
from safeguard_cli.measure.options import Wanted
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.output.merge import merge
from safeguard_cli.output.show import show
from safeguard_cli.run.settings import Settings

BLANK = {"jsonl": '{"id":null,"text":" "}\n', "csv": " , \n"}
ROWS = {
    "jsonl": [f'{{"id":{n},"text":"see you at {n}"}}\n' for n in range(9)],
    "csv": [f'{n},"see you at {n}"\n' for n in range(9)],
}
NO_TEXT = {"jsonl": '{"id":99,"text":""}\n', "csv": "99,\n"}


@pytest.fixture(params=["jsonl", "csv"])
def sheet(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """Nine rows with a text, four blank rows, one of them first, and one row that lacks its text."""
    suffix = request.param
    bench.source, bench.out = bench.folder / f"in.{suffix}", bench.folder / f"out.{suffix}"
    rows, blank = ROWS[suffix], BLANK[suffix]
    body = [blank, *rows[:4], blank, NO_TEXT[suffix], *rows[4:], blank, blank]
    bench.source.write_text(("id,text\n" if suffix == "csv" else "") + "".join(body), newline="")
    return bench


def counts(bench: Bench) -> tuple[int, int, int, dict, int]:
    result = bench.manifest()["result"]
    labels = sum(result["labels"]["spam"].values())
    return result["rows"], labels, result["blank"], result["errors"], result["exit_code"]


ALL = (14, 9, 4, {"no_text": 1}, 3)


def without_its_error(bench: Bench) -> None:
    text = bench.source.read_text()
    bench.source.write_text(text.replace(NO_TEXT["jsonl"], "").replace(NO_TEXT["csv"], ""), newline="")


def test_blank_rows_are_counted_apart_and_do_not_change_the_exit_code(sheet, no_fsync) -> None:
    assert sheet() == errors.ROWS_IN_ERROR
    assert counts(sheet) == ALL
    without_its_error(sheet)
    assert sheet(overwrite=True) == errors.OK
    assert counts(sheet) == (13, 9, 4, {}, 0)
    lines = sheet.out.read_text().splitlines()
    assert sum("the row is blank" in line and "no_text" in line for line in lines) == 4


@pytest.mark.parametrize("prompts", [0, 3, 7])
def test_a_run_that_goes_on_counts_them_the_same(sheet, no_fsync, prompts) -> None:
    whole = sheet.whole(deterministic=True)
    sheet.killed_after(prompts, deterministic=True)
    assert sheet(deterministic=True) == errors.ROWS_IN_ERROR
    assert counts(sheet) == ALL
    assert sheet.out.read_bytes() == whole
    assert sheet(deterministic=True) == errors.ROWS_IN_ERROR, "already finished"


def test_a_run_of_violating_rows_that_goes_on_counts_them_the_same(sheet, no_fsync, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.output.journal.SYNC_SECONDS", 0.0)
    sheet.killed_after(5, only="violates")
    assert sheet(only="violates") == errors.ROWS_IN_ERROR
    assert counts(sheet) == ALL


def test_limit_and_appended_input(sheet, no_fsync) -> None:
    assert sheet(limit=6) == errors.OK
    assert counts(sheet)[:4] == (6, 4, 2, {})
    assert sheet() == errors.ROWS_IN_ERROR
    with sheet.source.open("a", newline="") as file:
        file.write(BLANK[sheet.source.suffix[1:]])
    assert sheet(append_input=True) == errors.ROWS_IN_ERROR
    assert counts(sheet) == (15, 9, 5, {"no_text": 1}, 3)


def test_retry_errors_leaves_them_as_they_are(sheet, no_fsync) -> None:
    sheet()
    before = sheet.out.read_bytes()
    assert sheet(retry_errors=True) == errors.ROWS_IN_ERROR
    assert (sheet.out.read_bytes(), counts(sheet)) == (before, ALL)


def test_on_error_stop_does_not_stop_at_one(sheet, no_fsync) -> None:
    with pytest.raises(SafeguardError, match="row 7: no_text"):
        sheet(on_error="stop")
    without_its_error(sheet)
    assert sheet(on_error="stop", overwrite=True) == errors.OK


def test_shards_that_are_merged_have_them_all(sheet, no_fsync) -> None:
    out, parts = sheet.out, []
    for part in (1, 2, 3):
        sheet.out = out.with_name(f"part{part}{out.suffix}")
        sheet(shard=(part, 3))
        parts.append(sheet.out)
    sheet.out = out
    assert merge(parts, out, overwrite=False, quiet=True) == errors.ROWS_IN_ERROR
    assert counts(sheet) == ALL


def test_show_and_the_summary_say_how_many(sheet, no_fsync, capsys) -> None:
    sheet(quiet=False, progress="plain")
    assert "14, 9 labelled, 4 blank rows" in capsys.readouterr().err
    assert show(sheet.out, as_json=False) == 0
    assert "14, 1 in error (1 no_text), 4 blank" in capsys.readouterr().out


def test_a_dry_run_says_how_many_and_is_no_failure(sheet, tiny) -> None:
    done = safeguard("label", sheet.source, "-p", "spam", "--model", tiny, "--threads", 1, "--dry-run")
    assert done.returncode == 0
    assert b"rows            9, 1 no_text, 4 blank rows\n" in done.stdout
    assert done.stderr == b"text: text\n"
    assert safeguard("label", sheet.source, "-p", "spam", "--model", tiny, "--dry-run", "-q").stderr == b""


def test_eval_counts_them_apart_and_a_row_without_its_text_as_an_error(tmp_path: Path, tiny: Path) -> None:
    rows = [("see you", "ham"), ("", ""), ("  ", " "), ("", "spam"), ("win", "spam"), ("no gold", "")]
    lines = {
        "csv": "text,label\n" + "".join(f"{text},{gold}\n" for text, gold in rows),
        "jsonl": "".join(json.dumps({"text": text, "label": gold or None}) + "\n" for text, gold in rows)
        + '{"text":\n',
    }
    for suffix, unused, in_error in (("csv", {}, 1), ("jsonl", {"cannot be read (bad_json)": 1}, 2)):
        path = tmp_path / f"g.{suffix}"
        path.write_text(lines[suffix])
        golden = usable_rows(Settings(str(path), ()), Wanted(), [LabelSet("spam", ("ham", "spam"), ("spam",))])
        assert +golden.unused == {"blank": 2, "no text": 1, "no gold label": 1, **unused}
        assert [(row.number, row.line) for row in golden.rows] == [
            (1, 1 + (suffix == "csv")),
            (5, 5 + (suffix == "csv")),
        ]
        assert golden.in_error == in_error
    pytest.importorskip("sklearn")
    args = ("-p", "spam", "--model", tiny, "--threads", 1, "--max-reasoning", 2, "--json")
    assert safeguard("eval", tmp_path / "g.csv", *args).returncode == 3
    (tmp_path / "g.csv").write_text(lines["csv"].replace(",spam\n", "x,spam\n", 1))
    done = safeguard("eval", tmp_path / "g.csv", *args)
    assert (done.returncode, json.loads(done.stdout)["rows_not_used"]["blank"]) == (0, 2)
    assert done.stderr.splitlines()[0] == b"text: text"
