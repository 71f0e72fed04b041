"""Finds the labels that a policy's text answers with, for a policy that names none in front matter.

Published policies say them in their own ways: in an order to answer ("Return VALID or INVALID"), below their examples
(`Output: SP2`), in the headings of their criteria (`VIOLATES (1)`), or as the codes of their levels (`SP0 (VALID)`).
Nothing is guessed: where the text leaves it open, a question is returned in place of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safeguard_cli.policy.front_matter import split_lines
from safeguard_cli.policy.rationale import CODE
from safeguard_cli.policy.sections import SECTIONS, Line, code_of, level_lines, plain, read_lines, under

MOST_LABELS = 12
LOOKED_AT = 2000  # characters of a line
_QUOTES = "\"'`“”„‘’«»"
_KEY = r"(?:expected |correct |final |model )?(?:output|answer|label|verdict|response|decision|classification|result)"
_ANSWER = re.compile(rf"\W*(?:{_KEY})\s*(?:[:=]|→|->|is)\s*(.+)$", re.IGNORECASE)
_ARROW = re.compile(r"(?:→|⇒|->|=>|➜|➡️?)\s*(.+)$")
_JSON = re.compile(
    r"[\"'](?:label|violation|violates|verdict|classification|answer|decision|category)[\"']\s*:\s*([^,}]+)"
)
_ORDER = re.compile(
    r"\b(?:answer|return|respond|reply|output|classify|label|choose|pick|assign|mark|say|emit|write|print|select"
    r"|must read)\w*\b",
    re.IGNORECASE,
)
_LABEL = r"[A-Za-z0-9][\w+-]*"
_QUOTED = re.compile(rf"[{_QUOTES}]({_LABEL}(?: ?[+&/] ?{_LABEL}| {_LABEL}){{0,2}})[{_QUOTES}]")
_BARE = re.compile(rf"\b({CODE.pattern[2:-2]}|[A-Z][A-Z]+(?:[_-][A-Z]+)*(?: \+ [A-Z]{{2,}})*|[01])\b(?!\.?\d)")
_ACRONYMS = frozenset(  # words in capitals that an order to answer holds beside its labels
    (
        *("JSON", "YAML", "XML", "AI", "LLM", "URL", "PII", "HTML", "API", "SMS", "USA", "US", "UK", "EU", "FAQ"),
        *("NOT", "AND", "OR", "ONLY", "ONE", "IF", "THE", "A", "AN", "NO", "TO", "OF", "IN", "IS", "AS", "BE", "ANY"),
        *("ALL", "NEVER", "ALWAYS", "MUST", "DO", "EXACTLY", "SINGLE", "WITH", "NOTE", "ELSE", "OTHERWISE", "EITHER"),
        *("LABEL", "OUTPUT", "ANSWER", "RETURN", "RESPOND", "TEXT", "CONTENT", "INPUT", "WORD", "LEVEL", "CODE"),
        *(
            "FORMAT",
            "FINAL",
            "THEN",
            "WHEN",
            "WHICH",
            "FOR",
            "EXAMPLE",
            "EXAMPLES",
            "EACH",
            "ITEM",
            "POLICY",
            "MESSAGE",
        ),
    )
)
_CHOICE = re.compile(r"[\[(<{]([A-Z0-9][A-Z0-9_ +-]*(?:\s*[/|]\s*[A-Z0-9_ +-]+)+)[\])>}]")  # such as [ALLOW / BLOCK]
_KEYS = frozenset(
    (
        "label",
        "labels",
        "rule",
        "rules",
        "reason",
        "rationale",
        "category",
        "confidence",
        "score",
        "violation",
        "verdict",
    )
)
_MARK = re.compile(r"\(([^()]{1,40})\)")
_SAFE = re.compile(
    r"(?:(?:not?|non)[ -]\w+|valid|safe|allow(?:ed)?|ok(?:ay)?|benign|ham|clean|pass|accept(?:ed|able)?|permit(?:ted)?"
    r"|approved?|keep|legit(?:imate)?|compliant|harmless|neutral|normal|fine|none|no|negative|false|0|honest)",
    re.IGNORECASE,
)
_BAD = re.compile(
    r"(?:invalid|unsafe|disallow(?:ed)?|not[ -]allowed|violat\w*|block(?:ed)?|reject(?:ed)?|removed?|deleted?"
    r"|ban(?:ned)?|prohibited|malicious|harmful|hateful|toxic|spam|scam|fraud(?:ulent)?|phishing|illegal|abusive|abuse"
    r"|deny|denied|non-?compliant|high[ -]?risk|unacceptable|yes|positive|true|1|invalid \+ escalate|escalated?)",
    re.IGNORECASE,
)
_FROM_ON = re.compile(
    rf"\b({CODE.pattern[2:-2]})\s*(?:\+|and (?:above|higher|up|over)|or (?:above|higher|more)|and everything above)"
)
_RANGE = re.compile(rf"\b({CODE.pattern[2:-2]})\s*(?:-|–|—|to|through)\s*({CODE.pattern[2:-2]})\b")


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """The labels of a text, those that violate, and where they stand; `question` is what the text leaves open.

    Without `labels`, the text names none, or several sets of them: then the question names these.
    """

    labels: tuple[str, ...] = ()
    violates: tuple[str, ...] = ()
    line: int = 0
    question: str = ""
    answer_with: tuple[str, ...] = ()  # options that answer the question, as an example

    @property
    def sure(self) -> bool:
        return bool(self.labels and self.violates and not self.question)


@dataclass(frozen=True, slots=True)
class _Said:
    """Labels that the text names in one of its ways, in their order, and the first line that does."""

    labels: tuple[str, ...]
    line: int
    how: str


def find_labels(text: str, first: int = 1, *, labels: Sequence[str] = (), violates: Sequence[str] = ()) -> FoundLabels:
    """Return the labels that a policy's text answers with; `labels` and `violates`, if given, are the answers to that.

    `first` is the number of the text's first line.
    """
    texts = [line[:LOOKED_AT] for line in split_lines(text)]
    lines = read_lines(texts, first)
    levels = _levels(texts, first)
    if labels:
        return _with_violating(tuple(labels), first, lines, levels, violates)
    ways = [way for way in _ways(lines, levels) if 2 <= len(way.labels) <= MOST_LABELS]
    if not ways:
        return FoundLabels(
            question="which labels does it answer with", answer_with=("--labels", "A,B", "--violates", "B")
        )
    answers = _agreed(ways)
    if answers is None:
        sets = dict.fromkeys(way.labels for way in ways)
        lines_of = {way.labels: way.line for way in reversed(ways)}
        offered = " or ".join(f"{', '.join(each)} (line {lines_of[each]})" for each in sets)
        return FoundLabels(
            line=ways[0].line,
            question=f"does it answer with {offered}",
            answer_with=("--labels", ",".join(next((way for way in ways if way.how == "order"), ways[0]).labels)),
        )
    return _with_violating(answers.labels, answers.line, lines, levels, violates)


def _agreed(ways: Sequence[_Said]) -> _Said | None:
    """Return the labels in which the surest ways agree, None if they do not.

    Examples need not show every label that an order to answer names, but a label beside these is a contradiction, and
    so are two orders with other labels.
    """
    outputs = next((way for way in ways if way.how == "outputs"), None)
    orders = [way for way in ways if way.how == "order"]
    if len(orders) > 1:
        return None
    if outputs and orders:
        return orders[0] if set(outputs.labels) <= set(orders[0].labels) else None
    if outputs or orders:
        return outputs or orders[0]
    return ways[0] if len({frozenset(way.labels) for way in ways}) == 1 else None


def _ways(lines: Sequence[Line], levels: dict[str, tuple[int, str]]) -> list[_Said]:
    """Return all the ways in which the text names labels, the surest first."""
    codes = tuple(levels)
    outputs: dict[str, int] = {}
    heads: dict[str, int] = {}
    for line in lines:
        if answer := _answer_of(line):
            outputs.setdefault(answer, line.number)
    for section in ("criteria for what is safe", "criteria for what violates"):
        for line in under(lines, SECTIONS[section]):
            title = line.headings[-1] if line.headings else ""
            found = _MARK.search(title)
            if line.is_heading and found and not code_of(title) and _is_label(found[1]):
                heads.setdefault(found[1].strip(_QUOTES + " "), line.number)
    marks = {mark: line for line, mark in levels.values() if mark}
    said = [_Said(tuple(_whole(outputs, codes)), min(outputs.values()), "outputs")] if outputs else []
    said += [_Said(tuple(_whole(labels, codes)), line, "order") for labels, line in _orders(lines, codes)]
    said += [
        _Said(tuple(found), min(found.values()), how) for found, how in ((heads, "headings"), (marks, "marks")) if found
    ]
    if codes:
        said.append(_Said(codes, next(iter(levels.values()))[0], "levels"))
    return [_Said(_safe_first(way.labels, codes), way.line, way.how) for way in said]


def _orders(lines: Sequence[Line], codes: Sequence[str]) -> list[tuple[list[str], int]]:
    """Return the sets of labels that orders to answer name, none of which is part of another, with their lines."""
    found = [
        (_ordered(line, lines[at + 1 : at + 2 + MOST_LABELS], codes), line.number) for at, line in enumerate(lines)
    ]
    single: dict[str, int] = {}
    for labels, number in found:
        if len(set(labels)) == 1:
            single.setdefault(labels[0], number)
    whole = [(list(dict.fromkeys(labels)), number) for labels, number in found if len(set(labels)) > 1]
    largest: list[tuple[list[str], int]] = []
    for labels, number in sorted(whole, key=lambda each: (-len(each[0]), each[1])):
        if not any(set(labels) <= set(other) for other, _ in largest):
            largest.append((labels, number))
    return largest or ([([*single], min(single.values()))] if len(single) > 1 else [])


def _whole(found: Iterable[str], codes: Sequence[str]) -> list[str]:
    """Return the labels, all levels if they are some of these: not every level needs an example."""
    named = [*found]
    return [*codes] if codes and set(named) <= set(codes) else named


def _safe_first(labels: tuple[str, ...], codes: Sequence[str]) -> tuple[str, ...]:
    if set(labels) <= set(codes):
        return tuple(code for code in codes if code in labels)
    return tuple(sorted(labels, key=lambda label: (_kind(label) == "bad") - (_kind(label) == "safe")))


def _levels(texts: Sequence[str], first: int) -> dict[str, tuple[int, str]]:
    """Return the codes of the levels, in their order, each with its line and the mark in parentheses after it."""
    found: dict[str, tuple[int, str]] = {}
    for at, (title, _) in level_lines(texts).items():
        code, mark = code_of(title), _MARK.search(title)
        said = mark[1].strip() if mark and title.startswith(code) else ""
        if code not in found or (said and not found[code][1]):
            found[code] = (found.get(code, (first + at, ""))[0], said)
    if len(found) > MOST_LABELS:  # rules with codes, not a scale
        return {}
    return dict(sorted(found.items(), key=lambda each: [int(n) for n in re.findall(r"\d+", each[0])]))


def _answer_of(line: Line) -> str:
    """Return the label that a line gives as an example's answer, empty if it gives none."""
    if found := _JSON.search(line.text):
        return _token(found[1])
    if found := _ANSWER.match(plain(line.text)):
        return _token(found[1])
    of_example = any(re.search("example", each, re.IGNORECASE) for each in line.headings)
    if (found := _ARROW.search(line.text)) and (of_example or plain(line.text)[:1] in _QUOTES):
        return _token(re.split(r"[,;(]|\s[-–—]\s", found[1])[0])
    return ""


