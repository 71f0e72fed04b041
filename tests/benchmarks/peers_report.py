"""What a comparison by peers.py found, as a page and as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeguard_cli.output.manifest import versions

if TYPE_CHECKING:
    from peers import Case, Result


def write(
    given: argparse.Namespace,
    cases: Sequence[Case],
    bounds: dict[str, list[float]],
    results: dict[str, list[dict[str, Result]]],
) -> None:
    """Write medians over the rounds so far, and ratios of programs in the same round, to OUT.md and OUT.json."""
    # ik_llama.cpp names the features otherwise.
    features = {_features(build) for who, build in given.builds.items() if not who.startswith("ik")}
    data: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "model": given.model.name,
        "threads": given.threads,
        "effort": given.effort,
        "policy_in_time": not given.warm,
        "versions": versions(),
        "builds": given.builds,
        "same_cpu_features": len(features) < 2,
        "bound_prompt_tokens_per_second": bounds,
        "works": {case.name: _figures(case, bounds, results[case.name]) for case in cases},
    }
    Path(f"{given.out}.json").write_text(json.dumps(data, indent=2) + "\n")
    rounds = len(next(iter(results.values())))
    text = [
        f"# {given.model.name}: effort {given.effort}, {given.threads} threads",
        "",
        f"{data['date']}; medians of {rounds} rounds, each with all of them; from the loaded model to the last row, the"
        f" policy's own decoding {'apart' if given.warm else 'included'}. Tokens are those that must be decoded.",
        "",
    ]
    for case in cases:
        text += _section(case, data["works"][case.name], results[case.name])
    text += [
        "Builds of llama.cpp " + ("with the same CPU features:" if len(features) < 2 else "of DIFFERENT features:")
    ]
    text += ["", *(f"- {name}: {build}" for name, build in given.builds.items()), ""]
    Path(f"{given.out}.md").write_text("\n".join(text))
    print("\n".join(text))


def _figures(case: Case, bounds: dict[str, list[float]], rounds: list[dict[str, Result]]) -> dict[str, Any]:
    work, rows = case.work, len(case.work.prompts)
    rates = {who: [found[who].rate for found in rounds] for who in rounds[0]}
    medians = {who: statistics.median(values) for who, values in rates.items()}
    best: dict[str, str] = {}  # each program with its best number of slots
    for who, one in rounds[0].items():
        if one.kind not in best or medians[who] > medians[best[one.kind]]:
            best[one.kind] = who
    bound = {engine: [rate * rows / case.tokens(work) for rate in found] for engine, found in bounds.items()}
    own = {kind: who for kind, who in best.items() if kind.startswith("safeguard")}
    ratios = {
        f"{who} to {other}": _spread(x / y for x, y in zip(rates[who], rates[other], strict=True))
        for who in own.values()
        for other in best.values()
        if other != who
    }
    for engine, most in bound.items():
        who = own[f"safeguard on {engine}"]
        ratios[f"{who} to its bound"] = _spread(x / y for x, y in zip(rates[who], most, strict=True))
    return {
        "rows": rows,
        "policy_tokens": work.policy,
        "prompt_tokens": [len(prompt) - work.policy for prompt in work.prompts],
        "completion_tokens": work.completions,
        "tokens_that_must_be_decoded": case.tokens(work),
        "rounds": [[asdict(one) for one in found.values()] for found in rounds],
        "rows_per_second": {who: _spread(values) for who, values in rates.items()},
        "bound_rows_per_second": {engine: _spread(values) for engine, values in bound.items()},
        "ratios": ratios,
    }


def _section(case: Case, figures: dict[str, Any], rounds: list[dict[str, Result]]) -> list[str]:
    prompt, completion = (statistics.mean(figures[name]) for name in ("prompt_tokens", "completion_tokens"))
    text = [
        f"## The {case.name} work",
        f"{figures['rows']} rows under a policy of {figures['policy_tokens']} tokens, {prompt:.1f} of prompt and"
        f" {completion:.1f} of completion each in the mean; {figures['tokens_that_must_be_decoded']:,} in all.",
        "",
        "| | rows/s | from | to | tokens/s | seconds | |",
        "|---|---|---|---|---|---|---|",
    ]
    for who, (median, least, most) in figures["rows_per_second"].items():
        one = rounds[-1][who]
        seconds = statistics.median(found[who].seconds for found in rounds)
        note = one.note if one.rows == figures["rows"] else f"{one.rows} rows only; {one.note}"
        text.append(
            f"| {who} | {median:.4f} | {least:.4f} | {most:.4f} | {one.tokens / seconds:.1f} | {seconds:.1f} | {note} |"
        )
    for engine, (median, least, most) in figures["bound_rows_per_second"].items():
        tokens = median * figures["tokens_that_must_be_decoded"] / figures["rows"]
        seconds = figures["rows"] / median
        text.append(
            f"| bound on {engine} | {median:.4f} | {least:.4f} | {most:.4f} | {tokens:.1f} | {seconds:.1f} |"
            " every token at the rate of a prompt |"
        )
    text += ["", "| paired, in the same round | ratio | from | to |", "|---|---|---|---|"]
    text += [f"| {pair} | {m:.2f} | {a:.2f} | {b:.2f} |" for pair, (m, a, b) in figures["ratios"].items()]
    return [*text, ""]


def _spread(values: Any) -> tuple[float, float, float]:
    """Return median, least and most."""
    found = list(values)
    return statistics.median(found), min(found), max(found)


def _features(build: str) -> frozenset[str]:
    """Return the CPU instructions that llama.cpp reports."""
    return frozenset(part.split("=")[0].strip(" :").split()[-1] for part in build.split("|") if "= 1" in part)
