"""Manifests and kept files that are damaged, hostile or somebody else's: refused in a sentence, or made anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import manifests
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import Bench

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError
from safeguard_cli.labelled import read_labels
from safeguard_cli.manifest import Refused, load
from safeguard_cli.merge import merge
from safeguard_cli.show import show

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")

pytestmark = pytest.mark.usefixtures("own_cache")


def files_of(bench: Bench) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in bench.folder.iterdir() if path.is_file()}


def put_back(bench: Bench, files: dict[Path, bytes]) -> None:
    for path in bench.folder.iterdir():
        if path.is_file() and path not in files:
            path.unlink()
    for path, data in files.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def try_all(bench: Bench, record: Path, use: Callable[[], object], every: int = 1) -> tuple[int, int]:
    """Use each (or every third, …) mutation of a record that `load` lets through; how many there are, and of them."""
    files, count, accepted = files_of(bench), 0, 0
    for what, data in islice(manifests.mutated(json.loads(record.read_bytes())), every - 1, None, every):
        count += 1
        record.write_bytes(data)
        try:
            made = load(record)
        except Refused as refused:
            assert str(refused).startswith(str(record)), what
            assert refused.exit_code == errors.RESUME_REFUSED, what
            continue
        assert made is not None
        accepted += 1
        try:
            use()
        except SafeguardError as error:
            assert str(error), what
        except Exception as error:
            raise AssertionError(f"{record.name}: {what}") from error
        put_back(bench, files)
    return count, accepted


def test_a_finished_runs_manifest_with_anything_wrong_is_used_or_refused(bench, at_once, capsys) -> None:
    bench.fill(6)
    bench()

    def use() -> None:
        show(bench.out, as_json=False)
        show(bench.out, as_json=True)
        read_labels(bench.out)
        bench()

    count, accepted = try_all(bench, bench.out.with_name("out.jsonl.manifest.json"), use)
    assert count > 1500
    assert accepted > 100


@pytest.mark.parametrize("options", [{"deterministic": True}, {"only": "violates"}])
def test_an_unfinished_runs_record_with_anything_wrong_is_used_or_refused(
    bench, at_once, capsys, monkeypatch, options
) -> None:
    monkeypatch.setattr("safeguard_cli.journal.SYNC_SECONDS", 0)
    bench.fill(40)
    bench.killed_after(30, **options)
    begun = bench.out.read_bytes()

    def use() -> None:
        bench(**options)
        rows = [json.loads(line) for line in bench.out.read_bytes().splitlines()]
        assert begun.splitlines()[0] == bench.out.read_bytes().splitlines()[0]
        assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})

    count, accepted = try_all(bench, bench.run_json(), use, every=2)
    assert count > 500
    assert accepted > 50


def test_a_shards_manifest_with_anything_wrong_is_merged_or_refused(bench, at_once, capsys) -> None:
    bench.fill(6)
    shards = [bench.folder / f"part{part}.jsonl" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))

    def use() -> None:
        out = bench.folder / "merged.jsonl"
        merge(shards, out, overwrite=False, quiet=True)
        assert len(out.read_bytes().splitlines()) == 6
        show(out, as_json=False)

    count, accepted = try_all(bench, shards[0].with_name("part1.jsonl.manifest.json"), use, every=2)
    assert count > 600
    assert accepted > 50


@pytest.mark.parametrize("finished", [True, False])
def test_a_parquet_outputs_record_with_anything_wrong_is_used_or_refused(bench, at_once, capsys, finished) -> None:
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    pq.write_table(pa.table({"id": range(6), "text": ["a"] * 6}), bench.source)
    if finished:
        bench(limit=4)
    else:
        bench.killed_after(3, each_row=True)
    record = "out.parquet.manifest.json" if finished else "out.parquet.rows.jsonl.run.json"

    def use() -> None:
        bench(each_row=True)
        assert pq.read_table(bench.out)["id"].to_pylist() == list(range(6))

    count, accepted = try_all(bench, bench.folder / record, use, every=3)
    assert count > 300
    assert accepted > 30
