"""`safeguard policy history`: each measured version is listed with the figures of the right rows, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
from helpers.command import safeguard, write
from helpers.outputs import manifest, output, verdict

from safeguard_cli.measure.history import _diff

GOLD = "ssssssssss" + "hhhhhhhhhh"
NAMES = {"h": "ham", "s": "spam"}
TEXTS = [f"text number {row}" for row in range(len(GOLD))]


def golden(folder: Path, gold: str = GOLD) -> Path:
    rows = [{"id": row, "text": TEXTS[row], "label": NAMES[mark]} for row, mark in enumerate(gold)]
    return write(folder / "golden.jsonl", *map(json.dumps, rows))


def measured(folder: Path, name: str, said: str, sha: str, minute: int = 0, **more: object) -> Path:
    """Write an output under a version of spam, finished at a minute, and its manifest; a label for each golden row."""
    return written(folder, name, list(enumerate(said)), sha, minute, **more)  # type: ignore[arg-type]


def written(
    folder: Path,
    name: str,
    said: list[tuple[int, str]],
    sha: str,
    minute: int = 0,
    effort: str = "low",
    policy: str = "spam",
    only: str | None = None,
    fields: tuple[str, ...] = ("id", "text"),
) -> Path:
    rows = []
    for row, mark in said:
        own = {"id": row, "text": TEXTS[row]}
        p = {"h": 0.1, "s": 0.9}[mark]
        rows.append({**{key: own[key] for key in fields}, policy: verdict(NAMES[mark], p)})
    path = output(folder / name, rows)
    manifest(path)
    beside = path.with_name(f"{name}.manifest.json")
    record = json.loads(beside.read_text())
    record["decides"]["policies"] = {policy: {"labels": ["ham", "spam"], "violates": ["spam"], "sha256": sha * 64}}
    record["decides"]["answer"]["effort"] = effort
    record["decides"]["output"]["only"] = only
    record["rows"] = len(rows)
    record["result"]["finished"] = f"2026-01-01T00:{minute:02}:00+00:00"
    record["result"]["labels"] = {policy: {"ham": 1, "spam": 0}}
    record["result"]["violating"] = {policy: 0}
    beside.write_text(json.dumps(record))
    return path


def run(*args: object, cwd: Path | None = None) -> tuple[int, str, str]:
    done = safeguard("policy", "history", *args, cwd=cwd)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def found(*args: object, cwd: Path | None = None) -> dict:
    code, out, err = run(*args, "--json", cwd=cwd)
    assert code == 0, err
    result: dict = json.loads(out)
    return result


def test_figures_and_flips_are_those_worked_by_hand(tmp_path: Path) -> None:
    measured(tmp_path, "a.jsonl", "s" * 5 + "h" * 5 + "h" * 9 + "s", "a", 1)
    measured(tmp_path, "b.jsonl", "s" * 9 + "h" + "h" * 8 + "ss", "b", 2)
    series = found(golden(tmp_path))["histories"]
    assert len(series) == 1
    first, second = series[0]["measurements"]
    assert (first["version"], second["version"]) == (1, 2)
    figures = first["figures"]
    assert figures["accuracy"]["value"] == 14 / 20
    assert figures["recall"]["value"] == 5 / 10
    assert figures["precision"]["value"] == 5 / 6
    assert second["figures"]["recall"]["value"] == 9 / 10
    step = series[0]["steps"][0]
    assert (step["from"], step["to"], step["rows"]) == (1, 2, 20)
    assert [flip["row"] for flip in step["flips"]] == [6, 7, 8, 9, 19]
    assert (step["only_a_right"], step["only_b_right"]) == (1, 4)
    assert step["mcnemar_p"] == pytest.approx(0.375)


def test_better_is_said_only_where_chance_cannot_do_it(tmp_path: Path) -> None:
    measured(tmp_path, "a.jsonl", "h" * 20, "a", 1)
    measured(tmp_path, "b.jsonl", "s" + "h" * 19, "b", 2)
    measured(tmp_path, "c.jsonl", GOLD, "c", 3)
    code, out, err = run(golden(tmp_path))
    assert code == 0, err
    steps = {line.split(":")[0]: line.rpartition(": ")[2] for line in out.splitlines() if line.startswith("v")}
    assert steps["v1 → v2"] == "no proof of a difference"
    assert steps["v2 → v3"] == "better"
    assert steps["v1 → v3, first to last"] == "better"
    assert "rows kept apart" in out


def test_a_version_keeps_its_number_and_what_was_asked_otherwise_stands_apart(tmp_path: Path) -> None:
    measured(tmp_path, "a.jsonl", GOLD, "a", 1)
    measured(tmp_path, "b.jsonl", GOLD, "b", 2)
    measured(tmp_path, "c.jsonl", GOLD, "b", 3, effort="high")
    measured(tmp_path, "d.jsonl", GOLD, "b", 4)
    low, high = found(golden(tmp_path))["histories"]
    assert [one["version"] for one in low["measurements"]] == [1, 2, 2]
    assert [one["version"] for one in high["measurements"]] == [2]
    _, out, _ = run(tmp_path / "golden.jsonl")
    assert 'asked otherwise than above: effort: "low" → "high"' in out
    assert "v2 → v2, the same policy again: 0 of 20 rows flipped" in out


def test_lines_of_the_policy_that_differ_are_shown() -> None:
    assert _diff("# Spam\nAds.\n\nHam.", "# Spam\n\nAds and scams.\nHam.") == ["-Ads.", "+Ads and scams."]
    assert _diff("-- a rule", "") == ["--- a rule"]
    assert _diff("same", "same") == []
    assert _diff(None, "text") is None


def test_right_labels_are_those_of_the_golden_set_as_it_is_now(tmp_path: Path) -> None:
    measured(tmp_path, "a.jsonl", GOLD, "a", 1)
    assert found(golden(tmp_path))["histories"][0]["measurements"][0]["figures"]["accuracy"]["value"] == 1
    corrected = golden(tmp_path, "h" + GOLD[1:])
    assert found(corrected)["histories"][0]["measurements"][0]["figures"]["accuracy"]["value"] == 19 / 20


def test_rows_pair_by_text_whatever_their_order_and_a_smaller_output_is_told(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", [*enumerate(GOLD)][::-1], "a", 1)
    written(tmp_path, "b.jsonl", [*enumerate(GOLD)][5:], "b", 2)
    series = found(golden(tmp_path))["histories"][0]
    whole, part = series["measurements"]
    assert (whole["rows"], whole["figures"]["accuracy"]["value"]) == (20, 1)
    assert (part["rows"], part["doubts"]) == (15, ["5 golden rows are not in it"])
    assert series["steps"][0]["rows"] == 15


def test_rows_without_their_text_pair_by_ids(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", [*enumerate(GOLD)][::-1], "a", fields=("id",))
    code, _, err = run(golden(tmp_path))
    assert code == 2
    assert "kept no text" in err
    one = found(tmp_path / "golden.jsonl", "--id-field", "id")["histories"][0]["measurements"][0]
    assert (one["rows"], one["figures"]["accuracy"]["value"]) == (20, 1)


def test_what_is_no_measurement_is_left_out_with_its_reason(tmp_path: Path) -> None:
    measured(tmp_path, "good.jsonl", GOLD, "a")
    measured(tmp_path, "only.jsonl", GOLD, "b", only="violates")
    measured(tmp_path, "gone.jsonl", GOLD, "b").unlink()
    manifest(output(tmp_path / "begun.jsonl", [{"text": TEXTS[0], "spam": verdict("ham", 0.1)}]), finished=False)
    other = output(
        tmp_path / "other.jsonl", [{"text": f"foreign {row}", "spam": verdict("ham", 0.1)} for row in range(4)]
    )
    manifest(other)
    write(tmp_path / "bad.jsonl.manifest.json", "{")
    write(tmp_path / "big.jsonl", "not an output")
    result = found(golden(tmp_path))
    assert [one["output"].rpartition("/")[2] for one in result["histories"][0]["measurements"]] == ["good.jsonl"]
    reasons = {each["output"].rpartition("/")[2]: each["reason"] for each in result["left_out"]}
    assert reasons.keys() == {"only.jsonl", "gone.jsonl", "begun.jsonl", "other.jsonl", "bad.jsonl"}
    assert "--only violates" in reasons["only.jsonl"]
    assert "not there" in reasons["gone.jsonl"]
    assert "not finished" in reasons["begun.jsonl"]
    assert reasons["other.jsonl"] == "0 of its 4 rows are rows of the golden set"


def test_a_renamed_policy_is_one_history_and_its_file_marks_the_version_as_it_is_now(tmp_path: Path) -> None:
    measured(tmp_path, "a.jsonl", "h" * 20, "a", 1, policy="junk")
    measured(tmp_path, "b.jsonl", GOLD, "b", 2)
    assert len(found(golden(tmp_path))["histories"]) == 2
    series = found("golden.jsonl", "-p", "junk", "-p", "spam", cwd=tmp_path)["histories"]
    assert [one["name"] for one in series[0]["measurements"]] == ["junk", "spam"]
    assert series[0]["steps"][0]["only_b_right"] == 10
    assert series[0]["now_measured"] is False  # `spam` is a built-in policy, which the hand-written hash is not of


def test_a_folder_without_measurements_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = golden(tmp_path)
    code, _, err = run(path)
    assert (code, "no manifest there" in err) == (2, True)
    code, _, err = run(path, "--in", tmp_path / "nowhere")
    assert (code, "is no folder" in err) == (2, True)
    code, _, err = run(path, "--json", "--wrong", "3")
    assert (code, "--wrong has no effect with --json" in err) == (2, True)


def test_drafts_labelled_by_the_demo_model_stand_in_one_history(tmp_path: Path) -> None:
    draft = "---\nname: spam\nlabels: [ham, spam]\nviolates: [spam]\n---\n# Spam\nAdvertising is spam.\n"
    write(tmp_path / "draft.md", draft)
    for policy, name in (("draft.md", "a.jsonl"), ("spam", "b.csv")):
        how = ("--model", "demo", "--effort", "none", "--limit", "12", "-q", "-o", name)
        done = safeguard("label", "sample:golden/spam", "--policy", policy, *how, cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
    result = found("sample:golden/spam", "-p", "draft.md", cwd=tmp_path)
    (series,) = result["histories"]
    assert [(one["version"], one["rows"], one["now"]) for one in series["measurements"]] == [
        (1, 12, True),
        (2, 12, False),
    ]
