"""`safeguard policy check`: what is wrong in a policy, and what would make it read better, by line number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeguard_cli import errors
from safeguard_cli.policy.front_matter import PolicyError, PolicyFile, UnreadableError, split_lines
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import DEFAULT_LABELS, Policy, make_policy, mentions, read_policy
from safeguard_cli.policy.published import find_labels
from safeguard_cli.policy.rationale import CODE
from safeguard_cli.policy.sections import SECTIONS, Line, code_of, plain, read_lines, under
from safeguard_cli.terminal import annotate, fail, note, safe, shell_line

BEST_TOKENS = (400, 600)  # the model's makers say that this length reads best
SLACK = 0.1  # the count is an estimate: only the real model comes with the real vocabulary
BYTES_PER_TOKEN = 4.0  # o200k on English policies: 3.84 to 4.18 on the built-in ones
EXAMPLES = (4, 6)

VAGUE = (
    "inappropriate|unacceptable|questionable|problematic|offensive|generally|typically|usually|somewhat|excessive|undue"
    r"|reasonable|common sense|use your judge?ment|as needed|if possible|and so on|etc\.?|things like that"
)
_VAGUE = re.compile(rf"\b(?:{VAGUE})(?![\w])", re.IGNORECASE)
_RULE = re.compile(rf"\s*(?:[-*+•–▪◦‣]|\d{{1,3}}[.)])?\s*\W*({CODE.pattern})(?=\W*\s)")
_NEGATION = re.compile(r"(?:in|un|non|not|dis|il|im|ir|a|no)[ _-]?")  # before a label, it makes the other one
_ANSWER = re.compile(r"\W*(?:output|answer|label|verdict|response|decision|classification)\b", re.IGNORECASE)
_ANSWERED = re.compile(r"→|->|=>|\b(?:output|answer|label|verdict|response|decision|classification)\b", re.IGNORECASE)
_EXAMPLE = re.compile(r"[\"“„«‘']|(?:input|text|content|message|post|example|user|case)\b[^:]{0,20}:", re.IGNORECASE)
_MARKER = re.compile(r"<\|[^|>\n]{0,40}\|>")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something at a line of the file: a defect, or advice that makes most policies read better."""

    line: int
    message: str
    defect: bool = False


def tokens(text: str) -> int:
    """Return about how many tokens of the real vocabulary a policy has."""
    return round(len(text.encode()) / BYTES_PER_TOKEN)


def check(name_or_path: str) -> tuple[Path, list[Finding]]:
    """Lint a policy; return its path and the findings, by line, or raise UnreadableError if there is no such file."""
    try:
        file = read_policy(name_or_path)
        policy: Policy | None = make_policy(file)
    except UnreadableError:
        raise
    except PolicyError as problem:
        return problem.path, [Finding(problem.line or 1, problem.reason, defect=True)]
    found: list[Finding] = []
    if "labels" not in file.front:
        policy, found = _unnamed(file)
    lines = read_lines(split_lines(file.text), file.first)
    labels = policy.labels if policy else ()
    safe_ones = [label for label in labels if policy and label not in policy.violates]
    violating = _criteria(lines, "criteria for what violates", policy.violates if policy else ())
    others = _criteria(lines, "criteria for what is safe", safe_ones)
    found += _sections(lines, violating, others)
    if policy:
        found += _labels(policy, file.at.get("labels", 1), file.at.get("violates", 1))
        found += _examples(policy, lines)
    found += _rules(lines, violating, others)
    found += _words(lines, file.lines)
    found += _length(file.text, file.first)
    if not file.front.get("description"):
        found.append(Finding(1, "no description in the front matter: say in one line what this policy finds"))
    return file.path, sorted(set(found))


