"""Finds the words that some texts share and others lack, with Fisher's exact p for each."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LEAST = 2  # texts that have a word
MOST = 10  # words that are returned
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True, slots=True)
class Shared:
    """A word, the places of the texts that have it, how many of the other texts do, and Fisher's one-sided p.

    `p` is multiplied by the number of words that were looked at (Bonferroni), so that 0.05 means what it should.
    """

    text: str
    rows: tuple[int, ...]
    elsewhere: int
    p: float


def words(text: str) -> Iterator[str]:
    """Yield the words of a text without case; of scripts that write no spaces, each two characters in a row."""
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        run = _UNSPACED.search(word)
        if run is None or len(word) < 2:
            yield word
        else:
            yield from (word[at : at + 2] for at in range(len(word) - 1))


def shared_words(texts: Sequence[str], others: Sequence[str]) -> list[Shared]:
    """Return the words that `texts` have more often than `others`, the least likely to be chance first."""
    from scipy.stats import hypergeom

    at: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        for word in set(words(text)):
            at[word].append(place)
    seen: dict[str, int] = defaultdict(int)
    for text in others:
        for word in at.keys() & set(words(text)):
            seen[word] += 1
    tried = [word for word, rows in at.items() if len(rows) >= LEAST]
    found = []
    for word in tried:
        k, elsewhere = len(at[word]), seen[word]
        if not others or k / len(texts) > elsewhere / len(others):
            p = hypergeom.sf(k - 1, len(texts) + len(others), k + elsewhere, len(texts))
            found.append(Shared(word, tuple(at[word]), elsewhere, min(1.0, float(p) * len(tried))))
    found.sort(key=lambda one: (one.p, -len(one.rows), one.elsewhere, one.text))
    return found[:MOST]
