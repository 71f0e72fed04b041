"""`eval --require`: which figures a gate may name, when it is met, and what a build is told of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.command import SAFEGUARD, safeguard, write

pytest.importorskip("sklearn")

from helpers.outputs import output, verdict
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.evaluate import evaluate
from safeguard_cli.measure.gates import Gate, Judged, check_gates, judge, parse_gates, write_junit
from safeguard_cli.measure.options import Wanted
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.run.settings import Settings

SPAM = LabelSet("spam", ("ham", "spam"), ("spam",))
HATE = LabelSet("hate", ("allowed", "hateful"), ("hateful",))
SECRET = "call 0800 now"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Twelve rows: of eight that violate two are missed, and no row is a false alarm; one says what it is in a text."""
    said = [("spam", "spam")] * 6 + [("spam", "ham")] * 2 + [("ham", "ham")] * 4
    rows = [
        {
            "id": f"m{at}",
            "text": f"{SECRET} {at}",
            "label": gold,
            "spam": verdict(label, 0.9 if label == "spam" else 0.1),
        }
        for at, (gold, label) in enumerate(said, 1)
    ]
    return output(tmp_path / "out.jsonl", rows)


def required(path: Path, *gates: str, **more: object) -> int:
    return evaluate(Settings(str(path), ()), Wanted(require=gates, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("recall>=0.75", 0),
        ("recall >= 75%", 0),
        ("recall>=0.76", 5),
        ("recall.spam>0.75", 5),
        ("precision.spam>=1", 0),
        ("recall:ham>=1", 0),
        ("recall.spam:ham < 1", 5),
        ("upper(recall)<=0.97", 0),
        ("lower(recall)>=0.7", 5),
        ("lower( Recall.spam ) >= .3", 0),
        ("calibration-error<=0.5", 0),
    ],
)
def test_a_gate_is_met_by_the_figure_or_by_the_end_of_its_interval_that_it_names(labelled, gate, code, capsys) -> None:
    assert required(labelled, gate) == code
    assert ("NOT MET: " in capsys.readouterr().out) == (code == 5)


def test_a_figure_that_is_not_defined_meets_no_gate(tmp_path, capsys) -> None:
    path = output(tmp_path / "out.jsonl", [{"text": "a", "label": "ham", "spam": verdict("ham", 0.1)}] * 3)
    for gate in ("recall>=0", "recall<=1", "lower(auroc)>=0"):
        assert required(path, gate) == 5
    assert "recall under spam is not defined on these rows" in capsys.readouterr().err


def test_a_gate_that_is_not_met_comes_before_rows_in_error(labelled, capsys) -> None:
    error = {"label": None, "error": {"code": "no_text", "message": "line 13: nothing"}}
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    output(labelled, [*rows, {"id": "m13", "text": "x", "label": "ham", "spam": error}])
    assert required(labelled, "recall>=0.5") == 3
    assert required(labelled, "recall>=0.5", "recall>=0.9") == 5
    assert "error: --require recall>=0.9: recall under spam is 0.750\n" in capsys.readouterr().err


def test_with_several_policies_a_gate_is_for_all_of_them_or_for_the_one_that_it_names() -> None:
    figures = {"recall": {"value": 0.9, "low": 0.8, "high": 1.0}, "recall:hateful": {"value": None}}
    worse = {"recall": {"value": 0.5, "low": 0.4, "high": 0.6}}
    result = {
        "policies": {"hate": {"figures": figures}, "spam": {"figures": worse}},
        "multi_policy_accuracy": {"value": 0.4, "low": 0.3, "high": 0.5},
    }

    def met(gate: str) -> list[tuple[str, bool]]:
        return [(each.policy, each.met) for each in judge(parse_gates([gate]), result)]

    assert met("recall>=0.8") == [("hate", True), ("spam", False)]
    assert met("recall.hate>=0.8") == [("hate", True)]
    assert met("recall:hateful>=0") == [("hate", False)]
    assert met("lower(multi_policy_accuracy)>=0.3") == [("", True)]


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("recall=0.9", "write FIGURE>=NUMBER, such as 'recall>=0.9'"),
        ("recall>=", "write FIGURE>=NUMBER"),
        ("recal>=0.9", "there is no figure 'recal'; is it recall?"),
        ("recall.ham>=0.9", "no figure 'recall.ham'; recall:ham is that of a label"),
        ("multi_policy_accuracy>=0.4", "there is no figure 'multi_policy_accuracy'"),
        ("zzz>=1", "there are accuracy, precision, recall"),
    ],
)
def test_a_figure_that_does_not_exist_is_refused_before_anything_is_labelled(gate, message) -> None:
    with pytest.raises(UsageError, match="--require") as caught:
        check_gates(parse_gates([gate]), [SPAM])
    assert message in str(caught.value)


