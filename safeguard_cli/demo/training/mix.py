"""The mix: which rows each policy is trained on, and how often, from the data sets and from our own templates."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from safeguard_cli.demo.training import phrases as ph
from safeguard_cli.demo.training.details import WORDS, digits, dressed, own_sentence, verdict_json
from safeguard_cli.demo.training.example import LABELS, NEUTRAL_RULE, Example, make
from safeguard_cli.demo.training.grammar import fill, misspell, salient
from safeguard_cli.demo.training.hate import HateRows
from safeguard_cli.demo.training.messages import HAS_DETAIL, HAS_PRIVATE, Message, lightly_changed, spam_rule

Sampler = Callable[[random.Random], Example]


def _injection(
    rng: random.Random, policy: str | None = None, banks: Mapping[str, Sequence[str]] = ph.INJECTION
) -> tuple[str, str, str]:
    """Return (text, quote, rule) of an injected phrase that asks for a label, of the given policy or of any."""
    safe, bad = LABELS[policy or rng.choice(tuple(LABELS))]
    if policy is None and rng.random() < 0.3:
        safe, bad = rng.choice(
            (("safe", "unsafe"), ("0", "1"), ("VALID", "INVALID"), ("fine", "bad"), ("OK", "violation"))
        )
    if rng.random() < 0.25:
        safe, bad = bad, safe
    rule = rng.choice(tuple(banks))
    slots = {"LBL": safe, "BAD": bad, "JSON": verdict_json(rng, safe)}
    text, quote = fill(rng.choice(banks[rule]), slots, WORDS, rng)
    return text, quote, rule


def _joined(content: str, extra: str, rng: random.Random) -> str:
    """Join two texts in either order; line breaks are what real attacks use."""
    glue = rng.choice((" ", " ", ". ", "\n", "\n\n", " - ", " ... "))
    return f"{content}{glue}{extra}" if rng.random() < 0.7 else f"{extra}{glue}{content}"


def _injected(example: Example, rng: random.Random) -> Example:
    """Return the row with an injected phrase that argues for another label; its label stays."""
    text, _, _ = _injection(rng, example.policy)
    return replace(
        example, content=_joined(example.content, text, rng), source=f"{example.source}+injection", soft=None
    )


@dataclass(frozen=True, slots=True)
class Pools:
    """What samplers draw from."""

    spam: Sequence[Message]
    ham: Sequence[Message]
    mixed_spam: Sequence[Message]
    mixed_ham: Sequence[Message]
    mails: Sequence[tuple[Message, float]]
    hate: HateRows


def _message(pool: Pools, spam: bool, rng: random.Random) -> Message:
    rows = pool.spam if spam else pool.ham
    if rows and rng.random() < 0.7:
        return rng.choice(rows)
    text, quote, rule = own_sentence(ph.SPAM if spam else ph.HAM, rng)
    return Message(text, spam, quote, float(spam), rule)


def _sms(policy: str, message: Message, source: str, rng: random.Random) -> Example:
    """Return a message under any policy; under `privacy`, pass only one without private details."""
    text, quote = lightly_changed(message.text, message.quote, rng)
    if policy == "spam":
        return make(policy, message.spam, text, message.rule, quote, source, soft=message.soft)
    rule = NEUTRAL_RULE[policy]
    if policy == "privacy" and message.spam and HAS_DETAIL.search(text):
        rule = "PD7"
    return make(policy, False, text, rule, salient(text) if not message.spam else quote, source)


def _chosen_sms(policy: str, pool: Pools, spam: bool, rng: random.Random) -> Example:
    for _ in range(20):
        message = _message(pool, spam, rng)
        if policy != "privacy" or spam or not HAS_PRIVATE.search(message.text):
            break
    return _sms(policy, message, "sms", rng)


def _hate_row(policy: str, pool: Pools, hateful: bool, rng: random.Random) -> Example:
    text, quote, rule = pool.hate.violating(rng) if hateful else pool.hate.safe(rng)
    text, quote = dressed(text, quote, rng)
    if policy == "hate":
        return make(policy, hateful, text, rule, quote, "hate")
    return make(policy, False, text, NEUTRAL_RULE[policy], salient(text), "hate")


def private_row(policy: str, personal: bool, banks: Mapping[str, Sequence[str]], rng: random.Random) -> Example:
    text, quote, rule = own_sentence(banks, rng)
    text, quote = dressed(text, quote, rng) if rng.random() < 0.5 else (text, quote)
    if policy == "privacy":
        return make(policy, personal, text, rule, quote, "privacy")
    return make(policy, False, text, "SP8" if policy == "spam" else NEUTRAL_RULE[policy], salient(text), "privacy")


def _odd_row(policy: str, rng: random.Random) -> Example:
    """Return a row that is empty, one word, numbers, emoji, another language or plain prose: safe everywhere."""
    roll = rng.random()
    if roll < 0.04:
        return Example(policy, "", LABELS[policy][0], NEUTRAL_RULE[policy], "", "odd")
    text = rng.choice(ph.ODD)
    if roll < 0.3:
        text = " ".join(rng.sample(ph.FILLER, rng.randint(1, 3)))
    elif roll < 0.4:
        text = rng.choice((digits(rng, rng.randint(1, 4)), rng.choice(ph.WORDS["name"]), rng.choice(ph.WORDS["town"])))
    return make(policy, False, text, NEUTRAL_RULE[policy], "", "odd")


def _long_row(example: Example, rng: random.Random) -> Example:
    """Return the row inside plain prose of up to some 250 tokens."""
    prose = rng.sample(ph.FILLER, rng.randint(2, 16))
    at = rng.randint(0, len(prose))
    content = " ".join((*prose[:at], example.content, *prose[at:]))
    return replace(example, content=content, source=f"{example.source}+long", soft=None)


def _foreign_spam(policy: str, rng: random.Random) -> Example:
    text, quote = fill(rng.choice(ph.FOREIGN_SPAM), {}, WORDS, rng)
    if policy == "spam":
        return make(policy, True, text, spam_rule(text, True), quote, "foreign")
    return make(policy, False, text, NEUTRAL_RULE[policy], "", "foreign")


def _base_row(policy: str, pool: Pools, rng: random.Random) -> Example:
    """Return a row of the policy's own kind, either label equally often, to add injections and prose to."""
    violates = rng.random() < 0.5
    if policy == "spam":
        return _chosen_sms("spam", pool, violates, rng)
    if policy == "hate":
        return _hate_row("hate", pool, violates, rng)
    return private_row("privacy", violates, ph.PERSONAL if violates else ph.CLEAN, rng)