def _unnamed(file: PolicyFile) -> tuple[Policy | None, list[Finding]]:
    """Return the policy that a file without `labels` seems to mean, None if it is unclear, and what is wrong with it.

    Such a policy has the labels 0 and 1, which is right only if its text answers with these.
    """
    meant = find_labels(file.text, file.first)
    if set(meant.labels) == set(DEFAULT_LABELS) or not (meant.labels or meant.line):
        return make_policy(file), []
    why = "no front matter names its labels, so they are 0 and 1; "
    fix = ["safeguard", "policy", "check", "--fix", str(file.path)]
    if not meant.sure:
        question = f"{why}{meant.question}? {shell_line([*fix, *meant.answer_with])} writes the answer there"
        return None, [Finding(meant.line or 1, question, defect=True)]
    said = f"the text answers with {', '.join(meant.labels)}: {shell_line(fix)} writes these there"
    policy = make_policy(file, labels=meant.labels, violates=meant.violates)
    return policy, [Finding(meant.line, why + said, defect=True)]


def _criteria(lines: Sequence[Line], section: str, labels: Sequence[str]) -> list[Line]:
    """Return the lines below a heading that says what violates, or what is safe, or names a label that does."""
    words = [rf"(?<!\w){re.escape(label)}(?!\w)" if len(label) > 1 else rf"\({re.escape(label)}\)" for label in labels]
    named = re.compile("|".join([*words, r"(?!)"]))
    wanted = re.compile(SECTIONS[section], re.IGNORECASE)
    return [
        line
        for line in lines
        if any(wanted.search(each) or named.search(each) for each in line.headings) and not _is_example(line)
    ]


def _is_example(line: Line) -> bool:
    return any(re.search(SECTIONS["examples"], each, re.IGNORECASE) for each in line.headings)


def _sections(lines: Sequence[Line], violating: list[Line], others: list[Line]) -> Iterator[Finding]:
    last = lines[-1].number
    known = {"criteria for what violates": violating, "criteria for what is safe": others}
    for section, pattern in SECTIONS.items():
        below = known.get(section) or under(lines, pattern)
        if not below:
            yield Finding(last, f"no section with {section}")
        elif not any(line.own for line in below):
            yield Finding(below[0].number, f"the section with {section} is empty", defect=True)


def _labels(policy: Policy, line: int, violates: int) -> Iterator[Finding]:
    if set(policy.violates) == set(policy.labels):
        yield Finding(violates, "every label violates; leave one for what is safe", defect=True)
    for label in policy.labels:
        if not mentions(policy.text, label):
            yield Finding(line, f"the label {label!r} is never mentioned in the text, spelled like this", defect=True)
        for other in policy.labels:
            at = other.lower().find(label.lower())
            if label != other and at >= 0 and not _NEGATION.fullmatch(other.lower()[:at]):
                yield Finding(
                    line, f"the label {label!r} stands inside {other!r}: readers and models confuse them; rename one"
                )


def _rules(lines: Sequence[Line], violating: list[Line], others: list[Line]) -> Iterator[Finding]:
    """Check that rules have codes, that no two share one, and that every cited code is a rule's.

    A level, whose code is in a heading, defines it too; lists that name levels again define nothing.
    """
    defined: dict[str, int] = {}
    levels = {
        code for line in lines if line.is_heading and (code := code_of(line.headings[-1] if line.headings else ""))
    }
    for below, section in ((violating, "what violates"), (others, "what is safe")):
        rules = [line for line in below if not line.is_heading]
        coded = [(line.number, found[1]) for line in rules if (found := _RULE.match(line.text))]
        if below and not coded and not levels:
            yield Finding(
                below[0].number, f"the criteria for {section} have no rule codes, such as AB1, for a rationale to cite"
            )
        for number, code in coded:
            if code not in levels and defined.setdefault(code, number) != number:
                yield Finding(number, f"the rule code {code} is already used in line {defined[code]}", defect=True)
    known = defined.keys() | levels | {found[1] for line in lines if (found := _RULE.match(line.text))}
    stems = {_stem(code) for code in known}
    for line in lines:
        for code in CODE.findall(line.text):
            if code not in known and _stem(code) in stems:
                yield Finding(line.number, f"there is no rule {code}", defect=True)


def _stem(code: str) -> str:
    return re.sub(r"[-\d].*", "", code)


