"""Which rows a report shows: identical and nearly identical texts are shown once, with how many there are.

Mass messages differ in a name, a number, a link. Texts are compared without case, digits, links and punctuation, and
then by the runs of words, or of letters in short texts and in languages without spaces, that both have.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

ALIKE = 0.6  # of the runs that either of two texts has, those that both must have
COMPARED = 2000  # different texts that are compared with those shown; of further ones only identical texts are found
READ_CHARACTERS = 2000  # of a text
_LINK = re.compile(r"(?:https?://|www\.)\S+")
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"\w+")
_FEW_WORDS, _WORDS, _LETTERS = 6, 3, 4  # from so many words on runs are of words; and the lengths of runs


@dataclass(slots=True)
class Example:
    """A row that is shown, by its place among the given ones; `more` are further rows with a text like it."""

    place: int
    more: int = 0


def fold(texts: Iterable[str], most: int) -> list[Example]:
    """Return at most `most` of the texts, the first ones that are not like an earlier one."""
    shown: list[tuple[frozenset[str], Example]] = []
    known: dict[str, Example | None] = {}  # of what each normal text is an example
    for place, text in enumerate(texts):
        normal = _normal(text)
        if normal in known:
            if example := known[normal]:
                example.more += 1
            continue
        runs = _runs(normal) if len(known) < COMPARED else frozenset()
        same = next((example for other, example in shown if _alike(runs, other)), None)
        if same:
            same.more += 1
        elif len(shown) < most:
            same = Example(place)
            shown.append((runs, same))
        known[normal] = same
    return [example for _, example in shown]


def _normal(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text[:READ_CHARACTERS]).casefold()
    words = _WORD.findall(_NUMBER.sub("0", _LINK.sub(" ", plain)))
    return " ".join(words) or text[:READ_CHARACTERS]


def _runs(normal: str) -> frozenset[str]:
    words = normal.split(" ")
    if len(words) >= _FEW_WORDS:
        return frozenset(" ".join(words[at : at + _WORDS]) for at in range(len(words) - _WORDS + 1))
    return frozenset(normal[at : at + _LETTERS] for at in range(max(1, len(normal) - _LETTERS + 1)))


def _alike(a: frozenset[str], b: frozenset[str]) -> bool:
    if min(len(a), len(b)) < ALIKE * max(len(a), len(b)) or not a:
        return False
    both = len(a & b)
    return both >= ALIKE * (len(a) + len(b) - both)
