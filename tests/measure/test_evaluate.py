"""`safeguard eval` and `compare`: messy golden sets, outputs, several policies, and their figures."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from helpers import ROOT
from helpers.command import safeguard, write
from helpers.fake_engine import FakeEngine

pytest.importorskip("sklearn")

from helpers.outputs import output, run_json, verdict
from typer.testing import CliRunner

from safeguard_cli.cli.app import app
from safeguard_cli.errors import Interrupted, UsageError
from safeguard_cli.measure import compare as compare_module
from safeguard_cli.measure.evaluate import evaluate
from safeguard_cli.measure.golden import Golden, gold_fields, parse_map, read_golden
from safeguard_cli.measure.options import Wanted
from safeguard_cli.output.labelled import LabelSet, read_labels
from safeguard_cli.run.settings import Settings

SPAM = LabelSet("spam", ("ham", "spam"), ("spam",))
FRAUD = LabelSet("fraud", ("honest", "fraud"), ("fraud",))
TINY = ("--max-reasoning", 2, "--slots", 4, "--threads", 1, "-q")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Six rows: one missed, one false alarm, one in error."""
    said = [("spam", "spam", 0.9), ("spam", "ham", 0.4), ("ham", "ham", 0.1), ("ham", "spam", 0.6), ("ham", "ham", 0.2)]
    rows = [
        {"id": i, "text": f"row {i} \x1b[31m", "language": "de" if i > 2 else "en", "label": gold}
        | {"spam": verdict(label, p, rationale="because")}
        for i, (gold, label, p) in enumerate(said, 1)
    ]
    error = {"label": None, "error": {"code": "no_text", "message": "line 6: nothing"}}
    return output(
        tmp_path / "out.jsonl", [*rows, {"id": 6, "text": "x", "language": "en", "label": "ham", "spam": error}]
    )


def openai_style(path: Path) -> Path:
    """Write a typical golden set: a title row, a header with ten empty columns, section rows, severity labels."""
    empty = "," * 10
    texts = {
        "SP0": ["See you at the station, platform two", 'Mum said: "bring bread, milk"', "The meeting is moved to ten"],
        "SP1": ["Anyone else for the newsletter swap?"],
        "SP2": ["Follow me and I follow you back", "Great post! Visit my shop"],
        "SP3": ["Cheap watches, order tonight at watches.example"],
        "SP4": ["Your account is locked, send us your PIN"],
    }
    lines = ["Spam golden set (draft 3)" + empty + ",", "Content,Golden label" + empty]
    for code, rows in texts.items():
        lines.append(f"Section {code}" + empty + ",")
        lines += ['"' + text.replace('"', '""') + f'",{code}{empty}' for text in rows]
    path.write_text("\n".join(lines) + "\n" + empty + ",\n", encoding="utf-8")
    return path


