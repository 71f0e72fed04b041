"""Measures what votes bring and cost: python tests/tools/votes_table.py GOLDEN.csv [ROWS] prints a table.

GOLDEN.csv has a text and a label, ham or spam. ROWS of it are drawn at random, the same at each call.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

VOTES = (None, 1, 3, 5, 9)
OPTIONS = ("--policy", "spam", "--model", "demo", "--effort", "low", "--threads", "1", "--text-field", "text", "-q")


def drawn(golden: Path, rows: int, into: Path) -> None:
    with golden.open(newline="") as file:
        header, *found = csv.reader(file)
    with into.open("w", newline="") as file:
        csv.writer(file).writerows([header, *random.Random(0).sample(found, min(rows, len(found)))])


def line(golden: Path, votes: int | None, folder: Path) -> str:
    out = folder / f"{votes}.jsonl"
    asked = [] if votes is None else ["--votes", str(votes)]
    subprocess.run(["safeguard", "label", str(golden), *OPTIONS, *asked, "-o", str(out)], check=True)
    run = json.loads(out.with_name(f"{out.name}.manifest.json").read_bytes())
    told = subprocess.run(["safeguard", "eval", str(out), "--json"], check=True, capture_output=True)
    policy = json.loads(told.stdout)["policies"]["spam"]
    plain = {name: found["value"] for name, found in policy["figures"].items()}
    voted = policy["votes"]["figures"]["p_votes"] if votes else dict.fromkeys(plain)
    cells = [plain[name] for name in ("accuracy", "auroc", "calibration_error")]
    cells += [voted[name] for name in ("auroc", "calibration_error")]
    shown = ["–" if cell is None else f"{cell:.4f}" for cell in cells]
    speed = f"{run['rows'] / run['seconds']:.1f}"
    return " | ".join([f"| {votes or 'none'}", *shown, speed, f"{run['generated_tokens'] / run['rows']:.0f} |"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "golden.csv"
        drawn(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 600, golden)
        print("| `--votes` | accuracy | AUROC of p_violates | its calibration error | AUROC of p_votes | its", end=" ")
        print("calibration error | rows/s | tokens written a row |")
        print("|---|---|---|---|---|---|---|---|")
        for votes in VOTES:
            print(line(golden, votes, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
