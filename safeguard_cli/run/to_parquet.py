"""Parquet outputs, made of a run's journal: see run/made.py. Own columns keep the types of a Parquet input."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.rows.cells import unique_names
from safeguard_cli.rows.formats import Written
from safeguard_cli.rows.layouts import as_object
from safeguard_cli.rows.parquet import (
    BATCH_BYTES,
    BATCH_ROWS,
    first_line,
    open_parquet,
    pick,
    pyarrow,
    read_batches,
    write_parquet,
)
from safeguard_cli.rows.records import SAMPLE
from safeguard_cli.run.made import EXTRA, filled, journal_rows, own_fields, rereads, verdict_members, written_of
from safeguard_cli.run.settings import Settings

_Columns = tuple[int, list[Any]]  # a number of rows, and these rows of every column; there may be no column


class ParquetMaker:
    """The made.Maker of Parquet files."""

    format: Written = "parquet"
    rereads = True

    def check(self, settings: Settings, keep: Sequence[str] | None) -> None:
        """Raise SafeguardError if pyarrow is missing, or if a column of the input cannot be written again."""
        pyarrow()
        if rereads(self, settings):
            check_types(settings, keep)

    def most_rows(self) -> int | None:
        """Return None: there is no bound."""

    def write(self, settings: Settings, done: Manifest, journal: Path, part: Path) -> str:
        """Write the file."""
        convert(settings, done, journal, part)
        return ""

    def verdicts(self, output: Path, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the verdicts of each row."""
        with open_parquet(output) as file:
            for batch in read_batches(file):
                yield from batch.select(list(names)).to_pylist()

    def failures(self) -> tuple[type[Exception], ...]:
        """Return Arrow's errors."""
        return (pyarrow().ArrowException,)


def from_file_of_parquet(settings: Settings) -> bool:
    """Return whether the input is a Parquet file: its columns can be read again."""
    return written_of(settings) == "parquet"


def convert(settings: Settings, done: Manifest, journal: Path, part: Path, rows: Sequence[int] | None = None) -> None:
    """Write the rows of a journal into a Parquet file.

    `rows` are the places in the input that the journal's rows have there, None if they are all of its rows.
    """
    pa = pyarrow()
    ours = [
        pa.field(name, _verdict_type(policy.labels, verdict_members(done.identity)))
        for name, policy in done.identity.policies.items()
    ]
    if done.identity.sample:
        ours.insert(0, pa.field(SAMPLE, _sample_type()))
    names = tuple(field.name for field in ours)
    own: Iterator[_Columns]
    if from_file_of_parquet(settings):
        schema, own = _from_parquet(settings, done.identity.output.keep, rows)
    else:
        schema, own = _from_journal(journal, names)
    found = (verdicts for _, verdicts in journal_rows(journal, names))
    whole = pa.schema([*schema, *ours], metadata=schema.metadata)

    def batches() -> Iterator[Any]:
        for size, columns in own:
            verdicts = list(islice(found, size))  # fewer with --limit
            labels = [pa.array([filled(row[field.name]) for row in verdicts], field.type) for field in ours]
            yield pa.RecordBatch.from_arrays([*(column[: len(verdicts)] for column in columns), *labels], schema=whole)

    write_parquet(part, whole, batches())


def _verdict_type(labels: Sequence[str], columns: Sequence[str]) -> Any:
    """Return the struct type of a verdict: the members that the options ask for, as in JSONL, all always present."""
    pa = pyarrow()
    text = pa.string()
    kinds = {
        "violates": pa.bool_(),
        "p_violates": pa.float64(),
        "p_calibrated": pa.float64(),
        "score": pa.float64(),
        "scores": pa.struct([(label, pa.float64()) for label in labels]),
        "votes": pa.struct([(label, pa.int32()) for label in labels]),
        "p_votes": pa.float64(),
        "windows": pa.int32(),
        "truncated": pa.bool_(),
        "cut": pa.bool_(),
        "error": pa.struct([("code", text), ("message", text)]),
    }
    return pa.struct([(column, kinds.get(column, text)) for column in columns])


def _sample_type() -> Any:
    pa = pyarrow()
    whole = ("seed", "row", "rank", "asked")
    return pa.struct(
        [
            *((part, pa.int64()) for part in whole),
            ("probability", pa.float64()),
            *((part, pa.string()) for part in ("by", "picked")),
        ]
    )


