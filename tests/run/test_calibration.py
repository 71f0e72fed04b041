"""`--calibration`: p_calibrated stands beside p_violates in every output, and only where it was learned for."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Refused, find_manifest
from safeguard_cli.run.calibration import Calibration, Curve, Isotonic, OfPolicy, Platt, parse, settings_of

pytestmark = pytest.mark.usefixtures("own_cache", "no_fsync")

CURVE = Isotonic((0.2, 0.5, 0.9), (0.05, 0.25, 0.75))


def learned(bench: Bench, name: str = "spam.json", curve: Curve = CURVE, **other: Any) -> str:
    """Write a calibration of the run whose output is there."""
    manifest = find_manifest(bench.out)
    assert manifest
    identity = manifest.identity
    policies = {policy: OfPolicy(each.record, curve, {"rows": 40}) for policy, each in identity.policies.items()}
    answer = settings_of(identity.answer.record)
    made = Calibration(identity.model.record, "tiny", identity.prompt_layout, answer, policies)
    path = bench.folder / name
    path.write_bytes(replace(made, **other).as_bytes())
    return str(path)


@pytest.fixture
def calibration(bench) -> str:
    bench.fill(30)
    bench()
    return learned(bench)


def verdicts(path: Path) -> list[dict]:
    return [json.loads(line)["spam"] for line in path.read_bytes().splitlines()]


def test_p_calibrated_is_the_curves_value_of_p_violates_which_stays_as_it_was(bench, calibration) -> None:
    before = verdicts(bench.out)
    bench(calibration=calibration, overwrite=True)
    after = verdicts(bench.out)
    assert [{k: v for k, v in each.items() if k != "p_calibrated"} for each in after] == before
    labelled = [each for each in after if each["label"] is not None]
    assert labelled
    assert len(labelled) < len(after)  # rows in error have no probability
    assert [each["p_calibrated"] for each in labelled] == [round(CURVE(each["p_violates"]), 6) for each in labelled]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet", "xlsx"])
def test_every_format_holds_it_and_gives_it_back(bench, calibration, suffix) -> None:
    if suffix in ("parquet", "xlsx"):
        pytest.importorskip("pyarrow" if suffix == "parquet" else "xlsxwriter")
    out = bench.folder / f"again.{suffix}"
    bench(calibration=calibration, output=str(out))
    read = [row.verdicts["spam"] for row in read_labels(out).rows]
    known = [verdict for verdict in read if verdict.error is None]
    assert known
    for verdict in known:
        assert verdict.p_violates is not None
        assert verdict.p_calibrated == round(CURVE(verdict.p_violates), 6)
    if suffix == "csv":
        with out.open(newline="") as file:
            titles = next(csv.reader(file))
        assert titles[titles.index("spam_p_violates") + 1] == "spam_p_calibrated"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_run_killed_on_the_way_is_resumed_to_the_same_file(bench, suffix) -> None:
    bench.fill(40, suffix)
    bench()
    options = {"calibration": learned(bench), "deterministic": True}
    whole = bench.whole(**options)
    bench.out.unlink()
    bench.killed_after(25, overwrite=True, **options)
    bench(**options)
    assert bench.out.read_bytes() == whole


def test_another_calibration_does_not_resume_the_output(bench, calibration) -> None:
    bench(calibration=calibration, overwrite=True)
    other = learned(bench, "other.json", Platt(1.0, 0.5))
    for options in ({"calibration": other}, {}):
        with pytest.raises(Refused, match=r"answer\.calibration|output\.columns"):
            bench(**options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"effort": "none"}, "learned with --effort low, this run asks for none"),
        ({"rationale": True}, "learned without --rationale, this run asks for it"),
        ({"max_reasoning": 7}, "learned with --max-reasoning 256, this run asks for 7"),
        ({"temperature": 0.5}, "learned with --temperature 0.0, this run asks for 0.5"),
        ({"policies": ("hate",)}, "knows nothing of the policy hate, but of spam"),
        ({"policies": ("hate",), "rename": "spam"}, "another text or other labels of the policy spam"),
        ({"violates": ("ham",)}, "with other violating labels of spam: spam; now they are ham"),
        ({"votes": 3}, "learned without --votes, this run asks for 3"),
    ],
)
def test_what_asks_another_question_is_refused_before_the_model_is_loaded(bench, calibration, options, why) -> None:
    def never(*_: object) -> FakeEngine:
        raise AssertionError("the engine was started")

    with pytest.raises(UsageError, match=why):
        bench(never, calibration=calibration, output=str(bench.folder / "new.jsonl"), **options)


def test_another_model_or_prompt_is_refused(bench, calibration) -> None:
    for other, why in (
        ({"model": {"bytes": 1, "sampled_sha256": "0" * 64}, "model_name": "big.gguf"}, "from the model big.gguf"),
        ({"model": {"served": "m", "server_api": "chat"}, "model_name": "m on http://h"}, "from the model m on"),
        ({"prompt_layout": "0" * 64}, "by a version of safeguard that wrote other prompts"),
    ):
        with pytest.raises(UsageError, match=why):
            bench(calibration=learned(bench, "other.json", **other), output=str(bench.folder / "new.jsonl"))


def test_the_settings_that_touch_long_texts_alone_may_differ(bench, calibration) -> None:
    assert bench(calibration=calibration, overwrite=True, long="truncate", context=4096) == errors.ROWS_IN_ERROR


def test_copied_verdicts_get_the_probability_of_this_run(bench, calibration) -> None:
    donor = bench.folder / "donor.jsonl"
    bench(calibration=learned(bench, "old.json", Platt(1.0, 0.5)), output=str(donor))
    bench(calibration=calibration, reuse=(str(donor),), overwrite=True)
    for each in verdicts(bench.out):
        assert each["label"] is None or each["p_calibrated"] == round(CURVE(each["p_violates"]), 6)
    bench(reuse=(str(donor),), overwrite=True)
    assert not any("p_calibrated" in each for each in verdicts(bench.out))


def test_a_run_never_writes_over_its_calibration(bench, calibration) -> None:
    before = Path(calibration).read_bytes()
    with pytest.raises(UsageError, match="the calibration"):
        bench(calibration=calibration, output=calibration, overwrite=True)
    assert Path(calibration).read_bytes() == before


def test_a_file_that_is_not_there_or_no_calibration_is_told_by_name(bench, calibration) -> None:
    wrong = bench.folder / "wrong.json"
    for data, why in (
        (b"{", "it is not JSON"),
        (b"[]", "it should be an object"),
        (b'{"safeguard_calibration": 2}', "safeguard_calibration should be one of 1"),
        (Path(calibration).read_bytes().replace(b"0.25", b"0.85"), r"policies\.spam\.p_calibrated should not fall"),
        (Path(calibration).read_bytes().replace(b"0.75", b"1.75"), r"p_calibrated\[2\] should be a number"),
    ):
        wrong.write_bytes(data)
        with pytest.raises(UsageError, match=why):
            bench(calibration=str(wrong), overwrite=True)
    with pytest.raises(UsageError, match="there is no such file"):
        bench(calibration=str(bench.folder / "none.json"), overwrite=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_calibration_is_read_or_refused_in_a_sentence(data) -> None:
    whole: dict[str, Any] = {
        "safeguard_calibration": 1,
        "model": {"served": "m"},
        "model_name": "m",
        "prompt_layout": "0" * 64,
        "answer": {"effort": "low"},
        "policies": {
            "spam": {"sha256": "0" * 64, "labels": ["ham", "spam"], "violates": ["spam"], "method": "isotonic"}
            | {"p_violates": [0.1, 0.9], "p_calibrated": [0.2, 0.8]}
        },
    }
    place = data.draw(st.sampled_from([whole, whole["policies"], whole["policies"]["spam"]]))
    place[data.draw(st.sampled_from([*place, "x"]))] = data.draw(JSON)
    try:
        found = parse(orjson.dumps(whole, default=str), Path("c.json"))
    except (UsageError, orjson.JSONEncodeError):
        return
    for each in found.policies.values():
        assert 0 <= each.curve(0.3) <= 1


@given(
    points=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8, unique_by=lambda pair: pair[0]
    ),
    p=st.floats(0, 1),
    q=st.floats(0, 1),
    slope=st.floats(0, 1e6),
    intercept=st.floats(-1e6, 1e6),
)
def test_a_curve_never_falls_and_gives_probabilities(points, p, q, slope, intercept) -> None:
    xs, ys = sorted(x for x, _ in points), sorted(y for _, y in points)
    for curve in (Isotonic(tuple(xs), tuple(ys)), Platt(slope, intercept)):
        low, high = curve(min(p, q)), curve(max(p, q))
        assert 0 <= low <= high + 1e-12
        assert high <= 1 + 1e-12
