"""Reads a policy file: its bytes, its front matter with the line of every key, and its text.

Front matter stands between `---` and `---` or `...` at the top of the file; blank lines may come before it. What looks
like it but stands elsewhere is refused: taken for text, it would silently leave the policy with other labels.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from safeguard_cli.errors import UsageError, shortened

KEYS = ("name", "description", "labels", "violates")
MAX_BYTES = 1 << 20  # of a policy file: more than any model reads
MAX_FRONT = 64 << 10  # characters of front matter: reading YAML is slow
PIPE_SECONDS = 10.0  # a pipe may be silent for so long

_DECISIVE = {"labels", "violates"}  # without them a policy has other labels
_BREAK = re.compile(r"\r\n|\r|\n")
_LOOKED_AT = 2000  # characters of a line that are searched
_BLANK = " \t\v\f\u00a0\u200b\ufeff"
# Wrong lines that people draw around front matter: `----`, ` ---`, `+++`, a code fence, Word's dashes.
_DRAWN = re.compile(r"[\s>]*(?:[-–—―−]{2,}|—|\+{3,}|={3,}|\*{3,}|\.{3}|…|`{3,}|~{3,})[\s\w{}.#]*$")
_MARKS = r"[\s>]*(?:[-*+]\s+)?(?:\*\*|__|`)?"  # Markdown's marks of a list item, of bold type, of code
_MARKED_KEY = re.compile(rf"""{_MARKS}(labels|violates)(?:\*\*|__|`)?\s*[:=：](?:\*\*|__|`)?\s+()""", re.IGNORECASE)
_KEY_LINE = re.compile(r"""[\s>]*["']?([^\W\d][\w-]*)["']?\s*(?:[:=](?=\s|$|["'\[])|：)\s*(.*)$""")
_IS_LIST = r"""["']?\s*[:=：]\s*[\["']"""
_IN_LINE = re.compile(  # JSON, a comment, lines ended by what is no line end here; or a list item
    rf"labels{_IS_LIST}.*violates{_IS_LIST}|violates{_IS_LIST}.*labels{_IS_LIST}|\s*[-*]\s+(?:labels|violates){_IS_LIST}",
    re.DOTALL,
)
_BESIDE = re.compile(r"\s{2,}|[\s>]*(?:#|//|<!--|-\s|\]|\}|$)")  # between such lines: comments, items, values, nothing
_KINDS = {  # how other kinds of files begin
    rb"version https://git-lfs\.github\.com/spec/": "a Git LFS pointer, not the policy itself: git lfs pull fetches it",
    rb"\s*<(?:!doctype|html)\b": "a page of HTML, perhaps an error page instead of the download",
    rb"PK\x03\x04": "a zip file, as .docx and .odt are: save it as plain text",
    rb"\{\\rtf": "a rich text document (RTF): save it as plain text",
    rb"%PDF-": "a PDF: save it as plain text",
}
_MISPLACED = (
    "this looks like front matter, which is read only at the top of the file, between two lines ---. Move it there; or,"
    " if it is text for the model, name the labels in front matter at the top"
)


class PolicyError(UsageError):
    """What is wrong in a policy file: `reason`, at `line` if that is known."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(f"{path}, line {line}: {reason}" if line else f"{path}: {reason}")
        self.path, self.line, self.reason = path, line, reason


class UnreadableError(UsageError):
    """There is no readable policy file, so nothing in it can be wrong."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy file as read.

    `lines` are the file's lines without their ends, of which `front_lines` end with the front matter. `front` has the
    keys' values, with lists as tuples; `at` has the keys' line numbers. `text` is what the model reads, word for word;
    it begins in line `first`.
    """

    path: Path
    data: bytes
    lines: tuple[str, ...]
    text: str
    first: int
    front: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    front_lines: int = 0

    def error(self, reason: str, key: str = "") -> PolicyError:
        """Return the error for a reason, at the line of `key` if the file has that key."""
        return PolicyError(self.path, self.at.get(key), reason)


def read_policy_file(path: Path) -> PolicyFile:
    """Read a policy file; raise PolicyError, FileNotFoundError, or UnreadableError if there is nothing to read."""
    return parse_policy(path, _read(path))


def parse_policy(path: Path, data: bytes) -> PolicyFile:
    """Return what a policy file with these bytes holds; raise PolicyError."""
    source = _decode(path, data)
    lines = tuple(_BREAK.split(source))
    found = _find(path, lines)
    front: dict[str, str | tuple[str, ...]] = {}
    at: dict[str, int] = {}
    body = 0
    if found is not None:
        opening, closing = found
        front, at = _parse(path, lines, opening + 1, closing)
        body = closing + 1
    rest = source[_offset(source, body) :]
    text = rest.strip("\r\n")
    first = body + 1 + len(_BREAK.findall(rest[: rest.find(text)])) if text else body + 1
    if "\0" in text:
        line = first + len(_BREAK.findall(text[: text.index("\0")]))
        raise PolicyError(path, line, "a NUL character: this is not a text file")
    if "labels" not in front and (line := _misplaced(lines[body:])):
        raise PolicyError(path, body + line, _MISPLACED)
    return PolicyFile(path, data, lines, text, first, front, at, body)


def split_lines(text: str) -> list[str]:
    """Split at the line ends of any system and nothing else, so that line numbers are an editor's."""
    return _BREAK.split(text)


def _read(path: Path) -> bytes:
    """Return the file's bytes, at most MAX_BYTES of them, and without waiting for ever."""
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise UnreadableError(f"{path}: this is a folder, not a policy")
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISFIFO(state.st_mode):
            raise UnreadableError(f"{path}: this is a device, not a policy")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise UnreadableError(f"{shortened(str(path))}: the policy cannot be read: {reason}") from None
    try:
        if state.st_size > MAX_BYTES:
            raise PolicyError(path, None, f"{state.st_size:,} bytes are too many for a policy")
        data = bytearray()
        for piece in _pieces(path, descriptor, pipe=stat.S_ISFIFO(state.st_mode)):
            data += piece
            if len(data) > MAX_BYTES:
                raise PolicyError(path, None, f"more than {MAX_BYTES:,} bytes are too many for a policy")
        return bytes(data)
    except OSError as problem:
        raise UnreadableError(f"{path}: the policy cannot be read: {problem.strerror}") from None
    finally:
        os.close(descriptor)


def _pieces(path: Path, descriptor: int, pipe: bool) -> Iterator[bytes]:
    """Yield what there is to read; wait only so long for a pipe's writer to come, or to write."""
    until, begun = time.monotonic() + PIPE_SECONDS, False
    while True:
        try:
            piece = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
                raise UnreadableError(f"{path}: nothing came through this pipe in {PIPE_SECONDS:.0f} seconds") from None
            continue
        if piece:
            begun, until = True, time.monotonic() + PIPE_SECONDS
            yield piece
        elif begun or not pipe or time.monotonic() > until - 0.8 * PIPE_SECONDS:
            return
        else:
            time.sleep(0.02)


def _decode(path: Path, data: bytes) -> str:
    for pattern, kind in _KINDS.items():
        if re.match(pattern, data.removeprefix(codecs.BOM_UTF8), re.IGNORECASE):
            raise PolicyError(path, None, f"this is {kind}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data[:64].count(0) * 3 > len(data[:64]):
        raise PolicyError(path, None, "this is UTF-16 or UTF-32; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = len(re.findall(rb"\r\n|\r|\n", data[: problem.start])) + 1
        raise PolicyError(path, line, "this is not UTF-8 text; save the file as UTF-8") from None


def _offset(source: str, line: int) -> int:
    """Return where the line of this index begins."""
    if not line:
        return 0
    for number, found in enumerate(_BREAK.finditer(source), 1):
        if number == line:
            return found.end()
    return len(source)


def _is(line: str, mark: str) -> bool:
    return line.startswith(mark) and not line[len(mark) :].strip(_BLANK)


def _find(path: Path, lines: Sequence[str]) -> tuple[int, int] | None:
    """Return the indices of the lines that open and close front matter; None if the file has none at its top."""
    top = next((index for index, line in enumerate(lines) if line.strip(_BLANK)), 0)
    if not _is(lines[top].lstrip("\u200b\ufeff"), "---"):
        return None
    closing = next((at for at in range(top + 1, len(lines)) if _is(lines[at], "---") or _is(lines[at], "...")), None)
    if closing is None:
        known = [key for key in _keys(lines, top + 1, _end_of_paragraph(lines, top + 1)) if key in KEYS]
        if known:
            raise PolicyError(path, top + 1, "the front matter that begins here is not closed: write --- below it")
        return None
    if lines[closing].startswith("."):
        # A `---` right after `...` belongs to the closing.
        after = next((at for at in range(closing + 1, len(lines)) if lines[at].strip(_BLANK)), closing)
        closing = after if _is(lines[after], "---") else closing
    if top == 0:
        return top, closing
    # Below blank lines, two rules with text between them are not front matter.
    keys = _keys(lines, top + 1, closing)
    known = [key for key in keys if key in KEYS]
    plain = all(_KEY_LINE.match(line) or _BESIDE.match(line) for line in lines[top + 1 : closing])
    return (top, closing) if known or (plain and keys and all(key.islower() for key in keys)) else None


def _end_of_paragraph(lines: Sequence[str], begin: int) -> int:
    """Return the index of the first blank line after the paragraph at or below `begin`."""
    while begin < len(lines) and not lines[begin].strip(_BLANK):
        begin += 1
    return next((at for at in range(begin, len(lines)) if not lines[at].strip(_BLANK)), len(lines))


def _keys(lines: Sequence[str], begin: int, end: int) -> list[str]:
    """Return what look like keys; a misspelled `labels` or `violates` counts as such."""
    return [_known(found[1]) for line in lines[begin:end] if (found := _KEY_LINE.match(line))]


def _known(key: str) -> str:
    plain = key[:20].casefold()
    if plain in KEYS or plain == "label":  # `label: 1` is how people write examples
        return plain
    near = get_close_matches(plain, sorted(_DECISIVE), 1, 0.8) if plain[:1] in ("l", "v") else ()
    return next(iter(near), key)


def _parse(
    path: Path, lines: Sequence[str], begin: int, end: int
) -> tuple[dict[str, str | tuple[str, ...]], dict[str, int]]:
    """Return the values and line numbers of the keys in `lines[begin:end]`.

    Nodes are read as written (BaseLoader, and nothing constructed), so that a label `no` or `1` is what it looks like,
    and no alias is expanded.
    """
    block = "\n".join(lines[begin:end]) + "\n"
    if len(block) > MAX_FRONT:
        raise PolicyError(path, begin + 1, f"front matter of more than {MAX_FRONT:,} characters")
    try:
        node = yaml.compose(block, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise PolicyError(
            path, begin + 1 + _line_of(error, block), f"the front matter is not YAML: {_reason(error)}"
        ) from None
    except RecursionError:
        raise PolicyError(path, begin + 1, "the front matter is not YAML: it is nested too deep") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise PolicyError(path, begin + 1, "the front matter must be `key: value` lines")
    front: dict[str, str | tuple[str, ...]] = {}
    at: dict[str, int] = {}
    for name, value in node.value:
        line = begin + 1 + block.count("\n", 0, name.start_mark.index)
        key = name.value if isinstance(name, yaml.ScalarNode) else ""
        if key not in KEYS:
            near = get_close_matches(key.casefold(), KEYS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(sorted(KEYS))}); take it out"
            raise PolicyError(path, line, f"unknown key {key!r} in the front matter{hint}")
        if key in at:
            raise PolicyError(path, line, f"the key {key!r} is given twice, first in line {at[key]}")
        at[key] = line
        front[key] = _value(path, line, key, value)
    return front, at


def _value(path: Path, line: int, key: str, node: yaml.Node) -> str | tuple[str, ...]:
    """Return a key's value: a text, or for `labels` and `violates` a list of texts, even of a single one."""
    if key in _DECISIVE:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(item, yaml.ScalarNode) for item in items):
            raise PolicyError(path, line, f"`{key}` must be a list of labels, such as [ham, spam]")
        if not items or not any(item.value for item in items):
            raise PolicyError(path, line, f"`{key}` is empty: name the labels, such as [ham, spam], or leave it out")
        return tuple(item.value for item in items)
    if not isinstance(node, yaml.ScalarNode):
        raise PolicyError(path, line, f"`{key}` must be text")
    if key == "name" and not node.value:
        raise PolicyError(path, line, "`name` is empty: write a name, or leave it out")
    return str(node.value)


def _line_of(error: yaml.YAMLError, block: str) -> int:
    """Return the index of the line that a YAML error is in.

    If the error shows only at the end, as with a bracket that is never closed, it is the line where that began. YAML
    counts other line ends than an editor does, so its own line numbers are not used.
    """
    at = getattr(error, "position", None)  # set for a character that YAML does not allow
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if at is None and mark is not None:
        at = mark.index
        if context is not None and not block[at:].strip(" \n\0"):
            at = context.index
    return block.count("\n", 0, at or 0)


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return f"the character U+{code:04X} is not allowed there"
    problem = str(getattr(error, "problem", None) or error).replace("\n", " ")
    if "chomping" in problem:
        return 'a value that begins with > is written in quotes: violates: ">= LABEL"'
    return "a tab stands where YAML allows only spaces" if "'\\t'" in problem else problem


@dataclass(slots=True)
class _Group:
    """Lines that look like keys, with what may stand between them, and what surrounds them."""

    top: bool  # only comments and blank lines above
    below_drawn: bool
    above_drawn: bool = False
    keys: list[tuple[str, int]] = field(default_factory=list)  # with line numbers
    written: list[int] = field(default_factory=list)  # lines that can hardly be anything but YAML or TOML
    lower: bool = True  # all keys are in lower case and unquoted

    def suspect(self) -> int:
        """Return the number of the line that looks like front matter, or 0."""
        names = {key for key, _ in self.keys}
        decisive = next((number for key, number in self.keys if key in _DECISIVE), 0)
        ours = names <= set(KEYS)
        headed = self.below_drawn and (ours or "labels" in names) and (self.lower or self.above_drawn)
        if decisive and (names >= _DECISIVE or headed):
            return decisive
        if self.written:
            return self.written[0]
        framed = self.below_drawn and self.above_drawn and ours and self.lower
        return self.keys[0][1] if self.keys and framed else 0


def _misplaced(lines: Sequence[str]) -> int:
    """Return the number of a line that looks like front matter, in a file with none at its top; 0 if none does."""
    return next((line for group in _groups(lines) if (line := group.suspect())), 0)


def _groups(lines: Sequence[str]) -> Iterator[_Group]:
    group, top = _Group(top=True, below_drawn=False), True
    for number, line in enumerate(lines, 1):
        if line.strip() and _DRAWN.match(line):
            group.above_drawn = True
            yield group
            group, top = _Group(top=top, below_drawn=True), top and not group.keys
        elif _IN_LINE.search(line[:_LOOKED_AT]):
            group.written.append(number)
        elif (found := _KEY_LINE.match(line) or _MARKED_KEY.match(line)) and not _is_framed(lines, number - 1, found):
            key = _known(found[1])
            bare = found[1].islower() and not line.lstrip("> \t").startswith(("'", '"'))
            group.keys.append((key, number))
            group.lower = group.lower and bare
            items = group.top and not found[2] and number < len(lines) and re.match(r"\s*-\s", lines[number])
            if key in _DECISIVE and bare and (found[2].startswith("[") or items):
                group.written.append(number)
        elif not _BESIDE.match(line):
            yield group
            group, top = _Group(top=False, below_drawn=False), False
    yield group


def _is_framed(lines: Sequence[str], at: int, key: re.Match[str]) -> bool:
    """Return whether a line that looks like a key is a heading between two drawn rules, such as `VIOLATES:`."""
    around = [*lines[max(0, at - 1) : at], *lines[at + 1 : at + 2]]
    return not key[1].islower() and not key[2] and len(around) == 2 and all(map(_DRAWN.match, around))
