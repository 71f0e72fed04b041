"""Finds the headings of a policy's text, however they are marked, and what stands below each.

People mark headings as Markdown (`## Definitions`, an underlined line), in bold type, in capitals (`GOAL:`,
`INSTRUCTIONS`), between drawn rules (`====`), in brackets or as tags, with numbers or emoji before them. A level
(`SP2 (INVALID)`) is the heading of what describes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safeguard_cli.policy.rationale import CODE

# The writer chooses a section's name, but not its purpose.
SECTIONS = {
    "an instruction": r"\binstruct|\btasks?\b|\bgoals?\b|\boverview|\bobjective|\bpurpose|\bmission",
    "definitions": r"\bdefin|\bterms?\b|\bglossary|\bterminology|\bkey concepts",
    "criteria for what violates": "(?<!not )violat|prohibit|not allowed|disallow|forbidden|banned|unsafe",
    "criteria for what is safe": r"\bsafe\b|(?<!not )(?<!dis)allowed|permitted|not violat|(?<!un)(?<!not )acceptable",
    "precedence between rules": "preceden|priorit|conflict|tie.?break",
    "examples": "example",
    "what to do when it is unclear": "escalat|unclear|ambigu|unsure|uncertain|edge case|in doubt|borderline",
}

# Words before a colon that begin a line of text, not a section.
_NO_HEADING = re.compile(
    r"(?:and|or|note|nb|important|warning|caution|tip|output|input|text|content|message|post|comment|user|assistant"
    r"|answer|label|verdict|reason|rationale|why|result|classification|decision|response|true|false|yes|no|todo)s?",
    re.IGNORECASE,
)
_ATX = re.compile(r"\s{0,3}(#{1,6})\s+(.+?)[\s#]*$")
_DRAWN = re.compile(r"\s*(?:([=\-_*~#+.•▬─━═—–█])(?:\s?\1){2,})\s*$")
_BANNER = re.compile(r"\s*([=\-_*~#─━═—–▬])\1{1,}\s+(.{1,80}?)\s+\1{2,}\s*$")
_TAG = re.compile(r"\s*<(/?)([A-Za-z][\w -]{1,40})>\s*$")
_BOLD = re.compile(r"\s*(\*\*|__)(?P<title>[^*_].{0,80}?)(?:\1\s*:?|:\s*\1)\s*$")
_BRACKETS = re.compile(r"[\[【](.{2,80})[\]】]\s*:?\s*$")
_NUMBER = re.compile(r"(?:\d{1,2}|[IVX]{1,4}|[A-Z])[.)]\s+")
_SYMBOLS = re.compile(r"(?:[^\w\s\"'(\[【<>*#`=~_|\\/+\-.,:;!?“”„«»‘’‹›「」&@$%{}—–…→•]|\d\ufe0f?\u20e3)+\s*")
_ITEM = re.compile(r"\s*(?:[-*+•–▪◦‣]|\d{1,3}[.)]|[a-z][.)])\s+\S")
_LEVEL = re.compile(rf"(?:(?i:level|category|class|label|tier)\s+)?({CODE.pattern})(?=\W|$)")
_LEVEL_AFTER = re.compile(rf"[^().:]{{3,60}}\(({CODE.pattern})(?=[^\w.])[^()]{{0,60}}\)")
_MOST_WORDS = 9
_LONGEST = 300  # characters of a line that can be a heading; some patterns take the square of the time
_FRAMED, _CAPITALS, _BOLD_TYPE, _LEVELS, _PLAIN = 2, 3, 4, 7, 8  # ranks beside Markdown's 1 to 6


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a policy, with the headings that it stands below, the outermost first.

    A heading stands below itself. `own` is what the line says: of a heading, only what follows its colon.
    """

    number: int
    text: str
    headings: tuple[str, ...]
    own: str
    is_heading: bool = False

    @property
    def is_item(self) -> bool:
        """Return whether this is an item of a list, also where an emoji stands in place of its mark."""
        return not self.is_heading and bool(_ITEM.match(self.text) or _SYMBOLS.match(self.text.lstrip()))


