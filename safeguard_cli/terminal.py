"""All printing: one console on standard error, where every text is made harmless, and results on standard output.

Tables of figures fit a terminal of any width: headings wrap, columns move below, no figure is cut.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from safeguard_cli.address import without_passwords
from safeguard_cli.errors import UsageError

PIPE_WIDTH = 200
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
GAP = "  "
_TITLE = 30  # cells of a heading
_QUIET = ContextVar("quiet", default=False)
_NAME = 12  # cells that a row's name keeps before columns move below
_ROOM, _BELOW = 30, 4  # the least cells for a hanging text; with fewer it stands below its head, indented by _BELOW


def safe(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return `text` with its control, bidi, format, unassigned and private characters and lone surrogates escaped.

    The escapes are such as `\x1b`. The result is one line, unless `keep_newlines`. Everything else stays as it is,
    `[link=…]` too, because rich markup is off on our console. The result is for reading only: an escape that was
    spelled out in `text` looks the same as one of ours.
    """
    # str.isprintable means exactly "no C*, no Z* but the space"; _shown lets Unicode's other spaces through.
    return text if text.isprintable() else "".join(_shown(char, keep_newlines) for char in text)


def _shown(char: str, keep_newlines: bool) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs" or (keep_newlines and char == "\n"):
        return char
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell_line(words: Iterable[str]) -> str:
    """Return a command in a form that can be copied into a shell."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    r"""Return a word quoted for a shell, with its unprintable characters as bytes, as in `$'two\x0alines'`."""
    if safe(word) == word:
        return shlex.quote(word)
    shown = (char if safe(char) == char and char not in "\\'" else _code(char) for char in word)
    return f"$'{''.join(shown)}'"


def _code(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def cut(text: str, width: int) -> str:
    """Return `text` made safe, on one line of at most `width` cells (1 or more); `…` marks where it was cut."""
    # Characters are bounded too: combining marks take no cell, and the text may be megabytes.
    head = text[: 4 * width]
    shown = safe(head)
    if head == text and cell_len(shown) <= width:
        return shown
    return set_cell_size(shown, width - 1).rstrip() + "…"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would point standard output, where our data goes, at /dev/null and exit with 1.
        if not self.stderr:
            raise  # the error that rich is handling
        self.quiet = True


@cache
def console() -> Console:
    """Return the one console, on standard error: no markup, no emoji codes, and no colour where NO_COLOR is set."""
    # Read here, because older versions of rich take an empty NO_COLOR for a set one.
    no_color = bool(os.environ.get("NO_COLOR"))
    return _Console(stderr=True, no_color=no_color, highlight=False, markup=False, emoji=False)


def one_file() -> bool:
    """Whether standard output and standard error are the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(1), os.fstat(2))
    except OSError:  # one of them is closed
        return False


def note(text: str) -> None:
    """Print a sentence to standard error."""
    _say(Text(), text)


def warn(text: str) -> None:
    """Print a sentence to standard error as a warning."""
    _say(Text("warning: ", "bold yellow"), text)


def fail(text: str) -> None:
    """Print a sentence to standard error as the error that ends the command."""
    _say(Text("error: ", "bold red"), text)


def annotate(level: str, text: str, file: Path, line: int = 1) -> None:
    """Print an `error`, a `warning` or a `notice` at a file's line, if this is a job of GitHub Actions."""
    if os.environ.get("GITHUB_ACTIONS") != "true" or _QUIET.get():
        return
    place = os.path.relpath(file, os.environ.get("GITHUB_WORKSPACE") or ".").replace(os.sep, "/")
    place, text = (safe(each).replace("%", "%25") for each in (place, text))
    at = "" if place.startswith("../") else f" file={place.replace(':', '%3A').replace(',', '%2C')},line={line}"
    with suppress(OSError):  # in one write, so that no other line gets into it
        print(f"::{level}{at}::{text}\n", end="", file=sys.stderr, flush=True)


