"""`safeguard review`: a person's answers to rows of an output, one at a time, into a golden file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError, missing_extra
from safeguard_cli.measure.reviewed import Proposed, ReviewedRow, own_name, read_reviewed
from safeguard_cli.output.labelled import LabeledFile, LabeledRow
from safeguard_cli.output.spelled import normal
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.policy.rationale import rules_of
from safeguard_cli.review.answers import GoldenFile, check_golden, open_golden, taken_names
from safeguard_cli.review.disputes import disputed_items, put_together
from safeguard_cli.review.options import Reviewing
from safeguard_cli.review.picking import Item, pick_asked, pick_random, pick_unsure
from safeguard_cli.review.reading import HowRead, read_material
from safeguard_cli.review.session import Session, Task
from safeguard_cli.review.shown import Layout
from safeguard_cli.rows.writable import used
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
    check_golden(
        path, [*used("the output", *paths), *used("the other output", *others), *used("the policy", *wanted.policies)]
    )
    surface = _surface(wanted)
    task, agreed, remarks = (
        _disputed(paths, wanted, reading) if wanted.pick == "disputed" else _picked(paths, wanted, reading)
    )
    people = dict.fromkeys(name for row in agreed for name in row.labels)
    people |= dict.fromkeys(name for item in task.items if item.before for name in item.before.labels)
    names = tuple(people) if wanted.pick == "disputed" else (wanted.person,)
    taken = taken_names(path, names)
    moved = {name: own_name(name, taken) for item in task.items for name in item.candidate.fields}
    task = replace(
        task,
        own={
            item.candidate.row: {moved[name]: value for name, value in item.candidate.fields.items()}
            for item in task.items
        },
    )
    if renamed := [f"{name} as {new}" for name, new in moved.items() if name != new]:
        remarks = (*remarks, f"the rows' own fields of names that a golden file uses are kept: {', '.join(renamed)}")
    for remark in remarks:
        note(remark)
    own = tuple(dict.fromkeys(moved.values()))
    with open_golden(path, own, names, task.labels, lambda rows: _taken_over(rows, task, agreed, path)) as golden:
        session = Session(task, golden)
        try:
            surface(session)
        finally:
            note(_told(session, golden))
    return errors.OK


def _picked(
    paths: Sequence[Path], wanted: Reviewing, reading: HowRead
) -> tuple[Task, list[ReviewedRow], Sequence[str]]:
    """Return the task of reviewing one output."""
    if len(paths) > 1:
        raise UsageError(
            f"--pick {wanted.pick} takes one output, not {len(paths)}: several files are for --pick disputed"
        )
    material = read_material(paths[0], wanted, reading)
    rows = wanted.rows or ROWS
    if wanted.pick == "random":
        items = pick_random(material.candidates, rows, wanted.seed)
    elif wanted.pick == "unsure":
        items = pick_unsure(material.candidates, rows, wanted.seed)
    else:
        items = pick_asked(wanted.pick, material.candidates, rows, wanted.seed)
    if not items:
        why = {"disagree": "the labels differ nowhere", "wrong": "every label is the right one"}
        raise UsageError(f"{paths[0]}: there is no row to review: {why.get(wanted.pick, 'no row holds a text')}")
    random = sum(item.picked.how == "random" for item in items)
    how = (
        f"{len(items) - random:,} nearest to the threshold and {random:,} at random" if wanted.pick == "unsure" else ""
    )
    of = f"of {items[0].picked.of:,} " + {"random": "at random", "wrong": "that are wrong"}.get(
        wanted.pick, "that differ"
    )
    remarks = [*material.remarks, f"{len(items):,} rows, {how or of}"]
    blind = wanted.pick in ("random", "unsure") if wanted.blind is None else wanted.blind
    rules = rules_of(material.policy.text) if material.policy else {}
    return Task(wanted.person, items, material.labels, material.layout, rules, {}, blind, wanted.veil), [], remarks


def _disputed(
    paths: Sequence[Path], wanted: Reviewing, reading: HowRead
) -> tuple[Task, list[ReviewedRow], Sequence[str]]:
    """Return the task of settling what people's golden files disagree on, and the rows that they agree on."""
    if len(wanted.policies) > 1:
        raise UsageError("--policy is given twice: a review is about one policy")
    policy = load_policy(wanted.policies[0]) if wanted.policies else None
    labels = policy.labels if policy else ()
    how = {"format": reading.format, "encoding": reading.encoding}
    golden = [read_reviewed(path, **how, labels=labels) for path in paths]  # type: ignore[arg-type]
    agreed, disputed = put_together(golden)
    if not labels:
        said = (label for row in (*agreed, *disputed) for label in (*row.labels.values(), row.proposed.label))
        labels = tuple(dict.fromkeys(label for label in said if label is not None))
    if not disputed:
        raise UsageError(
            f"{', '.join(map(str, paths))}: nothing is in dispute: {len(agreed):,} rows, all of one opinion"
        )
    rows = tuple(LabeledRow(row.row, row.line, row.fields, {}) for row in disputed)
    file = LabeledFile(paths[0], rows, (), None)
    texts = file.texts(reading.text.text_fields, reading.text.template)
    if texts is None:
        raise UsageError(f"{paths[0]}: which field holds the text? Name it with --text-field")
    chosen = (reading.text.text_fields, reading.text.template)
    fields, template = chosen if any(chosen) else file.chosen_text() or ((), None)
    items = disputed_items(disputed, {row.number: text for row, text in zip(rows, texts, strict=True)})[: wanted.rows]
    remarks = [
        f"{len(disputed):,} rows in dispute, {len(agreed):,} that are not, which the golden file gets as they are"
    ]
    if policy is None:
        remarks.append("no rules to cite: name the policy's file with --policy")
    layout = Layout(fields, template is not None)
    rules = rules_of(policy.text) if policy else {}
    blind = False if wanted.blind is None else wanted.blind
    return Task(wanted.person, items, labels, layout, rules, {}, blind, wanted.veil), agreed, remarks