def test_a_messy_published_style_csv_goes_through_with_one_command(tmp_path, tiny) -> None:
    source = openai_style(tmp_path / "golden.csv")
    done = safeguard(
        *("eval", source, "-p", "spam", "--model", tiny, *TINY, "--text-field", "Content"),
        *("--gold-field", "Golden label", "--map", "SP2,SP3,SP4=spam;SP0=ham", "--json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows"] == 7
    unused = {"above the header": 1, "no gold label": 5, "blank": 1, "gold 'SP1' is no label of spam": 1}
    assert result["rows_not_used"] == unused
    assert sum(map(sum, result["policies"]["spam"]["confusion"])) == 7
    assert result["prompting"] == "one prompt for each policy"


def test_the_account_of_rows_is_said_at_the_terminal_too(tmp_path, capsys, labelled) -> None:
    assert evaluate(Settings(str(labelled), ()), Wanted(by=("language",), mapping=("ham=spam",))) == 3
    shown = capsys.readouterr().out
    for part in (
        "6 golden rows",
        "rows in error, not counted: 1",
        "accuracy",
        "by language",
        "wrong, ",
        "because",
        "line 3",
    ):
        assert part in shown
    assert "\x1b[31m" not in shown


def test_csv_header_is_found_below_title_rows_or_where_skip_rows_says(tmp_path) -> None:
    text = "My set;;\n\ntext;label;n\nhello;ham;1\nwin;spam;2\n"
    path = tmp_path / "g.csv"
    path.write_text(text)
    for skip in (None, 2):
        golden = read_golden(path, [SPAM], {"spam": "label"}, skip_rows=skip)
        assert [(row.line, row.text, row.gold["spam"]) for row in golden.rows] == [
            (4, "hello", "ham"),
            (5, "win", "spam"),
        ]
    packed = tmp_path / "g.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert len(read_golden(packed, [SPAM], {"spam": "label"}).rows) == 2


@pytest.mark.parametrize("lost", [{}, {"spam": None}])
def test_an_output_that_kept_no_text_or_lost_a_verdict_is_measured_all_the_same(tmp_path, capsys, lost) -> None:
    said = {"label": "ham", "violates": False, "p_violates": 0.25, "scores": {"ham": 0.75, "spam": 0.25}}
    rows = [
        {"id": 1, "label": "ham", **lost},
        *({"id": n, "label": gold, "spam": said} for n, gold in ((2, "ham"), (3, "spam"))),
    ]
    path = write(tmp_path / "kept.jsonl", *map(json.dumps, rows))
    assert evaluate(Settings(str(path), ()), Wanted()) == 3
    shown = capsys.readouterr()
    assert "row 3, line 3, id 3, p 0.25: gold spam, said ham\n" in shown.out and shown.err == ""
    found = run_json(capsys, path)["policies"]["spam"]["figures"]
    assert found["accuracy"]["value"] == 0.5
    with pytest.raises(UsageError, match="no field 'text' for --text-field"):
        evaluate(Settings(str(path), (), text_fields=("text",)), Wanted())


def test_a_map_of_what_is_not_there_is_refused_or_told(tmp_path, capsys) -> None:
    path = write(tmp_path / "g.jsonl", '{"text":"a","label":"ok"}', '{"text":"b","label":"spam"}')

    def golden(mapping: dict[str, str]) -> Golden:
        return read_golden(path, [SPAM], {"spam": "label"}, mapping=mapping)

    assert [row.gold["spam"] for row in golden({"ok": "ham"}).rows] == ["ham", "spam"]
    assert capsys.readouterr().err == ""
    assert len(golden({"ok": "ham", "fine": "ham"}).rows) == 2
    assert capsys.readouterr().err == "--map: no row has the gold label 'fine'\n"
    with pytest.raises(UsageError, match="--map names 'win', which is no row's gold label; those are 'ok', 'spam'"):
        golden({"win": "spam"})
    with pytest.raises(UsageError, match="--map gives 'Ham', which is no label: ham, spam"):
        golden({"ok": "Ham"})


def test_gold_values_that_are_no_text_are_labels_all_the_same(tmp_path) -> None:
    path = write(tmp_path / "g.jsonl", '{"text":"a","label":1}', '{"text":"b","label":0}', '{"text":"c","label":true}')
    golden = read_golden(path, [LabelSet("p", ("0", "1"), ("1",))], {"p": "label"}, mapping={"true": "1"})
    assert [row.gold["p"] for row in golden.rows] == ["1", "0", "1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_map(["a,b"]), "--map"),
        (lambda: parse_map(["a=x;a=y"]), "two labels"),
        (lambda: gold_fields(["x", "y"], ["spam", "fraud"]), "POLICY=FIELD"),
        (lambda: gold_fields(["other=y"], ["spam", "fraud"]), "POLICY=FIELD"),
        (lambda: gold_fields(["x", "y"], ["spam"]), "twice"),
    ],
)
def test_options_that_make_no_sense_are_refused(call, message) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_a_golden_set_without_usable_rows_says_what_its_gold_is(tmp_path) -> None:
    path = write(tmp_path / "g.jsonl", '{"text":"a","label":"SP4"}')
    with pytest.raises(UsageError, match=r"gold says 'SP4'; the labels are spam: ham, spam"):
        read_golden(path, [SPAM], {"spam": "label"})
    with pytest.raises(UsageError, match="no field 'x'"):
        read_golden(path, [SPAM], {"spam": "x"})


