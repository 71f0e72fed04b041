"""The review line by line: for screen readers, for terminals that cannot do more, and for scripts.

A row is printed, a line is read, and so on until `q` or the end of standard input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from safeguard_cli.review.session import Session, View
from safeguard_cli.review.shown import said_lines
from safeguard_cli.review.told import told_answer, told_last, told_place
from safeguard_cli.terminal import safe

HELP = (
    "A label's key or name labels the row. s skips it, u takes back the last answer, n TEXT notes something,",
    "r RULE cites a rule (r alone lists them), b and f go back and forth, v shows a veiled text, p prints the row",
    "again, q ends. Each answer is on disk before the next row comes.",
)


def run_lines(session: Session) -> None:
    """Ask for the answers of a session on standard output and standard input."""
    _print(HELP)
    shown: int | None = None
    while True:
        view = session.view()
        if view.done and shown != view.place:
            _print(["", "every row is answered: q ends, b goes back, u takes back"])
        elif shown != view.place:
            _print(_row_lines(session, view))
        shown = view.place
        _print(_question(session), end="")
        line = sys.stdin.readline()
        if not line or line.strip() == "q":
            if not line:
                _print([""])
            return
        if _do(session, line.strip()):
            shown = None


def _row_lines(session: Session, view: View) -> Iterator[str]:
    yield ""
    yield told_place(session, view)
    if view.last:
        yield told_last(view)
    if view.veiled:
        yield "(veiled: v shows the text)"
    for block in view.blocks:
        if block.head:
            yield f"[{block.head}]"
        yield from block.lines
    if view.hidden:
        yield "(the model's answer is shown after yours)"
    yield from said_lines(view.said)
    yield from told_answer(view.answer)


def _question(session: Session) -> list[str]:
    keys = {label: key for key, label in session.keys.items()}
    choices = [f"{keys[label]} {safe(label)}" if label in keys else safe(label) for label in session.task.labels]
    return [f"{', '.join(choices)} > "]


def _do(session: Session, line: str) -> bool:
    """Do what a line asks for; return whether the row is to be printed again."""
    word, _, rest = line.partition(" ")
    label = session.keys.get(line) or next((each for each in session.task.labels if each == line), None)
    if label is not None:
        session.label(label)
    elif line == "s":
        session.skip()
    elif line == "u":
        if not session.undo():
            _print(["nothing to take back"])
            return False
    elif word == "n":
        session.note(rest)
    elif word == "r" and rest:
        session.rule("" if rest.strip() == "-" else rest)
    elif word == "r":
        _print([f"{safe(code)}  {safe(text)}" for code, text in session.task.rules.items()] or ["no rules are known"])
        return False
    elif line in ("b", "f"):
        session.go(1 if line == "f" else -1)
    elif line == "v":
        session.unveil()
    elif line != "p":
        _print([f"{safe(line)[:60]!r} is no label and no command", *HELP] if line else HELP)
        return False
    return True


def _print(lines: Iterable[str], end: str = "\n") -> None:
    print("\n".join(lines), end=end, flush=True)
