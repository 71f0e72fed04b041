"""A labeling run whose output is Parquet.

A Parquet file without its footer cannot be read and one with it cannot be appended to. So the run writes a journal,
`OUT.rows.jsonl`, an output like any other with all that is promised of one; when it is finished it is turned into OUT,
which appears whole or not at all. To go on with a finished OUT (`--append-input`, `--retry-errors`, more `--limit`)
its verdicts and the input's rows are made into the journal again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import UsageError
from safeguard_cli.files import draft, sha256, sweep
from safeguard_cli.labelled import verdict_of
from safeguard_cli.manifest import Foreign, Manifest, Refused, load, locked_beside
from safeguard_cli.outputs import check_output, open_sink
from safeguard_cli.parquet import BATCH_ROWS, open_parquet, pyarrow, read_batches
from safeguard_cli.records import FORMATS, extension, open_source, unique_names
from safeguard_cli.resume import START_OVER, check_beside, manifest_path, run_path, whole_lines
from safeguard_cli.setup import Settings
from safeguard_cli.terminal import note

GROUP_ROWS, GROUP_BYTES = 1 << 16, 64 << 20  # a row group is the last of: so many rows, so many bytes
EXTRA = "_extra"

_Columns = tuple[int, list[Any]]  # so many rows of all columns; there may be no column


def parquet_target(settings: Settings) -> Path | None:
    """The Parquet file that a run is to write, None when its output is another: OUT's extension, else the input's."""
    comes = (settings.format or extension(Path(settings.input))) == "parquet"
    if settings.output is None:
        path = Path(settings.input)
        return path.with_name(f"{path.stem}.labels.parquet") if comes and sys.stdout.isatty() else None
    out = Path(settings.output)
    if settings.output == "-" or out.suffix.lower() == ".gz" or (out.exists() and not out.is_file()):
        return None
    return out if extension(out) == "parquet" or (comes and extension(out) not in FORMATS) else None


def journal_path(output: Path) -> Path:
    """The JSONL output that a Parquet output is made from."""
    return output.with_name(output.name + ".rows.jsonl")


def label_to_parquet(settings: Settings, output: Path, label: Callable[[Settings], int]) -> int:
    """Run `label` on the journal and turn it into `output`. Returns the exit code."""
    pyarrow()
    if settings.only:
        raise UsageError("--only leaves rows out, and a Parquet output has them all: filter it when it is read")
    journal = journal_path(output)
    inner = replace(settings, output=str(journal))
    check_output(output, None if settings.input == "-" else Path(settings.input))
    if settings.dry_run:
        return label(inner)
    _check_beside(output, journal)
    with locked_beside(output, run_path(journal)):
        sweep(output, manifest_path(output))
        with _reopened(settings, output, journal):
            code = label(inner)
        done = load(manifest_path(journal))
        assert done is not None and done.result is not None
        if not _is_made_from(output, done):
            with draft(output) as new:
                _convert(settings, done, journal, new.path)
                new.publish()
            _describe(done, output)
        _remove(journal)
    if not settings.quiet:
        note(f"{done.rows:,} rows are in {output}")
    return code


def _check_beside(output: Path, journal: Path) -> None:
    """Refuse where what the run would write beside the output is somebody else's; --overwrite is not for that."""
    check_beside(output)
    check_beside(journal)
    records = (run_path(journal), manifest_path(journal))
    empty = journal.is_file() and not journal.stat().st_size  # a run that was killed at once
    if os.path.lexists(journal) and not empty and not any(path.exists() for path in records):
        raise Foreign(journal)