def _token(text: str) -> str:
    """Return the label that a text is, without quotes and marks; empty if it is more than a label."""
    bare = re.split(r"[,;(]|\s[-–—]\s", text.strip().strip("*_ "))[0].strip(_QUOTES + " .*_{}[]")
    return bare if _is_label(bare) else ""


def _is_label(text: str) -> bool:
    bare = text.strip(_QUOTES + " ")
    if re.fullmatch(_LABEL, bare):
        return bare.upper() not in _ACRONYMS or bare.islower() or len(bare) == 1
    return re.fullmatch(r"[A-Z]{2,}(?: ?\+ ?[A-Z]{2,}| [A-Z]{2,}){1,2}", bare) is not None


def _ordered(line: Line, below: Sequence[Line], codes: Sequence[str]) -> list[str]:
    """Return the labels that an order to answer names, on its line or in the list below it."""
    if any(re.search("example", each, re.IGNORECASE) for each in line.headings):
        return []
    if choice := _CHOICE.search(line.text):
        items = [_token(item) for item in re.split(r"[/|]", choice[1])]
        return items if all(items) else []
    if not (found := _ORDER.search(line.text)):
        return []
    if _ANSWER.match(plain(line.text)) and _answer_of(line):
        return []
    rest = line.text[found.end() :]
    labels = _named(rest, codes)
    if not labels and line.text.rstrip().endswith(":"):
        for item in below:
            if item.text.lstrip().startswith(("```", "{")):
                break
            head = _token(re.split(r"[:(=]|\s[-–—]\s| if | for | when ", plain(item.text))[0])
            if item.text.strip() and not head:
                break
            labels += [head] if head else []
    return labels


