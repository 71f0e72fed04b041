"""Tasks for Label Studio, and its export read back as what people answered."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers.command import safeguard, write
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.measure.label_studio import golden_lines, interface, is_export
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.rows.source import open_source


def verdict(label: str, p: float) -> dict:
    scores = {"ham": round(1 - p, 6), "spam": p}
    return {"label": label, "violates": label == "spam", "p_violates": p, "score": scores[label], "scores": scores}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    rows = [
        {"id": 7, "text": 'WIN a "prize"', "spam": verdict("spam", 0.9)},
        {"id": 8, "text": "see you", "spam": verdict("ham", 0.2)},
        {"id": 9, "text": None, "spam": {"label": None, "error": {"code": "no_text", "message": "line 3: blank"}}},
    ]
    return write(tmp_path / "out.jsonl", *map(json.dumps, rows))


def annotated(task: dict, *labels: str | None, name: str = "spam", **more: object) -> dict:
    """Return a task as Label Studio exports it, labelled by people 1, 2 and so on; None has skipped it."""
    annotations = [
        {
            "id": 100 + who,
            "completed_by": who,
            "was_cancelled": label is None,
            "ground_truth": False,
            "result": []
            if label is None
            else [{"from_name": name, "to_name": "text", "type": "choices", "value": {"choices": [label]}}],
            **more,
        }
        for who, label in enumerate(labels, 1)
    ]
    return {"id": 5, "annotations": annotations, "meta": {}, **task}


def read(path: Path, *tasks: object, policy: str | None = None) -> list[dict]:
    path.write_text(json.dumps(list(tasks)))
    with open_source(io.BytesIO(golden_lines(path, [policy] if policy else []))) as source:
        return [dict(record.fields or {}) for record in source]


def test_rows_become_tasks_with_the_labels_as_predictions(output: Path, tmp_path: Path) -> None:
    done = safeguard("export", output.name, "--to", "label-studio", "-o", "tasks.json", cwd=tmp_path)
    assert done.returncode == errors.OK
    first, second, failed = json.loads((tmp_path / "tasks.json").read_bytes())
    assert first["data"] == {"id": 7, "text": 'WIN a "prize"', "_row": 1, "_line": 1}
    (prediction,) = first["predictions"]
    assert prediction["score"] == 0.9
    assert prediction["result"][0]["value"] == {"choices": ["spam"]}
    assert second["predictions"][0]["result"][0]["value"] == {"choices": ["ham"]}
    assert failed["predictions"] == []
    shown = ET.fromstring(done.stderr.decode().partition("project: ")[2])
    assert [each.get("value") for each in shown.iter("Choice")] == ["ham", "spam"]
    again = safeguard("export", output.name, "--to", "label-studio", "-o", "tasks.json", cwd=tmp_path)
    assert again.returncode == errors.USAGE
    assert b"--overwrite" in again.stderr
    assert json.loads(safeguard("export", output, "--to", "label-studio").stdout)[0] == first


def test_an_output_without_its_texts_is_refused(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.jsonl", json.dumps({"id": 1, "spam": verdict("ham", 0.1)}))
    done = safeguard("export", bare, "--to", "label-studio")
    assert done.returncode == errors.USAGE
    assert b"does not hold the text" in done.stderr


def test_what_people_answered_comes_back(output: Path, tmp_path: Path) -> None:
    first, second, failed = json.loads(safeguard("export", output, "--to", "label-studio").stdout)
    tasks = [annotated(first, "spam", "spam"), annotated(second, "spam", "ham"), annotated(failed, None)]
    rows = read(tmp_path / "export.json", *tasks, {"id": 6, "data": {"text": "not seen"}, "annotations": []})
    assert is_export(tmp_path / "export.json")
    assert [(row["_row"], row["label"], row["labels"], row.get("skipped")) for row in rows] == [
        (1, "spam", {"1": "spam", "2": "spam"}, None),
        (2, None, {"1": "spam", "2": "ham"}, None),
        (3, None, {}, True),
    ]
    assert rows[0]["proposed"]["label"] == "spam"
    assert {row["picked"]["how"] for row in rows} == {""}, "nobody knows how they were picked"


def test_people_are_named_and_a_settled_answer_counts(tmp_path: Path) -> None:
    task = {"data": {"text": "hi", "label": "mine"}}
    (row,) = read(tmp_path / "a.json", annotated(task, "ham", completed_by={"id": 3, "email": "anna@a.example"}))
    assert (row["labels"], row["label_before"]) == ({"anna": "ham"}, "mine")
    settled = annotated(task, "ham", "spam")
    settled["annotations"][1]["ground_truth"] = True
    assert read(tmp_path / "b.json", settled)[0]["label"] == "spam"


def test_of_several_choices_the_policy_names_one(tmp_path: Path) -> None:
    both = annotated({"data": {"text": "hi"}}, "ham")
    both["annotations"][0]["result"] += annotated({}, "yes", name="hate")["annotations"][0]["result"]
    with pytest.raises(UsageError, match="choices of spam and hate: name one with --policy"):
        read(tmp_path / "a.json", both)
    assert read(tmp_path / "a.json", both, policy="hate")[0]["label"] == "yes"
    assert (
        read(tmp_path / "a.json", annotated({"data": {"text": "hi"}}, "ham", name="kind"), policy="spam")[0]["label"]
        == "ham"
    ), "an only choice may have another name"


@pytest.mark.parametrize("bad", [5, {}, {"data": 5, "annotations": [{}]}, {"annotations": [{}]}])
def test_what_is_no_task_is_refused_by_its_number(tmp_path: Path, bad: object) -> None:
    with pytest.raises(UsageError, match=r"a\.json, task 2: a task has an object `data`"):
        read(tmp_path / "a.json", annotated({"id": 1, "data": {"text": "hi"}}, "ham"), bad)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "annotations", "result", "type", "value", "completed_by"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused_with_a_sentence(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    try:
        read(tmp_path_factory.getbasetemp() / "any.json", value)
    except UsageError as problem:
        assert "any.json" in str(problem)


def test_names_with_quotes_keep_the_interface_whole() -> None:
    shown = ET.fromstring(interface([LabelSet("a", ('<"x">', "y & z"), ("y & z",))], "labelled_text"))
    assert [each.get("value") for each in shown.iter("Choice")] == ['<"x">', "y & z"]


def test_an_export_is_a_golden_set_for_eval_and_agree(output: Path, tmp_path: Path) -> None:
    first, second, failed = json.loads(safeguard("export", output, "--to", "label-studio").stdout)
    write(tmp_path / "export.json", json.dumps([annotated(first, "spam"), annotated(second, "ham"), failed]))
    done = safeguard("eval", "export.json", "--policy", "spam", "--model", "demo", "--json", cwd=tmp_path)
    assert done.returncode == errors.OK, done.stderr
    assert json.loads(done.stdout)["rows"] == 2
    write(tmp_path / "both.json", json.dumps([annotated(first, "spam", "spam"), annotated(second, "ham", "spam")]))
    done = safeguard("agree", "both.json", "--json", cwd=tmp_path)
    assert done.returncode == errors.OK, done.stderr
    found = json.loads(done.stdout)
    assert found["people"] == ["1", "2"]
    assert [dispute["labels"] for dispute in found["disputes"]] == [{"1": "ham", "2": "spam"}]