def check_types(settings: Settings, keep: Sequence[str] | None) -> None:
    """Raise UsageError if a column of the input cannot be written again; tried before anything is labelled."""
    pa = pyarrow()
    schema, own = _from_parquet(settings, keep)
    columns = [pa.array([], field.type) for field in schema]
    with suppress(SafeguardError):  # a damaged file is reported later, after its whole rows are labelled
        _, columns = next(own, (0, columns))
    own.close()
    for field, column in zip(schema, columns, strict=True):
        try:
            pa.parquet.write_table(pa.table([column], pa.schema([field])), pa.BufferOutputStream())
        except (OSError, pa.ArrowException) as problem:
            raise UsageError(
                f"{settings.input}: its column {field.name!r} of type {field.type} cannot be written to Parquet"
                f" ({first_line(problem)}): leave it out with --keep, or name the output *.jsonl"
            ) from None


def _from_parquet(
    settings: Settings, keep: Sequence[str] | None, rows: Sequence[int] | None = None
) -> tuple[Any, Generator[_Columns, None, None]]:
    """Return the rows' own columns as they are in the input, with their types; only of `rows`, if they are given."""
    pa = pyarrow()
    file = open_parquet(Path(settings.input))
    schema = file.schema_arrow
    kept = [at for at, name in enumerate(unique_names(schema.names)) if keep is None or name in keep]
    # The features that the package datasets lists there would leave out our columns.
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != b"huggingface"}
    part, parts = settings.shard

    def columns() -> Generator[_Columns, None, None]:
        first = 0
        with file:
            try:
                for batch in read_batches(file):
                    size, every = batch.num_rows, parts == 1 and rows is None
                    mine: Sequence[int] = range((part - 1 - first) % parts, size, parts)
                    if rows is not None:
                        mine = [row - first for row in rows[bisect_left(rows, first) : bisect_left(rows, first + size)]]
                    first += size
                    yield len(mine), [batch.column(at) if every else pick(batch.column(at), mine) for at in kept]
            except OSError as problem:
                raise SafeguardError(f"{settings.input}: reading failed: {problem}") from problem

    return pa.schema([schema.field(at) for at in kept], metadata=metadata), columns()


def _from_journal(journal: Path, policies: Sequence[str]) -> tuple[Any, Iterator[_Columns]]:
    """Return the own fields of the first readable row as columns, each of a type that holds all its values.

    Fields that this row lacks go into `_extra` as JSON, and so does a line that could not be read.
    """
    pa = pyarrow()
    names: tuple[str, ...] = ()
    kinds: dict[str, set[str]] = {}
    extra = False
    for row, _ in journal_rows(journal, policies):
        names = names or own_fields(row, policies)
        for name, value in row.items():
            extra = extra or name not in names
            kinds.setdefault(name, set()).add(_kind(value))
    types = {name: _column_type(kinds[name] - {"null"}) for name in names}
    spare = [pa.field(unique_names([*names, *policies, EXTRA])[-1], pa.string())] if extra else []

    def columns() -> Iterator[_Columns]:
        for batch in _batches(row for row, _ in journal_rows(journal, policies)):
            arrays = [pa.array([_cell(row.get(name), kind) for row in batch], kind) for name, kind in types.items()]
            rest = [{name: value for name, value in row.items() if name not in types} for row in batch if spare]
            arrays += [pa.array([as_object(more) or None for more in rest], field.type) for field in spare]
            yield len(batch), arrays

    return pa.schema([*(pa.field(*column) for column in types.items()), *spare]), columns()


def _batches(rows: Iterator[dict[str, bytes]]) -> Iterator[list[dict[str, bytes]]]:
    """Yield the rows in lists of at most BATCH_ROWS, and of a size that Arrow's strings can hold."""
    batch: list[dict[str, bytes]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row.values()))
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _kind(value: bytes) -> str:
    """Return the kind of a JSON value; `long` if doubles would round it, `other` if no number type holds it."""
    first = value[:1]
    if first in b'"{[ntf':
        return {b'"': "text", b"n": "null", b"t": "bool", b"f": "bool"}.get(first, "nested")
    if not value.lstrip(b"-").isdigit():
        return "float" if math.isfinite(float(value)) else "other"
    if len(value) > len("-9223372036854775808") or not -(1 << 63) <= int(value) < 1 << 63:
        return "other"
    return "long" if abs(int(value)) > 1 << 53 else "int"


def _column_type(kinds: set[str]) -> Any:
    """Return the type that holds every value unchanged; text, for JSON, if there is no other."""
    pa = pyarrow()
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else pa.string()


def _cell(value: bytes | None, kind: Any) -> Any:
    if value is None or value == b"null":
        return None
    if kind == pyarrow().string() and value[:1] != b'"':
        return value.decode()
    return orjson.loads(value)
