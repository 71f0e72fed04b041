"""`safeguard review`: a person's answers to rows of an output, one at a time, into a golden file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError, missing_extra
from safeguard_cli.measure.reviewed import ReviewedRow, own_name
from safeguard_cli.policy.rationale import rules_of
from safeguard_cli.review.answers import GoldenFile, check_golden, open_golden, taken_names
from safeguard_cli.review.disputes import read_disputes
from safeguard_cli.review.options import Reviewing
from safeguard_cli.review.picking import Item, pick_asked, pick_random, pick_unsure
from safeguard_cli.review.reading import HowRead, Material, read_material
from safeguard_cli.review.resume import taken_over
from safeguard_cli.review.session import Session, Task
from safeguard_cli.review.shown import count_of
from safeguard_cli.rows.writable import check_streams, used
from safeguard_cli.terminal import note

ROWS = 50
_NAME = 60  # characters of a person's name
Surface = Callable[[Session], None]


def review(outs: Sequence[str], wanted: Reviewing, reading: HowRead) -> int:
    """Run `safeguard review` and return the exit code. Raise SafeguardError with a sentence for the user."""
    path = Path(wanted.golden)
    paths, others = [Path(each) for each in outs], [Path(wanted.other)] if wanted.other else []
    for each in (*paths, *others):
        if not each.is_file():
            raise UsageError(f"{each}: there is no such file")
    if not wanted.person.isprintable() or len(wanted.person) > _NAME or wanted.person != wanted.person.strip():
        raise UsageError(f"--as {wanted.person[:_NAME]!r}: give a name of at most {_NAME} letters, in one line")
    read = [*used("the output", *paths), *used("the other output", *others), *used("the policy", *wanted.policies)]
    check_golden(path, read)
    check_streams([*read, *used("the golden file", path)])
    surface = _surface(wanted)
    task, agreed, remarks = _task(paths, wanted, reading)
    people = _people(task.items, agreed) if wanted.pick == "disputed" else (wanted.person,)
    fields = [*(item.candidate.fields for item in task.items), *(row.fields for row in agreed)]
    moved = _moved(path, people, fields, again=wanted.pick == "disputed")
    task = replace(task, own={item.candidate.row: _named(item.candidate.fields, moved) for item in task.items})
    agreed = [replace(row, fields=_named(row.fields, moved)) for row in agreed]
    for remark in (*remarks, *_told_moved(moved)):
        note(remark)

    def begin(there: Sequence[ReviewedRow]) -> list[ReviewedRow]:
        return taken_over(there, task, agreed, path, settles=wanted.pick == "disputed")

    with open_golden(path, tuple(dict.fromkeys(moved.values())), people, task.labels, begin) as golden:
        if not task.items:
            return errors.OK
        session = Session(task, golden)
        try:
            surface(session)
        finally:
            note(_told(session, golden))
    return errors.OK


def _task(paths: Sequence[Path], wanted: Reviewing, reading: HowRead) -> tuple[Task, list[ReviewedRow], Sequence[str]]:
    """Return what is to be done, the rows that people agree on already, and remarks."""
    if wanted.pick == "disputed":
        found = read_disputes(paths, wanted, reading)
        material, items, agreed = found.material, found.items, found.agreed
    else:
        if len(paths) > 1:
            raise UsageError(
                f"--pick {wanted.pick} takes one output, not {len(paths)}: several files are for --pick disputed"
            )
        material = read_material(paths[0], wanted, reading)
        items, agreed = _picked(material, wanted, paths[0]), []
    remarks = list(material.remarks)
    if material.policy is None:
        remarks.append("no rules to cite: name the policy's file with --policy")
    if wanted.pick != "disputed":
        remarks.append(_told_picked(items, wanted))
    blind = wanted.pick in ("random", "unsure") if wanted.blind is None else wanted.blind
    rules = rules_of(material.policy.text) if material.policy else {}
    task = Task(wanted.person, items, material.labels, material.layout, rules, {}, blind, wanted.veil)
    return task, agreed, remarks


def _picked(material: Material, wanted: Reviewing, path: Path) -> list[Item]:
    rows = wanted.rows or ROWS
    if wanted.pick == "random":
        items = pick_random(material.candidates, rows, wanted.seed)
    elif wanted.pick == "unsure":
        items = pick_unsure(material.candidates, rows, wanted.seed)
    else:
        items = pick_asked(wanted.pick, material.candidates, rows, wanted.seed)
    if not items:
        why = {"disagree": "the labels differ nowhere", "wrong": "every label is the right one"}
        raise UsageError(f"{path}: there is no row to review: {why.get(wanted.pick, 'no row holds a text')}")
    return items


def _told_picked(items: Sequence[Item], wanted: Reviewing) -> str:
    random = sum(item.picked.how == "random" for item in items)
    if wanted.pick == "unsure":
        how = f"{len(items) - random:,} nearest to the threshold and {random:,} at random"
    else:
        what = {"random": "at random", "wrong": "that are wrong"}.get(wanted.pick, "that differ")
        how = f"of {items[0].picked.of:,} {what}"
    return f"{count_of(len(items))}, {how}"


def _people(items: Iterable[Item], agreed: Iterable[ReviewedRow]) -> tuple[str, ...]:
    rows = (*agreed, *(item.before for item in items if item.before))
    return tuple(dict.fromkeys(name for row in rows for name in row.labels))


def _moved(path: Path, people: Sequence[str], rows: Iterable[Mapping[str, Any]], *, again: bool) -> dict[str, str]:
    """Return the names that the rows' own fields have in the golden file.

    With `again` they come from golden files, where they made way for ours before.
    """
    taken = taken_names(path, people)
    return {name: name if again and name not in taken else own_name(name, taken) for fields in rows for name in fields}


def _named(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in fields.items()}


def _told_moved(moved: Mapping[str, str]) -> Iterable[str]:
    if renamed := [f"{name} as {new}" for name, new in moved.items() if name != new]:
        yield f"the rows' own fields of names that a golden file uses are kept: {', '.join(renamed)}"


def _surface(wanted: Reviewing) -> Surface:
    """Return what shows a session: the app, or lines where there is no full terminal. Raise if Textual is missing."""
    from safeguard_cli.review.lines import run_lines
    from safeguard_cli.review.web import run_web

    if wanted.web:
        return run_web
    full = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    if wanted.plain or not full:
        return run_lines
    if not _is_there("textual"):
        raise SafeguardError(
            *missing_extra("the review needs Textual", "review").args, "or answer line by line, with --plain"
        )

    def run(session: Session) -> None:
        from safeguard_cli.review.app import run_app

        run_app(session)

    return run


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # imported, and then hidden
        return False


def _told(session: Session, golden: GoldenFile) -> str:
    """Return how far the review is, and what comes next."""
    view = session.view()
    skipped = f", {view.skipped:,} skipped" if view.skipped else ""
    told = f"{golden.path}: {view.answered:,} of {view.rows:,} rows labelled{skipped}"
    return told if view.done else f"{told}; the same command goes on"
