"""Read an output back: each row's own fields and Verdicts, and the labels that each policy allowed.

This is the reader of `eval`, `compare`, `report`, `stress` and `show`. Another program may have saved the output again:
its values are read strictly, or refused with file, line and column.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.find import find_model
from safeguard_cli.model.fingerprint import model_fingerprint
from safeguard_cli.model.names import DEMO, size_text
from safeguard_cli.output.manifest import Manifest, find_manifest
from safeguard_cli.output.readback import BadPart, verdict_of, verdict_of_cells
from safeguard_cli.output.spelled import is_missing, mapping
from safeguard_cli.rows.formats import extension, is_sheet
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.text import Selector, make_selector
from safeguard_cli.rows.verdict import COLUMNS, Verdict

TOGETHER = "all policies in one prompt and one answer"
APART = "one prompt for each policy"
SAMPLE_ROWS = 100  # rows in which to look for verdicts, and for the text
_MOST_LABELS = 12  # the most labels of which all subsets are tried as the violating ones
_REVIEWED, _SAID = {"_row", "picked"}, "proposed"  # fields of reviewed rows; the last is what a model had said before
_CLOSE = 2e-6  # scores are written with six digits


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of one policy, in order, and those that violate."""

    name: str
    labels: tuple[str, ...]
    violates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabeledRow:
    """One row of an output: its own fields, and its Verdicts by policy name.

    `number` counts the rows of the file from 1, `line` its lines.
    """

    number: int
    line: int
    fields: Mapping[str, Any]
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class LabeledFile:
    """An output: its rows, its policies' labels, and its manifest if it has one.

    `doubts` are what a reader of its figures must know: that its run has not finished, or that the file was changed.
    """

    path: Path
    rows: tuple[LabeledRow, ...]
    answers: tuple[LabelSet, ...]
    manifest: Manifest | None
    doubts: tuple[str, ...] = ()

    @property
    def prompting(self) -> str:
        """Return whether the policies were asked about together, in words for its figures."""
        return TOGETHER if self.manifest and self.manifest.identity.answer.together else APART

    @property
    def model(self) -> str:
        """Return the model that labelled the rows: demo, a file's name, or a server's; empty if not on record."""
        return model_name(self.manifest) if self.manifest else ""

    @property
    def effort(self) -> str:
        """Return the effort that the run asked for, else those that the rows name."""
        asked = self.manifest.identity.answer.effort if self.manifest else None
        found = {verdict.effort for row in self.rows for verdict in row.verdicts.values() if verdict.effort}
        return str(asked or ", ".join(sorted(found)))

    def chosen_text(self, gold: Iterable[str] = ()) -> tuple[tuple[str, ...], str | None] | None:
        """Return the fields and the template of the labelled text: those on record, else those that a run would choose.

        The choice is never one of the fields `gold`. None if there is no clear choice.
        """
        if self.manifest:
            chosen = self.manifest.identity.input
            if chosen.text_fields or chosen.template is not None:
                return chosen.text_fields, chosen.template
        try:
            return self._selector((), None, frozenset(gold)).fields, None
        except UsageError:
            return None

    def texts(
        self, text_fields: Sequence[str] = (), template: str | None = None, gold: Iterable[str] = ()
    ) -> tuple[str, ...] | None:
        """Return each row's text: the one asked for, else the one that the run labelled; None if the output lacks it.

        Raise UsageError if no row has a field that is asked for.
        """
        asked = bool(text_fields or template is not None)
        chosen = (text_fields, template) if asked else self.chosen_text(gold)
        try:
            selector = self._selector(*chosen) if chosen else None
        except UsageError:
            if asked:
                raise
            selector = None  # --keep left the text out
        if selector is None:
            return None
        found = (selector.select(Record(row.number, row.line, b"", row.fields)) for row in self.rows)
        return tuple(text if isinstance(text, str) else "" for text in found)

    def _selector(self, fields: Sequence[str], template: str | None, without: frozenset[str] = frozenset()) -> Selector:
        """Return a Selector that takes the text from the rows' own fields."""
        rows = ({name: row.fields[name] for name in row.fields if name not in without} for row in self.rows)
        lines = (orjson.dumps(row, default=str) for row in islice(rows, SAMPLE_ROWS))
        with open_source(io.BytesIO(b"\n".join(lines) + b"\n"), format="jsonl") as source:
            source.name = str(self.path)
            return make_selector(source, text_fields=fields, template=template)