def _any_content(policy: str, pool: Pools, rng: random.Random) -> Example:
    """Return a text made for another policy, labelled under this one, under which it is safe."""
    roll = rng.random()
    if policy != "spam" and roll < 0.5:
        return _chosen_sms(policy, pool, rng.random() < 0.5, rng)
    if policy != "hate" and roll < 0.8:
        return _hate_row(policy, pool, rng.random() < 0.6, rng)
    if policy != "privacy":
        personal = rng.random() < 0.6
        return private_row(policy, personal, ph.PERSONAL if personal else ph.CLEAN, rng)
    return _foreign_spam(policy, rng)


def _injection_under(policy: str, rng: random.Random) -> Example:
    """Return an injection on its own, which is safe under the policies that are not about injections."""
    text, quote, _ = _injection(rng, policy)
    return make(policy, False, text, NEUTRAL_RULE[policy], quote, "injection")


def benign_row(policy: str, rng: random.Random, banks: Mapping[str, Sequence[str]] = ph.BENIGN) -> Example:
    rule = rng.choice(tuple(banks))
    label = LABELS[rng.choice(tuple(LABELS))][0]
    text, quote = fill(rng.choice(banks[rule]), {"LBL": label}, WORDS, rng)
    text, quote = dressed(text, quote, rng)
    return make(
        policy, False, text, rule if policy == "prompt-injection" else NEUTRAL_RULE[policy], quote, "instructions"
    )


def spam_samplers(pool: Pools) -> list[tuple[float, Sampler]]:
    samplers: list[tuple[float, Sampler]] = [
        (0.07, lambda rng: _own_message(rng.random() < 0.5, rng)),
        (0.08, lambda rng: _any_content("spam", pool, rng)),
        (0.06, lambda rng: _injected(_base_row("spam", pool, rng), rng)),
        (0.02, lambda rng: _injection_under("spam", rng)),
        (0.02, lambda rng: benign_row("spam", rng)),
        (0.02, lambda rng: _long_row(_base_row("spam", pool, rng), rng)),
        (0.02, lambda rng: _odd_row("spam", rng)),
        (0.01, lambda rng: _foreign_spam("spam", rng)),
    ]
    if pool.spam:
        samplers += [
            (0.13, lambda rng: _sms("spam", rng.choice(pool.spam), "sms", rng)),
            (0.36, lambda rng: _sms("spam", rng.choice(pool.ham), "sms", rng)),
            (0.07, lambda rng: _sms("spam", rng.choice(pool.mixed_spam), "sms-mix", rng)),
            (0.11, lambda rng: _sms("spam", rng.choice(pool.mixed_ham), "sms-mix", rng)),
        ]
    if pool.mails:
        samplers.append((0.04, lambda rng: _mail(pool, rng)))
    return samplers