def _named(text: str, codes: Sequence[str]) -> list[str]:
    """Return the labels that an order names: quoted ones, else words in capitals, codes, 0 and 1."""
    if span := _RANGE.search(text):
        both = [span[1], span[2]]
        return both if set(both) <= set(codes) else []
    quoted = [label for label in _QUOTED.findall(text) if _is_label(label) and label.lower() not in _KEYS]
    if len(set(quoted)) > 1:
        return quoted
    found = [label for label in _BARE.findall(text) if label not in _ACRONYMS]
    return [label for label in found if not CODE.fullmatch(label) or label in codes]


def _kind(label: str) -> str:
    """Return `bad` or `safe` for a label whose word says it, else an empty text."""
    bare = label.strip(_QUOTES + " .").replace("_", " ")
    bad, safe = _BAD.fullmatch(bare), _SAFE.fullmatch(bare)
    return "bad" if bad else "safe" if safe else ""


def _with_violating(
    labels: tuple[str, ...],
    line: int,
    lines: Sequence[Line],
    levels: dict[str, tuple[int, str]],
    violates: Sequence[str],
) -> FoundLabels:
    """Return the labels with those of them that violate: as given, by the marks of levels, by sections, by words."""
    if violates:
        return FoundLabels(labels, tuple(violates), line)
    for kinds in (_kinds_of_levels(labels, lines, levels), _kinds_of_sections(labels, lines), map(_kind, labels)):
        known = dict(zip(labels, kinds, strict=True))
        if len(labels) == 2 and "" in known.values() and set(known.values()) != {""}:  # one says what the other is
            other = next(iter({"bad", "safe"} - set(known.values())))
            known = {label: kind or other for label, kind in known.items()}
        if all(known.values()) and len(set(known.values())) == 2:
            return FoundLabels(labels, tuple(label for label in labels if known[label] == "bad"), line)
    example = ("--violates", f">= {labels[len(labels) // 2]}" if len(labels) > 2 else labels[-1])
    return FoundLabels(labels, (), line, f"which of its labels violate: {', '.join(labels)}", answer_with=example)