def test_an_output_is_measured_without_a_model(capsys, labelled) -> None:
    result = run_json(capsys, labelled, by=("language",))
    spam = result["policies"]["spam"]
    assert (result["exit"], result["rows"], spam["rows"], spam["rows_in_error"]) == (3, 6, 5, 1)
    assert spam["figures"]["accuracy"]["value"] == pytest.approx(3 / 5)
    assert spam["figures"]["precision"]["value"] == pytest.approx(1 / 2)
    assert spam["confusion"] == [[2, 1], [1, 1]]
    assert [(part["value"], part["rows"]) for part in spam["slices"]["language"]] == [("de", 3), ("en", 2)]
    assert [(row["line"], row["gold"], row["label"]) for row in spam["wrong"]] == [
        (2, "spam", "ham"),
        (4, "ham", "spam"),
    ]


def test_an_output_in_csv_reads_as_one_in_jsonl(tmp_path, tiny) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join((ROOT / "samples/golden/spam.jsonl").read_bytes().splitlines(keepends=True)[:6]))
    found = []
    for name in ("a.jsonl", "a.csv"):
        safeguard("label", source, "-p", "spam", "--model", tiny, *TINY, "--rationale", "-o", tmp_path / name)
        labels = read_labels(tmp_path / name)
        assert labels.answers == (SPAM,)
        verdicts = [replace(row.verdicts["spam"], cut=False) for row in labels.rows]  # a CSV does not tell what is cut
        found.append([verdict.as_dict() for verdict in verdicts])
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_a_threshold_is_applied_or_searched(capsys, labelled) -> None:
    assert run_json(capsys, labelled, threshold="0.5")["policies"]["spam"]["figures"]["precision"]["value"] == 0.5
    assert run_json(capsys, labelled, threshold="0.7")["policies"]["spam"]["figures"]["precision"]["value"] == 1.0
    found = run_json(capsys, labelled, threshold="recall=0.5")["policies"]["spam"]["threshold"]
    assert (found["wanted"], "threshold" in found) == (["recall", 0.5], False)
    assert "it takes 20 in each" in found["none"] or "no threshold" in found["none"]
    for bad in ("precision", "precision=2", "f1=0.5", "x"):
        with pytest.raises(UsageError, match="--threshold"):
            run_json(capsys, labelled, threshold=bad)


def test_multi_policy_accuracy_of_a_hand_worked_case(tmp_path, capsys) -> None:
    # Right under both: rows 1 and 4 of 4.
    said = [("spam", "fraud"), ("spam", "honest"), ("ham", "fraud"), ("ham", "honest")]
    gold = [("spam", "fraud"), ("spam", "fraud"), ("spam", "fraud"), ("ham", "honest")]
    rows = [
        {"text": f"row {i}", "spam_gold": gs, "fraud_gold": gf}
        | {"spam": verdict(s, 0.5), "fraud": verdict(f, 0.5, labels=("honest", "fraud"))}
        for i, ((s, f), (gs, gf)) in enumerate(zip(said, gold, strict=True))
    ]
    result = run_json(capsys, output(tmp_path / "two.jsonl", rows))
    assert result["multi_policy_accuracy"]["value"] == 0.5
    assert result["multi_policy_accuracy"]["rows"] == 4
    assert [result["policies"][name]["figures"]["accuracy"]["value"] for name in ("spam", "fraud")] == [0.75, 0.75]


def test_a_gold_cell_lists_the_policies_that_a_row_violates(tmp_path, capsys) -> None:
    cells = ["spam,fraud", "Spam", "fraud | SPAM", "none", ["spam", "fraud"], [], "['fraud']", "spma", "", "spam;hate"]
    said = [("spam", "fraud"), ("ham", "honest"), ("spam", "honest"), ("ham", "honest")] + [("spam", "fraud")] * 6
    rows = [
        {"text": f"row {i}", "violated": cell}
        | {"spam": verdict(s, 0.5), "fraud": verdict(f, 0.5, labels=("honest", "fraud"))}
        for i, ((s, f), cell) in enumerate(zip(said, cells, strict=True))
    ]
    path = output(tmp_path / "two.jsonl", rows)
    how = {"gold_fields": ("violated",), "mapping": ("hate=none",)}
    result = run_json(capsys, path, **how)
    assert result["rows"] == 8
    left_out = {name: n for name, n in result["rows_not_used"].items() if n}
    assert left_out == {
        "gold 'spma' is no policy asked for (--map 'spma=none' leaves the word out)": 1,
        "no gold label": 1,
    }
    assert result["policies"]["spam"]["confusion"] == [[1, 2], [1, 4]]
    assert result["policies"]["fraud"]["confusion"] == [[2, 2], [1, 3]]
    together = {name: (one["value"], one["rows"]) for name, one in result["together"].items()}
    assert together["any_recall"] == (pytest.approx(5 / 6), 6)
    assert together["any_precision"] == (pytest.approx(5 / 6), 6)
    assert together["any_false_positive_rate"] == (0.5, 2)
    assert together["micro_precision"] == (pytest.approx(7 / 11), 16)
    assert together["micro_recall"] == (pytest.approx(7 / 9), 16)
    assert together["macro_f1"] == (pytest.approx((8 / 11 + 6 / 9) / 2), 16)
    assert run_json(capsys, path, gold_fields=("violated",), mapping=("hate,spma,=none",))["rows"] == 10
    evaluate(Settings(str(path), ()), Wanted(**how))
    assert "recall of violating any policy" in capsys.readouterr().out


