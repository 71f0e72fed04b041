"""Figures of the demo model on examples that it was not trained on, computed as the program would do it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from safeguard_cli.demo.training import data
from safeguard_cli.demo.training.model import Cache, GptOss
from safeguard_cli.demo.training.rows import MAX_CONTENT
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prefix
from safeguard_cli.prompt.harmony import Harmony

BUDGET = 64  # tokens of analysis
ROWS = 48


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: the probability of a violating label, the analysis, and whether that ended by itself."""

    example: data.Example
    p_violates: float
    analysis: str
    ended: bool


def quick_figures(
    model: GptOss, harmony: Harmony, policies: dict[str, Policy], held_out: Mapping[str, Sequence[data.Example]]
) -> Iterator[str]:
    """Yield figures without reasoning, on at most 200 rows of each set; this takes seconds."""
    for name, examples in held_out.items():
        outcomes = answer(model, harmony, policies, _thinned(examples, 200), "none")
        yield f"{name}, effort none: {summary(outcomes, policies)}"


def figures(
    model: GptOss,
    harmony: Harmony,
    policies: dict[str, Policy],
    held_out: Mapping[str, Sequence[data.Example]],
    limit: int,
) -> Iterator[str]:
    """Yield the model card's figures on at most `limit` rows of each set, and a few analyses to read."""
    everything: list[Outcome] = []
    for (name, examples), effort in itertools.product(held_out.items(), ("none", "low")):
        outcomes = answer(model, harmony, policies, _thinned(examples, limit), effort)
        yield f"{name}, effort {effort}: {summary(outcomes, policies)}"
        if effort == "low":
            everything += outcomes
            yield from (
                f"    {o.p_violates:.2f} {o.example.content[:80]!r} {o.analysis!r}" for o in _thinned(outcomes, 4)
            )
    yield from reasoning_summary(everything, policies)


T = TypeVar("T")


def _thinned(items: Sequence[T], limit: int) -> Sequence[T]:
    return items[:: -(-len(items) // limit)]


def summary(outcomes: Sequence[Outcome], policies: dict[str, Policy]) -> str:
    """Return rates on rows of one set; F1, AUROC and balanced accuracy if it holds both classes."""
    gold = [o.example.label in policies[o.example.policy].violates for o in outcomes]
    scores = [o.p_violates for o in outcomes]
    said = [score >= 0.5 for score in scores]
    line = f"{len(outcomes)} rows, {sum(said) / len(said):.3f} called violating"
    if len(set(gold)) == 2:
        line += (
            f", F1 {f1_score(gold, said):.3f}, AUROC {roc_auc_score(gold, scores):.4f},"
            f" balanced accuracy {balanced_accuracy_score(gold, said):.3f}"
        )
    return line


def reasoning_summary(outcomes: Sequence[Outcome], policies: dict[str, Policy]) -> Iterator[str]:
    """Yield how the analyses end, quote and cite."""
    quotes = [(q, o.example.content) for o in outcomes for q in re.findall(r'"([^"]+)"', o.analysis)]
    cited = [(r, o.example.policy) for o in outcomes for r in re.findall(r"\b[A-Z]{2}\d+\b", o.analysis)]
    yield f"analyses that end by themselves: {sum(o.ended for o in outcomes)} of {len(outcomes)}"
    yield f"quotes that stand in the content: {sum(q in c for q, c in quotes)} of {len(quotes)}"
    yield f"rules that stand in the policy: {sum(r in policies[p].text for r, p in cited)} of {len(cited)}"


@torch.no_grad()
def answer(
    model: GptOss, harmony: Harmony, policies: dict[str, Policy], examples: Sequence[data.Example], effort: str
) -> list[Outcome]:
    """Label examples under their policies."""
    outcomes = []
    for name, policy in policies.items():
        prefix = harmony.prefix(policy, effort)
        _, shared = model.hidden(torch.tensor([prefix.ids]))
        rows = [
            (e, list(harmony.content_ids(harmony.text_ids(e.content)[:MAX_CONTENT])))
            for e in examples
            if e.policy == name
        ]
        rows.sort(key=lambda row: len(row[1]))
        for i in range(0, len(rows), ROWS):
            part = rows[i : i + ROWS]
            outcomes += _answer_batch(model, harmony, prefix, shared, policy, part, effort)
    return outcomes


def _answer_batch(
    model: GptOss, harmony: Harmony, prefix: Prefix, shared: list[Cache], policy: Policy,
    rows: list[tuple[data.Example, list[int]]], effort: str,
) -> list[Outcome]:  # fmt: skip
    contract = prefix.contract
    prompts = [ids for _, ids in rows]
    if effort == "none":
        written: list[list[int]] = [[] for _ in rows]
        tails = [list(contract.open_final_at_once)] * len(rows)
    else:
        prompts = [[*ids, *contract.open_analysis] for ids in prompts]
        written = generate(model, prompts, len(prefix.ids), shared, contract.stops)
        tails = [[*contract.next_message, *contract.open_final]] * len(rows)
    ended = [effort == "none" or w[-1] == contract.next_message[0] for w in written]
    bodies = [[t for t in w if t not in contract.stops] for w in written]
    logits = _last_logits(model, [p + b + t for p, b, t in zip(prompts, bodies, tails, strict=True)], prefix, shared)
    firsts = [ids[0] for ids in contract.labels]
    assert len(set(firsts)) == len(firsts), "labels must differ in their first token"
    p = logits[:, firsts].softmax(1)
    violating = [i for i, label in enumerate(policy.labels) if label in policy.violates]
    scores = p[:, violating].sum(1).tolist()
    texts = [harmony.tokenizer.decode(b) for b in bodies]
    return [Outcome(e, s, t, end) for (e, _), s, t, end in zip(rows, scores, texts, ended, strict=True)]


def _pad(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def _last_logits(model: GptOss, rows: list[list[int]], prefix: Prefix, shared: list[Cache]) -> Tensor:
    hidden, _ = model.hidden(_pad(rows), len(prefix.ids), shared)
    return model.logits(hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])])


def generate(
    model: GptOss, prompts: list[list[int]], start: int, shared: list[Cache], stops: frozenset[int]
) -> list[list[int]]:
    """Continue rows greedily behind a prefix of `start` tokens, each up to a stop (included) or the budget."""
    c, ids = model.c, _pad(prompts)
    lengths = torch.tensor([len(p) for p in prompts])
    shape = (len(prompts), c.kv_heads, ids.shape[1] + BUDGET, c.head_dim)
    own = [Cache(torch.zeros(shape), torch.zeros(shape)) for _ in range(c.layers)]
    slots = torch.arange(ids.shape[1]).expand(len(prompts), -1)
    hidden, _ = model.hidden(ids, start, shared, slots, own)
    hidden = hidden[torch.arange(len(prompts)), lengths - 1]
    written: list[list[int]] = [[] for _ in prompts]
    for step in range(BUDGET):
        token = model.logits(hidden).argmax(1)
        for row, choice in zip(written, token.tolist(), strict=True):
            if not row or row[-1] not in stops:
                row.append(choice)
        if all(row[-1] in stops for row in written):
            break
        out, _ = model.hidden(token[:, None], start, shared, (lengths + step)[:, None], own)
        hidden = out[:, 0]
    return written
