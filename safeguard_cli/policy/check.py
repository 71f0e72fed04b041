"""`safeguard policy`: lints a policy file by line number, starts a new one, and lists and shows the built-in ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.policy.front_matter import PolicyError, UnreadableError, split_lines
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy, make_policy, mentions, read_policy
from safeguard_cli.policy.rationale import CODE
from safeguard_cli.terminal import Hanging, fail, note, safe, show_hanging

BEST_TOKENS = (400, 600)  # the model's makers say that this length reads best
SLACK = 0.1  # the count is an estimate: only the real model comes with the real vocabulary
BYTES_PER_TOKEN = 4.0  # o200k on English policies: 3.84 to 4.18 on the built-in ones
EXAMPLES = (4, 6)

# The writer chooses a section's name, but not its purpose.
SECTIONS = {
    "an instruction": "instruct|task|goal|overview",
    "definitions": "defin|terms|glossary",
    "criteria for what violates": "(?<!not )violat|prohibit|not allowed|disallow",
    "criteria for what is safe": r"\bsafe\b|(?<!not )(?<!dis)allowed|permitted|not violat",
    "precedence between rules": "preceden|priorit|conflict",
    "examples": "example",
    "what to do when it is unclear": "escalat|unclear|ambigu|unsure|edge case",
}
VAGUE = (
    "inappropriate|unacceptable|questionable|problematic|offensive|generally|typically|usually|somewhat|excessive|undue"
    r"|reasonable|common sense|use your judge?ment|as needed|if possible|and so on|etc\.?|things like that"
)
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(.+?)\s*#*\s*$")
_VAGUE = re.compile(rf"\b(?:{VAGUE})(?![\w])", re.IGNORECASE)
_RULE = re.compile(rf"\s*[-*]\s+\W*({CODE.pattern})")
_ITEM = re.compile(r"\s*(?:[-*]|\d+[.)])\s+\S")
_HEAD = re.compile(r"\s{0,12}(?:(?:[-*]|\d{1,3}[.)]|[a-z]{1,12}:)\s{1,4})?")  # what comes before a line's text
_MARKER = re.compile(r"<\|[^|>\n]{0,40}\|>")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something to improve, at a line of the file."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    section: str  # the heading above it, "" before the first


def tokens(text: str) -> int:
    """Return about how many tokens of the real vocabulary a policy has."""
    return round(len(text.encode()) / BYTES_PER_TOKEN)


def check(name_or_path: str) -> tuple[Path, list[Finding]]:
    """Lint a policy; return its path and the findings, by line, or raise UnreadableError if there is no such file."""
    try:
        file = read_policy(name_or_path)
        policy = make_policy(file)
    except UnreadableError:
        raise
    except PolicyError as problem:
        return problem.path, [Finding(problem.line or 1, problem.reason)]
    lines = list(_lines(split_lines(file.text), file.first))
    found = [
        *_sections(lines),
        *_labels(policy, file.at.get("labels", 1), file.at.get("violates", 1)),
        *_rules(lines),
        *_examples(policy, lines),
        *_words(lines, file.lines),
        *_length(policy, file.first),
    ]
    if not policy.description:
        found.append(Finding(1, "no description in the front matter: say in one line what this policy finds"))
    return file.path, sorted(set(found))


def _lines(texts: Iterable[str], first: int) -> Iterator[_Line]:
    section = ""
    for number, text in enumerate(texts, first):
        if heading := _HEADING.match(text):
            section = heading[1]
        yield _Line(number, text, section)


def _under(lines: Sequence[_Line], section: str) -> list[_Line]:
    pattern = re.compile(SECTIONS[section], re.IGNORECASE)
    return [line for line in lines if pattern.search(line.section)]


def _sections(lines: Sequence[_Line]) -> Iterator[Finding]:
    last = lines[-1].number
    for section in SECTIONS:
        under = _under(lines, section)
        if not under:
            yield Finding(last, f"no section with {section}")
        elif not any(line.text.strip() and not _HEADING.match(line.text) for line in under):
            yield Finding(under[0].number, f"the section with {section} is empty")


def _labels(policy: Policy, line: int, violates: int) -> Iterator[Finding]:
    if set(policy.violates) == set(policy.labels):
        yield Finding(violates, "every label violates; leave one for what is safe")
    for label in policy.labels:
        if not mentions(policy.text, label):
            yield Finding(line, f"the label {label!r} is never mentioned in the text, spelled like this")
        for other in policy.labels:
            if label != other and label.lower() in other.lower():
                yield Finding(
                    line, f"the label {label!r} stands inside {other!r}: readers and models confuse them; rename one"
                )


def _rules(lines: Sequence[_Line]) -> Iterator[Finding]:
    """Check that rules have codes, that no two share one, and that every cited code is a rule's."""
    defined: dict[str, int] = {}
    for section in ("criteria for what violates", "criteria for what is safe"):
        under = _under(lines, section)
        items = [line for line in under if _ITEM.match(line.text)]
        coded = [(line.number, found[1]) for line in items if (found := _RULE.match(line.text))]
        if under and not coded:
            yield Finding(under[0].number, f"the {section} have no rule codes, such as AB1, for a rationale to cite")
        for number, code in coded:
            if defined.setdefault(code, number) != number:
                yield Finding(number, f"the rule code {code} is already used in line {defined[code]}")
    stems = {re.match(r"[A-Z]+", code)[0] for code in defined}  # type: ignore[index]
    for line in lines:
        for code in CODE.findall(line.text):
            if code not in defined and re.match(r"[A-Z]+", code)[0] in stems:  # type: ignore[index]
                yield Finding(line.number, f"there is no rule {code}")


