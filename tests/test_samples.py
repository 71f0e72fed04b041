"""The samples: the same messages as JSONL and CSV, half of them spam."""

from __future__ import annotations

import csv
import json
from collections import Counter

from helpers import ROOT

SAMPLES = ROOT / "samples"


def test_samples_are_the_same_rows_in_both_formats():
    rows = [json.loads(line) for line in (SAMPLES / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    with (SAMPLES / "messages.csv").open(encoding="utf-8", newline="") as file:
        assert [{**row, "id": int(row["id"])} for row in csv.DictReader(file)] == rows
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["text"] for row in rows}) == len(rows) >= 60


def test_half_of_the_samples_are_spam():
    rows = [json.loads(line) for line in (SAMPLES / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = Counter(row["label"] for row in rows)
    assert counts["spam"] == counts["ham"] == len(rows) / 2