def test_a_policy_of_more_than_two_labels_needs_a_gold_field_of_its_own_beside_a_list(tmp_path, capsys) -> None:
    grades = ("SP0", "SP1", "SP2")
    graded = {"label": "SP1", "violates": True, "p_violates": 0.7, "scores": {"SP0": 0.3, "SP1": 0.6, "SP2": 0.1}}
    rows = [
        {"text": f"row {i}", "violated": "fraud", "grade": grade}
        | {"spam": graded, "fraud": verdict("fraud", 0.5, labels=("honest", "fraud"))}
        for i, grade in enumerate(grades)
    ]
    path = output(tmp_path / "two.jsonl", rows)
    with pytest.raises(UsageError, match="--gold-field spam=FIELD"):
        run_json(capsys, path, gold_fields=("violated",))
    policies = run_json(capsys, path, gold_fields=("violated", "spam=grade"))["policies"]
    assert [(far["grades"], far["rows"]) for far in policies["spam"]["distances"]] == [(-1, 1), (0, 1), (1, 1)]
    assert "weighted_kappa" in policies["spam"]["figures"]
    assert [policies[name]["figures"]["accuracy"]["count"] for name in ("spam", "fraud")] == [1, 3]


def test_sure_compares_a_run_without_reasoning(tiny) -> None:
    golden = ROOT / "samples/golden/spam.jsonl"
    done = safeguard("eval", golden, "-p", "spam", "--model", tiny, *TINY, "--limit", 4, "--find-sure", "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)["policies"]["spam"]["sure"]
    assert [line["sure"] for line in table] == sorted(line["sure"] for line in table)
    assert all(0 <= line["agreement"] <= 1 for line in table)


def test_what_is_missing_is_said(tmp_path, labelled) -> None:
    plain = write(tmp_path / "g.jsonl", '{"text":"a","label":"spam"}')
    assert b"--policy" in safeguard("eval", plain).stderr
    assert safeguard("eval", tmp_path / "none.jsonl").returncode == 2
    assert safeguard("eval", "-").returncode == 2
    assert b"no field 'country' for --by" in safeguard("eval", labelled, "--by", "country").stderr


def test_without_scikit_learn_the_extra_is_named(tmp_path, labelled) -> None:
    write(tmp_path / "sklearn.py", "raise ImportError")
    done = safeguard("eval", labelled, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert b"pip install '.[eval]'" in done.stderr


def run_compare(capsys, a: Path, b: Path | None, max_flips: int | None = None, **settings: object) -> tuple[int, list]:
    code = compare_module.compare(Settings(str(a), (), **settings), str(b), Wanted(json=True), {}, max_flips)  # type: ignore[arg-type]
    return code, json.loads(capsys.readouterr().out)


def test_compare_finds_what_flipped_and_tests_it(tmp_path, capsys, labelled) -> None:
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    rows[1]["spam"] = verdict("spam", 0.8)
    other = output(tmp_path / "other.jsonl", rows)
    code, (result,) = run_compare(capsys, labelled, other)
    assert code == 0
    assert (result["rows"], result["rows_in_error"], result["agreement"]) == (5, 1, 0.8)
    assert [(flip["row"], flip["a"], flip["b"], flip["gold"]) for flip in result["flips"]] == [
        (2, "ham", "spam", "spam")
    ]
    assert (result["gold"]["only_a_right"], result["gold"]["only_b_right"], result["gold"]["mcnemar_p"]) == (0, 1, 1.0)
    assert run_compare(capsys, labelled, other, max_flips=0)[0] == 5
    assert run_compare(capsys, labelled, other, max_flips=1)[0] == 0


def test_compare_pairs_rows_by_id_and_refuses_rows_that_differ(tmp_path, capsys, labelled) -> None:
    rows = [json.loads(line) for line in labelled.read_text().splitlines()][::-1]
    other = output(tmp_path / "other.jsonl", rows)
    with pytest.raises(UsageError, match="row 1 of"):
        run_compare(capsys, labelled, other)
    with pytest.raises(UsageError, match="--id-field"):
        run_compare(capsys, labelled, output(tmp_path / "short.jsonl", rows[:2]))
    assert run_compare(capsys, labelled, other, id_field="id")[1][0]["flips"] == []


def test_compare_labels_a_golden_set_twice(tiny) -> None:
    golden = ROOT / "samples/golden/spam.jsonl"
    both = ("--effort", "none", "--effort", "low")
    done = safeguard("compare", golden, "-p", "spam", "--model", tiny, *TINY, "--limit", 6, *both)
    assert done.returncode == 0, done.stderr
    for part in (b"A  --effort none", b"B  --effort low", b"6 rows labelled by both", b"McNemar"):
        assert part in done.stdout
    wrong = safeguard("compare", golden, "-p", "spam", "--model", tiny)
    assert wrong.returncode == 2
    assert b"exactly one of" in wrong.stderr


# Options, names and numbers


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Return the outputs of three rows labelled twice, with gold labels of several kinds."""
    rows = [
        {"id": i, "text": f"row {i}", "label": gold, "flag": gold == "spam", "code": {"spam": "SP1", "ham": "OK"}[gold]}
        for i, gold in enumerate(("spam", "ham", "spam"))
    ]
    said = (("spam", "ham", "ham"), ("spam", "ham", "spam"))
    return tuple(  # type: ignore[return-value]
        output(
            tmp_path / f"{name}.jsonl",
            [
                row | {"spam": verdict(label, 0.9 if label == "spam" else 0.1)}
                for row, label in zip(rows, labels, strict=True)
            ],
        )
        for name, labels in zip("ab", said, strict=True)
    )


def called(*args: object) -> Result:
    """Call the command in this process, which is faster than a child."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def compared(*args: object) -> list[dict]:
    done = called("compare", *args, "--json")
    assert done.exit_code == 0, done.stderr
    found: list[dict] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("--gold-field", "spam=label"),
        ("--gold-field", "code", "--map", "SP1=spam;OK=ham"),
        ("--gold-field", "flag", "--map", "true=spam;false=ham"),
        ("--policy", "spam"),
    ],
)
def test_compare_of_two_outputs_uses_gold_as_eval_does(two, how) -> None:
    (result,) = compared(*two, *how)
    gold = result["gold"]
    assert (gold["rows"], gold["only_a_right"], gold["only_b_right"]) == (3, 0, 1)
    assert (gold["accuracy_a"], gold["accuracy_b"]) == (pytest.approx(2 / 3), 1)
    assert (gold["low_b"], gold["high_b"]) == (pytest.approx(0.025 ** (1 / 3)), 1)
    measured = json.loads(called("eval", two[0], *how, "--json").stdout)["policies"]["spam"]
    assert measured["figures"]["accuracy"]["value"] == gold["accuracy_a"]
    assert [(row["row"], row["line"]) for row in measured["wrong"]] == [
        (flip["row"], flip["line"]) for flip in result["flips"]
    ]