def ask(question: str) -> str | None:
    """Return a line typed at the terminal in answer to a question; None if nobody is there to answer."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return None
    with suppress(OSError):
        console().print(Text(safe(question)), end="", soft_wrap=True)
    return sys.stdin.readline().rstrip("\r\n") or None


def show(*lines: RenderableType) -> None:
    """Print a result to standard output; where that is not a terminal, the lines have room for PIPE_WIDTH cells."""
    shown = _Console(markup=False, emoji=False, highlight=False)
    if not shown.is_terminal:
        shown.width = max(shown.width, PIPE_WIDTH)
    shown.print(Group(*lines))


@contextmanager
def silence(quiet: bool = True) -> Iterator[None]:
    """Keep sentences off standard error, those of tasks started here too: for use as a library."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)


def _say(kind: Text, text: str) -> None:
    if _QUIET.get():
        return
    with suppress(OSError):  # a full disk or a closed pipe at standard error is no reason to lose data
        console().print(Text.assemble(kind, safe(without_passwords(text))), soft_wrap=True)


class Figures:
    """A table without lines: names on the left, figures on the right; the first `left` columns are text.

    Where the terminal is too narrow, first the headings wrap, then names are cut, and then the columns that do not fit
    move below, with the names repeated.
    """

    def __init__(self, *titles: str, left: int = 1) -> None:
        self._titles = [cut(title, _TITLE) if title else "" for title in titles]
        self._left = left
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: one cell for each column."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = [max(Text(title).cell_len, *self._lengths(at)) for at, title in enumerate(self._titles)]
        if _total(wide) <= options.max_width:
            yield from self._block(range(len(wide)), wide)
            return
        narrow = [
            max([Text(word).cell_len for word in title.split()] + self._lengths(at))
            for at, title in enumerate(self._titles)
        ]
        too_much = max(0, _total(narrow) - options.max_width)
        name = max(min(narrow[0], _NAME), narrow[0] - too_much)
        if _total([name, *narrow[1:]]) > options.max_width:  # columns move below: a third is for the names
            name = min(narrow[0], max(_NAME, options.max_width // 3))
        narrow[0] = name
        columns = list(range(1, len(narrow)))
        while True:
            taken = columns[:1]
            for at in columns[1:]:
                if _total([narrow[0], *(narrow[i] for i in taken), narrow[at]]) > options.max_width:
                    break
                taken.append(at)
            yield from self._block([0, *taken], narrow)
            columns = columns[len(taken) :]
            if not columns:
                return

    def _lengths(self, column: int) -> list[int]:
        return [row[column].cell_len for row in self._rows] or [0]

    def _block(self, columns: Sequence[int], widths: Sequence[int]) -> Iterator[Text]:
        titles = [_wrapped(self._titles[at], widths[at]) for at in columns]
        height = max(map(len, titles))
        heads = [[""] * (height - len(lines)) + lines for lines in titles]
        for line in range(height):
            head = Text(style="dim")
            self._line(head, columns, [Text(lines[line]) for lines in heads], widths)
            if head.plain.strip():
                yield head
        for row in self._rows:
            text = Text()
            self._line(text, columns, [row[at] for at in columns], widths)
            yield text

    def _line(self, line: Text, columns: Sequence[int], cells: Sequence[Text], widths: Sequence[int]) -> None:
        for place, (at, cell) in enumerate(zip(columns, cells, strict=True)):
            if cell.cell_len > widths[at]:
                cell = Text(cut(cell.plain, widths[at]), cell.style)
            pad = " " * (widths[at] - cell.cell_len)
            if place:
                line.append(GAP)
            line.append_text(Text.assemble(cell, pad) if at < self._left else Text.assemble(pad, cell))
        line.rstrip()


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, broken at spaces, and within a word only if it is wider than a line."""
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for word in filter(None, text.split(" ")):
        if lines and cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines += chop_cells(word, width) if cell_len(word) > width else [word]
    return lines or [""]


@dataclass(frozen=True, slots=True)
class Hanging:
    """A text with a hanging indent after a head, then a command that is kept on one line where it fits.

    Where there is little room, or with `below`, the text stands below the head. A command that is wider than a line is
    broken with backslashes, as a shell takes it. Without a terminal all of it is one line.
    """

    head: str | Text
    text: str
    command: str = ""
    below: bool = False

    def line(self) -> str:
        """Return all of it on one line."""
        space = " " if self.text and self.command else ""
        return safe(f"{self.head}{self.text}{space}{self.command}").rstrip()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = self.head.copy() if isinstance(self.head, Text) else Text(self.head)
        start = head.cell_len
        if self.below or (options.max_width - start < _ROOM and start > _BELOW):
            head.rstrip()
            yield head
            start = _BELOW
            head = Text(" " * start)
        for line in self._lines(max(2, options.max_width - start)):
            yield Text.assemble(head, line)
            head = Text(" " * start)

    def _lines(self, width: int) -> list[str]:
        lines = _wrapped(safe(self.text), width) if self.text else []
        if not self.command:
            return lines or [""]
        command = safe(self.command)
        if lines and cell_len(f"{lines[-1]} {command}") <= width:
            return [*lines[:-1], f"{lines[-1]} {command}"]
        if cell_len(command) <= width:
            return [*lines, command]
        *parts, last = _wrapped(command, max(1, width - 2))
        return [*lines, *(f"{part} \\" for part in parts), last]


def show_hanging(*texts: Hanging) -> None:
    """Print texts with hanging indents to standard output, each on one line where that is not a terminal."""
    if sys.stdout.isatty():
        show(*texts)
    else:
        for text in texts:
            print(text.line(), flush=True)


def facts(*parts: str, style: str = "") -> Text:
    """Return facts as text that wraps at the terminal's width, so that none is cut."""
    return Text(safe(" · ".join(part for part in parts if part)), style)


def line_of(text: str, style: str = "") -> Text:
    """Return one line, made harmless and cut at the terminal's width: for a row's text, which comes last."""
    return Text(cut(text, 1000), style, no_wrap=True, overflow="ellipsis")


def figure(value: float | None) -> str:
    """Return a figure with three decimals, `–` for an undefined one."""
    return "–" if value is None else f"{value:.3f}"


def interval(found: Mapping[str, Any], per_cent: bool = False) -> str:
    """Return the interval of a figure or of a rate, `–` where there is none."""
    low, high = found["low"], found["high"]
    if low is None:
        return "–"
    return f"{100 * low:.1f} to {100 * high:.1f} %" if per_cent else f"{low:.3f} to {high:.3f}"


def per_cent(share: float | None) -> str:
    """Return a share in per cent, `–` for none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def span(seconds: float) -> str:
    """Return seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def data_output() -> BinaryIO:
    """Return standard output for data. Raises UsageError if it was closed when the program began."""
    raw = getattr(sys.stdout.buffer, "raw", None)
    if isinstance(raw, ClosedStream):
        raise raw.error()
    return sys.stdout.buffer


def print_json(value: Any) -> None:
    """Print a value as indented JSON to standard output, in UTF-8 whatever the terminal's encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(json_bytes(value, indent=True) + b"\n")
    sys.stdout.buffer.flush()


def json_bytes(value: Any, *, indent: bool = False) -> bytes:
    r"""Return a value as JSON. Bytes of a file name that are not UTF-8 are written as their escapes (`\udce9`)."""
    import orjson  # not at the top: --help does without it

    option = orjson.OPT_INDENT_2 if indent else 0
    try:
        return orjson.dumps(value, str, option)
    except TypeError:
        return orjson.dumps(_escaped(value), str, option)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, (list, tuple)) else value


class ClosedStream(io.RawIOBase):
    """A standard stream that was closed when the program began."""

    def __init__(self, name: str) -> None:
        self.name = name

    def error(self) -> UsageError:
        advice = "name a file" if self.readable() else "write to a file with -o OUT"
        return UsageError(f"{self.name} is closed: {advice}")

    def readable(self) -> bool:
        return self.name == "standard input"

    def writable(self) -> bool:
        return not self.readable()

    def readinto(self, _: Any) -> int:
        raise self.error()

    def write(self, _: Any) -> int:
        raise self.error()
