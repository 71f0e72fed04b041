"""The conversion between the journal of a run and its Parquet output.

A Parquet file cannot be read without its footer, and cannot be appended to once it has one. So the run writes a
journal, `OUT.rows.jsonl`, an output like any other with all that is promised of one. When the journal is finished, it
is turned into OUT, which appears whole or not at all. To resume a finished OUT (`--append-input`, `--retry-errors`,
more `--limit`), the journal is made again from OUT's verdicts and the input's rows.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import draft, sha256
from safeguard_cli.output.manifest import (
    START_OVER,
    Manifest,
    Refused,
    is_what_was_written,
    load,
    load_finished,
    manifest_path,
    run_path,
)
from safeguard_cli.output.manifest_shape import Identity, Result
from safeguard_cli.output.readback import verdict_of
from safeguard_cli.output.unchanged import check_unchanged
from safeguard_cli.output.written import whole_lines
from safeguard_cli.rows.cells import unique_names
from safeguard_cli.rows.layouts import as_object, members
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
from safeguard_cli.rows.sink import open_sink
from safeguard_cli.rows.source import extension
from safeguard_cli.rows.writable import real
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.settings import Settings

EXTRA = "_extra"

_Columns = tuple[int, list[Any]]  # a number of rows, and these rows of every column; there may be no column


def from_file_of_parquet(settings: Settings) -> bool:
    """Return whether the input is a Parquet file: its columns can be read again."""
    return settings.input != "-" and (settings.format or extension(Path(settings.input))) == "parquet"


def make_parquet(
    settings: Settings, done: Manifest, result: Result, journal: Path, output: Path, before: os.stat_result | None
) -> None:
    """Turn the journal into the output with its manifest; `done` and `result` are the journal's.

    `before` is the state of an input whose columns are read once more. Raise SafeguardError if the output cannot be
    written, or if the input has changed meanwhile.
    """
    try:
        with draft(real(output)) as new:
            convert(settings, done, journal, new.path)
            if before:
                now, reopen = Path(settings.input).stat, partial(open_input, settings)
                rows, digest = done.progress.rows, done.progress.input_sha256
                check_unchanged(settings.input, before, now, reopen, rows, digest)
            new.publish()
    except (OSError, pyarrow().ArrowException) as problem:
        raise SafeguardError(
            f"{output}: cannot be written: {getattr(problem, 'strerror', None) or first_line(problem)};"
            f" the labels are in {journal}; run the same command to resume from there"
        ) from problem
    hashes = {"output_sha256": sha256(output), "rows_sha256": result.output_sha256}
    described(done, result, "parquet", output, **hashes).save(manifest_path(output))


def unpack(settings: Settings, output: Path, journal: Path) -> None:
    """Make the journal of a finished output again; raise Refused if the output is not as a run of ours wrote it."""
    done, result = load_finished(output)
    if not is_what_was_written(output, done, result):
        raise Refused(
            f"{output} was changed after it was finished; to keep it, write to another file with -o; {START_OVER}"
        )
    if settings.input == "-":
        raise Refused(f"{output} was made from a pipe, which cannot be read again; {START_OVER}")
    names, keep = list(done.identity.policies), done.identity.output.keep
    with draft(journal) as new:
        with (
            open_input(settings) as source,
            open_parquet(output) as file,
            open_sink(new.path, source=source, format="jsonl", names=names, columns=(), keep=keep) as sink,
        ):
            rows = (row for batch in read_batches(file) for row in batch.select(names).to_pylist())
            for record, row in zip(islice(source, done.progress.rows), rows, strict=False):
                sink.write(record, {name: verdict_of(row[name]) for name in names})
        hashes = {"output_sha256": sha256(new.path)}
        described(done, result, "jsonl", new.path, **hashes).save(manifest_path(journal))
        new.publish()


def is_made_from(output: Path, journal: Result) -> bool:
    """Return whether an output was made from the journal with this result."""
    made = load(manifest_path(output)) if output.exists() else None
    return bool(made and made.result and made.result.rows_sha256 == journal.output_sha256)


def described(done: Manifest, result: Result, format: str, path: Path, **members: Any) -> Manifest:
    """Return the manifest of the same rows in a file of another format."""
    identity = done.identity.changed(output=done.identity.output.changed(format=format).record)
    progress = done.progress.changed(output_bytes=path.stat().st_size)
    return replace(done, identity=identity, progress=progress, result=result.changed(**members))


def remove(journal: Path) -> None:
    """Remove a journal with its manifests."""
    # The rows go first: without them, what remains after a kill counts for nothing.
    for path in (journal, run_path(journal), manifest_path(journal)):
        path.unlink(missing_ok=True)


def convert(settings: Settings, done: Manifest, journal: Path, part: Path, rows: Sequence[int] | None = None) -> None:
    """Write the rows of a journal into a Parquet file.

    `rows` are the places in the input that the journal's rows have there, None if they are all of its rows.
    """
    pa = pyarrow()
    ours = [
        pa.field(name, _verdict_type(policy.labels, _members(done.identity)))
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
    found = (verdicts for _, verdicts in _rows(journal, names))
    whole = pa.schema([*schema, *ours], metadata=schema.metadata)

    def batches() -> Iterator[Any]:
        for size, columns in own:
            verdicts = list(islice(found, size))  # fewer with --limit
            labels = [pa.array([_filled(row[field.name]) for row in verdicts], field.type) for field in ours]
            yield pa.RecordBatch.from_arrays([*(column[: len(verdicts)] for column in columns), *labels], schema=whole)

    write_parquet(part, whole, batches())


def _members(identity: Identity) -> list[str]:
    """Return the members of a verdict: the columns, and `cut` if there is a budget that can cut the reasoning."""
    members = list(identity.output.columns)
    if identity.answer.most_reasoning:
        members.insert(members.index("effort") + 1, "cut")
    return members


def _verdict_type(labels: Sequence[str], columns: Sequence[str]) -> Any:
    """Return the struct type of a verdict: the members that the options ask for, as in JSONL, all always present."""
    pa = pyarrow()
    text = pa.string()
    kinds = {
        "violates": pa.bool_(),
        "p_violates": pa.float64(),
        "score": pa.float64(),
        "scores": pa.struct([(label, pa.float64()) for label in labels]),
        "windows": pa.int32(),
        "truncated": pa.bool_(),
        "cut": pa.bool_(),
        "error": pa.struct([("code", text), ("message", text)]),
    }
    return pa.struct([(column, kinds.get(column, text)) for column in columns])


def _sample_type() -> Any:
    pa = pyarrow()
    whole = ("seed", "row", "rank", "asked")
    return pa.struct([*((part, pa.int64()) for part in whole), ("probability", pa.float64()), ("picked", pa.string())])


def _filled(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    return verdict if "label" not in verdict or "error" in verdict else {"windows": 1, "truncated": False, **verdict}


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
    for row, _ in _rows(journal, policies):
        if not names and not set(row) <= {"_line", "_raw"}:
            names = tuple(name for name in row if name not in policies)
        for name, value in row.items():
            extra = extra or name not in names
            kinds.setdefault(name, set()).add(_kind(value))
    types = {name: _column_type(kinds[name] - {"null"}) for name in names}
    spare = [pa.field(unique_names([*names, *policies, EXTRA])[-1], pa.string())] if extra else []

    def columns() -> Iterator[_Columns]:
        for batch in _batches(row for row, _ in _rows(journal, policies)):
            arrays = [pa.array([_cell(row.get(name), kind) for row in batch], kind) for name, kind in types.items()]
            rest = [{name: value for name, value in row.items() if name not in types} for row in batch if spare]
            arrays += [pa.array([as_object(more) or None for more in rest], field.type) for field in spare]
            yield len(batch), arrays

    return pa.schema([*(pa.field(*column) for column in types.items()), *spare]), columns()


def _rows(journal: Path, policies: Sequence[str]) -> Iterator[tuple[dict[str, bytes], dict[str, Any]]]:
    """Yield each row's own fields, as the JSON text of their values, and its verdicts, which are the last members.

    Parsing the values would lose what JSON can hold and Python's or Arrow's types cannot. If a key comes twice, its
    last value counts, as for other readers of JSON.
    """
    for line in whole_lines(journal, "jsonl"):
        found = [(name, value) for name, _, value in members(line)]
        own = len(found) - len(policies)
        yield dict(found[:own]), {name: orjson.loads(value) for name, value in found[own:]}


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