@pytest.mark.parametrize("command", ["eval", "compare"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        (("--gold-field", "lable"), "no field 'lable' for --gold-field"),
        (("--gold-field", "code"), "Its gold says 'SP1', 'OK'; the labels are spam: ham, spam"),
        (("--map", "SP1=spam", "--gold-field", "nothere"), "no field 'nothere'"),
        (("--policy", "nothere.md"), "nothere.md"),
        (("--effort", "high"), "--effort has no effect on "),
        (("--model", "demo"), "--model has no effect on "),
        (("--max-reasoning", "5"), "--max-reasoning has no effect on "),
        (("--threads", "1"), "--threads has no effect on "),
        (("--skip-rows", "1"), "--skip-rows has no effect on "),
        (("--format", "csv"), "this is JSON lines, not CSV"),
        (("--wrong", "5", "--json"), "--wrong has no effect with --json"),
        (("--text-field", "body"), "'body'"),
    ],
)
def test_an_option_without_effect_on_outputs_is_refused(two, command, how, told) -> None:
    files = two if command == "compare" else two[:1]
    done = called(command, *files, *how)
    assert done.exit_code == 2, done.stdout
    assert told in done.stderr


def test_compare_takes_as_many_rows_as_limit_says_and_counts_what_it_leaves_out(two, tmp_path) -> None:
    assert compared(*two, "--limit", 1)[0]["rows"] == 1
    more = output(
        tmp_path / "c.jsonl",
        [*map(json.loads, two[1].read_text().splitlines()[1:]), {"id": 9, "text": "x", "spam": verdict("ham", 0.2)}],
    )
    (result,) = compared(two[0], more, "--id-field", "id")
    assert (result["rows"], result["rows_only_in"]) == (2, {"a": 1, "b": 1})
    done = called("compare", *two, "--id-field", "di")
    assert (done.exit_code, "no field 'di' for --id-field" in done.stderr) == (2, True)


