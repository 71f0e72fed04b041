"""Label Studio's files: tasks with predictions, made of an output, and its JSON export, read as a golden file.

The forms are those of its documentation: https://labelstud.io/guide/tasks (a task), …/guide/predictions (a prediction)
and …/guide/export (an export in JSON).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import draft
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet, read_labels
from safeguard_cli.rows.records import json_text
from safeguard_cli.rows.source import Source, open_source
from safeguard_cli.rows.writable import check_output, real, used
from safeguard_cli.terminal import data_output, note

MOST_BYTES = 1 << 30  # of an export, which is read as a whole
_TEXT = "text"  # the tag that shows the text
ROW, LINE = "_row", "_line"  # as review writes them: where a task's row stands in the output
# What a golden file of `safeguard review` has beside the row's own fields.
_TAKEN = frozenset(
    (ROW, LINE, "label", "labels", "note", "rule", "picked", "proposed", "blind", "skipped", "settled_by", "undone")
)


def export(path: Path, out: str | None, *, overwrite: bool) -> int:
    """Write an output's rows as tasks with predictions, to a file or to standard output, and say how to show them."""
    labels = read_labels(path)
    texts = labels.texts()
    if texts is None:
        raise UsageError(f"{path}: the output does not hold the text that was labelled: label without --keep")
    names = {name for row in labels.rows for name in row.fields}
    field = _TEXT if _holds(labels, texts) or _TEXT not in names else "labelled_text"
    lines = _array(_task(labels, row, field, text) for row, text in zip(labels.rows, texts, strict=True))
    if out is None or out == "-":
        stream = data_output()
        for line in lines:
            stream.write(line)
        stream.flush()
    else:
        target = Path(out)
        check_output(target, used("the output", str(path)))
        if target.exists() and not overwrite:
            raise UsageError(f"{target} is there already: --overwrite replaces it")
        with draft(real(target)) as new:
            for line in lines:
                new.write(line)
            new.publish()
    note(f"the labeling interface of the project: {interface(labels.answers, field)}")
    return 0


def interface(answers: Sequence[LabelSet], field: str = _TEXT) -> str:
    """Return the labeling interface, an XML text, that shows such tasks."""
    choices = "".join(
        f'<Choices name={quoteattr(one.name)} toName="{_TEXT}" choice="single">'
        + "".join(f"<Choice value={quoteattr(label)}/>" for label in one.labels)
        + "</Choices>"
        for one in answers
    )
    return f'<View><Text name="{_TEXT}" value={quoteattr(f"${field}")}/>{choices}</View>'


def _holds(labels: LabeledFile, texts: Sequence[str]) -> bool:
    """Return whether the labelled text is the rows' own field `text`."""
    return all(not text or row.fields.get(_TEXT) == text for row, text in zip(labels.rows, texts, strict=True))


def _array(values: Iterator[Any]) -> Iterator[bytes]:
    """Yield a JSON array, an item a line."""
    before = b"[\n"
    for value in values:
        yield before + json_text(value).encode()
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def _task(labels: LabeledFile, row: LabeledRow, field: str, text: str) -> dict[str, Any]:
    made = {one.name: row.verdicts[one.name] for one in labels.answers if row.verdicts[one.name].error is None}
    scores = {name: verdict.scores.get(str(verdict.label), 0.0) for name, verdict in made.items()}
    results = [
        {
            "id": name,
            "from_name": name,
            "to_name": _TEXT,
            "type": "choices",
            "score": scores[name],
            "value": {"choices": [verdict.label]},
        }
        for name, verdict in made.items()
    ]
    prediction = {"model_version": _version(labels), "score": min(scores.values(), default=0.0), "result": results}
    data = {**row.fields, field: text, ROW: row.number, LINE: row.line}
    return {"data": data, "predictions": [prediction] if results else []}


def _version(labels: LabeledFile) -> str:
    """Return what made the predictions: the model, the effort, and each policy with the beginning of its hash."""
    on_record = labels.manifest.identity.policies if labels.manifest else {}
    policies = (
        f"{one.name}@{on_record[one.name].sha256[:12]}" if one.name in on_record else one.name for one in labels.answers
    )
    return " ".join((labels.model or "unknown", labels.effort, *policies)).strip()


def is_export(path: Path) -> bool:
    """Return whether a file is a JSON export of Label Studio: an array of tasks with annotations."""
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return beginning[:1] == b"[" and b'"annotations"' in beginning and b'"data"' in beginning