@contextmanager
def _reopened(settings: Settings, output: Path, journal: Path) -> Iterator[None]:
    """The journal of an output that is finished, made again; it goes away where the run refuses it."""
    if journal.exists() or settings.overwrite or not output.exists():
        yield
        return
    done = load(manifest_path(output))
    if done is None or done.result is None:
        raise Refused(f"{output} exists and is not an output of safeguard's that can be continued; {START_OVER}")
    if (output.stat().st_size, sha256(output)) != (done.output_bytes, done.result["output_sha256"]):
        raise Refused(f"{output} was changed after it was finished; {START_OVER}")
    if settings.input == "-":
        raise Refused(f"{output} was made from a pipe, which cannot be read again; {START_OVER}")
    _unpack(settings, done, output, journal)
    try:
        yield
    except BaseException:
        if manifest_path(journal).exists():  # the run has not begun
            _remove(journal)
        raise


def _unpack(settings: Settings, done: Manifest, output: Path, journal: Path) -> None:
    assert done.result is not None
    names, kept = list(done.decides["policies"]), done.decides["output"]
    with draft(journal) as new:
        with (
            open_source(
                settings.input,
                format=settings.format,
                encoding=settings.encoding,
                max_row_bytes=settings.max_row_bytes,
                shard=settings.shard,
            ) as source,
            open_parquet(output) as file,
            open_sink(new.path, source=source, format="jsonl", names=names, columns=(), keep=kept["keep"]) as sink,
        ):
            rows = (row for batch in read_batches(file) for row in batch.select(names).to_pylist())
            for record, row in zip(islice(source, done.rows), rows, strict=False):
                sink.write(record, {name: verdict_of(row[name]) for name in names})
        result = {**done.result, "output_sha256": sha256(new.path)}
        decides = {**done.decides, "output": {**kept, "format": "jsonl"}}
        copied = replace(done, decides=decides, result=result, output_bytes=new.path.stat().st_size)
        copied.save(manifest_path(journal))
        new.publish()


def _is_made_from(output: Path, journal: Manifest) -> bool:
    made = load(manifest_path(output)) if output.exists() else None
    assert journal.result is not None
    return bool(made and made.result and made.result.get("rows_sha256") == journal.result["output_sha256"])


def _describe(journal: Manifest, output: Path) -> None:
    """The journal's manifest as that of the Parquet file."""
    assert journal.result is not None
    decides = {**journal.decides, "output": {**journal.decides["output"], "format": "parquet"}}
    result = {
        **journal.result,
        "output_sha256": sha256(output),
        "rows_sha256": journal.result["output_sha256"],
    }
    made = replace(journal, decides=decides, result=result, output_bytes=output.stat().st_size)
    made.save(manifest_path(output))


def _remove(journal: Path) -> None:
    for path in (journal, run_path(journal), manifest_path(journal)):  # in this order: without the rows, none counts
        path.unlink(missing_ok=True)


def _convert(settings: Settings, done: Manifest, journal: Path, part: Path) -> None:
    pa = pyarrow()
    ours = [
        pa.field(name, _verdict_type(policy["labels"], done.decides["output"]["columns"]))
        for name, policy in done.decides["policies"].items()
    ]
    if (settings.format or extension(Path(settings.input))) == "parquet":
        schema, own = _from_parquet(settings, done.decides["output"]["keep"])
    else:
        schema, own = _from_journal(journal, {field.name for field in ours})
    rows = map(orjson.loads, whole_lines(journal, "jsonl"))
    whole = pa.schema([*schema, *ours], metadata=schema.metadata)

    def batches() -> Iterator[Any]:
        for size, columns in own:
            verdicts = list(islice(rows, size))  # fewer with --limit
            labels = [pa.array([_filled(row[field.name]) for row in verdicts], field.type) for field in ours]
            yield pa.RecordBatch.from_arrays([*(column[: len(verdicts)] for column in columns), *labels], schema=whole)

    write_parquet(part, whole, batches())


def write_parquet(path: Path, schema: Any, batches: Iterator[Any]) -> None:
    """Record batches as a file on disk, in row groups of a bounded size."""
    pa = pyarrow()
    with path.open("wb") as file:
        with pa.parquet.ParquetWriter(file, schema) as writer:
            group: list[Any] = []
            rows = size = 0
            for batch in batches:
                group.append(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group, schema))
                    group, rows, size = [], 0, 0
            if group:
                writer.write_table(pa.Table.from_batches(group, schema))
        file.flush()
        os.fsync(file.fileno())


