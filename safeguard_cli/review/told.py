"""What a session says in words, on every surface alike: where one is, what was answered, what the model had said."""

from __future__ import annotations

from collections.abc import Iterator

from safeguard_cli.review.session import Answer, Session, View
from safeguard_cli.review.shown import said_lines
from safeguard_cli.terminal import safe


def told_place(session: Session, view: View) -> str:
    """Return where one is in the session."""
    skipped = f", {view.skipped:,} skipped" if view.skipped else ""
    return (
        f"row {view.place:,} of {view.rows:,} (line {view.line:,}) · {view.answered:,} labelled{skipped}"
        f" · {safe(session.task.person)}"
    )


def told_answer(answer: Answer) -> Iterator[str]:
    """Yield what a person has said about a row so far."""
    if answer.label is not None:
        yield f"your answer: {safe(answer.label)}"
    if answer.skipped:
        yield "your answer: skipped"
    if answer.rule:
        yield f"rule: {safe(answer.rule)}"
    if answer.note:
        yield f"note: {safe(answer.note)}"


def told_last(view: View) -> str:
    """Return what the last answer was, and what the model and others had said about that row."""
    if view.last is None:
        return ""
    place, answer, said = view.last
    label = "skipped" if answer.label is None else safe(answer.label)
    others = "; ".join(line for line in said_lines(said) if not line.startswith(" "))
    return f"row {place:,}: you said {label}" + (f" · {others}" if others else "")
