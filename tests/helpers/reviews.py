"""Outputs to review, sessions on them, and the files that people's answers go into."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from helpers.outputs import output, verdict
from safeguard_cli.cli.app import app
from safeguard_cli.measure.reviewed import Proposed, ReviewedRow, own_fields
from safeguard_cli.review.answers import GoldenFile, open_golden, taken_names
from safeguard_cli.review.picking import Candidate, pick_random
from safeguard_cli.review.session import Session, Task
from safeguard_cli.review.shown import Layout, Said

LABELS = ("ham", "spam")
COMMAND = [sys.executable, "-m", "safeguard_cli", "review"]


def candidates(count: int, **fields: object) -> list[Candidate]:
    return [
        Candidate(
            row,
            row,
            {"id": row, "text": f"text {row}", **fields},
            f"text {row}",
            Proposed("spam", True, 0.9, "spam"),
            (Said("the model", "spam", "p 0.90"),),
        )
        for row in range(1, count + 1)
    ]


def task(rows: int, *, labels: Sequence[str] = LABELS, path: Path = Path("g.jsonl"), **more: object) -> Task:
    items = pick_random(candidates(rows), rows, 0)
    taken = taken_names(path, ("anna",))
    own = {item.candidate.row: own_fields(item.candidate.fields, taken) for item in items}
    rules = {"SP1": "Prize bait", "SP2": "Premium contact"}
    return Task("anna", items, labels, Layout(("text",)), rules, own, **more)  # type: ignore[arg-type]


@contextmanager
def opened(path: Path, of: Task) -> Iterator[tuple[Session, GoldenFile]]:
    with open_golden(path, ("id", "text"), (of.person,), of.labels, list) as golden:
        yield Session(of, golden), golden


def labelled(path: Path, rows: int = 6, **more: object) -> Path:
    """Write an output of `rows` rows, of which every third violates."""
    made = [{"id": n, "text": f"text {n}", **more, "spam": verdict(*_said(n))} for n in range(1, rows + 1)]
    return output(path, made)


def _said(row: int) -> tuple[str, float]:
    return ("spam", 0.5 + row / 1000) if row % 3 == 0 else ("ham", 0.4 - row / 1000)


def answer(out: Path, golden: Path, keys: str, *more: str, person: str = "anna", code: int = 0) -> Any:
    """Answer in the line mode, in the folder of `out`: a line for each word of `keys`."""
    words = ["review", str(out), "-o", str(golden), "--as", person, *more]
    here = Path.cwd()
    os.chdir(out.parent)
    try:
        done = CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in keys.split()))
    finally:
        os.chdir(here)
    assert done.exit_code == code, done.stderr
    return done


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def golden_row(row: int, label: str | None, person: str, **more: object) -> ReviewedRow:
    labels = {person: label} if label else {}
    return ReviewedRow(row, row, {"text": f"text {row}"}, label, labels, **more)  # type: ignore[arg-type]
