"""Fills sentence templates, chooses and clips the words to quote, and misspells."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

Slots = Mapping[str, str | Sequence[str] | Callable[[random.Random], str]]
QUOTE_CHARACTERS = 24
QUOTE_WORDS = 5

_TOKEN = re.compile(r"(<[^<>]*>|\{\w+\}|\[|\])")
_RUN = re.compile(r'[^"\\\r\n\t]+')
_WORD = re.compile(r'[^\s"\\]+')
_EDGES = " .,;:!?'()[]{}<>-–…*&#=~"
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}


@cache
def compiled(template: str) -> tuple[Any, ...]:
    """Parse a template: plain text, ("slot", name), ("choice", templates), and the marks "[" and "]" as 1-tuples."""
    nodes: list[Any] = []
    for part in _TOKEN.split(template):
        if part.startswith("<") and part.endswith(">"):
            nodes.append(("choice", tuple(part[1:-1].split("|"))))
        elif part.startswith("{") and part.endswith("}"):
            nodes.append(("slot", part[1:-1]))
        elif part in ("[", "]"):
            nodes.append((part,))
        elif part:
            nodes.append(part)
    return tuple(nodes)


def _emit(
    nodes: Sequence[Any], slots: Slots, words: Slots, rng: random.Random, out: list[str], marks: list[int]
) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif node[0] == "choice":
            _emit(compiled(rng.choice(node[1])), slots, words, rng, out, marks)
        elif node[0] == "slot":
            value = slots.get(node[1])
            if value is None:
                value = words[node[1]]
                if not callable(value):
                    _emit(compiled(rng.choice(value)), slots, words, rng, out, marks)
                    continue
            out.append(value(rng) if callable(value) else value if isinstance(value, str) else rng.choice(value))
        else:
            marks.append(len(out))


def _tidy(text: str) -> str:
    if "  " in text:
        text = re.sub(r" {2,}", " ", text)
    if " a " in text or text.startswith(("a ", "A ")):
        text = re.sub(r"\b([Aa]) (?=[aeioAEIO]\w)", r"\1n ", text)
    return text.strip()


def fill(template: str | Sequence[Any], slots: Slots, words: Slots, rng: random.Random) -> tuple[str, str]:
    """Fill a template; return the text and its marked evidence, clipped to quotable length ("" if nothing is marked).

    `slots` hold finished values and win over `words`, whose items are templates again.
    """
    out: list[str] = []
    marks: list[int] = []
    _emit(compiled(template) if isinstance(template, str) else template, slots, words, rng, out, marks)
    text = _tidy("".join(out))
    quote = clip(_tidy("".join(out[marks[0] : marks[1]]))) if len(marks) > 1 else ""
    return text, quote if quote in text else ""


def clip(span: str, limit: int = QUOTE_CHARACTERS) -> str:
    """Return the first words of a span that fit a quote: no double quote, backslash, line end or bare punctuation."""
    runs = _RUN.findall(span)
    if not runs:
        return ""
    words = max(runs, key=len).strip(_EDGES).split(" ")
    size = 1
    while size < min(len(words), QUOTE_WORDS) and len(" ".join(words[: size + 1])) <= limit:
        size += 1
    return " ".join(words[:size]).strip(_EDGES)[: 2 * limit]


def _plain_weight(word: str) -> float:
    return min(len(word), 9) - 3.0


def salient(text: str, weights: Mapping[str, float] | None = None) -> str:
    """Return the quotable run of up to four words with the highest weight; without weights, long words count most."""
    spans = [(m.start(), m.end()) for m in _WORD.finditer(text)][:250]
    scores = [
        weights.get(core, 0.0) * min(len(core), 5) / 5 + 0.06 * _plain_weight(core) if weights else _plain_weight(core)
        for core in (text[a:b].strip(_EDGES).lower() for a, b in spans)
    ]
    best, best_score = "", -1e9
    for i, (start, _) in enumerate(spans):
        score = -0.3
        for j in range(i, min(i + 4, len(spans))):
            end = spans[j][1]
            if j > i and (end - start > QUOTE_CHARACTERS or text[spans[j - 1][1] : spans[j][0]] != " "):
                break
            score += scores[j]
            if score > best_score + 1e-9:
                quote = text[start:end].strip(_EDGES)
                if quote and '"' not in quote:
                    best, best_score = quote, score
    return clip(best) or clip(text) or _last_resort(text)


def _last_resort(text: str) -> str:
    """Return the first run that may be quoted at all, for emoji and bare punctuation."""
    runs = _WORD.findall(text)
    return runs[0][:QUOTE_CHARACTERS] if runs else ""


def misspelt(word: str, rng: random.Random) -> str:
    """Swap, drop, double or space out letters of a word, or replace one by a look-alike digit."""
    if len(word) < 3:
        return word
    kind = rng.randrange(6)
    at = rng.randrange(1, len(word) - 1)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] * rng.randint(1, 3) + word[at:]
    if kind == 3:
        return " ".join(word)
    if kind == 4:
        spot = [i for i, letter in enumerate(word) if letter.lower() in _LEET]
        if spot:
            at = rng.choice(spot)
            return word[:at] + _LEET[word[at].lower()] + word[at + 1 :]
    return word[:at] + word[at + 1 :]


def misspell(text: str, quote: str, rng: random.Random) -> tuple[str, str]:
    """Misspell one word, mostly one of the quote, or glue two words; keep the quote verbatim in the text."""
    source = quote if quote and rng.random() < 0.6 else text
    words = [word for word in source.split(" ") if len(word) > 2 and word.isalpha()]
    if not words or text.count(quote) != 1:
        return text, quote
    word = rng.choice(words)
    if rng.random() < 0.15:
        return _glued(text, quote, rng)
    wrong = misspelt(word, rng)
    pattern = re.compile(rf"\b{re.escape(word)}\b")
    new_text, new_quote = (pattern.sub(lambda _: wrong, part, count=1) for part in (text, quote))
    if new_quote not in new_text:  # the word also stands before the quote: change every one
        new_text, new_quote = (pattern.sub(lambda _: wrong, part) for part in (text, quote))
    return (new_text, new_quote) if new_quote in new_text and len(new_quote) <= 2 * QUOTE_CHARACTERS else (text, quote)


def _glued(text: str, quote: str, rng: random.Random) -> tuple[str, str]:
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    start = text.find(quote)
    inside = [i for i in spaces if start < i < start + len(quote)]
    outside = [i for i in spaces if not start - 1 <= i <= start + len(quote)]
    if inside and rng.random() < 0.6:
        at = rng.choice(inside)
        return text[:at] + text[at + 1 :], quote[: at - start] + quote[at - start + 1 :]
    if not outside:
        return text, quote
    at = rng.choice(outside)
    return text[:at] + text[at + 1 :], quote
