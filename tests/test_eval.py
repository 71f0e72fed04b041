"""`safeguard eval` and `compare`: messy golden sets, outputs, several policies, and what is said about them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from test_cli import ROOT, safeguard, write

pytest.importorskip("sklearn")

from safeguard_cli import compare as compare_module
from safeguard_cli.errors import UsageError
from safeguard_cli.evaluate import Wanted, evaluate
from safeguard_cli.golden import gold_fields, parse_map, read_golden
from safeguard_cli.labelled import Answers, read_labels
from safeguard_cli.setup import Settings

SPAM = Answers("spam", ("ham", "spam"), ("spam",))
FRAUD = Answers("fraud", ("honest", "fraud"), ("fraud",))
TINY = ("--max-reasoning", 2, "--slots", 4, "--threads", 1, "-q")


def verdict(label: str, p: float, *, labels: tuple[str, str] = ("ham", "spam"), **more: object) -> dict:
    scores = {labels[0]: 1 - p, labels[1]: p}
    return {
        "label": label,
        "violates": label == labels[1],
        "p_violates": p,
        "score": scores[label],
        "scores": scores,
        "effort": "low",
        **more,
    }


def output(path: Path, rows: list[dict]) -> Path:
    return write(path, *(json.dumps(row) for row in rows))


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


def run_json(capsys, path: Path, **wanted: object) -> dict:
    code = evaluate(Settings(str(path), ()), Wanted(json=True, **wanted))  # type: ignore[arg-type]
    return {"exit": code, **json.loads(capsys.readouterr().out)}


def openai_style(path: Path) -> Path:
    """A golden set as they go round: a title row, a header with ten empty columns, section rows, severity labels."""
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
    for part in ("6 golden rows", "1 rows in error", "accuracy", "by language", "wrong, ", "because", "line 3"):
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


def test_gold_values_that_are_no_text_are_labels_all_the_same(tmp_path) -> None:
    path = write(tmp_path / "g.jsonl", '{"text":"a","label":1}', '{"text":"b","label":0}', '{"text":"c","label":true}')
    golden = read_golden(path, [Answers("p", ("0", "1"), ("1",))], {"p": "label"}, mapping={"true": "1"})
    assert [row.gold["p"] for row in golden.rows] == ["1", "0", "1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_map(["a,b"]), "--map"),
        (lambda: parse_map(["a=x;a=y"]), "two labels"),
        (lambda: gold_fields(["x"], ["spam", "fraud"]), "POLICY=FIELD"),
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
        found.append([row.verdicts["spam"].as_dict() for row in labels.rows])
    assert found[0] == found[1]
    assert len(found[0]) == 6


def test_a_threshold_is_applied_or_searched(capsys, labelled) -> None:
    assert run_json(capsys, labelled, threshold="0.5")["policies"]["spam"]["figures"]["precision"]["value"] == 0.5
    assert run_json(capsys, labelled, threshold="0.7")["policies"]["spam"]["figures"]["precision"]["value"] == 1.0
    found = run_json(capsys, labelled, threshold="recall=1")["policies"]["spam"]["threshold"]
    assert found == {"wanted": ["recall", 1.0], "threshold": 0.4, "precision": pytest.approx(2 / 3), "recall": 1.0}
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


def test_sure_compares_a_run_without_reasoning(tiny) -> None:
    golden = ROOT / "samples/golden/spam.jsonl"
    done = safeguard("eval", golden, "-p", "spam", "--model", tiny, *TINY, "--limit", 4, "--sure", "--json")
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
    done = safeguard("eval", labelled, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert b"safeguard-cli[eval]" in done.stderr


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