def open_answers(
    path: Path, *, format: str | None = None, encoding: str = "utf-8", policies: Collection[str] = ()
) -> Source:
    """Open a golden file, or an export as the lines of one: see `golden_lines`."""
    if not is_export(path):
        return open_source(path, format=format, encoding=encoding)
    source = open_source(io.BytesIO(golden_lines(path, policies)), format="jsonl")
    source.name = str(path)
    return source


def golden_lines(path: Path, policies: Collection[str] = ()) -> bytes:
    """Return a JSON export as the lines of a golden file of `safeguard review`.

    The choices that are read have the name of one of `policies`, or are the only ones. A task that was skipped is a
    skipped row; one that several people labelled differently has their labels, and none that counts. Raise UsageError
    with the task for what is not as it may be.
    """
    rows = (row for number, task in enumerate(_tasks(path), 1) if (row := _reviewed(task, number, policies, path)))
    return b"".join(json_text(row).encode() + b"\n" for row in rows)


def _tasks(path: Path) -> list[Any]:
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path}: an export is read as a whole, and this one has more than {MOST_BYTES >> 30} GB")
    try:
        tasks = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except ValueError as problem:
        raise UsageError(f"{path}: this is not JSON: {problem}") from None
    except OSError as problem:
        raise SafeguardError(f"{path}: cannot be read: {problem.strerror}") from problem
    if not isinstance(tasks, list):
        raise UsageError(f"{path}: an export of Label Studio is an array of tasks")
    return tasks


def _reviewed(task: Any, number: int, policies: Collection[str], path: Path) -> dict[str, Any] | None:
    """Return a task's row, None for one without an annotation."""
    where = f"{path}, task {task.get('id', number) if isinstance(task, dict) else number}"
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise UsageError(f"{where}: a task has an object `data`")
    annotations = [one for one in _list(task.get("annotations")) if isinstance(one, dict)]
    if not annotations:
        return None
    done = [one for one in annotations if not one.get("was_cancelled")]
    labels = {_person(one): found for one in done if (found := _choice(one, policies, where)) is not None}
    truth = next((_choice(one, policies, where) for one in done if one.get("ground_truth")), None)
    agreed = next(iter(labels.values())) if len(set(labels.values())) == 1 else None
    data: Mapping[str, Any] = task["data"]
    row = _count(data.get(ROW)) or number
    return {
        **{f"{name}_before" if name in _TAKEN else name: data[name] for name in data if name not in (ROW, LINE)},
        ROW: row,
        LINE: _count(data.get(LINE)) or row,
        "label": truth or agreed,
        "labels": labels,
        "note": "",
        "rule": "",
        "picked": {"how": "", "probability": None, "seed": None, "of": None},  # nobody knows
        "proposed": {"label": _proposed(task, policies, where)},
        "blind": False,
        **({} if labels else {"skipped": True}),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _person(annotation: Mapping[str, Any]) -> str:
    """Return who made an annotation: the part of an address before the @, else a number."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = str(who.get("email") or who.get("username") or who.get("id") or "").partition("@")[0]
    return str(who) if who not in (None, "") else "unknown"


def _choice(annotation: Mapping[str, Any], policies: Collection[str], where: str) -> str | None:
    """Return the label that an annotation or a prediction gives, None if it gives none."""
    given: dict[str, Any] = {}
    for result in _list(annotation.get("result")):
        if isinstance(result, dict) and result.get("type") == "choices":
            value = result.get("value")
            given[str(result.get("from_name"))] = value.get("choices") if isinstance(value, dict) else None
    named = [name for name in given if name in policies] or [*given]
    if len(named) > 1:
        raise UsageError(
            f"{where}: it has choices of {' and '.join(named)}: name one with --policy, or export one alone"
        )
    if not named:
        return None
    chosen = given[named[0]]
    if not isinstance(chosen, list) or len(chosen) != 1:
        raise UsageError(f"{where}: it has {len(_list(chosen)) or 'no'} choices where one is needed")
    return str(chosen[0])


def _proposed(task: Mapping[str, Any], policies: Collection[str], where: str) -> str | None:
    predictions = [one for one in _list(task.get("predictions")) if isinstance(one, dict)]
    return _choice(predictions[0], policies, where) if predictions else None