def _examples(policy: Policy, lines: Sequence[_Line]) -> Iterator[Finding]:
    under = _under(lines, "examples")
    items = [line for line in under if _ITEM.match(line.text)]
    if not under:
        return
    if not EXAMPLES[0] <= len(items) <= EXAMPLES[1]:
        yield Finding(
            under[0].number, f"{_count(len(items), 'example')}; {EXAMPLES[0]} to {EXAMPLES[1]} near the boundary help"
        )
    shown = set()
    for line in items:
        named = {label for label in policy.labels if mentions(line.text, label)}
        shown |= named
        if not named:
            yield Finding(line.number, "this example does not say which label is right")
    if items and not shown.intersection(policy.violates):
        yield Finding(under[0].number, "no example violates")
    if items and not shown.difference(policy.violates):
        yield Finding(under[0].number, "no example is safe: show something that looks like a violation but is not one")


def _words(lines: Sequence[_Line], whole: Sequence[str]) -> Iterator[Finding]:
    examples = {line.number for line in _under(lines, "examples")}
    for line in lines:
        if line.number in examples:
            continue
        for word in _VAGUE.findall(re.sub(r'"[^"]*"', "", line.text)):
            yield Finding(line.number, f"{word!r} is vague: say what a reader would see in the text")
    for number, text in enumerate(whole, 1):
        if marker := _MARKER.search(text):
            yield Finding(number, f"{marker[0]} spells a control token; to the model it is plain text that misleads")
        if re.search(r"\bTODO\b", text):
            yield Finding(number, "TODO: this is not written yet")


def _length(policy: Policy, first: int) -> Iterator[Finding]:
    count, (least, most) = tokens(policy.text), BEST_TOKENS
    if not least * (1 - SLACK) <= count <= most * (1 + SLACK):
        yield Finding(first, f"about {_count(count, 'token')}; {least} to {most} read best")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + "s" * (number != 1)


def check_command(names: Sequence[str]) -> int:
    """Run `safeguard policy check`: print findings as FILE:LINE: MESSAGE on standard output; exit 5 if there are any.

    A missing file means exit 2, but the others are still checked.
    """
    code = errors.OK
    for name in names:
        try:
            path, findings = check(name)
        except UnreadableError as problem:
            fail(str(problem))
            code = errors.USAGE
            continue
        for finding in findings:
            print(safe(f"{path}:{finding.line}: {finding.message}"))
        if not findings:
            note(f"{path}: nothing found")
        elif code == errors.OK:
            code = errors.CHECK_FAILED
    return code


def list_command() -> int:
    """Run `safeguard policy list`: print the built-in policies."""
    policies = [load_policy(name) for name in builtin_policies()]
    names = max((len(policy.name) for policy in policies), default=0)
    labels = max((len(", ".join(policy.labels)) for policy in policies), default=0)
    show_hanging(*(_listed(policy, names, labels) for policy in policies))
    note("token counts are estimates; labels that violate are red at a terminal")
    return errors.OK


def show_command(name: str) -> int:
    """Run `safeguard policy show`: print the file as it is; at a terminal, made harmless."""
    file = read_policy(name)
    make_policy(file)
    if sys.stdout.isatty():
        show_hanging(*map(_shown, file.lines[: -1 if file.lines[-1] == "" else None]))
    else:
        sys.stdout.buffer.write(file.data)
    return errors.OK


def _listed(policy: Policy, names: int, labels: int) -> Hanging:
    """Return a policy's line in the list, with columns of these widths."""
    shown = Text(", ").join(Text(label, "red" if label in policy.violates else "") for label in policy.labels)
    pad = " " * (labels - shown.cell_len)
    head = Text.assemble(f"{policy.name:{names}}  ", shown, f"{pad}{tokens(policy.text):>6,} tokens  ")
    return Hanging(head, policy.description)


def _shown(line: str) -> Hanging:
    """Return a line of a policy, to be wrapped under the start of its text: after a bullet or a key's name."""
    head = _HEAD.match(line)
    assert head is not None
    return Hanging(safe(head[0]), line[head.end() :])


def new_command(name: str, labels: Sequence[str], violates: Sequence[str], output: str | None) -> int:
    """Run `safeguard policy new`: write a policy to fill in, as NAME.md here; never overwrite a file."""
    labels = tuple(labels) or ("allowed", "violating")
    violates = tuple(violates) or labels[-1:]
    Policy(name, "checks the name and the labels", labels, violates)
    good = [label for label in labels if label not in violates]
    if not good:
        raise UsageError("every label violates; leave one for what is safe")
    template = resources.files("safeguard_cli.policy").joinpath("template.md").read_text(encoding="utf-8")
    text = template.format(
        name=name,
        title=name.replace("-", " ").replace("_", " ").capitalize(),
        labels=", ".join(labels),
        violates=", ".join(violates),
        bad="` or `".join(violates),
        good="` or `".join(good),
        code=re.sub(r"[^A-Z]", "", name.upper())[:2] or "R",
    )
    path = Path(output or f"{name}.md")
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; nothing was written") from None
    except OSError as error:
        raise SafeguardError(f"{path}: cannot be written: {error.strerror}") from None
    note(f"{path} is written; fill in every TODO, then run: safeguard policy check {path}")
    return errors.OK
