"""A training example, and the analysis and rationale that the model learns to write for it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from safeguard_cli.demo.training.grammar import clip, salient

LABELS: dict[str, tuple[str, str]] = {  # policy -> (safe, violating)
    "spam": ("ham", "spam"),
    "hate": ("allowed", "hateful"),
    "privacy": ("clean", "personal"),
    "prompt-injection": ("benign", "injection"),
}
GLOSS: dict[str, dict[str, str]] = {  # policy -> rule -> how an analysis names it; the first five violate
    "spam": {
        "SP1": "prize bait",
        "SP2": "premium contact",
        "SP3": "unasked selling",
        "SP4": "dating bait",
        "SP5": "a money trap",
        "SP6": "personal talk",
        "SP7": "an expected notice",
        "SP8": "a harmless mention",
    },
    "hate": {
        "HT1": "derogation",
        "HT2": "dehumanisation",
        "HT3": "a threat",
        "HT4": "exclusion",
        "HT5": "profanity",
        "HT6": "identity",
        "HT7": "counter speech",
        "HT8": "another target",
        "HT9": "no target",
    },
    "privacy": {
        "PD1": "private contact",
        "PD2": "private location",
        "PD3": "identity data",
        "PD4": "money or access",
        "PD5": "sensitive facts",
        "PD6": "nothing personal",
        "PD7": "public or business",
        "PD8": "not real or agreed",
    },
    "prompt-injection": {
        "PI1": "an override",
        "PI2": "an ordered verdict",
        "PI3": "a forged role",
        "PI4": "a forged answer",
        "PI5": "new rules",
        "PI6": "not for the reader",
        "PI7": "talk about models",
        "PI8": "orders for people",
    },
}
NEUTRAL_RULE = {"spam": "SP6", "hate": "HT9", "privacy": "PD6", "prompt-injection": "PI6"}
RULES_ON_EACH_SIDE = 5  # every policy lists five violating rules before its safe ones


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: the text under one policy, its label, the rule that decides and the words that show it.

    `quote` stands verbatim in `content`, the text, and is "" only if nothing can be quoted. `soft`, if known, is the
    probability that the text violates, blended from the gold label and a teacher that did not see the row.
    """

    policy: str
    content: str
    label: str
    rule: str
    quote: str
    source: str
    weight: float = 1.0
    soft: float | None = None


def analysis(example: Example) -> str:
    """Return the analysis to learn: the rule, its gist and one quote, without the label.

    The rule comes first, so that it is cited even if the quote goes wrong.
    """
    return _cite(example.policy, example.rule, example.quote)


def _cite(policy: str, rule: str, quote: str) -> str:
    gist = GLOSS[policy][rule]
    return f'{rule}, {gist}: "{quote}".' if quote else f"{rule}, {gist}: nothing to quote."


def opposite_analysis(example: Example, rng: random.Random) -> str:
    """Return an analysis for the other side, with a real quote, so that the label keeps depending on the text."""
    rules = list(GLOSS[example.policy])
    violates = example.label == LABELS[example.policy][1]
    rule = rng.choice(rules[RULES_ON_EACH_SIDE:] if violates else rules[:RULES_ON_EACH_SIDE])
    words = example.content.split(" ")
    start = rng.randrange(len(words))
    quote = clip(" ".join(words[start : start + 3])) if rng.random() < 0.6 else example.quote
    return _cite(example.policy, rule, quote or example.quote)


def rationale(example: Example) -> str:
    """Return one short sentence that needs no escaping inside a JSON string."""
    gist = GLOSS[example.policy][example.rule]
    return f"{example.rule}, {gist}: {example.quote}" if example.quote else f"{example.rule}, {gist}."


def make(policy: str, violates: bool, content: str, rule: str, quote: str, source: str, **extra: Any) -> Example:
    quote = quote if quote and quote in content else salient(content)
    return Example(policy, content, LABELS[policy][violates], rule, quote, source, **extra)
