"""A manifest is read by attribute, and stays the same on disk, including unknown members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import TESTS
from helpers.manifests import HASH, make
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.output.manifest import Manifest, Refused, load, load_finished, manifest_path
from safeguard_cli.output.manifest_shape import Done, Result, Tallies

KEPT = sorted((TESTS / "kept" / "0.1.0").glob("*.json"))
ORDER = "decides machine started process rows output_bytes input_sha256 seconds repeated_rows policy_tokens"
ORDER += " prompt_tokens generated_tokens cut_rows counts result version"

unknown = st.dictionaries(
    st.text(min_size=1).map("new_{}".format),
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text() | st.lists(st.text()),
    max_size=3,
)


def read(path: Path, record: dict[str, Any]) -> Manifest:
    path.write_text(json.dumps(record))
    found = load(path)
    assert found is not None
    return found


def saved(path: Path, found: Manifest) -> dict[str, Any]:
    found.save(path)
    return json.loads(path.read_bytes())


@given(unknown, unknown, unknown, unknown)
def test_a_manifest_that_is_saved_again_keeps_every_member_in_its_place(
    tmp_path_factory, decides, answer, machine, result
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.manifest.json"
    record = make(cut_rows=0)
    record["decides"] |= decides
    record["decides"]["answer"] |= answer
    record["machine"] |= machine
    record["result"] |= result
    again = saved(path, read(path, record))
    assert again == record
    assert list(again) == ORDER.split()
    for part in ("decides", "machine", "result"):
        assert list(again[part]) == list(record[part])


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_manifests_of_version_0_1_0_are_saved_again_as_they_were(path, tmp_path) -> None:
    before = json.loads(path.read_bytes())
    found = load(path)
    assert found is not None
    assert saved(tmp_path / path.name, found) == {**before, "cut_rows": 0}
    assert found.identity.record == before["decides"]
    assert found.progress.rows == before["rows"]
    assert found.identity.answer.most_reasoning == before["decides"]["answer"]["most_reasoning"]


def test_members_are_read_by_attribute_and_those_of_later_versions_have_a_default(tmp_path) -> None:
    counts = {"rows": 3, "rows_in_error": 1, "errors": {"no_text": 1}, "labels": {}, "violating": {"spam": 2}}
    found = read(tmp_path / "x.json", make(counts=counts, rows=3))
    assert found.identity.policies["spam"].labels == ("ham", "spam")
    assert (found.identity.model.served, found.identity.model.bytes) == (None, 1)
    assert (found.identity.input.shard, found.identity.deterministic) == ((1, 1), None)
    assert (found.machine.slots, found.machine.versions) == (None, {})
    assert found.progress.counts is not None
    assert (found.progress.counts.violating, found.progress.counts.blank) == ({"spam": 2}, 0)
    assert found.result is not None
    assert (found.result.input_exhausted, found.result.rows_sha256, found.result.untrained) == (True, None, ())
    assert found.result.tallies.record.keys() == Tallies.members().keys() - {"blank", "cut"}


def test_a_part_changed_is_another_and_progress_changes_in_place() -> None:
    done = Done()
    assert done.record == {
        **dict.fromkeys(ORDER.split()[4:13], 0),
        "input_sha256": "",
        "seconds": 0.0,
        "counts": None,
    }
    later = done.changed(rows=2)
    done.rows += 5
    done.counts = Tallies({"rows": 5})
    assert (done.rows, later.rows, done.record["counts"]) == (5, 2, {"rows": 5})
    result = Result({"rows": 1})
    assert (result.changed(rows=2).rows, result.rows) == (2, 1)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("result.untrained", 5, "result.untrained should be a list"),
        ("decides.answer.most_reasoning", "many", "decides.answer.most_reasoning should be a whole number"),
        ("decides.answer.together", 1, "decides.answer.together should be true or false"),
        ("machine.slots", 0, "machine.slots should be a whole number"),
        ("counts", {"rows": 1}, "counts.rows_in_error is missing"),
    ],
)
def test_what_is_no_manifest_is_refused_by_the_member(place, value, said, tmp_path) -> None:
    record = inner = make()
    *way, last = place.split(".")
    for name in way:
        inner = inner[name]
    inner[last] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(record))
    with pytest.raises(Refused, match=f"is damaged: {said}"):
        load(path)


def test_only_a_finished_output_has_a_result(tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    for record in (None, make(result=None)):
        if record:
            manifest_path(out).write_text(json.dumps(record))
        with pytest.raises(Refused, match="is not an output of safeguard"):
            load_finished(out)
    manifest_path(out).write_text(json.dumps(make()))
    assert load_finished(out)[1].output_sha256 == HASH