def _kinds_of_levels(labels: Sequence[str], lines: Sequence[Line], levels: dict[str, tuple[int, str]]) -> list[str]:
    """Return what each level is: by its mark, else by a sentence such as `SP2 and above are INVALID`."""
    kinds = [_kind(levels[label][1]) if label in levels else "" for label in labels]
    if all(kinds) or not set(labels) <= set(levels):
        return kinds
    order = [*labels]
    for line in lines:
        bad = re.search(r"violat|invalid|block|remov|unsafe|not allowed|disallow|escalat", line.text, re.IGNORECASE)
        if bad and (found := _FROM_ON.search(line.text)) and found[1] in order:
            at = order.index(found[1])
            return ["safe"] * at + ["bad"] * (len(order) - at)
        spans = [found for found in _RANGE.finditer(line.text) if {found[1], found[2]} <= set(order)]
        if bad and spans:
            told = dict.fromkeys(order, "")
            for span in spans:
                after = re.split(rf"[;.]|{CODE.pattern}", line.text[span.end() :])[0]
                kind = next((kind for word in re.findall(r"[\w-]+", after) if (kind := _kind(word))), "")
                told |= dict.fromkeys(order[order.index(span[1]) : order.index(span[2]) + 1], kind)
            if all(told.values()):
                return [*told.values()]
    return kinds


def _kinds_of_sections(labels: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """Return what each label is by the section whose heading names it in parentheses, as in `VIOLATES (1)`."""
    told: dict[str, set[str]] = {label: set() for label in labels}
    for section, kind in (("criteria for what is safe", "safe"), ("criteria for what violates", "bad")):
        for line in under(lines, SECTIONS[section]):
            found = _MARK.search(line.headings[-1]) if line.is_heading else None
            if found and (label := found[1].strip(_QUOTES + " ")) in told:
                told[label].add(kind)
    return [next(iter(kinds)) if len(kinds) == 1 else "" for kinds in told.values()]