def read_lines(texts: Sequence[str], first: int = 1) -> list[Line]:
    """Return the lines of a policy's text with their headings; `first` is the number of the first line."""
    found: list[Line] = []
    above: list[tuple[int, str]] = []  # rank and title of the headings that the line stands below
    levels = level_lines(texts)
    title_at = _title(texts)
    for at, text in enumerate(texts):
        if len(text) <= _LONGEST and (tag := _TAG.match(text)):
            above = [each for each in above if each[0] < _CAPITALS]
            above += [] if tag[1] else [(_CAPITALS, tag[2].replace("_", " "))]
            found.append(Line(first + at, text, _titles(above), "", is_heading=True))
        elif _DRAWN.match(text):
            found.append(Line(first + at, text, _titles(above), ""))
        elif heading := (_LEVELS, *levels[at]) if at in levels else _heading(texts, at):
            rank, title, own = heading
            above = [each for each in above if each[0] < rank]
            if at != title_at:
                above.append((rank, title))
            found.append(Line(first + at, text, _titles(above), own, is_heading=True))
        else:
            found.append(Line(first + at, text, _titles(above), text.strip()))
    return found


def under(lines: Iterable[Line], pattern: str) -> list[Line]:
    """Return the lines below a heading that the pattern finds, whatever stands between; the heading too."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return [line for line in lines if any(wanted.search(heading) for heading in line.headings)]


def plain(text: str) -> str:
    """Return a line without marks of headings, list items, bold type and code, and without emoji at its ends."""
    text = _ITEM_MARK.sub("", text.strip())
    text = _SYMBOLS.sub("", text, count=1) if _SYMBOLS.match(text) else text
    return text.lstrip("#>*_` \t").rstrip("#*_` \t")


_ITEM_MARK = re.compile(r"^(?:[-*+•–▪◦‣]|\d{1,3}[.)])\s+")


def level_lines(texts: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Return the lines that name a level by its code, as indices with its title and what follows on the line.

    A line counts if it is a heading of such a code (`SP2 – Likely spam`), or has a mark in parentheses after the code
    (`SP2 (INVALID)`) or the code in them (`Likely spam (SP2)`). A rule, which is an item of a list, does not. One code
    alone is no scale.
    """
    found: dict[int, tuple[str, str]] = {}
    for at, text in enumerate(texts):
        if len(text) > _LONGEST:
            continue
        bare = plain(text)
        item = _ITEM.match(text) is not None
        if _LEVEL.match(bare):
            if _is_level(bare, item):
                head, _, own = bare.partition(":")
                found[at] = (head.strip(" *_`"), own.strip(" *_`"))
        elif not item and (after := _LEVEL_AFTER.match(bare)):
            found[at] = (after[0].strip(), bare[after.end() :].strip(" :*_`"))
    codes: dict[str, set[str]] = {}
    for title, _ in found.values():
        codes.setdefault(_stem(title), set()).add(code_of(title))
    return {at: level for at, level in found.items() if len(codes[_stem(level[0])]) > 1}


def _is_level(bare: str, item: bool) -> bool:
    """Return whether a line that begins with a code names a level, not a rule or a sentence."""
    code = _LEVEL.match(bare)
    assert code is not None
    rest = bare[code.end() :].lstrip("*_`")
    marked = re.match(r"\s*\(([^()]{1,40})\)", rest)
    if item:
        return bool(marked and re.search(r"valid|safe|allow|violat|block", marked[1], re.IGNORECASE))
    return bool(marked or re.match(r"\s*(?:[:.)]|[-–—]\s|$)", rest))


def code_of(title: str) -> str:
    """Return the code that a level's title begins with or has in parentheses, empty if there is none."""
    found = _LEVEL.match(title) or _LEVEL_AFTER.match(title)
    return found[1] if found else ""