def test_a_gold_field_that_is_none_is_said_and_not_ignored(two, tmp_path) -> None:
    rows = [json.loads(line) | {"label": "whatever"} for line in two[0].read_text().splitlines()]
    done = called("compare", output(tmp_path / "a.jsonl", rows), output(tmp_path / "b.jsonl", rows))
    assert done.exit_code == 0
    assert "no figures" in done.stderr
    assert "its gold says 'whatever'" in done.stderr.lower()


def test_other_measures_refuse_what_they_ignore(two, tmp_path) -> None:
    golden = write(tmp_path / "g.jsonl", '{"text":"a","label":"spam"}')
    for call, told in (
        (("report", two[0], "--map", "a=b", "--gold-field", "x"), "no field 'x'"),
        (("report", two[0], "-p", "hate"), "--policy hate"),
        (("stress", golden, "-p", "spam", "--overwrite"), "--overwrite has no effect without -o"),
        (
            ("stress", golden, "-p", "spam", "--language-field", "x"),
            "--language-field has no effect without --translation",
        ),
        (
            ("stress", golden, "-p", "spam", "--family", "repeat", "--pair", "x"),
            "--pair has no effect without --family",
        ),
        (
            ("stress", golden, "-p", "spam", "--export", tmp_path / "e", "--model", "demo"),
            "--model has no effect with --export",
        ),
        (("stress", golden, "-p", "spam", "--worst", 3, "--json"), "--worst has no effect with --json"),
        (("bench", golden, "-p", "spam", "--content", 5), "--content has no effect with INPUT"),
        (("bench", "-p", "spam", "--text-field", "x"), "--text-field has no effect without INPUT"),
        (
            ("compare", golden, "-p", "spam", "--effort", "low", "--effort", "none", "--id-field", "id"),
            "--id-field has no effect",
        ),
        (("eval", golden, "-p", "spam", "--tokenizer", "x"), "--tokenizer has no effect without --server"),
    ):
        done = called(*call)
        assert (done.exit_code, told in done.stderr) == (2, True), (call, done.stderr)


def test_by_a_field_that_not_every_row_has_is_taken(tmp_path, capsys) -> None:
    rows = [
        {"text": "a", "label": "spam", "spam": verdict("spam", 0.9)},
        {"text": "b", "label": "ham", "language": "de", "spam": verdict("ham", 0.1)},
    ]
    result = run_json(capsys, output(tmp_path / "out.jsonl", rows), by=("language",))
    assert [part["value"] for part in result["policies"]["spam"]["slices"]["language"]] == ["", "de"]


