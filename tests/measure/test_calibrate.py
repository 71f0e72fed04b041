"""`safeguard eval --calibrate`: what it learns holds for rows that it has not seen, and it says how well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import safeguard, write
from helpers.outputs import manifest, output, verdict

pytest.importorskip("sklearn")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.calibrate import FEWEST, FOLDS, METHODS, fit, folds, learn, probabilities, text_keys
from safeguard_cli.measure.evaluate import evaluate
from safeguard_cli.measure.metrics import calibration_error
from safeguard_cli.measure.options import Wanted
from safeguard_cli.run.calibration import parse
from safeguard_cli.run.settings import Settings


def overconfident(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows violate, and a p_violates that is three times too sure on the scale of logits."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 2, rows)
    truth = rng.random(rows) < 1 / (1 + np.exp(-z))
    return truth, np.round(1 / (1 + np.exp(-3 * z)), 6)


def keys(rows: int) -> list[bytes]:
    return text_keys(str(row) for row in range(rows))


@pytest.mark.parametrize("method", [*METHODS, None])
def test_the_calibration_error_falls_on_rows_kept_apart(method) -> None:
    before, after = [], []
    for seed in range(5):
        truth, p = overconfident(1000, seed)
        found = learn(truth, p, keys(1000), method)
        apart, q = overconfident(5000, 100 + seed)
        before.append(calibration_error(apart, q))
        after.append(calibration_error(apart, probabilities(found.curve, q)))
    assert min(before) > 0.08
    assert max(after) < 0.05


def test_cross_fitted_figures_are_those_of_new_rows_where_figures_of_the_same_rows_promise_more() -> None:
    def brier(truth: np.ndarray, p: np.ndarray) -> float:
        return float(((p - truth) ** 2).mean())

    same, cross, new = [], [], []
    for seed in range(20):
        truth, p = overconfident(150, seed)
        found = learn(truth, p, keys(150), "isotonic")
        apart, q = overconfident(5000, 100 + seed)
        same.append(brier(truth, probabilities(found.curve, p)))
        cross.append(brier(truth, found.cross_fitted))
        new.append(brier(apart, probabilities(found.curve, q)))
    assert np.mean(same) < np.mean(new) - 0.01
    assert abs(np.mean(cross) - np.mean(new)) < 0.01


def test_the_better_method_is_chosen() -> None:
    truth, p = overconfident(400, 1)
    assert learn(truth, p, keys(400), None).method == "platt"  # its shape is the true one
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    truth = rng.random(4000) < np.where(p < 0.8, 0.1, 0.9)  # a step, which no logistic curve is
    assert learn(truth, p, keys(4000), None).method == "isotonic"


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1.0]) | st.floats(0, 1)), min_size=2, max_size=60),
    method=st.sampled_from(METHODS),
)
def test_no_probability_is_ever_0_or_1(rows, method) -> None:
    truth = np.array([bad for bad, _ in rows])
    p = np.array([round(p, 6) for _, p in rows])
    found = probabilities(fit(method, truth, p), p)
    assert (found > 0).all()
    assert (found < 1).all()


@given(texts=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), bits=st.integers(0, (1 << 40) - 1))
def test_rows_of_one_text_share_their_fold(texts, bits) -> None:
    truth = np.array([bool(bits >> place & 1) for place in range(len(texts))])
    places = folds(truth, text_keys(texts))
    by_text = {text: {int(places[at]) for at, each in enumerate(texts) if each == text} for text in texts}
    assert all(len(found) == 1 for found in by_text.values())
    assert set(places) <= set(range(FOLDS))


def golden(path: Path, rows: int = 60, **more: object) -> Path:
    """Write an output with right labels: a third violates, and p_violates is too low."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(rows):
        bad = i % 3 == 0
        p = round(float(rng.beta(2, 4) if bad else rng.beta(1, 9)), 6)
        found.append({"id": i, "text": f"row {i}", "label": "spam" if bad else "ham", **more})
        found[-1]["spam"] = verdict("spam" if p > 0.5 else "ham", p)
    return output(path, found)


def run(path: Path, target: Path, **wanted: object) -> int:
    return evaluate(Settings(str(path), ()), Wanted(calibrate=str(target), **wanted))  # type: ignore[arg-type]


def test_an_output_with_right_labels_gives_a_small_file_that_says_what_it_was_learned_under(tmp_path, capsys) -> None:
    path, target = golden(tmp_path / "out.jsonl"), tmp_path / "c.json"
    manifest(path)
    assert run(path, target, json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    calibrated = shown["policies"]["spam"]["calibrated"]
    assert shown["calibration"] == str(target)
    assert calibrated["rows"] == 60
    assert calibrated["violating"] == 20
    assert calibrated["calibration_error"]["after"]["value"] < calibrated["calibration_error"]["before"]["value"]
    assert target.stat().st_size < 4096
    found = parse(target.read_bytes(), target)
    assert found.answer["effort"] == "low"
    assert found.policies["spam"].known["rows"] == 60
    again = target.read_bytes()
    assert run(path, target, calibrate_with=calibrated["method"]) == 0  # a calibration is replaced
    assert target.read_bytes() == again
    assert "expected calibration error" in capsys.readouterr().out


def test_what_no_calibration_can_be_learned_from_is_refused(tmp_path, capsys) -> None:
    target = tmp_path / "c.json"
    with pytest.raises(UsageError, match="nothing is on record"):
        run(golden(tmp_path / "a.jsonl"), target)
    few = golden(tmp_path / "few.jsonl", 3 * FEWEST - 3)
    manifest(few)
    with pytest.raises(UsageError, match="there are 19 and 38"):
        run(few, target)
    assert "accuracy" in capsys.readouterr().out  # the labels may have taken hours: their figures are shown
    backwards = golden(tmp_path / "backwards.jsonl")
    manifest(backwards)
    text = backwards.read_text().replace('"label": "spam", "spam"', '"label": "HAM", "spam"')
    text = text.replace('"label": "ham", "spam"', '"label": "spam", "spam"').replace("HAM", "ham")
    backwards.write_text(text)
    with pytest.raises(UsageError, match="no curve mends that"):
        run(backwards, target)
    assert not target.exists()


def test_the_file_replaces_nothing_but_a_calibration(tmp_path) -> None:
    path = golden(tmp_path / "out.jsonl")
    manifest(path)
    other = write(tmp_path / "mine.json", '{"a": 1}')
    with pytest.raises(UsageError, match="is no calibration"):
        run(path, other)
    with pytest.raises(UsageError, match="the input"):
        run(path, path)
    assert other.read_text() == '{"a": 1}\n'


def test_what_eval_learns_label_applies_and_eval_measures(tmp_path) -> None:
    source = ROOT / "samples/golden/spam.jsonl"
    asked = ("-p", "spam", "--model", "demo", "--effort", "none", "--threads", 1)
    done = safeguard("eval", source, *asked, "--calibrate", "c.json", "--wrong", 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"cross-fitted" in done.stdout
    done = safeguard("label", source, *asked, "--calibration", "c.json", "-o", "out.jsonl", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = safeguard("eval", "out.jsonl", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)["policies"]["spam"]["calibrated"]
    assert found["by"] == "p_calibrated of these rows"
    assert found["brier"]["after"]["value"] < found["brier"]["before"]["value"]
    done = safeguard("eval", source, *asked, "--calibration", "c.json", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["policies"]["spam"]["calibrated"] == found
    done = safeguard("eval", "out.jsonl", "--calibration", "c.json", cwd=tmp_path)
    assert done.returncode == 2
    assert b"has no effect on out.jsonl" in done.stderr
