"""Outputs that version 0.1.0 wrote, kept unchanged, are still read and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import TESTS

from safeguard_cli.output.labelled import read_labels
from safeguard_cli.rows.parquet import open_parquet
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

KEPT = TESTS / "kept" / "0.1.0"
ROWS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def go_on(folder: Path, source: str, out: str, **options: object) -> int:
    given = {"effort": "none", "quiet": True, **options}
    return label(Settings(str(folder / source), ("spam",), output=str(folder / out), model="demo", **given))


def ids(path: Path) -> list[int]:
    if path.suffix == ".parquet":
        with open_parquet(path) as file:
            return file.read()["id"].to_pylist()
    if path.suffix == ".csv":
        return [int(line.partition(",")[0]) for line in path.read_text().splitlines()[1:]]
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("source", ["in.jsonl", "in.csv", "body.jsonl", "in.parquet"])
def test_a_limited_output_is_continued(source, folder, own_cache) -> None:
    out = folder / f"out.{source}"
    before = ids(out)
    assert before == list(range(25))
    go_on(folder, source, out.name)
    assert ids(out) == list(range(ROWS))


def test_an_unfinished_output_is_continued(folder, own_cache) -> None:
    begun = (folder / "unfinished.jsonl").read_bytes()
    assert 0 < len(ids(folder / "unfinished.jsonl")) < ROWS
    assert go_on(folder, "in.jsonl", "unfinished.jsonl", effort="low") == 3
    assert (folder / "unfinished.jsonl").read_bytes().startswith(begun)
    assert ids(folder / "unfinished.jsonl") == list(range(ROWS))


def test_a_finished_output_is_finished_and_its_errors_can_be_retried(folder, own_cache) -> None:
    before = (folder / "finished.jsonl").read_bytes()
    assert go_on(folder, "in.jsonl", "finished.jsonl", effort="low") == 3
    assert (folder / "finished.jsonl").read_bytes() == before
    assert go_on(folder, "in.jsonl", "finished.jsonl", effort="low", retry_errors=True) == 3
    assert ids(folder / "finished.jsonl") == list(range(ROWS))


@pytest.mark.parametrize("out", ["finished.jsonl", "out.in.csv", "out.in.parquet", "unfinished.jsonl"])
def test_an_output_is_read(out, folder) -> None:
    labels = read_labels(folder / out)
    assert [answers.name for answers in labels.answers] == ["spam"]
    assert {v.label for row in labels.rows for v in row.verdicts.values() if v.error is None} <= {"ham", "spam"}
    assert labels.manifest is not None
