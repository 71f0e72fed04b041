"""Reads a golden set, even a messy one: title rows above its header, section rows, other names of fields and labels.

Of a golden file of `safeguard review` the rows that people answered count, each with its last answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.label_studio import is_export, open_answers
from safeguard_cli.measure.reviewed import FIELDS, ReviewedRow, columns, holds_reviewed, read_reviewed, sample_of
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.output.spelled import one_of
from safeguard_cli.rows.cells import split_cells
from safeguard_cli.rows.conversations import by_conversation
from safeguard_cli.rows.formats import FORMATS, extension
from safeguard_cli.rows.options import Grouping
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.sniff import DELIMITERS, sep_delimiter
from safeguard_cli.rows.source import Source, check_fields, first_lines, open_source
from safeguard_cli.rows.text import make_selector
from safeguard_cli.rows.turns import Turns
from safeguard_cli.rows.verdict import RowError
from safeguard_cli.terminal import note

DEFAULT_FIELD = "label"
APART = Grouping()  # rows are no turns of conversations
_TITLE_ROWS = 20  # in which a header is looked for


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """A usable row: the text to be labelled, and the right label by policy name; `answer` is what people said of it."""

    number: int  # of the row in its file, from 1
    line: int
    fields: Mapping[str, Any]
    text: str
    gold: Mapping[str, str]
    answer: ReviewedRow | None = None
    turns: Turns | None = None  # the text, if it is a turn of a conversation

    @property
    def picked(self) -> str:
        """How a row came into its review, if not at random: by an audit's search, as an unsure one, …"""
        if self.answer is None:
            return ""
        found = sample_of(self.answer.fields).get("picked") or self.answer.picked.how
        return "" if found == "random" else str(found) or "unknown"


@dataclass(slots=True)
class Golden:
    """A golden set: its usable rows, and how many rows were left out for each reason.

    `in_error` of those could not be read or have no text. `text` names the field that holds the texts, if one does.
    """

    rows: list[GoldenRow] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    in_error: int = 0
    text: str = ""

    def leave_out(self, reason: str) -> None:
        """Count a row that is in error."""
        self.unused[reason] += 1
        self.in_error += 1