def _verdict_type(labels: Sequence[str], columns: Sequence[str]) -> Any:
    """A struct with the members of a verdict that the options ask for, as in JSONL; all of them are always there."""
    pa = pyarrow()
    text = pa.string()
    kinds = {
        "violates": pa.bool_(),
        "p_violates": pa.float64(),
        "score": pa.float64(),
        "scores": pa.struct([(label, pa.float64()) for label in labels]),
        "windows": pa.int32(),
        "truncated": pa.bool_(),
        "error": pa.struct([("code", text), ("message", text)]),
    }
    return pa.struct([(column, kinds.get(column, text)) for column in columns])


def _filled(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    return verdict if "error" in verdict else {"windows": 1, "truncated": False, **verdict}


def _from_parquet(settings: Settings, keep: Sequence[str] | None) -> tuple[Any, Iterator[_Columns]]:
    """The rows' own columns as they are in the input, types and all."""
    pa = pyarrow()
    file = open_parquet(Path(settings.input))
    schema = file.schema_arrow
    kept = [at for at, name in enumerate(unique_names(schema.names)) if keep is None or name in keep]
    # What datasets says there of its features would deny that there are columns of ours.
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != b"huggingface"}
    part, parts = settings.shard

    def columns() -> Iterator[_Columns]:
        first = 0
        with file:
            for batch in read_batches(file):
                mine = pa.array([at for at in range(batch.num_rows) if (first + at) % parts == part - 1], pa.int64())
                first += batch.num_rows
                yield len(mine), [batch.column(at).take(mine) for at in kept]

    return pa.schema([schema.field(at) for at in kept], metadata=metadata), columns()


def _from_journal(journal: Path, ours: set[str]) -> tuple[Any, Iterator[_Columns]]:
    """The rows' own fields as columns: those of the first row that could be read, of the type that all values have.

    What the first row lacks stands in `_extra` as JSON, and so does a line that could not be read.
    """
    pa = pyarrow()
    names: tuple[str, ...] = ()
    kinds: dict[str, set[str]] = {}
    extra = False
    for row in _own_fields(journal, ours):
        if not names and not set(row) <= {"_line", "_raw"}:
            names = tuple(row)
        for name, value in row.items():
            extra = extra or name not in names
            kinds.setdefault(name, set()).add(_kind(value))
    types = {name: _column_type(kinds[name] - {"null"}) for name in names}
    spare = [pa.field(unique_names([*names, EXTRA])[-1], pa.string())] if extra else []

    def columns() -> Iterator[_Columns]:
        rows = _own_fields(journal, ours)
        while batch := list(islice(rows, BATCH_ROWS)):
            arrays = [pa.array([_cell(row.get(name), kind) for row in batch], kind) for name, kind in types.items()]
            rest = [{name: value for name, value in row.items() if name not in types} for row in batch if spare]
            arrays += [pa.array([_cell(more or None, field.type) for more in rest], field.type) for field in spare]
            yield len(batch), arrays

    return pa.schema([*(pa.field(*column) for column in types.items()), *spare]), columns()


def _own_fields(journal: Path, ours: set[str]) -> Iterator[dict[str, Any]]:
    for line in whole_lines(journal, "jsonl"):
        yield {name: value for name, value in orjson.loads(line).items() if name not in ours}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return "long" if -(1 << 63) <= value < 1 << 63 else "other"
    return type(value).__name__


def _column_type(kinds: set[str]) -> Any:
    """The type that holds every value as it is; text where there is no other, for JSON."""
    pa = pyarrow()
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else pa.string()


def _cell(value: Any, kind: Any) -> Any:
    if value is None or isinstance(value, str) or kind != pyarrow().string():
        return value
    return orjson.dumps(value).decode()