@given(st.text(max_size=30))
def test_whatever_is_required_is_read_or_refused_in_a_sentence(text: str) -> None:
    for form in (text, f"{text}>=0.5", f"lower({text})<1%"):
        try:
            check_gates(parse_gates([form]), [SPAM, HATE])
        except UsageError as problem:
            assert str(problem).startswith("--require ")


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["p", ""]))
def test_a_junit_file_can_be_parsed_whatever_labels_and_ids_hold(tmp_path_factory, label, named, policy) -> None:
    path = tmp_path_factory.mktemp("junit") / "j.xml"
    wrong = {"row": 1, "line": 2, "id": named, "gold": label, "label": "x"}
    result = {"golden": named, "model": label, "effort": "low", "rows": 1, "policies": {"p": {"wrong": [wrong]}}}
    judged = [Judged(Gate(f"recall:{label}>=1", "recall", "", ">=", 1.0), policy, f"recall:{label}", 0.5)]
    write_junit(str(path), judged, result)
    assert ElementTree.parse(path).getroot().get("failures") == "1"


def test_a_figure_just_below_what_is_required_is_shown_with_the_digits_that_tell() -> None:
    [gate] = parse_gates(["recall>=0.9"])
    assert Judged(gate, "spam", "recall", 0.8996).told == "recall under spam is 0.8996"
    assert Judged(gate, "spam", "recall", 0.9004).told == "recall under spam is 0.900"


def test_a_junit_parser_reads_which_gates_failed_and_where_rows_are_wrong_but_no_text(labelled, tmp_path) -> None:
    junit = tmp_path / "eval.xml"
    done = safeguard(
        *("eval", labelled, "--require", "recall>=0.9", "--require", "precision>=0.9", "--junit", junit), cwd=tmp_path
    )
    assert done.returncode == 5
    root = ElementTree.parse(junit).getroot()
    [suite] = root.findall("testsuite")
    assert [(suite.get(name)) for name in ("name", "tests", "failures", "errors")] == ["spam", "2", "1", "0"]
    failed = {case.get("name"): case.find("failure") for case in suite.findall("testcase")}
    assert failed.keys() == {"recall>=0.9", "precision>=0.9"} and failed["precision>=0.9"] is None
    failure = failed["recall>=0.9"]
    assert failure is not None and failure.get("message") == "recall under spam is 0.750"
    assert (
        failure.text
        == "spam: row 7, line 7, id m7, gold spam, said ham\nspam: row 8, line 8, id m8, gold spam, said ham"
    )
    assert SECRET not in junit.read_text()


def test_a_junit_file_replaces_an_earlier_one_and_nothing_else(labelled, tmp_path, capsys) -> None:
    junit, notes = tmp_path / "eval.xml", write(tmp_path / "notes.xml", "<notes/>")
    for _ in range(2):
        assert required(labelled, "recall>=0.5", junit=str(junit)) == 0
    for taken in (notes, labelled):
        before = taken.read_bytes()
        assert safeguard("eval", labelled, "--require", "recall>=0", "--junit", taken).returncode in (2, 4)
        assert taken.read_bytes() == before
    done = safeguard("eval", labelled, "--junit", junit)
    assert done.returncode == 2 and b"--junit has no effect without --require" in done.stderr


def test_github_actions_is_shown_file_line_and_id_of_wrong_rows_and_never_a_text(labelled, tmp_path) -> None:
    on = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tmp_path)}
    done = safeguard("eval", labelled, "--require", "recall>=0.9", "--json", cwd=tmp_path, **on)
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("::")]
    assert told == [
        "::error file=out.jsonl,line=1::recall under spam is 0.750, required: recall>=0.9",
        "::warning file=out.jsonl,line=7::row 7, line 7, id m7, spam: gold spam, said ham",
        "::warning file=out.jsonl,line=8::row 8, line 8, id m8, spam: gold spam, said ham",
    ]
    assert json.loads(done.stdout)["required"][0]["met"] is False
    met = safeguard("eval", labelled, "--require", "recall>=0.5", "--json", cwd=tmp_path, **on)
    elsewhere = safeguard("eval", labelled, "--require", "recall>=0.9", "--json", cwd=tmp_path, GITHUB_ACTIONS="")
    assert b"::" not in met.stderr + elsewhere.stderr


def test_a_shell_script_goes_on_or_ends_by_what_is_required(tmp_path) -> None:
    script = write(
        tmp_path / "ci.sh",
        "set -e",
        f"gate() {{ {SAFEGUARD} eval sample:golden/spam -p spam --model demo --effort none -q --wrong 0 -o out.jsonl"
        ' --require "$1" > figures.txt; }',
        "gate 'accuracy>=0.5'",
        "echo passed",
        "gate 'accuracy>=0.99'",
        "echo not reached",
    )
    done = subprocess.run(["sh", script], cwd=tmp_path, capture_output=True, text=True, env=None, timeout=120)
    assert (done.returncode, done.stdout) == (5, "passed\n")
    assert "error: --require accuracy>=0.99: accuracy under spam is 0." in done.stderr
