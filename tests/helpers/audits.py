"""Audits on the test engine in this process, and what they leave."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pyarrow.parquet as pq

from helpers.fake_engine import FakeEngine, Steady
from helpers.runs import Bench
from safeguard_cli.audit.audit import audit
from safeguard_cli.audit.options import Audited
from safeguard_cli.run.settings import Settings

_OF_AUDIT = {field.name for field in fields(Audited)}


def run_audit(bench: Bench, engine: Callable[..., FakeEngine] = Steady, **options: object) -> int:
    """Audit the bench's input into its output."""
    given = {"policies": ("spam",), "slots": 2, "threads": 1, "quiet": True, **options}
    wanted = Audited(**{"output": str(bench.out), **{name: given.pop(name) for name in [*given] if name in _OF_AUDIT}})
    return audit(Settings(input=str(bench.source), model=str(bench.model), **given), wanted, engine)


def rows_of(path: Path) -> list[dict]:
    """Return the rows of an audit's output: their own values as text, `_sample` and verdicts as objects."""
    if path.suffix == ".parquet":
        return [{**row, "_sample": _present(row["_sample"])} for row in pq.read_table(path).to_pylist()]
    if path.suffix != ".csv":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    with path.open(newline="") as file:
        return [_of_cells(row) for row in csv.DictReader(file)]


def _of_cells(row: dict[str, str]) -> dict:
    sample = {part: row.pop(f"_sample_{part}") for part in ("seed", "row", "rank", "probability")}
    verdict = {name: row.pop(name) for name in [*row] if name.startswith("spam_")}
    label = {"label": verdict["spam_label"] or None}
    return {**row, "_sample": {part: json.loads(cell) for part, cell in sample.items()}, "spam": label}


def _present(sample: dict) -> dict:
    return {part: value for part, value in sample.items() if value is not None}


def drawn(path: Path) -> list[tuple[int, int]]:
    """Return the numbers of the drawn rows in the order of their ranks, with their ranks."""
    found = [(row["_sample"]["rank"], row["_sample"]["row"]) for row in rows_of(path)]
    return [(number, rank) for rank, number in sorted(found)]