def _stem(title: str) -> str:
    return re.sub(r"\d.*", "", code_of(title))


def _titles(above: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(title for _, title in above)


def _title(texts: Sequence[str]) -> int | None:
    """Return the place of the policy's title, which is no section: a first heading that says so, or marked alone."""
    at = next((at for at, text in enumerate(texts) if text.strip() and not _DRAWN.match(text)), None)
    if at is None or (heading := _heading(texts, at)) is None or heading[2]:
        return None
    if _OF_A_WHOLE.search(heading[1]):
        return at
    top = [other for other in texts[at + 1 :] if (found := _ATX.match(other)) and found[1] == "#"]
    return at if heading[0] == 1 and not top else None


_OF_A_WHOLE = re.compile(r"\b(?:policy|policies|guidelines?|rules|standards?|classifier|moderation)\b", re.IGNORECASE)


def _heading(texts: Sequence[str], at: int) -> tuple[int, str, str] | None:
    """Return a heading's rank, its title and what follows on its line; None for any other line."""
    text = texts[at]
    if len(text) > _LONGEST:
        return None
    if found := _ATX.match(text):
        return len(found[1]), plain(found[2]).rstrip(": "), ""
    if found := _BANNER.match(text):
        return _FRAMED, plain(found[2]).rstrip(": "), ""
    if not text.strip() or _is_answer(texts, at):
        return None
    bare = _SYMBOLS.sub("", text.strip(), count=1) if _SYMBOLS.match(text.strip()) else text.strip()
    short = len(bare.split()) <= _MOST_WORDS and not bare.endswith((".", ",", ";"))
    item = _ITEM.match(text) and not _NUMBER.match(bare)
    if short and not item and _is_framed(texts, at):
        return _FRAMED, plain(bare).rstrip(": "), ""
    if found := _BOLD.match(bare):
        return _BOLD_TYPE, plain(found["title"]).rstrip(": "), ""
    bare = _NUMBER.sub("", bare)
    if found := _BRACKETS.match(bare):
        bare = found[1]
    return None if item else _of_words(plain(bare))


def _of_words(bare: str) -> tuple[int, str, str] | None:
    """Return the heading that a line without marks is by its words alone: in capitals, or a known one with a colon."""
    title, colon, own = bare.partition(":")
    title, own = title.strip(" *_`"), own.strip(" *_`")
    words = re.sub(r"\([^)]*\)", "", title)
    letters = [char for char in words if char.isalpha()]
    if not letters or len(title.split()) > _MOST_WORDS or _NO_HEADING.fullmatch(title):
        return None
    if len(letters) > 2 and all(char.isupper() or char.lower() == char.upper() for char in letters):
        return (_CAPITALS, title, own) if colon or not title.endswith((".", "!", "?", ",", ";", '"')) else None
    find = re.match if own else re.search  # a line with more on it is a heading only if it begins with the word
    known = colon and any(find(pattern, title, re.IGNORECASE) for pattern in SECTIONS.values())
    return (_PLAIN, title, own) if known and len(title.split()) <= 5 else None


def _is_framed(texts: Sequence[str], at: int) -> bool:
    """Return whether a drawn rule stands right below a line that begins a paragraph, or rules on both sides of it."""
    above, below = texts[at - 1] if at else "", texts[at + 1] if at + 1 < len(texts) else ""
    return bool(_DRAWN.match(below)) and (not above.strip() or bool(_DRAWN.match(above)))


def _is_answer(texts: Sequence[str], at: int) -> bool:
    """Return whether a line is the answer that the line above it announces, as VALID below `Output:` is."""
    before = next((text for text in reversed(texts[max(0, at - 2) : at]) if text.strip()), "")
    return re.fullmatch(r"\W*(?:output|answer|label|verdict|response)\W*", before, re.IGNORECASE) is not None
