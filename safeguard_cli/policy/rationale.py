"""Checks what a rationale refers to: whether its rules are the policy's, and its quotes from the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

CODE = re.compile(r"\b[A-Z]{1,5}-?\d+(?:\.[a-z0-9]+)?\b")  # a rule's code, such as SP1 or H2.f
_QUOTE = re.compile(r'"([^"]+)"|[“„]([^“”]+)[“”]|«([^«»]+)»|「([^「」]+)」')
_ELLIPSIS = re.compile(r"\.{3,}|…|\[[….]+\]")
_EDGES = " .,;:!?-"
_MARKS = " \t#*-|>`"  # of Markdown, around a line
_AFTER_CODE = " .:)|–—-"


@dataclass(frozen=True, slots=True)
class References:
    """What one rationale cites and quotes.

    `unknown_codes` are in neither policy nor text. `policy_quotes` stand in the policy but not in the text,
    `unknown_quotes` in neither. A quoted label does not count as a quote.
    """

    codes: tuple[str, ...]
    unknown_codes: tuple[str, ...]
    quotes: tuple[str, ...]
    policy_quotes: tuple[str, ...]
    unknown_quotes: tuple[str, ...]

    @property
    def invents(self) -> bool:
        return bool(self.unknown_codes or self.unknown_quotes)


def references(rationale: str, content: str, policy: str, labels: Sequence[str]) -> References:
    """Look up everything that a rationale refers to; quotes match without case, extra blanks and edge punctuation."""
    outside = _QUOTE.sub(" ", rationale)  # a quoted code is not a citation
    content_codes = set(CODE.findall(content))
    codes = tuple(dict.fromkeys(code for code in CODE.findall(outside) if code not in content_codes))
    known = set(CODE.findall(policy))
    content_words, policy_words = _plain(content), _plain(policy)
    quotes = tuple(quote for found in _QUOTE.findall(rationale) if (quote := "".join(found)) not in labels)
    elsewhere = [quote for quote in quotes if not _stands(quote, content_words)]
    return References(
        codes,
        tuple(code for code in codes if code not in known),
        quotes,
        tuple(quote for quote in elsewhere if _stands(quote, policy_words)),
        tuple(quote for quote in elsewhere if not _stands(quote, policy_words)),
    )


def rules_of(policy: str) -> dict[str, str]:
    """Return the rules that a policy names by their codes, each with what its first line says, without marks."""
    found: dict[str, str] = {}
    for line in policy.splitlines():
        text = line.replace("**", "").strip(_MARKS)
        for code in CODE.findall(line):
            found.setdefault(code, text.removeprefix(code).lstrip(_AFTER_CODE) or text)
    return found


def _stands(quote: str, text: str) -> bool:
    """Return whether the quote stands in the text; if it has ellipses, whether each part does."""
    return all(_plain(part).strip(_EDGES) in text for part in _ELLIPSIS.split(quote))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
