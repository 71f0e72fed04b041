"""Thresholds: what is chosen on one half of the rows is judged by the other half alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from helpers.outputs import output, run_json, verdict
from sklearn import metrics as sk

from safeguard_cli.measure.evaluate import evaluate
from safeguard_cli.measure.metrics import Outcomes
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.statistics import clopper_pearson
from safeguard_cli.measure.thresholds import Curve, Held, at_least, held, proof, search, sure_table
from safeguard_cli.run.settings import Settings


def outcomes(rows: list[tuple[str, str, float]]) -> Outcomes:
    gold, said, p = zip(*rows, strict=True)
    return Outcomes.of(("ham", "spam"), ("spam",), gold, said, [label == "spam" for label in said], p)


def scored(truth: list[bool], p: list[float]) -> Outcomes:
    return outcomes([("spam" if bad else "ham", "ham", x) for bad, x in zip(truth, p, strict=True)])


any_rows = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=1, max_size=40)


@settings(deadline=None)
@given(any_rows)
def test_the_curve_is_that_of_scikit_learn(rows) -> None:
    truth, p = zip(*rows, strict=True)
    curve = Curve.of(scored(truth, p))
    if not any(truth):
        assert np.isnan(curve.recall).all()
        assert all(point["recall"] is None for point in curve.points())
        return
    precision, recall, at = sk.precision_recall_curve(truth, p)
    assert curve.at.tolist() == at[::-1].tolist()
    assert curve.precision == pytest.approx(precision[-2::-1])
    assert curve.recall == pytest.approx(recall[-2::-1])
    assert curve.flagged.tolist() == [sum(x >= t for x in p) for t in curve.at]


def test_threshold_reaches_what_is_wanted_with_the_most_of_the_other() -> None:
    rows = [("spam", "spam", 0.9), ("spam", "spam", 0.7), ("ham", "spam", 0.6), ("spam", "ham", 0.4), ("ham", "ham", 0)]
    curve = Curve.of(outcomes(rows))
    assert (curve.choose("precision", 1.0), curve.choose("recall", 1.0)) == (0.7, 0.4)
    assert Curve.of(outcomes([("ham", "ham", 0.9)] * 3)).choose("recall", 0.9) is None
    assert Curve.of(outcomes([("ham", "ham", 0.9), ("spam", "ham", 0.1)])).choose("precision", 0.9) is None


@settings(deadline=None)
@given(any_rows, st.sampled_from(["precision", "recall"]), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_a_chosen_threshold_gives_what_is_wanted_and_none_is_better(rows, wanted, value) -> None:
    truth, p = zip(*rows, strict=True)
    curve = Curve.of(scored(truth, p))
    sides = list(zip(curve.precision, curve.recall, strict=True))
    fitting = [
        (a, b) if wanted == "recall" else (b, a) for a, b in sides if (a if wanted == "precision" else b) >= value
    ]
    found = curve.choose(wanted, value)
    if found is None:
        assert not any(truth) or not [pair for pair in fitting if pair[0] > 0]
        return
    precision, recall = sides[curve.at.tolist().index(found)]
    assert (precision if wanted == "precision" else recall) >= value
    assert (recall if wanted == "precision" else precision) == max(fitting)[0]


def test_a_curve_is_thinned_but_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(5000)
    whole = scored((rng.random(5000) < p).tolist(), p.tolist())
    points = Curve.of(whole).points(50)
    assert len(points) <= 50
    assert (points[0]["threshold"], points[-1]["threshold"]) == (p.max(), p.min())
    assert (points[-1]["flagged"], points[-1]["recall"]) == (1, 1)


def halves(rows: int, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    return scored(truth.tolist(), np.where(truth, rng.beta(4, 1.2, rows), rng.beta(1, 5, rows)).round(3).tolist())


def test_the_bound_is_that_of_the_rows_that_did_not_choose() -> None:
    chooses, judges = halves(200, 1), halves(300, 2)
    found = held(chooses, judges, "precision", 0.95)
    assert isinstance(found, Held)
    assert found.threshold == Curve.of(chooses).choose("precision", 0.95)
    flagged = judges.p_violates >= found.threshold
    assert (found.rows, found.flagged, found.right) == (300, flagged.sum(), (flagged & judges.truth).sum())
    assert found.bound == clopper_pearson(found.right, found.flagged, 0.9).low
    recall = held(chooses, judges, "recall", 0.9)
    assert isinstance(recall, Held)
    assert recall.bound == clopper_pearson(recall.right, int(judges.truth.sum()), 0.9).low


def test_no_threshold_is_offered_where_a_half_has_under_20_flagged_rows() -> None:
    few = scored([True] * 19 + [False] * 50, [0.9] * 19 + [0.1] * 50)
    enough = scored([True] * 20 + [False] * 50, [0.9] * 20 + [0.1] * 50)
    assert isinstance(held(enough, enough, "precision", 0.9), Held)
    for one, other in ((few, enough), (enough, few)):
        assert "only 19 rows of a half are flagged" in str(held(one, other, "precision", 0.9))
    clean = scored([False] * 50, [0.9] * 50)
    assert "only 0 rows of a half violate" in str(held(enough, clean, "recall", 0.9))
    assert "no threshold gives precision at least 0.9" in str(held(clean, enough, "precision", 0.9))
    assert isinstance(search(enough, "precision", 0.9, ["the same text"] * 70).found, str)


def test_rows_with_the_same_text_come_into_the_same_half() -> None:
    """Each text stands there four times: a half that was cut through them would know the other's rows."""
    once = halves(200)
    whole = once.take(np.repeat(np.arange(200), 4))
    found = search(whole, "precision", 0.9, [i // 4 for i in range(800)]).found
    assert isinstance(found, Held)
    assert (found.rows % 4, found.flagged % 4, found.right % 4) == (0, 0, 0)


def test_what_a_proof_takes() -> None:
    assert (proof(0.95), proof(0.9), proof(1.0), proof(0.0)) == (59, 29, None, None)
    assert at_least(59, 59) >= 0.95 > at_least(58, 58)


def test_eval_tells_the_threshold_its_bound_and_the_halves_exchanged(tmp_path, capsys) -> None:
    whole = halves(300)
    rows = [
        {"text": f"row {i}", "label": "spam" if bad else "ham", "spam": verdict("spam" if p > 0.5 else "ham", float(p))}
        for i, (bad, p) in enumerate(zip(whole.truth, whole.p_violates, strict=True))
    ]
    path = output(tmp_path / "out.jsonl", rows)
    spam = run_json(capsys, path, threshold="precision=0.95")["policies"]["spam"]
    found = spam["threshold"]
    assert found["none"] is None and found["rows"] + found["exchanged"]["rows"] == 300
    assert found["bound"] < found["precision"]
    assert spam == run_json(capsys, path, threshold="precision=0.95")["policies"]["spam"]
    lines = path.read_text().splitlines()
    turned = output(tmp_path / "turned.jsonl", [json.loads(line) for line in lines[::-1]])
    assert run_json(capsys, turned, threshold="precision=0.95")["policies"]["spam"]["threshold"] == found
    assert 50 < len(spam["curve"]) <= 101
    evaluate(Settings(str(path), ()), Wanted(threshold="precision=0.99"))
    shown = capsys.readouterr().out
    for part in ("one half chooses", "halves exchanged", "with 95 % confidence", "do not prove 0.99: that takes 299"):
        assert part in shown, shown


def test_sure_takes_quick_labels_where_they_are_sure_enough() -> None:
    full = outcomes([("spam", "spam", 1), ("ham", "ham", 0), ("ham", "ham", 0)])
    quick = outcomes([("spam", "spam", 0.99), ("ham", "spam", 0.55), ("ham", "ham", 0.1)])
    by_sure = {line.sure: line for line in sure_table(quick, full)}
    assert by_sure[0.5].at_once == 1
    assert by_sure[0.5].agreement == pytest.approx(2 / 3)
    assert by_sure[0.9].at_once == pytest.approx(2 / 3)
    assert by_sure[0.9].accuracy == 1