def _examples(policy: Policy, lines: Sequence[Line]) -> Iterator[Finding]:
    examples = _in_sections(lines)
    if not examples:
        return
    items = [item for section in examples for item in section]
    first = next(line for line in lines if _is_example(line))
    # A scale has examples of each level, so that there are more of them.
    if len(items) < EXAMPLES[0] or (len(examples) == 1 and len(items) > EXAMPLES[1]):
        yield Finding(
            first.number, f"{_count(len(items), 'example')}; {EXAMPLES[0]} to {EXAMPLES[1]} near the boundary help"
        )
    shown = set()
    for number, text in items:
        named = {label for label in policy.labels if mentions(text, label)}
        shown |= named
        if not named:
            yield Finding(number, "this example does not say which label is right")
    if items and not shown.intersection(policy.violates):
        yield Finding(first.number, "no example violates")
    if items and not shown.difference(policy.violates):
        yield Finding(first.number, "no example is safe: show something that looks like a violation but is not one")


def _in_sections(lines: Sequence[Line]) -> list[list[tuple[int, str]]]:
    """Return the examples of each section that has some: the line, and all the text that can name the right label.

    An example is an item of a list, a line in quotes, or one that begins with a word such as `Input:`. What follows it
    up to the next one belongs to it; what ends a list, such as `Output: VALID`, and the headings above hold for all.
    """
    found: list[list[tuple[int, str]]] = []
    inside = False
    for line in lines:
        if not _is_example(line):
            inside = False
            continue
        if not inside:
            found.append([])
        inside, texts = True, found[-1]
        above = " ".join(line.headings)
        if line.is_item or _EXAMPLE.match(plain(line.text)):
            texts.append((line.number, f"{line.text} {above}"))
        elif texts and line.own:
            listed = line.text and _ANSWER.match(plain(line.text)) and len(texts) > 1 and _one_list(texts, line.number)
            held = range(len(texts)) if listed else range(len(texts) - 1, len(texts))
            for at in held:
                texts[at] = (texts[at][0], f"{texts[at][1]} {line.text}")
    return [section for section in found if section]


def _one_list(texts: Sequence[tuple[int, str]], number: int) -> bool:
    """Return whether the examples so far stand line below line, so that one answer below them holds for all."""
    return number - texts[0][0] <= len(texts) + 1 and not any(_ANSWERED.search(text) for _, text in texts)


def _words(lines: Sequence[Line], whole: Sequence[str]) -> Iterator[Finding]:
    for line in lines:
        if _is_example(line):
            continue
        for word in _VAGUE.findall(re.sub(r'"[^"]*"', "", line.text)):
            yield Finding(line.number, f"{word!r} is vague: say what a reader would see in the text")
    for number, text in enumerate(whole, 1):
        if marker := _MARKER.search(text):
            said = f"{marker[0]} spells a control token; to the model it is plain text that misleads"
            yield Finding(number, said, defect=True)
        if re.search(r"\bTODO\b", text):
            yield Finding(number, "TODO: this is not written yet", defect=True)


def _length(text: str, first: int) -> Iterator[Finding]:
    count, (least, most) = tokens(text), BEST_TOKENS
    if not least * (1 - SLACK) <= count <= most * (1 + SLACK):
        yield Finding(first, f"about {_count(count, 'token')}; {least} to {most} read best")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + "s" * (number != 1)


def check_command(names: Sequence[str], *, strict: bool = False) -> int:
    """Run `safeguard policy check`: print findings as FILE:LINE: MESSAGE on standard output.

    Return 5 if there is a defect, with `strict` also if there is advice. A missing file means 2, but the others are
    still checked.
    """
    code = errors.OK
    for name in expand(names):
        try:
            path, findings = check(name)
        except UnreadableError as problem:
            fail(str(problem))
            code = errors.USAGE
            continue
        for finding in findings:
            kind = "" if finding.defect else "advice: "
            print(safe(f"{path}:{finding.line}: {kind}{finding.message}"), flush=True)
            annotate("error" if finding.defect else "notice", finding.message, path, finding.line)
        if not findings:
            note(f"{path}: nothing found")
        elif code == errors.OK and any(strict or finding.defect for finding in findings):
            code = errors.CHECK_FAILED
    return code
