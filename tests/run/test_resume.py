"""A stopped run resumes where it stopped: nothing is lost, doubled or reordered."""

from __future__ import annotations

import json
import random

import pytest
from helpers.runs import ids

from safeguard_cli import errors

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.promise("A torn last line is dropped, and its row is labelled again.")
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_output_cut_at_any_byte_of_its_last_three_lines_is_completed(bench, at_once, suffix) -> None:
    """Also if the last whole row spans lines, and with a manifest as old as the run's start."""
    bench.fill(24, suffix)
    whole = bench.whole(deterministic=False)
    assert bench(on_error="record") == errors.ROWS_IN_ERROR
    done = bench.out.read_bytes()
    assert done == whole
    manifest = bench.manifest() | {"result": None}
    lengths = [len(line) for line in done.splitlines(keepends=True)]
    for size in range(len(done) - sum(lengths[-3:]), len(done) + 1):
        bench.out.write_bytes(done[:size])
        rows = random.Random(size).choice([0, 5])
        bench.run_json().write_text(json.dumps(manifest | ({"rows": 0, "input_sha256": ""} if not rows else {})))
        bench.out.with_name(bench.out.name + ".manifest.json").unlink(missing_ok=True)
        assert bench() == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes(), suffix) == list(range(24)), size
        assert bench.out.read_bytes()[:size].startswith(done[: size - max(lengths[-3:]) - 1])


@pytest.mark.promise(
    "With `--deterministic`, a run that was killed and resumed equals one that never stopped, byte for byte."
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("policies", [("spam",), ("spam", "hate")])
def test_a_deterministic_run_killed_anywhere_and_continued_equals_one_never_killed(
    bench, at_once, suffix, policies
) -> None:
    bench.fill(100, suffix)
    options = {"deterministic": True, "policies": policies}
    whole = bench.whole(**options)
    assert whole != bench.whole(policies=policies) or len(policies) == 1
    chance = random.Random(5)
    for attempt in range(12):
        bench.out.unlink(missing_ok=True)
        for leftover in bench.folder.glob("out.*.json"):
            leftover.unlink()
        for _ in range(1 + attempt % 3):
            bench.killed_after(chance.randrange(95 * len(policies)), **options)
        assert bench(**options) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole
        assert not bench.run_json().exists()


def test_without_deterministic_ids_order_and_count_are_those_of_a_run_never_killed(bench, no_fsync) -> None:
    bench.fill(300)
    for prompts in (0, 1, 17, 100, 290):
        bench.out.unlink(missing_ok=True)
        bench.killed_after(prompts, overwrite=True)
        assert bench() == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes()) == list(range(300))
        assert bench.manifest()["result"]["rows"] == 300
        assert sum(bench.manifest()["result"]["labels"]["spam"].values()) == 300 - 28


def test_a_run_with_only_is_continued_from_its_manifest(bench, no_fsync, monkeypatch) -> None:
    bench.fill(300)
    options = {"only": "violates", "deterministic": True}
    whole = bench.whole(**options)
    counts = json.loads((bench.folder / "whole.jsonl.manifest.json").read_bytes())["result"]["labels"]
    monkeypatch.setattr("safeguard_cli.output.journal.SYNC_SECONDS", 0)
    for prompts in (3, 90, 200, 265):
        bench.killed_after(prompts, overwrite=True, **options)
        assert bench(**options) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole
        assert bench.manifest()["result"]["labels"] == counts
        assert bench.manifest()["result"]["rows"] == 300


def test_a_run_with_only_counts_the_rows_of_a_finished_one_that_it_goes_on_with(bench, no_fsync) -> None:
    """The output does not have all rows, so only its manifest has their counts."""
    bench.fill(60)
    whole = bench.whole(only="violates", deterministic=True)
    for limit in (32, None):  # 32 rows are where its two slots are drained
        bench(only="violates", deterministic=True, limit=limit)
    assert bench.out.read_bytes() == whole
    result = bench.manifest()["result"]
    expected = json.loads((bench.folder / "whole.jsonl.manifest.json").read_bytes())["result"]
    for name in ("rows", "rows_in_error", "errors", "labels", "violating"):
        assert result[name] == expected[name]


def test_a_csv_made_from_jsonl_is_continued(bench, no_fsync) -> None:
    """The columns are those of the input's first row, also if the run resumes at a later one."""
    bench.fill(100)
    bench.out = bench.folder / "out.csv"
    whole = bench.whole(deterministic=True)
    for prompts in (0, 30, 40, 80):
        bench.killed_after(prompts, overwrite=True, deterministic=True)
        assert bench(deterministic=True) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole


def test_a_very_large_cell_is_read_again(bench) -> None:
    bench.fill(3, "csv")
    with bench.source.open("a") as file:
        file.write('3,"' + "x" * 300_000 + '\0"\n4,end\n')
    bench.killed_after(3)
    assert bench() == errors.ROWS_IN_ERROR
    assert b"\0" in bench.out.read_bytes()
    assert bench.manifest()["result"]["rows"] == 5