def test_what_is_not_defined_is_null_and_a_dash(tmp_path, capsys) -> None:
    rows = [{"text": f"row {i}", "label": "ham", "spam": verdict("ham", 0.1)} for i in range(7)]
    path = output(tmp_path / "out.jsonl", rows)
    figures = run_json(capsys, path)["policies"]["spam"]["figures"]
    for name in ("precision", "recall", "f1", "kappa", "mcc", "auroc", "average_precision", "f1:spam"):
        assert [figures[name][key] for key in ("value", "low", "high")] == [None] * 3
    share = {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 7)), "high": 1.0}
    assert figures["accuracy"] == {**share, "count": 7, "rows": 7}
    evaluate(Settings(str(path), ()), Wanted())
    shown = capsys.readouterr().out
    assert re.search(r"recall of violating \(sensitivity\) +– +– +0 of 0\n", shown)
    assert "0.590 to 1.000" in shown
    assert "1.000 to 1.000" not in shown


def test_eval_names_the_model_and_compare_both(tiny) -> None:
    golden = ROOT / "samples/golden/spam.jsonl"
    done = safeguard("eval", golden, "-p", "spam", *TINY, "--limit", 2, SAFEGUARD_MODEL=str(tiny))
    assert f"model {tiny.name}".encode() in done.stdout, done.stderr
    both = ("--effort", "none", "--effort", "low")
    done = safeguard("compare", golden, "-p", "spam", *TINY, "--limit", 2, *both, SAFEGUARD_MODEL=str(tiny))
    assert done.stdout.count(f"model {tiny.name}".encode()) == 2, done.stderr


def test_an_interrupted_run_whose_rows_are_not_kept_says_so(bench, capsys) -> None:
    def stop(prompts: int):
        asked = iter(range(prompts))

        def before(_: object) -> None:
            if next(asked, None) is None:
                raise Interrupted(2)

        return lambda *given: FakeEngine(*given, before=before)

    bench.fill(20)
    with pytest.raises(Interrupted):
        bench(stop(9), scratch=True)
    told = capsys.readouterr().err
    assert "none is kept: run the command again" in " ".join(told.split())
    assert "to go on" not in told


def test_the_lines_of_a_csv_are_the_same_in_eval_and_compare(two, tmp_path) -> None:
    files = []
    for path in two:
        lines = ["id,text,label,spam_label,spam_violates,spam_p_violates,spam_scores,spam_error"]
        for row in map(json.loads, path.read_text().splitlines()):
            said = row["spam"]
            scores = json.dumps(said["scores"]).replace('"', '""')
            text = '"two\nlines"' if not row["id"] else row["text"]
            lines.append(
                f'{row["id"]},{text},{row["label"]},{said["label"]},{said["violates"]},{said["p_violates"]},"{scores}",'
            )
        files.append(write(path.with_suffix(".csv"), *lines))
    (flip,) = compared(*files)[0]["flips"]
    (wrong,) = json.loads(called("eval", files[0], "--json").stdout)["policies"]["spam"]["wrong"]
    assert (flip["row"], flip["line"]) == (wrong["row"], wrong["line"]) == (3, 5)


def test_what_the_model_said_is_no_gold_label(tmp_path) -> None:
    """An output as CSV without its manifest: its verdict columns are neither taken for gold nor suggested."""
    rows = (
        "id,text,spam_label,spam_violates,spam_p_violates\n1,hello there,ham,false,0.1\n2,win a prize,spam,true,0.9\n"
    )
    path = tmp_path / "labels.csv"
    path.write_text(rows)
    given = Settings(str(path), ("spam",), labels=("ham", "spam"))
    with pytest.raises(UsageError, match="'spam_label' is what the model said, not the right label"):
        evaluate(given, Wanted(gold_fields=("spam_label",)))
    with pytest.raises(UsageError, match="no field 'label' with the right labels: put the right labels into a column"):
        evaluate(given, Wanted())


def test_labels_of_the_demo_model_that_mean_nothing_are_doubted(tmp_path, capsys) -> None:
    policy = tmp_path / "mine.md"
    policy.write_text("---\nname: mine\nlabels: [fine, ad]\nviolates: ad\n---\nLabel ad what sells something.\n")
    source = tmp_path / "in.jsonl"
    write(source, '{"text": "buy now", "label": "ad"}', '{"text": "see you", "label": "fine"}')
    out = tmp_path / "out.jsonl"
    given = ("label", source, "-p", policy, "--model", "demo", "--effort", "none", "-o", out, "-q")
    assert safeguard(*given).returncode == 0
    assert evaluate(Settings(str(out), ()), Wanted()) == 0
    assert "the labels under mine mean nothing" in " ".join(capsys.readouterr().out.split())