def _taken_over(
    there: Sequence[ReviewedRow], task: Task, agreed: Sequence[ReviewedRow], path: Path
) -> list[ReviewedRow]:
    """Return the answers that a golden file begins with: those in it, checked against the rows to review.

    A random row keeps the probability of the largest sample that was drawn; one that was picked for another reason and
    belongs to the sample counts as random.
    """
    items = {item.candidate.key: item for item in task.items}
    settles = any(item.before for item in task.items)
    kept: dict[int, ReviewedRow] = {row.key: row for row in agreed}
    for row in there:
        _check_person(row, task.person, settles, path)
        item = items.get(row.key)
        if item is None:
            kept.setdefault(row.key, row)
            continue
        _check_row(row, item, task, path)
        picked = row.picked
        if item.picked.how == "random" and not (picked.how == "random" and _larger(picked.probability, item)):
            picked = item.picked
        candidate = item.candidate
        proposed = candidate.proposed if candidate.proposed != Proposed() else row.proposed
        kept.pop(row.key, None)
        kept[row.key] = replace(row, row=candidate.row, line=candidate.line, picked=picked, proposed=proposed)
    return list(kept.values())


def _larger(probability: float | None, item: Item) -> bool:
    return (probability or 0.0) > (item.picked.probability or 0.0)


def _check_person(row: ReviewedRow, person: str, settles: bool, path: Path) -> None:
    """Raise UsageError if an answer in a golden file is another person's."""
    others = [row.settled_by] if row.settled_by else [] if settles else [*row.labels]
    if row.settled_by and not settles:
        raise UsageError(f"{path}: these rows were settled with --pick disputed: answer into another file with -o")
    if other := next((name for name in others if name != person), None):
        raise UsageError(f"{path} has the answers of {other!r}: --as {person} needs a golden file of its own, with -o")


def _check_row(row: ReviewedRow, item: Item, task: Task, path: Path) -> None:
    """Raise UsageError if the text of a row in a golden file is not that of the row to review."""
    own = task.own[item.candidate.row]
    texts = {name.partition(".")[0] for name in task.layout.fields} or own.keys()
    for name in own.keys() & row.fields.keys() & texts:
        if _words(own[name]) != _words(row.fields[name]):
            raise UsageError(
                f"{path}, line {row.at}: its row {row.row} is another row in what is to be reviewed: is this the golden"
                " file of another output? Answer into another file with -o"
            )


def _words(value: object) -> str:
    """Return the beginning of a value without what a spreadsheet may change in it."""
    return " ".join(normal(value).split())[:1000]


def _surface(wanted: Reviewing) -> Surface:
    """Return what shows a session: the app, or lines where there is no full terminal. Raise if Textual is missing."""
    from safeguard_cli.review.lines import run_lines

    full = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    if wanted.plain or not full:
        return run_lines
    if find_spec("textual") is None:
        raise SafeguardError(
            *missing_extra("the review needs Textual", "review").args, "or answer line by line, with --plain"
        )

    def run(session: Session) -> None:
        from safeguard_cli.review.app import run_app

        run_app(session)

    return run


def _told(session: Session, golden: GoldenFile) -> str:
    """Return how far the review is, and what comes next."""
    view = session.view()
    skipped = f", {view.skipped:,} skipped" if view.skipped else ""
    told = f"{golden.path}: {view.answered:,} of {view.rows:,} rows labelled{skipped}"
    return told if view.done else f"{told}; the same command goes on"
