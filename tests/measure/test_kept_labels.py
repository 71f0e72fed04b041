"""What was measured is kept: `eval -o` writes an output like any other, and wrong rows are shown and written whole."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.command import rows, safeguard, write

pytest.importorskip("sklearn")

from helpers.outputs import output, verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli.measure.wrong_file import check_wrong_file, write_wrong_file

DEMO = ("-p", "spam", "--model", "demo", "--effort", "none", "-q")
MESSY = "\n".join(
    [
        *("My golden set,,,", "id,subject,body,verdict", "m1,Hello,free prize call now,SP2", ",,,"),
        *('m2,"two\nlines",see you at noon,SP0', "m3,Hm,what,SP9", "m4,Win,claim your prize now reply YES,SP0", ""),
    ]
)
READ = ("--gold-field", "verdict", "--map", "SP2=spam;SP0=ham", "--template", "{subject}: {body}")


def test_kept_labels_are_measured_again_without_a_model_with_the_same_figures_and_row_numbers(tmp_path) -> None:
    write(tmp_path / "g.csv", MESSY)
    first = safeguard("eval", "g.csv", *DEMO, *READ, "-o", "out.csv", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = safeguard("eval", "out.csv", *READ, "--json", cwd=tmp_path)
    one, two = (json.loads(done.stdout) for done in (first, again))
    assert one["rows_not_used"] == {"above the header": 1, "blank": 1, "gold 'SP9' is no label of spam": 1}
    assert one["rows"] == two["rows"] == 3
    assert one["policies"]["spam"]["figures"] == two["policies"]["spam"]["figures"]
    places = [
        [(row["row"], row["id"], row["text"]) for row in each["policies"]["spam"]["wrong"]] for each in (one, two)
    ]
    assert places[0] == places[1] != []
    header = next(csv.reader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert header[:5] == ["id", "subject", "body", "verdict", "spam_label"]


def test_every_command_gives_a_row_of_one_file_the_same_number_line_and_id(tmp_path) -> None:
    write(tmp_path / "g.csv", MESSY)
    kept = ("eval", "g.csv", *DEMO, *READ, "--wrong", "0", "-o")
    assert safeguard(*kept, "a.csv", cwd=tmp_path).returncode == 0
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "b.csv").write_text(text.replace(",ham,false,", ",spam,true,"))
    measured = json.loads(safeguard("eval", "a.csv", *READ, "--json", cwd=tmp_path).stdout)
    wrong = [(row["row"], row["line"], row["id"], row["text"]) for row in measured["policies"]["spam"]["wrong"]]
    assert wrong[0] == (1, 2, "m1", "Hello: free prize call now")
    done = safeguard("compare", "a.csv", "b.csv", *READ[:4], "--json", cwd=tmp_path)
    [found] = json.loads(done.stdout)
    flips = [(flip["row"], flip["line"], flip["id"], flip["text"]) for flip in found["flips"]]
    assert flips[:2] == [wrong[0], (3, 4, "m2", "two\nlines: see you at noon")]
    assert found["model_a"] == "demo"
    safeguard("report", "a.csv", *READ[:4], "--wrong-file", "w.jsonl", "-q", cwd=tmp_path)
    written = rows((tmp_path / "w.jsonl").read_bytes())
    assert [(row["row"], row["line"], row["id"], row["text"]) for row in written] == wrong
    page = (tmp_path / "a.html").read_text()
    assert "row 1, line 2, id m1" in page and "row 3, line 4, id m2" in page


def test_an_evaluation_that_was_ended_goes_on_where_it_was(tmp_path) -> None:
    call = ("eval", "sample:golden/spam", *DEMO, "-o", "out.jsonl", "--json")
    part = json.loads(safeguard(*call, "--limit", 3, cwd=tmp_path).stdout)
    kept = (tmp_path / "out.jsonl").read_bytes()
    whole = json.loads(safeguard(*call, cwd=tmp_path).stdout)
    assert (part["rows"], whole["rows"]) == (3, 40)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(kept)
    other = safeguard(*call, "--max-windows", 3, cwd=tmp_path)
    assert other.returncode == 4 and b"max_windows" in other.stderr
    assert safeguard(*call, "--max-windows", 3, "--overwrite", cwd=tmp_path).returncode == 0


def test_labels_of_a_golden_file_of_review_are_kept_beside_what_the_model_had_said_before(tmp_path) -> None:
    about = {
        "labels": {"anna": "spam"},
        "picked": {"how": "random"},
        "proposed": verdict("ham", 0.1) | {"policy": "spam"},
    }
    path = output(
        tmp_path / "golden.jsonl",
        [
            {"id": n, "text": f"see you at noon, {n}", "_row": n, "_line": n, "label": label, **about}
            for n, label in ((1, "ham"), (2, "spam"), (3, None), (1, "spam"))
        ],
    )
    first = json.loads(safeguard("eval", path, *DEMO, "-o", "out.jsonl", "--json", cwd=tmp_path).stdout)
    again = json.loads(safeguard("eval", "out.jsonl", "--json", cwd=tmp_path).stdout)
    assert first["rows"] == again["rows"] == 2
    assert first["policies"] == again["policies"] and first["policies"].keys() == {"spam"}
    before = json.loads(safeguard("eval", path, "--json", cwd=tmp_path).stdout)
    assert "what the model had said" in before["doubts"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("eval", "out.jsonl", "-o", "x.jsonl"), 2, "--output has no effect on out.jsonl, which is labelled already"),
        (("eval", "g.jsonl", *DEMO, "-o", "g.jsonl"), 2, "this is the input itself"),
        (("eval", "g.jsonl", *DEMO, "-o", "-"), 2, "the rows are read again, so it must be a file"),
        (("eval", "g.jsonl", *DEMO, "--overwrite"), 2, "--overwrite has no effect without -o"),
        (("eval", "out.jsonl", "--wrong-file", "x.txt"), 2, "name it *.jsonl or *.csv"),
        (("eval", "out.jsonl", "--wrong-file", "out.jsonl"), 2, "this is the input itself"),
        (("eval", "out.jsonl", "--wrong-file", "g.jsonl"), 4, "exists and holds other rows"),
        (("report", "bare.jsonl", "--wrong-file", "w.jsonl"), 2, "no right labels to tell which rows are wrong"),
        (("compare", "out.jsonl", "bare.jsonl", "--wrong-file", "bare.jsonl"), 2, "this is the input itself"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_no_file_is_touched(tmp_path, arguments, code, message) -> None:
    write(tmp_path / "g.jsonl", '{"text":"a","label":"ham"}')
    output(tmp_path / "out.jsonl", [{"text": "a", "label": "ham", "spam": verdict("ham", 0.1)}])
    output(tmp_path / "bare.jsonl", [{"text": "a", "spam": verdict("ham", 0.1)}])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = safeguard(*arguments, cwd=tmp_path)
    assert (done.returncode, message in done.stderr.decode()) == (code, True), done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_report_holds_the_text_of_a_policy_that_was_changed_since(tmp_path) -> None:
    front = "---\nname: mine\nlabels: [ham, spam]\nviolates: [spam]\n---"
    write(tmp_path / "mine.md", front, "Sell <b>nothing</b>; ham is the rest, spam is not.")
    write(tmp_path / "g.jsonl", '{"text":"a","label":"ham"}')
    call = ("eval", "g.jsonl", "-p", "mine.md", *DEMO[2:], "-o", "out.jsonl")
    assert safeguard(*call, cwd=tmp_path).returncode == 0
    (tmp_path / "mine.md").unlink()
    assert safeguard("report", "out.jsonl", "-q", cwd=tmp_path).returncode == 0
    assert "<pre>Sell &lt;b&gt;nothing&lt;/b&gt;; ham is the rest" in (tmp_path / "out.html").read_text()


ROW = st.fixed_dictionaries(
    {"row": st.integers(1, 9**9), "line": st.integers(1, 9**9), "text": st.text(), "p": st.floats(0, 1)}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=4))
def test_a_file_of_wrong_rows_has_every_text_whole_and_no_formula(tmp_path: Path, wrong: list[dict]) -> None:
    for name in ("w.jsonl", "w.csv"):
        path = tmp_path / name
        check_wrong_file(str(path), ())
        write_wrong_file(str(path), wrong)
    assert [row["text"] for row in rows((tmp_path / "w.jsonl").read_bytes())] == [row["text"] for row in wrong]
    found = [*csv.DictReader(io.StringIO((tmp_path / "w.csv").read_bytes().decode("utf-8-sig"), newline=""))]
    assert [int(row["row"]) for row in found] == [row["row"] for row in wrong]
    for cell, row in zip((row["text"] for row in found), wrong, strict=True):
        assert cell in (row["text"], "'" + row["text"]) and not cell.startswith(("=", "+", "-", "@"))
