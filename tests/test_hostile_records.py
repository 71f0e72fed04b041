"""Manifests and kept files that are damaged, hostile or somebody else's: refused in a sentence, or made anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import manifests
import pytest
from runs import Bench

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError
from safeguard_cli.labelled import read_labels
from safeguard_cli.manifest import Refused, load
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


def try_all(bench: Bench, record: Path, use: Callable[[], object]) -> tuple[int, int]:
    """Use each mutation of a record that `load` lets through; how many there are, and how many of them."""
    files, count, accepted = files_of(bench), 0, 0
    for what, data in manifests.mutated(json.loads(record.read_bytes())):
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

    count, accepted = try_all(bench, bench.run_json(), use)
    assert count > 1000
    assert accepted > 100
