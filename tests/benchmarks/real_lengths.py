"""Lengths of real rows: `real_work` draws them from the quantiles in real_lengths.json.

    python tests/benchmarks/real_lengths.py LENGTHS.csv [--rows 64] [--cap 256]

compares draws with a table of requests (columns policy_tokens, content_tokens, reasoning_tokens), and with `--write`
makes the quantiles of it. Those here are of 6,407 requests that others sent to a hosted gpt-oss-safeguard-20b at its
default effort: the public logs of raxITlabs/gpt-oss-safeguard-testing, of which only the lengths were taken.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TABLE = Path(__file__).with_suffix(".json")
SOURCE = "6,407 requests to gpt-oss-safeguard-20b, public logs of raxITlabs/gpt-oss-safeguard-testing"


def real_lengths() -> dict[str, Any]:
    """Return the table: the median policy, the quantiles of contents and reasoning, and how these two go together."""
    found: dict[str, Any] = json.loads(TABLE.read_bytes())
    return found


def real_work(rows: int, cap: int, seed: int = 0) -> list[tuple[int, int]]:
    """Return for each row the tokens of its text and those of its reasoning, at most `cap`.

    Each length is drawn once from each of `rows` equal parts of its distribution, so that few rows have it too. The
    seed decides the rows' order and which text goes with which reasoning: longer with longer, as often as in the table.
    """
    table = real_lengths()
    rng = np.random.default_rng(seed)
    # Normal variates with this correlation have the table's rank correlation.
    together = 2 * np.sin(np.pi / 6 * table["rank_correlation"])
    drawn = rng.multivariate_normal((0, 0), ((1, together), (together, 1)), rows)
    at = (drawn.argsort(axis=0).argsort(axis=0) + 0.5) / rows
    parts = np.linspace(0, 1, len(table["content"]))
    content, reasoning = (np.interp(at[:, i], parts, table[name]) for i, name in enumerate(("content", "reasoning")))
    return [(max(1, round(c)), min(cap, max(1, round(r)))) for c, r in zip(content, reasoning, strict=True)]


def _rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return Spearman's correlation; equal values have the mean of their ranks."""

    def ranks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - counts / 2)[which]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--cap", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="make real_lengths.json of the table")
    given = parser.parse_args()
    with given.csv.open() as file:
        found = list(csv.DictReader(file))
    policy, content, reasoning = (
        np.array([int(row[f"{name}_tokens"]) for row in found]) for name in ("policy", "content", "reasoning")
    )
    if given.write:
        parts = np.linspace(0, 1, 101)
        table = {
            "source": SOURCE,
            "policy": int(np.median(policy)),
            "content": np.quantile(content, parts).round().astype(int).tolist(),
            "reasoning": np.quantile(reasoning, parts).round().astype(int).tolist(),
            "rank_correlation": round(_rank_correlation(content, reasoning), 2),
        }
        TABLE.write_text(json.dumps(table) + "\n")
    drawn = np.array(real_work(given.rows, given.cap))
    capped = np.minimum(reasoning, given.cap)
    print(f"{'':24}{'mean':>8}" + "".join(f"{p:>7} %" for p in (5, 25, 50, 75, 90, 95, 99)))
    for name, real, ours in (("content", content, drawn[:, 0]), ("reasoning, capped", capped, drawn[:, 1])):
        for whose, lengths in (("table", real), (f"{given.rows} rows", ours)):
            spread = "".join(f"{q:>9.0f}" for q in np.quantile(lengths, (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)))
            print(f"{name + ', ' + whose:24}{lengths.mean():>8.1f}{spread}")
    together = _rank_correlation(content, capped), _rank_correlation(drawn[:, 0], drawn[:, 1])
    print("rank correlation: table {:.2f}, rows {:.2f}".format(*together))
    print(f"at the cap: table {(reasoning >= given.cap).mean():.1%}, rows {(drawn[:, 1] >= given.cap).mean():.1%}")


if __name__ == "__main__":
    main()
