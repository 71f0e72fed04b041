"""What reaches the terminal: one console on standard error, and every text made harmless before it is printed."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.text import Text

from safeguard_cli.engine.address import without_passwords

PIPE_WIDTH = 200
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str, *, keep_newlines: bool = False) -> str:
    r"""`text` with control, bidi, format, unassigned and private characters and lone surrogates as escapes (`\x1b`).

    One line comes out, unless `keep_newlines`. Everything else stays as it is: `[link=…]` too, for rich markup is off
    on our console. What was an escape's spelling before cannot be told from one of ours: this is for reading only.
    """
    # str.isprintable is exactly "no C*, no Z* but the space": Unicode's spaces are let through below.
    return text if text.isprintable() else "".join(_shown(char, keep_newlines) for char in text)


def _shown(char: str, keep_newlines: bool) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs" or (keep_newlines and char == "\n"):
        return char
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell_line(words: Iterable[str]) -> str:
    """A command as a shell takes it when it is copied from where it is shown."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    r"""A word for a shell; what of it is not seen stands there in bytes, as in `$'two\x0alines'`."""
    if safe(word) == word:
        return shlex.quote(word)
    shown = (char if safe(char) == char and char not in "\\'" else _code(char) for char in word)
    return f"$'{''.join(shown)}'"


def _code(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def cut(text: str, width: int) -> str:
    """`text` made safe, on one line and at most `width` cells wide (1 or more); `…` stands where it was cut."""
    # A bound on characters too: combining marks take no cell, and the text may be megabytes.
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
    """The one console, on standard error: no markup, no emoji codes, and no colour where NO_COLOR is set."""
    # Asked here, for older versions of rich take an empty NO_COLOR for a set one.
    no_color = bool(os.environ.get("NO_COLOR"))
    return _Console(stderr=True, no_color=no_color, highlight=False, markup=False, emoji=False)


def one_file() -> bool:
    """Whether standard output and standard error go to the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(1), os.fstat(2))
    except OSError:  # one of them is closed
        return False


def note(text: str) -> None:
    """Print a sentence on standard error."""
    _say(Text(), text)


def warn(text: str) -> None:
    """Print a sentence on standard error as a warning."""
    _say(Text("warning: ", "bold yellow"), text)


def fail(text: str) -> None:
    """Print a sentence on standard error as the error that ends the command."""
    _say(Text("error: ", "bold red"), text)


def show(*lines: RenderableType) -> None:
    """Print a result on standard output; not as narrow as 80 columns when that is no terminal."""
    shown = _Console(markup=False, emoji=False, highlight=False)
    if not shown.is_terminal:
        shown.width = max(shown.width, PIPE_WIDTH)
    shown.print(Group(*lines))


def _say(kind: Text, text: str) -> None:
    with suppress(OSError):  # a full disk or a reader gone on standard error is no reason to lose data
        console().print(Text.assemble(kind, safe(without_passwords(text))), soft_wrap=True)
