"""Messages of the SMS Spam Collection and of SpamAssassin: rules, grades, variants."""

from __future__ import annotations

import email
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeguard_cli.demo.training.grammar import misspell, salient
from safeguard_cli.demo.training.teacher import fit, word_weights

_SPAM_RULES = (
    (
        "SP4",
        re.compile(
            r"\b(dat(e|ing)|chat|sexy?|flirt|admirer|singles?|xxx|horny|babes?|adult|fancies|hot (gay|girls))\b", re.I
        ),
    ),
    ("SP5", re.compile(r"\b(loans?|debts?|credit|accident|compensation|account|bank|statement|refund|invest)\b", re.I)),
    (
        "SP1",
        re.compile(
            r"\b(won|win(ner|ners|s)?|prizes?|award(ed)?|draw|claim|vouchers?|guaranteed|selected|gift)\b", re.I
        ),
    ),
    (
        "SP3",
        re.compile(
            r"\b((ring)?tones?|poly\w*|subscri\w+|offers?|mobiles?|phones?|games?|sale|camera|orange|logos?)\b", re.I
        ),
    ),
    ("SP2", re.compile(r"\b(\d{5}|0[89]\d{6,}|08\d\d ?\d+|call|txt|text|reply)\b", re.I)),
)
_NOTICE = re.compile(
    r"\b(appointment|remind(er)?|deliver(y|ed)|receipt|order|invoice|due|report|meeting|customer)\b", re.I
)
_MENTION = re.compile(
    r"[£$%]|\d{3}|https?:|www\.|\b(free|win|won|prize|cash|money|pay|rs|loan|offer|spam|number|txt|call me)\b", re.I
)
HAS_PRIVATE = re.compile(r"\d[\d \-]{5,}\d|@|\b(address|password|pin)\b", re.I)
HAS_DETAIL = re.compile(r"\d{4}|www\.|http", re.I)


def spam_rule(text: str, spam: bool) -> str:
    if spam:
        return next((rule for rule, pattern in _SPAM_RULES if pattern.search(text)), "SP3")
    return "SP7" if _NOTICE.search(text) and len(text) > 40 else "SP8" if _MENTION.search(text) else "SP6"


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its quote, the degree in [0, 1] to which it is spam, and the rule that decides."""

    text: str
    spam: bool
    quote: str
    soft: float
    rule: str


def _blend(gold: bool, taught: float) -> float:
    """Mix gold and teacher, but never across one half: the teacher grades, gold decides."""
    soft = 0.6 * gold + 0.4 * taught
    return min(max(soft, 0.6 if gold else 0.0), 1.0 if gold else 0.4)


def graded(
    texts: Sequence[str], spam: Sequence[bool], taught: Sequence[float], weights: Mapping[str, float]
) -> list[Message]:
    against = {word: -weight for word, weight in weights.items()}
    return [
        Message(text, gold, salient(text, weights if gold else against), _blend(gold, p), spam_rule(text, gold))
        for text, gold, p in zip(texts, spam, taught, strict=True)
    ]


def _cut(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?]) +", text) if part]


def _mutated(text: str, mate: str, rng: random.Random) -> str:
    """Return a variant of the same class: two messages mixed, other digits, words dropped, typos or other case."""
    kind = rng.randrange(6)
    if kind == 0:
        parts = _cut(text) + _cut(mate)
        rng.shuffle(parts)
        return " ".join(parts[: max(1, rng.randint(1, len(parts)))])[:400]
    if kind == 1:
        half, other = text.split(" "), mate.split(" ")
        return " ".join(half[: max(2, len(half) // 2)] + other[len(other) // 2 :])
    if kind == 2:
        words = [word for word in text.split(" ") if rng.random() > 0.15]
        return " ".join(words) or text
    if kind == 3:
        for _ in range(rng.randint(1, 4)):
            text, _ = misspell(text, "", rng)
        return text
    if kind == 4:
        return text.lower() if rng.random() < 0.6 else text.upper() if rng.random() < 0.4 else text.title()
    return re.sub(r"\d", lambda _: rng.choice("0123456789"), text)


def lightly_changed(text: str, quote: str, rng: random.Random) -> tuple[str, str]:
    """Change a message lightly, so that its label stays right: other digits, a typo, other case."""
    roll = rng.random()
    if roll < 0.15:
        quote_at = text.find(quote)
        text = re.sub(r"\d", lambda _: rng.choice("0123456789"), text)
        quote = text[quote_at : quote_at + len(quote)]
    elif roll < 0.3:
        text, quote = misspell(text, quote, rng)
    elif roll < 0.36:
        text, quote = text.lower(), quote.lower()
    return text, quote if quote in text else ""


def spamassassin_mails(folder: Path, rng: random.Random, limit: int = 500) -> list[tuple[str, bool]]:
    """Return (subject and first 200 characters, is spam) of some mails of each group."""
    found = []
    for group in ("spam-1", "spam-2", "easy-ham-1", "easy-ham-2", "hard-ham-1"):
        files = sorted((folder / group).glob("*.txt"))
        for path in rng.sample(files, min(limit, len(files))):
            if text := _mail_text(path.read_text(encoding="utf-8", errors="replace")):
                found.append((text, group.startswith("spam")))
    return found


def _mail_text(raw: str) -> str:
    if raw.startswith('{"id"'):
        raw = str(json.loads(raw)["text"])
    mail = email.message_from_string(raw)
    part: Any = next((p for p in mail.walk() if p.get_content_maintype() == "text"), None)
    body = part.get_payload(decode=True) if part is not None else b""
    text = body.decode("latin-1") if isinstance(body, bytes) else ""
    text = re.sub(r"(?s)<(style|script|!--).*?(</\1>|-->)|<[^>]*>|&\w+;", " ", text)
    subject = str(mail.get("Subject") or "")
    text = re.sub(r"\s+", " ", f"{subject}. {text[:2000]}")
    text = "".join(c for c in text if c.isprintable())
    return text[: len(subject) + 200].strip() if len(text) > 20 and "=?" not in subject else ""


def sms_pools(
    rows: Sequence[Mapping[str, str]], rng: random.Random, seed: int
) -> tuple[list[Message], list[Message], dict[str, float]]:
    """Return messages and mixed messages, graded by the teacher, and the word weights that choose quotes."""
    texts, spam = [row["text"] for row in rows], [row["label"] == "spam" for row in rows]
    teacher, weights = fit(texts, spam, seed), word_weights(texts, spam)
    places: dict[bool, list[int]] = {side: [i for i, s in enumerate(spam) if s is side] for side in (True, False)}
    sources = [rng.choice(places[side]) for side in (True, False) for _ in range(4000)]
    variants = [_mutated(texts[i], texts[rng.choice(places[spam[i]])], rng) for i in sources]
    mixed = graded(variants, [spam[i] for i in sources], teacher.grade(variants, sources), weights)
    return graded(texts, spam, teacher.held_out, weights), mixed, weights