def read_labels(
    path: Path,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    sheet: str | None = None,
    known: Sequence[LabelSet] = (),
) -> LabeledFile:
    """Read an output of `safeguard label`; the labels of the policies `known` are taken from there.

    Raise UsageError if it holds no verdicts; for a value that is none of ours, the error has the line and the column.
    """
    manifest = find_manifest(path)
    with open_source(path, format=format, encoding=encoding, sheet=sheet) as source:
        records = list(source)
        header = source.names
    if records and manifest and not manifest.finished and not ends_in_a_line_end(path):
        del records[-1]  # the run is still writing it, or was killed at it
    readers = _readers(records, header)
    if not readers:
        raise UsageError(f"{path}: no row holds a verdict; is it an output of `safeguard label`?")
    records_of_rows = [(number, record) for number, record in enumerate(records, 1) if not _is_blank(record)]
    parquet = (format or extension(path)) == "parquet"
    for _, record in records_of_rows:
        if not parquet:  # rows of a Parquet output may hold text that is not valid UTF-8, as they did in the input
            _check_whole(record, path)
    allowed = _allowed(path, manifest, known)
    labels = {
        name: allowed[name].labels if name in allowed else _scored(reader, records) for name, reader in readers.items()
    }
    where = f"{path}, {'row' if parquet or is_sheet(format, path) else 'line'}"
    rows = tuple(
        LabeledRow(
            number,
            record.line,
            _own(record, readers.values()),
            {name: _read(reader, record, labels[name], where) for name, reader in readers.items()},
        )
        for number, record in records_of_rows
    )
    answers = tuple(allowed.get(name) or _inferred(name, labels[name], rows, path) for name in readers)
    return LabeledFile(path, rows, answers, manifest, _doubts(path, len(rows), manifest))


def _doubts(path: Path, rows: int, manifest: Manifest | None) -> tuple[str, ...]:
    if manifest is None:
        return ()
    if not manifest.finished:
        sample = "" if manifest.identity.sample else ", the first ones, which are no sample of the file"
        return (f"this run is not finished: {rows:,} rows are labelled so far{sample}",)
    found = []
    if path.stat().st_size != manifest.progress.output_bytes:
        found.append("the file was changed after its run had finished")
    found += map(untrained_text, (manifest.result.untrained or ()) if manifest.result else ())
    return tuple(found)


def untrained_text(name: str) -> str:
    """Return a sentence that the labels under a policy mean nothing."""
    return f"the labels under {name} mean nothing: the demo model was not trained on this policy"


def _allowed(path: Path, manifest: Manifest | None, known: Sequence[LabelSet]) -> dict[str, LabelSet]:
    """Return the labels of the policies on record or given; raise UsageError if these do not agree."""
    on_record = manifest.identity.policies if manifest else {}
    allowed = {name: LabelSet(name, policy.labels, policy.violates) for name, policy in on_record.items()}
    for answers in known:
        if allowed.setdefault(answers.name, answers) != answers:
            there = allowed[answers.name]
            raise UsageError(
                f"the policy {answers.name} has the labels {', '.join(answers.labels)} (violating:"
                f" {', '.join(answers.violates)}); {path} was labelled with {', '.join(there.labels)} (violating:"
                f" {', '.join(there.violates)})"
            )
    return allowed


def model_name(manifest: Manifest) -> str:
    """Return the model of a run: demo, a file's name or size, or a server's; empty if not on record."""
    model = manifest.identity.model
    if model.served:
        return f"{model.served} on {', '.join(manifest.machine.servers or ()) or 'a server'}"
    if manifest.result and manifest.result.model:
        name = Path(manifest.result.model).name
        return DEMO if name == find_model(DEMO).name else name
    if model.served is not None:
        return ""
    demo = find_model(DEMO)
    if model.bytes == demo.stat().st_size and model.record == model_fingerprint(demo):
        return DEMO
    return f"a file of {size_text(model.bytes)}"


def holds_verdicts(
    path: Path, *, format: str | None = None, encoding: str = "utf-8", sheet: str | None = None
) -> tuple[str, ...]:
    """Return the policy names under which a file holds verdicts, none if it is not an output of ours."""
    try:
        with open_source(path, format=format, encoding=encoding, sheet=sheet) as source:
            return tuple(_readers([*source.sample()], source.names))
    except SafeguardError:  # it may be a golden set with a title row: reading it as one reports what is wrong
        return ()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Where a policy's verdicts are: in an object under its name, or in columns whose names begin with it."""

    name: str
    in_columns: bool

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{column}" for column in (*COLUMNS, "cut")) if self.in_columns else (self.name,)

    def parts(self, fields: Mapping[str, Any]) -> Any:
        """Return the parts of a row's verdict, not yet parsed."""
        if self.in_columns:
            return {column: fields.get(key) for column, key in zip((*COLUMNS, "cut"), self.keys, strict=True)}
        value = fields.get(self.name)
        return mapping(value) or value

    def place(self, part: str) -> str:
        """Return what a part is called in the file."""
        if self.in_columns:
            return f"column {self.name}_{part}" if part else f"columns {self.name}_…"
        return f"field {self.name}.{part}" if part else f"field {self.name}"