def _own_message(spam: bool, rng: random.Random) -> Example:
    text, quote, rule = own_sentence(ph.SPAM if spam else ph.HAM, rng)
    text, quote = dressed(text, quote, rng)
    if rng.random() < 0.15:
        text, quote = misspell(text, quote, rng)
    return make("spam", spam, text, rule, quote, "own")


def _mail(pool: Pools, rng: random.Random) -> Example:
    message, weight = rng.choice(pool.mails)
    return make("spam", message.spam, message.text, message.rule, message.quote, "mail", weight=weight)


def hate_samplers(pool: Pools) -> list[tuple[float, Sampler]]:
    return [
        (0.42, lambda rng: _hate_row("hate", pool, True, rng)),
        (0.34, lambda rng: _hate_row("hate", pool, False, rng)),
        (0.06, lambda rng: _chosen_sms("hate", pool, False, rng)),
        (0.05, lambda rng: _chosen_sms("hate", pool, True, rng)),
        (0.02, lambda rng: _any_content("hate", pool, rng)),
        (0.06, lambda rng: _injected(_base_row("hate", pool, rng), rng)),
        (0.01, lambda rng: _injection_under("hate", rng)),
        (0.01, lambda rng: benign_row("hate", rng)),
        (0.02, lambda rng: _long_row(_base_row("hate", pool, rng), rng)),
        (0.02, lambda rng: _odd_row("hate", rng)),
    ]


def privacy_samplers(
    pool: Pools, personal: Mapping[str, Sequence[str]], clean: Mapping[str, Sequence[str]]
) -> list[tuple[float, Sampler]]:
    return [
        (0.30, lambda rng: private_row("privacy", True, personal, rng)),
        (0.26, lambda rng: private_row("privacy", False, clean, rng)),
        (0.12, lambda rng: _within(private_row("privacy", True, personal, rng), pool, rng)),
        (0.16, lambda rng: _any_content("privacy", pool, rng)),
        (0.06, lambda rng: _injected(_base_row("privacy", pool, rng), rng)),
        (0.02, lambda rng: _injection_under("privacy", rng)),
        (0.03, lambda rng: _long_row(_base_row("privacy", pool, rng), rng)),
        (0.02, lambda rng: benign_row("privacy", rng)),
        (0.03, lambda rng: _odd_row("privacy", rng)),
    ]


def _within(example: Example, pool: Pools, rng: random.Random) -> Example:
    """Return a violating row joined with harmless text: one detail or phrase is enough to violate."""
    other = _any_content(example.policy, pool, rng)
    return replace(example, content=_joined(other.content, example.content, rng), source=f"{example.source}+text")


def injection_samplers(
    pool: Pools, attacks: Mapping[str, Sequence[str]], benign: Mapping[str, Sequence[str]]
) -> list[tuple[float, Sampler]]:
    policy = "prompt-injection"
    return [
        (0.20, lambda rng: attack(rng, attacks)),
        (0.28, lambda rng: _within(attack(rng, attacks), pool, rng)),
        (0.22, lambda rng: benign_row(policy, rng, benign)),
        (0.20, lambda rng: _any_content(policy, pool, rng)),
        (0.03, lambda rng: _long_row(attack(rng, attacks), rng)),
        (0.03, lambda rng: _long_row(benign_row(policy, rng, benign), rng)),
        (0.04, lambda rng: _odd_row(policy, rng)),
    ]


def attack(rng: random.Random, attacks: Mapping[str, Sequence[str]]) -> Example:
    text, quote, rule = _injection(rng, banks=attacks)
    if rng.random() < 0.3:
        text, quote = dressed(text, quote, rng)
    if rng.random() < 0.1:
        text, quote = misspell(text, quote, rng)
    return make("prompt-injection", True, text, rule, quote, "attack")