def gold_fields(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return by policy the field with the right label: FIELD for one policy, NAME=FIELD for each of several."""
    if len(names) == 1:
        if len(given) > 1:
            raise UsageError("--gold-field is given twice, but there is only one policy")
        return {names[0]: given[0].removeprefix(f"{names[0]}=") if given else DEFAULT_FIELD}
    fields = {name: f"{name}_gold" for name in names}
    for item in given:
        name, equals, column = item.partition("=")
        if not equals or name not in fields:
            raise UsageError(f"--gold-field {item!r}: with several policies write POLICY=FIELD ({', '.join(names)})")
        fields[name] = column
    return fields


def parse_map(given: Sequence[str]) -> dict[str, str]:
    """Read `SP2,SP3=spam;SP0=ham` as a mapping from the file's values to the policy's labels."""
    found: dict[str, str] = {}
    for part in ";".join(given).split(";"):
        if not part.strip():
            continue
        values, equals, label = part.rpartition("=")
        if not equals or not label.strip() or not values.strip():
            raise UsageError(f"--map {part!r}: write VALUE,VALUE=LABEL;VALUE=LABEL, such as 'SP2,SP3=spam;SP0=ham'")
        for value in values.split(","):
            if found.setdefault(value.strip(), label.strip()) != label.strip():
                raise UsageError(f"--map gives {value.strip()!r} two labels")
    return found


def read_golden(
    path: Path,
    answers: Sequence[LabelSet],
    fields: Mapping[str, str],
    *,
    mapping: Mapping[str, str] | None = None,
    skip_rows: int | None = None,
    sheet: str | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    text_fields: Sequence[str] = (),
    template: str | None = None,
    others: Collection[str] = (),
    needs_text: bool = True,
    grouping: Grouping = APART,
) -> Golden:
    """Read a golden set. Raise UsageError saying what the file has, if a field is missing or no row is usable.

    A field with a right label is never taken for the text. One of `others`, named for another purpose, is taken only if
    asked for. If no text is needed, as in an output that kept none, the rows' texts are empty.
    `skip_rows` lines stand above the header; by default a table's header is the first line that has the gold fields.
    """
    mapping = mapping or {}
    golden = Golden()
    values: Counter[str] = Counter()
    mapped: set[str] = set()
    reviewed = _reviewed(path, golden, answers, mapping, format, encoding)
    if reviewed is not None:
        others = {*others, *FIELDS, *columns({name for row in reviewed.values() for name in row.labels})}
    with ExitStack() as stack:
        source = stack.enter_context(_open(path, fields, golden, skip_rows, sheet, format, encoding))
        _check_gold_fields(source, fields)
        select: Callable[[Record], str | Turns | RowError]
        try:
            selector = make_selector(
                source, text_fields=text_fields, template=template, gold=set(fields.values()), others=others
            )
            golden.text, select = selector.described, selector.select
            if grouping.group is not None:
                whole = stack.enter_context(_open(path, fields, Golden(), skip_rows, sheet, format, encoding))
                turned = stack.enter_context(by_conversation(selector, whole, grouping))
                golden.text, select = turned.described, turned.select
        except UsageError:
            if needs_text:
                raise
            select = _no_text
        _check_map(mapping, answers)
        for number, record in enumerate(source, 1):
            answer = reviewed.get(record.line) if reviewed is not None else None
            if reviewed is not None and answer is None:
                continue
            text = select(record)
            row = record.fields or {} if answer is None else {**(record.fields or {}), "label": answer.label}
            gold, reason = _gold(row, answers, fields, mapping, values, mapped)
            if record.blank:
                golden.unused["blank"] += 1
            elif record.fields is None and isinstance(text, RowError):
                golden.leave_out(f"cannot be read ({text.code})")
            elif reason:
                golden.unused[reason] += 1
            elif isinstance(text, RowError):
                golden.leave_out("no text" if text.code == "no_text" else f"cannot be read ({text.code})")
            else:
                turns = text if isinstance(text, Turns) else None
                golden.rows.append(GoldenRow(number, record.line, row, str(text), gold, answer, turns))
    said = ", ".join(f"{value!r}" for value, _ in values.most_common(8)) or "nothing"
    absent = [value for value in mapping if value not in mapped]
    if absent and golden.rows and not mapped:
        raise UsageError(f"{path}: --map names {absent[0]!r}, which is no row's gold label; those are {said}")
    if absent and golden.rows:
        note(f"--map: no row has the gold label {', '.join(map(repr, absent))}")
    if not golden.rows:
        labels = "; ".join(f"{answer.name}: {', '.join(answer.labels)}" for answer in answers)
        raise UsageError(
            f"{path}: no row can be used. Its gold says {said}; the labels are {labels} (--map translates)"
        )
    return golden


def _reviewed(
    path: Path,
    golden: Golden,
    answers: Sequence[LabelSet],
    mapping: Mapping[str, str],
    format: str | None,
    encoding: str,
) -> dict[int, ReviewedRow] | None:
    """Return by line the rows of a review that have a label, and count the others; None for any other golden set."""
    if not holds_reviewed(path, format=format, encoding=encoding):
        return None
    labels = () if mapping else tuple(dict.fromkeys(label for answer in answers for label in answer.labels))
    names = [answer.name for answer in answers]
    found = read_reviewed(path, format=format, encoding=encoding, labels=labels, policies=names)
    golden.unused["skipped by people"] += sum(row.label is None and not row.labels for row in found.rows)
    golden.unused["people differ"] += sum(row.label is None and bool(row.labels) for row in found.rows)
    golden.unused["not answered yet"] += len(found.begun)
    return {row.at: row for row in found.rows if row.label is not None}


def _check_gold_fields(source: Source, fields: Mapping[str, str]) -> None:
    """Refuse fields that are not there, and columns of verdicts: what the model said is no right label."""
    verdicts = {name.removesuffix("_p_violates") for name in source.fields() if name.endswith("_p_violates")}
    said = {f"{name}_label" for name in verdicts}
    advice = "put the right labels into a column `label` of a copy of the file"
    if wrong := next((field for field in fields.values() if field in said), None):
        raise UsageError(f"{source.name}: {wrong!r} is what the model said, not the right label: {advice}")
    if said and (missing := source.lacks(fields.values())):
        raise UsageError(f"{source.name}: no field {missing[0]!r} with the right labels: {advice}")
    check_fields(source, "--gold-field", fields.values())


def _no_text(record: Record) -> str | RowError:
    return record.error or ""


def _check_map(mapping: Mapping[str, str], answers: Sequence[LabelSet]) -> None:
    known = dict.fromkeys(label for answer in answers for label in answer.labels)
    if unknown := [label for label in mapping.values() if label not in known]:
        raise UsageError(f"--map gives {unknown[0]!r}, which is no label: {', '.join(known)}")


def _gold(
    row: Mapping[str, Any],
    answers: Sequence[LabelSet],
    fields: Mapping[str, str],
    mapping: Mapping[str, str],
    values: Counter[str],
    mapped: set[str],
) -> tuple[dict[str, str], str | None]:
    """Return the row's right labels, or why it has none."""
    gold: dict[str, str] = {}
    for answer in answers:
        value = as_text(row.get(fields[answer.name]))
        if not value:
            return {}, "no gold label"
        values[value] += 1
        meant = one_of(row.get(fields[answer.name]), mapping)
        mapped.update({meant or value}.intersection(mapping))
        label = mapping.get(meant or value) or one_of(value, answer.labels)
        if label not in answer.labels:
            return {}, f"gold {value[:40]!r} is no label of {answer.name}"
        gold[answer.name] = label
    return gold, None


def as_text(value: Any) -> str:
    """Return a value as text; JSON's true and 1 are the labels `true` and `1`."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _open(
    path: Path,
    fields: Mapping[str, str],
    golden: Golden,
    skip_rows: int | None,
    sheet: str | None,
    format: str | None,
    encoding: str,
) -> Source:
    """Open the file from its header on."""
    if is_export(path):
        return open_answers(path, policies=fields)
    kind = FORMATS.get(format or extension(path))
    if kind is None or not kind.headed:
        return open_source(path, format=format, encoding=encoding, above=skip_rows or 0, sheet=sheet)
    lines = first_lines(path, max(_TITLE_ROWS, skip_rows or 0), encoding=encoding, format=format, sheet=sheet)
    above = _header_line(lines, fields) if skip_rows is None else skip_rows
    golden.unused["above the header"] += sum(
        bool(line.strip(",;\t| \r\n")) and sep_delimiter(line.encode()) is None for line in lines[:above]
    )
    return open_source(path, format=format, encoding=encoding, above=above, sheet=sheet)


def _header_line(lines: Sequence[str], fields: Mapping[str, str]) -> int:
    wanted = set(fields.values())
    for number, line in enumerate(lines[:_TITLE_ROWS]):
        for delimiter in DELIMITERS:
            if wanted <= set(split_cells(line, delimiter, str) or ()):
                return number
    return 0