def _readers(records: Sequence[Record], header: Sequence[str]) -> dict[str, _Reader]:
    """Return where the first rows have verdicts, by policy name: in objects, else in columns under that name."""
    names = dict.fromkeys(header)
    for record in records[:SAMPLE_ROWS]:
        fields = record.fields or {}
        reviewed = fields.keys() >= _REVIEWED
        found = [
            key for key, value in fields.items() if _is_verdict(mapping(value)) and not (reviewed and key == _SAID)
        ]
        if found:
            return {name: _Reader(name, in_columns=False) for name in found}
        names |= dict.fromkeys(fields)
    stems = [name.removesuffix("_p_violates") for name in names if name.endswith("_p_violates")]
    return {
        stem: _Reader(stem, in_columns=True)
        for stem in stems
        if stem
        and not (stem == _SAID and names.keys() >= _REVIEWED)
        and all(f"{stem}_{column}" in names for column in ("label", "violates"))
    }


def _is_verdict(value: Mapping[str, Any] | None) -> bool:
    return value is not None and "label" in value and ("p_violates" in value or "error" in value)


def _scored(reader: _Reader, records: Iterable[Record]) -> tuple[str, ...]:
    """Return the labels that have scores, in their order."""
    found: dict[str, None] = {}
    for record in records:
        parts = reader.parts(record.fields or {})
        scores = mapping(parts.get("scores")) if isinstance(parts, Mapping) else None
        found |= dict.fromkeys(scores or {})
    return tuple(found)


def _read(reader: _Reader, record: Record, labels: Sequence[str], where: str) -> Verdict:
    if record.fields is None and record.error:
        return Verdict(error=record.error)
    read: Callable[[Any, Sequence[str]], Verdict] = verdict_of_cells if reader.in_columns else verdict_of
    try:
        return read(reader.parts(record.fields or {}), labels)
    except BadPart as problem:
        raise UsageError(f"{where} {record.line}, {reader.place(problem.part)}: {problem.sentence}") from None


def _own(record: Record, readers: Iterable[_Reader]) -> dict[str, Any]:
    """Return the row's own fields, without the verdicts."""
    ours = {key for reader in readers for key in reader.keys}
    return {name: value for name, value in (record.fields or {}).items() if name not in ours}


def _is_blank(record: Record) -> bool:
    """Return whether a row holds nothing at all, as rows do that spreadsheets leave at the end."""
    return record.fields is not None and all(is_missing(value) for value in record.fields.values())


def _check_whole(record: Record, path: Path) -> None:
    if record.error is None:
        return
    hint = "; is there another --encoding, such as cp1252?" if record.error.code == "bad_encoding" else ""
    raise UsageError(f"{path}: {record.error.message}; an output has no such row: was it changed?{hint}")


def ends_in_a_line_end(path: Path) -> bool:
    """Return whether a file is empty or its last line is whole."""
    with path.open("rb") as file:
        if not file.seek(0, io.SEEK_END):
            return True
        file.seek(-1, io.SEEK_END)
        return file.read(1) == b"\n"


def _inferred(name: str, labels: Sequence[str], rows: Sequence[LabeledRow], path: Path) -> LabelSet:
    """Return a policy's labels as the rows show them, for an output without a manifest."""
    verdicts = [row.verdicts[name] for row in rows if row.verdicts[name].error is None]
    if not verdicts:
        raise UsageError(f"{path}: no row is labelled under {name}, so there is nothing to measure")
    found = tuple(dict.fromkeys((*labels, *(str(verdict.label) for verdict in verdicts))))
    return LabelSet(name, found, _violating(name, found, verdicts, path))


def _violating(name: str, labels: Sequence[str], verdicts: Sequence[Verdict], path: Path) -> tuple[str, ...]:
    """Return the violating labels: those whose scores add up to p_violates in every row, else those of violating rows.

    With --threshold a row can violate whatever its label is, so the scores are better evidence than `violates`.
    """
    said = {(verdict.label, verdict.violates) for verdict in verdicts}
    scored = [verdict for verdict in verdicts if verdict.scores]
    if scored and len(labels) <= _MOST_LABELS:
        sets = (chosen for size in range(1, len(labels) + 1) for chosen in combinations(labels, size))
        fitting = [chosen for chosen in sets if all(_adds_up(verdict, chosen) for verdict in scored)]
        agreeing = [chosen for chosen in fitting if all((label in chosen) == bad for label, bad in said)]
        for found in (fitting, agreeing):
            if len(found) == 1:
                return found[0]
    if both := next((label for label in labels if (label, True) in said and (label, False) in said), None):
        raise UsageError(
            f"{path}: under {name}, rows with the label {both!r} violate and others do not: name the policy, with"
            " --policy, or keep the manifest beside the file"
        )
    return tuple(label for label in labels if (label, True) in said)


def _adds_up(verdict: Verdict, labels: Sequence[str]) -> bool:
    total = sum(verdict.scores.get(label, 0.0) for label in labels)
    return abs(min(1.0, total) - (verdict.p_violates or 0.0)) <= _CLOSE
